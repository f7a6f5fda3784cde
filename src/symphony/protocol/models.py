"""Reads and dumps pydantic models, by the rules that hold for all data.

pydantic is imported only if an app uses it. In JSON, it writes bytes as UTF-8 and reads them so;
Symphony uses base64 (`docs/events.md`), even if the model's configuration says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, cast

import msgspec

from symphony.errors import ConfigurationError
from symphony.protocol.bounds import Hashed, hashed_by_pydantic, unpack
from symphony.protocol.schemas import Validators, build, nodes

__all__ = ("dumped", "model_readers")

# Schemas whose values may hold bytes.
_MAY_HOLD_BYTES: Final = frozenset(("any", "bytes", "function-plain", "is-instance"))


def model_readers(annotation: Any) -> tuple[Mapping[str, Callable[[Any], Any]], Hashed]:
    """Compile the readers of a type that pydantic validates, one for each kind of data.

    A reader raises `pydantic.ValidationError`, which is a `ValueError`. The
    second part of the result says what the type hashes.

    Raises:
        ConfigurationError: pydantic is not installed, or does not support the type.
    """
    try:
        from pydantic import PydanticUserError, TypeAdapter
        from pydantic.errors import PydanticUndefinedAnnotation
    except ImportError:
        raise ConfigurationError(f"{annotation!r} needs pydantic 2, which is not installed") from None
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        adapter.rebuild(raise_errors=True)
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise ConfigurationError(str(error).partition("\n")[0]) from None
    validators = Validators(adapter.core_schema)

    def from_json(data: Any) -> Any:
        return validators.of_json(bytes(data) if isinstance(data, msgspec.Raw) else data)

    def from_unpacked(value: Any) -> Any:
        encoded = _as_json(value)
        return validators.of_python(value) if encoded is None else validators.of_packed(value, encoded)

    def from_plain(value: Any) -> Any:
        encoded = _as_json(value)
        # Middleware may have added objects that JSON does not have.
        return validators.of_python(value) if encoded is None else validators.of_json(encoded)

    def from_msgpack(data: Any) -> Any:
        return from_unpacked(unpack(data))

    readers: dict[str, Callable[[Any], Any]] = {
        "json": from_json,
        "msgpack": from_msgpack,
        "plain": from_plain,
        "unpacked": from_unpacked,
    }
    return readers, hashed_by_pydantic(nodes(adapter.core_schema))


def _as_json(value: Any) -> bytes | None:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def dumped(value: Any) -> Any:
    """Return a model as plain values. Bytes in it stay bytes, for both codecs.

    Raises:
        ValueError: pydantic cannot dump one of its fields.
    """
    kind = cast("type[Any]", type(value))
    return _dump_of(kind)(value)


@lru_cache(maxsize=512)
def _dump_of(kind: type[Any]) -> Callable[[Any], Any]:
    schema = kind.__dict__.get("__pydantic_core_schema__")
    # A model may override `model_dump`, and a class of another library may look like a model.
    if not isinstance(schema, dict) or kind.model_dump.__module__ != "pydantic.main":
        return lambda model: model.model_dump(mode="json")
    from pydantic_core import SchemaSerializer

    to_python = build(SchemaSerializer, schema).to_python
    if not any(map(_may_hold_bytes, nodes(schema))):
        return lambda model: to_python(model, mode="json")

    def dump(model: Any) -> Any:
        return _with_bytes(to_python(model, mode="json"), model.model_dump())

    return dump


def _may_hold_bytes(node: dict[str, Any]) -> bool:
    custom: Any = node.get("serialization")
    return (
        node["type"] in _MAY_HOLD_BYTES
        or (isinstance(custom, dict) and str(cast("Any", custom).get("type")).startswith("function"))
        or node.get("extra_behavior") == "allow"
        or node.get("config", {}).get("extra_fields_behavior") == "allow"
    )


def _with_bytes(text: Any, value: Any) -> Any:
    """Return a model as JSON shows it, except that its bytes stay bytes."""
    if isinstance(value, bytes | bytearray | memoryview):
        return cast("Any", value) if isinstance(text, str) else text
    if isinstance(text, dict) and isinstance(value, dict):
        pairs = _pairs(cast("dict[Any, Any]", text).values(), cast("dict[Any, Any]", value).values())
        if pairs is not None:
            return {key: _with_bytes(*pair) for key, pair in zip(cast("Any", text), pairs, strict=True)}
    elif isinstance(text, list) and isinstance(value, list | tuple | set | frozenset):
        pairs = _pairs(text, cast("Any", value))
        if pairs is not None:
            return [_with_bytes(*pair) for pair in pairs]
    return cast("Any", text)


def _pairs(texts: Any, values: Any) -> list[tuple[Any, Any]] | None:
    # A serializer for JSON alone may write something else.
    return list(zip(texts, values, strict=True)) if len(texts) == len(values) else None
