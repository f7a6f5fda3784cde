"""Small questions about annotations that the compilers share."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, NewType, Union, get_args, get_origin

__all__ = ("bare", "is_pydantic", "is_union", "metadata", "unalias")


def unalias(annotation: Any) -> Any:
    """Follow `type X = ...` (Python 3.12) to what it stands for."""
    # By name, because typing_extensions has a class of its own for 3.11.
    while type(annotation).__name__ == "TypeAliasType":
        annotation = annotation.__value__
    return annotation


def bare(annotation: Any) -> Any:
    """Take away aliases, `Annotated` and `NewType`."""
    while True:
        annotation = unalias(annotation)
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        else:
            return annotation


def metadata(annotation: Any) -> list[Any]:
    """Collect the metadata of every `Annotated` in an annotation, nested ones too."""
    annotation = unalias(annotation)
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        return [*marks, *metadata(inner)]
    return [mark for argument in get_args(annotation) for mark in metadata(argument)]


def is_union(annotation: Any) -> bool:
    """Tell whether this is `X | Y`, `Union` or `Optional`."""
    return get_origin(annotation) in (Union, UnionType)


def is_pydantic(thing: Any) -> bool:
    """Tell whether a type or a piece of metadata is pydantic's, without importing it."""
    # `__dict__` questions only: a getattr on a foreign object may do anything.
    if isinstance(thing, type):
        return any("__pydantic_validator__" in vars(base) for base in thing.__mro__)
    return type(thing).__module__.partition(".")[0] in {"pydantic", "annotated_types"}
