"""Gives decoded dataclasses the fields that they took from their defaults.

A plain default of a dataclass is an attribute of the class. msgspec sees it there and does not store
it in the instance, but encodes only what is stored: such an instance would lose these fields when it
is sent on. Instances that a program constructs have all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from inspect import ismemberdescriptor
from typing import Any, Final, cast

from msgspec import inspect

from symphony.protocol.annotations import parts

__all__ = ("completer",)

Complete = Callable[[Any], None]

_ARRAYS: Final = {
    inspect.ListType: list,
    inspect.SetType: set,
    inspect.FrozenSetType: frozenset,
    inspect.VarTupleType: tuple,
}


def completer(info: inspect.Type) -> Complete | None:
    """Compile a function that completes a decoded value in place.

    Args:
        info: msgspec's description of the type of the value.

    Returns:
        The function, or `None` if a value of this type is always complete.
    """
    found = [part.cls for part in parts(info) if isinstance(part, inspect.DataclassType)]
    if not any(map(_missing_defaults, found)):
        return None
    return _walker(info, {})


def _missing_defaults(cls: type[Any]) -> dict[str, Any]:
    """Return the defaults that msgspec leaves in the class."""
    # An instance without `__dict__` keeps its fields in slots, which are not defaults.
    if not dataclasses.is_dataclass(cls) or not cast("Any", cls).__dictoffset__:
        return {}
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(cls)
        if field.init and field.default is not dataclasses.MISSING
    }
    return {
        name: value
        for name, value in defaults.items()
        if hasattr(cls, name) and not ismemberdescriptor(getattr(cls, name))
    }


class _Object:
    """Completes the instances of one class. Its fields are set later, because types may be recursive."""

    __slots__ = ("defaults", "fields")

    def __init__(self, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.fields: list[tuple[str, Complete]] = []

    def __call__(self, value: Any) -> None:
        if self.defaults:
            # Not by assignment, which frozen dataclasses refuse.
            stored: dict[str, Any] = value.__dict__
            for name, default in self.defaults.items():
                stored.setdefault(name, default)
        for name, complete in self.fields:
            complete(getattr(value, name))


class _Keys:
    """Completes the values of the dicts of one `TypedDict`."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: list[tuple[str, Complete]] = []

    def __call__(self, value: dict[str, Any]) -> None:
        for name, complete in self.fields:
            if name in value:
                complete(value[name])


def _walker(info: Any, known: dict[Any, _Object | _Keys]) -> Complete | None:
    if isinstance(info, inspect.UnionType):
        return _union(info, known)
    if type(info) in _ARRAYS:
        return _each(_walker(info.item_type, known))
    if isinstance(info, inspect.TupleType):
        return _tuple([_walker(item, known) for item in info.item_types])
    if isinstance(info, inspect.DictType):
        return _mapping(_walker(info.key_type, known), _walker(info.value_type, known))
    if isinstance(
        info, (inspect.StructType, inspect.DataclassType, inspect.NamedTupleType, inspect.TypedDictType)
    ):
        return _class(info, known)
    return None


def _class(info: Any, known: dict[Any, _Object | _Keys]) -> Complete | None:
    if info.cls in known:
        return known[info.cls]
    if isinstance(info, inspect.TypedDictType):
        found: _Object | _Keys = _Keys()
    else:
        found = _Object(_missing_defaults(info.cls) if isinstance(info, inspect.DataclassType) else {})
    known[info.cls] = found
    for field in info.fields:
        complete = _walker(field.type, known)
        if complete is not None:
            found.fields.append((field.name, complete))
    is_idle = not found.fields and not (isinstance(found, _Object) and found.defaults)
    return None if is_idle else found


def _union(info: inspect.UnionType, known: dict[Any, _Object | _Keys]) -> Complete | None:
    # A value of a union is told apart by its class, as msgspec does.
    by_class: dict[Any, Complete] = {}
    for option in info.types:
        complete = _walker(option, known)
        if complete is not None:
            by_class[_class_of(option)] = complete
    if not by_class:
        return None

    def complete_option(value: Any) -> None:
        complete = by_class.get(type(value))
        if complete is not None:
            complete(value)

    return complete_option


def _class_of(info: Any) -> Any:
    if type(info) in _ARRAYS:
        return _ARRAYS[type(info)]
    if isinstance(info, inspect.TupleType):
        return tuple
    return dict if isinstance(info, (inspect.DictType, inspect.TypedDictType)) else info.cls


def _each(complete: Complete | None) -> Complete | None:
    if complete is None:
        return None

    def complete_each(values: Any) -> None:
        for value in values:
            complete(value)

    return complete_each


def _tuple(items: list[Complete | None]) -> Complete | None:
    places = [(at, complete) for at, complete in enumerate(items) if complete is not None]
    if not places:
        return None

    def complete_places(value: tuple[Any, ...]) -> None:
        for at, complete in places:
            complete(value[at])

    return complete_places


def _mapping(key: Complete | None, value: Complete | None) -> Complete | None:
    if key is None and value is None:
        return None
    complete_key, complete_value = _each(key), _each(value)

    def complete_mapping(values: dict[Any, Any]) -> None:
        if complete_key is not None:
            complete_key(values)
        if complete_value is not None:
            complete_value(values.values())

    return complete_mapping
