"""Searches and changes pydantic's schemas, and builds validators whose cost is bounded.

pydantic collects all faults. For each it keeps a copy of the JSON that is wrong, and if a field is
missing, this is the whole object. A message of 100 KB then has a million faults, or one object is
copied for each field of a model. So the validators stop at the first faulty item of a list or a dict,
and large JSON is turned into Python values first, of which a fault keeps a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, NoReturn, TypeAlias, cast

from symphony.protocol.bounds import SMALL
from symphony.protocol.invalid import MAX_EXAMINED

__all__ = ("Validators", "build", "nodes")

Change: TypeAlias = Callable[[dict[str, Any]], None]
"""Changes a node of a schema, which is a copy."""

_BASE64: Final = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}
# pydantic would write null for NaN; this way our own check finds it.
_NUMBERS: Final = {"ser_json_inf_nan": "constants"}
_CONFIGURED: Final = frozenset(("model", "dataclass", "typed-dict"))
# Parts of a schema that describe values, not types.
_OPAQUE: Final = frozenset(("cls", "config", "default", "expected", "metadata", "members", "serialization"))
_FIELDS: Final = ("model-fields", "typed-dict", "dataclass-args")
# Data of up to `SMALL` bytes is searched for all faults if its model has at most so many fields.
# With more fields, the data must be smaller.
_FEW_FIELDS: Final = 4


class Validators:
    """The validators of a type. They raise `pydantic.ValidationError`.

    Args:
        schema: Its schema.
    """

    __slots__ = ("_all", "_first", "_is_strict", "_large", "_small")

    def __init__(self, schema: Any) -> None:
        from pydantic_core import SchemaValidator

        self._first = build(SchemaValidator, schema, _stop_at_first_fault)
        self._all = build(SchemaValidator, schema)
        self._is_strict = any(map(_is_strict, nodes(schema)))
        # A function in Python gets Python values, and so do the validators below it.
        unparsed = {"type": "function-before", "function": {"type": "no-info", "function": _same}}
        self._large = build(SchemaValidator, {**unparsed, "schema": schema}, _stop_at_first_fault, _be_lax)
        most_fields = max(
            (len(node["fields"]) for node in nodes(schema) if node["type"] in _FIELDS), default=0
        )
        self._small = SMALL * _FEW_FIELDS // max(_FEW_FIELDS, most_fields)

    def of_json(self, text: str | bytes) -> Any:
        """Return the value of JSON."""
        if len(text) > SMALL:
            value = self._large.validate_json(text)
            if not self._is_strict:
                return value
            # Only values of another type are left, and only the first of them is copied.
        try:
            return self._first.validate_json(text)
        except ValueError as error:
            self._raise_all(error, len(text), self._all.validate_json, text)

    def of_python(self, value: Any) -> Any:
        """Return the value of decoded data."""
        return self._first.validate_python(value)

    def of_packed(self, value: Any, text: bytes) -> Any:
        """Return the value of decoded MessagePack, whose JSON is *text*."""
        try:
            return self._first.validate_python(value)
        except ValueError as error:
            # A model in strict mode takes no text for a date or a UUID, but it takes JSON's.
            # MessagePack has no more types than JSON has, apart from bytes and instants.
            try:
                return self.of_json(text)
            except ValueError:
                self._raise_all(error, len(text), self._all.validate_python, value)

    def _raise_all(self, error: ValueError, size: int, validate: Callable[[Any], Any], data: Any) -> NoReturn:
        """Raise an error with all faults if the data is small, otherwise *error*."""
        from pydantic_core import ValidationError

        if size <= self._small and isinstance(error, ValidationError):
            try:
                validate(data)
            except ValidationError as all_faults:
                if all_faults.error_count() <= MAX_EXAMINED:
                    raise
        raise error


def build(make: Any, schema: Any, *changes: Change) -> Any:
    """Build a validator or a serializer. Bytes are base64 in its JSON.

    Args:
        make: `SchemaValidator` or `SchemaSerializer`.
        schema: The schema, which is copied.
        changes: Applied to each node of the copy.
    """
    changed = _changed(schema, (_configure, *changes))
    try:
        # Otherwise pydantic takes what it has built for the models inside, which ignores this schema.
        return make(changed, {**_NUMBERS, **_BASE64}, _use_prebuilt=False)
    except TypeError:  # an older version, which builds all of it
        return make(changed, {**_NUMBERS, **_BASE64})


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema and all schemas in it."""
    if isinstance(schema, dict):
        node = cast("dict[str, Any]", schema)
        opaque = _opaque_parts(node)
        if opaque:
            yield node
        for key, item in node.items():
            if key not in opaque:
                yield from nodes(item)
    elif isinstance(schema, (list, tuple)):
        for item in cast("list[Any]", schema):
            yield from nodes(item)


def _changed(schema: Any, changes: tuple[Change, ...]) -> Any:
    if isinstance(schema, dict):
        node = cast("dict[str, Any]", schema)
        opaque = _opaque_parts(node)
        copy = {key: item if key in opaque else _changed(item, changes) for key, item in node.items()}
        if opaque:
            for change in changes:
                change(copy)
        return copy
    if isinstance(schema, (list, tuple)):
        items = [_changed(item, changes) for item in cast("list[Any]", schema)]
        return items if isinstance(schema, list) else tuple(items)
    return schema


def _opaque_parts(node: dict[str, Any]) -> frozenset[str]:
    # A dict without a type is one of fields or of choices, whose names can be anything, such as "type".
    return _OPAQUE if isinstance(node.get("type"), str) else frozenset()


def _configure(node: dict[str, Any]) -> None:
    if node["type"] in _CONFIGURED:
        node["config"] = {**_NUMBERS, **node.get("config", {}), **_BASE64}


def _stop_at_first_fault(node: dict[str, Any]) -> None:
    if node["type"] in _types_that_can_stop():
        node["fail_fast"] = True


def _be_lax(node: dict[str, Any]) -> None:
    node.pop("strict", None)
    if "config" in node:
        node["config"] = {key: value for key, value in node["config"].items() if key != "strict"}


def _is_strict(node: dict[str, Any]) -> bool:
    return bool(node.get("strict") or node.get("config", {}).get("strict"))


def _same(value: Any) -> Any:
    return value


@lru_cache(maxsize=1)
def _types_that_can_stop() -> frozenset[str]:
    from pydantic_core import core_schema

    return frozenset(
        name.removesuffix("_schema").replace("_", "-")
        for name, make in vars(core_schema).items()
        if name.endswith("_schema") and "fail_fast" in getattr(make, "__annotations__", ())
    )
