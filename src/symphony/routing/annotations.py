"""Small helpers for annotations, shared by the compilers."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, NewType, Union, get_args, get_origin

__all__ = ("bare", "is_pydantic", "is_union", "metadata", "unalias")


def unalias(annotation: Any) -> Any:
    """Return the value of a `type X = ...` alias (Python 3.12)."""
    # Compare the name, because typing_extensions has a separate class for 3.11.
    while type(annotation).__name__ == "TypeAliasType":
        annotation = annotation.__value__
    return annotation


def bare(annotation: Any) -> Any:
    """Remove aliases, `Annotated` and `NewType`."""
    while True:
        annotation = unalias(annotation)
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        else:
            return annotation


def metadata(annotation: Any) -> list[Any]:
    """Collect the metadata of every `Annotated` in an annotation, including nested ones."""
    annotation = unalias(annotation)
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        return [*marks, *metadata(inner)]
    return [mark for argument in get_args(annotation) for mark in metadata(argument)]


def is_union(annotation: Any) -> bool:
    """Return whether this is `X | Y`, `Union` or `Optional`."""
    return get_origin(annotation) in (Union, UnionType)


def is_pydantic(thing: Any) -> bool:
    """Return whether a type or a piece of metadata is pydantic's, without importing it."""
    # Look at `__dict__` only, because `getattr` on a foreign object may run code.
    if isinstance(thing, type):
        return any("__pydantic_validator__" in vars(base) for base in thing.__mro__)
    return type(thing).__module__.partition(".")[0] in {"pydantic", "annotated_types"}
