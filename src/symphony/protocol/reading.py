"""Readers that decode data to the types of handlers, replies and items.

The server and the Python client share them, so both accept the same types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from functools import lru_cache
from inspect import Parameter
from typing import Any, Final, get_args

import msgspec

from symphony.errors import ConfigurationError, Reject
from symphony.protocol.annotations import bare, is_pydantic, is_union, metadata, parts, types_in
from symphony.protocol.bounds import Hashed, check_hashed, hashed, unpack, worst
from symphony.protocol.defaults import completer
from symphony.protocol.invalid import details_of, faults, reason_and_path, shortened
from symphony.protocol.models import model_readers

__all__ = (
    "UNREADABLE",
    "UNTYPED",
    "EventReaders",
    "Reader",
    "event_readers",
    "guarded",
    "type_read_by",
    "unreadable",
)

Reader = Callable[[Any], Any]
EventReaders = Mapping[str, Reader]
"""A reader for each kind of `Protocol.payload`, and "unpacked" for decoded MessagePack,
whose keys need not be text."""

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""The exceptions, besides `Reject`, that event readers raise for invalid data."""

UNTYPED: Final = (Any, object, Parameter.empty)
"""The annotations that accept all data, as plain Python values."""

_MISSING: Final = Enum._missing_
_DECODERS: Final = (msgspec.json.Decoder, msgspec.msgpack.Decoder)


def event_readers(annotation: Any) -> EventReaders:
    """Compile the readers of the data of an event.

    Args:
        annotation: The type. `Any`, `object` and no annotation accept all
            data, as plain Python values.

    Returns:
        A reader for each `Protocol.payload`. For invalid data it raises a
        `Reject`, or one of `UNREADABLE`, which `unreadable` turns into a
        `Reject`. The hot path can then use one `try` and saves a call.

    Raises:
        ConfigurationError: Neither msgspec nor pydantic can decode the type.
    """
    plain = bare(annotation)
    if plain in UNTYPED:
        return _readers(Any)
    if is_union(plain) and set(get_args(plain)) == {str, bytes}:
        # msgspec does not support this union, because both are strings in JSON.
        return {kind: _text_or_bytes(read) for kind, read in _readers(Any).items()}
    return _readers(annotation)


def _text_or_bytes(read: Reader) -> Reader:
    def read_either(data: Any) -> Any:
        value = read(data)
        if not isinstance(value, str | bytes):
            raise _reject(f"Expected `str | bytes`, got `{type(value).__name__}`", "$")
        return value

    return read_either


def _readers(annotation: Any) -> EventReaders:
    if any(map(is_pydantic, (*types_in(annotation), *metadata(annotation)))):
        return _pydantic_readers(annotation)
    return _msgspec_readers(annotation)


def _msgspec_readers(annotation: Any) -> EventReaders:
    try:
        # msgspec leaves unknown classes to a hook. Without a hook they would fail at the
        # first message instead of here.
        info = msgspec.inspect.type_info(annotation)
        foreign = {kind: None for kind in map(_foreign_class, parts(info)) if kind is not None}
        for kind in foreign:
            if not is_pydantic(kind):
                raise ConfigurationError(
                    f"{kind!r} cannot be decoded from JSON; a payload is a msgspec Struct, a dataclass, "
                    "a TypedDict, a pydantic model, a builtin type, or a combination of these"
                )
        if foreign and not any(isinstance(part, msgspec.inspect.StructType) for part in parts(info)):
            return _pydantic_readers(annotation)
        hooks = {kind: _hook(kind) if foreign else None for kind in ("json", "msgpack", "plain", "unpacked")}
        json = msgspec.json.Decoder(annotation, dec_hook=hooks["json"])
        msgpack = msgspec.msgpack.Decoder(annotation, dec_hook=hooks["msgpack"])
    except (TypeError, NameError) as error:
        raise ConfigurationError(str(error)) from None
    convert = msgspec.convert
    has_text_keys = any(map(_has_text_keys, parts(info)))

    def from_plain(value: Any) -> Any:
        return convert(value, annotation, str_keys=True, dec_hook=hooks["plain"])

    def from_unpacked(value: Any) -> Any:
        return convert(value, annotation, str_keys=has_text_keys, dec_hook=hooks["unpacked"])

    readers: dict[str, Reader] = {
        "json": json.decode,
        "msgpack": msgpack.decode,
        "plain": from_plain,
        "unpacked": from_unpacked,
    }
    if has_text_keys or any(isinstance(part, msgspec.inspect.AnyType) for part in parts(info)):
        # msgspec accepts all kinds of keys in untyped MessagePack.
        readers["msgpack"] = (
            unpack if isinstance(info, msgspec.inspect.AnyType) else lambda data: from_unpacked(unpack(data))
        )
    complete = completer(info)
    inside: list[Hashed] = [_model_readers(kind)[1] for kind in foreign]
    hashes = worst(hashed(info), *inside)
    if complete is not None:
        readers = {kind: _completing(read, complete) for kind, read in readers.items()}
    return _bounded(readers, hashes)


def _bounded(readers: dict[str, Reader], hashes: Hashed) -> EventReaders:
    if hashes is None:
        return readers
    return {kind: _bounding(read, hashes, kind) for kind, read in readers.items()}


def _bounding(read: Reader, hashes: Hashed, kind: str) -> Reader:
    def read_bounded(data: Any) -> Any:
        if kind in ("json", "msgpack"):
            check_hashed(data, hashes, is_json=kind == "json")
        else:
            with suppress(TypeError, ValueError):  # middleware may have put other objects there
                check_hashed(msgspec.json.encode(data), hashes, is_json=True)
        return read(data)

    return read_bounded


def _has_text_keys(part: Any) -> bool:
    """Return whether these are dicts with keys that Symphony sends as text, but msgspec does not."""
    keys = (msgspec.inspect.FloatType, msgspec.inspect.BytesType, msgspec.inspect.DateTimeType)
    return isinstance(part, msgspec.inspect.DictType) and isinstance(part.key_type, keys)


def _completing(read: Reader, complete: Callable[[Any], None]) -> Reader:
    def read_all(data: Any) -> Any:
        value = read(data)
        complete(value)
        return value

    return read_all


def _hook(kind: str) -> Callable[[type[Any], Any], Any]:
    """Return the hook by which pydantic reads its models inside of structs."""
    # What msgspec gives to a hook is decoded.
    decoded = "plain" if kind in ("json", "plain") else "unpacked"

    def read_model(model: type[Any], value: Any) -> Any:
        return _model_readers(model)[0][decoded](value)

    return read_model


_model_readers = lru_cache(maxsize=512)(model_readers)


def _pydantic_readers(annotation: Any) -> EventReaders:
    readers, hashes = model_readers(annotation)
    return _bounded({kind: _validating(read) for kind, read in readers.items()}, hashes)


def _validating(read: Reader) -> Reader:
    def read_valid(data: Any) -> Any:
        try:
            return read(data)
        except UNREADABLE:
            raise
        except ValueError as error:
            raise _invalid_model(error, "$") from None

    return read_valid


def _invalid_model(error: Any, path: str) -> Reject:
    found = faults(error, path)
    return Reject("invalid", found[0].message, details=details_of(found))


def type_read_by(read: Reader) -> Any:
    """Return the type that *read* decodes, or `Raw` if that needs more than msgspec."""
    decoder: Any = getattr(read, "__self__", None)
    if type(decoder) not in _DECODERS or decoder.dec_hook is not None:
        return msgspec.Raw
    # A type that runs the app's code must be decoded when its turn comes, in the context
    # of the socket.
    info = msgspec.inspect.type_info(decoder.type)
    return (
        msgspec.Raw if any(_runs_code(getattr(part, "cls", None)) for part in parts(info)) else decoder.type
    )


def unreadable(error: Exception) -> Reject:
    """Return the `Reject` for invalid data: `invalid`, with the `path` of the value."""
    if isinstance(error, msgspec.MsgspecError):
        reason, path = reason_and_path(str(error))
        if hasattr(error.__cause__, "errors"):  # pydantic's, out of `_hook`
            return _invalid_model(error.__cause__, path)
        return _reject(reason, path)
    if isinstance(error, UnicodeError):
        return _reject("text that is not valid UTF-8", "$")
    return _reject("nested too deeply", "$")


def guarded(read: Reader) -> Reader:
    """Return a reader that raises only `Reject`."""

    def guarded_read(data: Any) -> Any:
        try:
            return read(data)
        except UNREADABLE as error:
            raise unreadable(error) from None

    return guarded_read


def _reject(reason: str, path: str) -> Reject:
    # Both can quote the peer's message, which may be as long as the limit.
    return Reject("invalid", shortened(reason), details={"path": shortened(path)})


def _foreign_class(part: Any) -> Any:
    """Return the class if msgspec cannot decode this type, otherwise `None`."""
    is_custom = isinstance(part, msgspec.inspect.CustomType)
    is_model = isinstance(part, msgspec.inspect.DataclassType) and is_pydantic(part.cls)
    return part.cls if is_custom or is_model else None


def _runs_code(kind: Any) -> bool:
    """Return whether decoding this class calls code of the app."""
    missing = getattr(kind, "_missing_", _MISSING)
    return hasattr(kind, "__post_init__") or getattr(missing, "__func__", None) is not _MISSING.__func__
