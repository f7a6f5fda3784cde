"""Small helpers for annotations, shared by the compilers."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, NewType, Union, get_args, get_origin

from msgspec import inspect

__all__ = ("bare", "is_pydantic", "is_union", "metadata", "parts", "types_in", "unalias")


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


def types_in(annotation: Any) -> Iterator[Any]:
    """Yield the types that are written in an annotation; fields of classes are not entered."""
    annotation = bare(annotation)
    yield annotation
    for argument in get_args(annotation):
        yield from types_in(argument)


def parts(info: Any) -> Iterator[Any]:
    """Yield the types that a type consists of, from msgspec's description of it."""
    seen: set[int] = set()
    left: list[Any] = [info]
    while left:
        part = left.pop()
        # A recursive type refers to itself with the same object.
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, inspect.Type):
            yield part
        if isinstance(part, (inspect.Type, inspect.Field)):
            left.extend(getattr(part, name) for name in part.__struct_fields__)
        elif isinstance(part, tuple):
            left.extend(part)  # pyright: ignore[reportUnknownArgumentType]
