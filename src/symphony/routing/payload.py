"""Readers that decode incoming data into the payload type of a handler.

A raw route reads whole messages (`payload_reader`). An event route reads the
data of an event, which its protocol may have decoded already (`event_readers`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from inspect import Parameter
from typing import Any, Final, get_args

import msgspec

from symphony.errors import ConfigurationError, ProtocolError, Reject
from symphony.protocol.invalid import details_of, faults, reason_and_path, shortened
from symphony.routing.annotations import bare, is_pydantic, is_union, metadata

__all__ = (
    "UNREADABLE",
    "EventReaders",
    "Reader",
    "event_readers",
    "guarded",
    "payload_reader",
    "type_read_by",
    "unreadable",
)

Reader = Callable[[Any], Any]
EventReaders = Mapping[str, Reader]
"""A reader for each kind of `Protocol.payload`, and "unpacked" for decoded MessagePack,
whose keys need not be text."""

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""The exceptions, besides `Reject`, that event readers raise for invalid data."""

_MISSING: Final = Enum._missing_
_DECODERS: Final = (msgspec.json.Decoder, msgspec.msgpack.Decoder)
_UNSUPPORTED_DATA: Final = 1003  # RFC 6455 §7.4.1: a type of data that the endpoint cannot accept
_UNTYPED: Final = (Any, object, Parameter.empty)


def payload_reader(annotation: Any) -> Reader | None:
    """Compile the reader of a payload type.

    `str` accepts text messages only, and `bytes` binary messages only. The
    other kind raises a `ProtocolError` with close code 1003. Every other type
    is decoded from JSON in a text or binary message, and validated. Invalid
    data raises `Reject("invalid")`, and its details contain the `path` of the
    invalid value, and with pydantic all `errors` if there are several.

    Args:
        annotation: The type. `str | bytes`, `Any`, `object` and no annotation
            (`inspect.Parameter.empty`) accept every message unchanged.

    Returns:
        The reader, or `None` if the message is passed unchanged.

    Raises:
        ConfigurationError: Neither msgspec nor pydantic can decode the type.
    """
    plain = bare(annotation)
    if plain in _UNTYPED:
        return None
    if is_union(plain) and set(get_args(plain)) == {str, bytes}:
        if _has_bounds(annotation):
            raise ConfigurationError("str | bytes cannot have bounds; use str or bytes")
        return None
    if plain is str or plain is bytes:
        return _message_reader(plain, annotation)
    return guarded(_readers(annotation)["json"])


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
    if plain in _UNTYPED:
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
    types = list(_types_in(annotation))
    if any(map(is_pydantic, (*types, *metadata(annotation)))):
        return _pydantic_readers(annotation)
    return _msgspec_readers(annotation)


def _message_reader(kind: type[Any], annotation: Any) -> Reader:
    """Return the reader for a payload that is the message itself."""
    refusal = f"this route takes {'text' if kind is str else 'binary'} messages only"

    def read(message: str | bytes) -> Any:
        if not isinstance(message, kind):
            raise ProtocolError(_UNSUPPORTED_DATA, refusal)
        return message

    if not _has_bounds(annotation):
        return read

    def read_bounded(message: str | bytes) -> Any:
        try:
            return msgspec.convert(read(message), annotation)
        except msgspec.ValidationError as error:
            raise unreadable(error) from None

    return read_bounded


def _has_bounds(annotation: Any) -> bool:
    marks = metadata(annotation)
    if any(map(is_pydantic, marks)):
        raise ConfigurationError(
            "write the bounds of text and bytes with msgspec.Meta, not with pydantic's Field"
        )
    return any(isinstance(mark, msgspec.Meta) for mark in marks)


def _msgspec_readers(annotation: Any) -> EventReaders:
    try:
        json, msgpack = msgspec.json.Decoder(annotation), msgspec.msgpack.Decoder(annotation)
        info = msgspec.inspect.type_info(annotation)
    except (TypeError, NameError) as error:
        raise ConfigurationError(str(error)) from None
    # msgspec leaves unknown classes to a hook. Without a hook they would fail at the
    # first message instead of here.
    for foreign in filter(None, map(_foreign_class, _parts(info, set()))):
        if is_pydantic(foreign):
            return _pydantic_readers(annotation)
        raise ConfigurationError(
            f"{foreign!r} cannot be decoded from JSON; a payload is a msgspec Struct, a dataclass, "
            "a TypedDict, a pydantic model, a builtin type, or a combination of these"
        )
    return {
        "json": json.decode,
        "msgpack": msgpack.decode,
        "plain": lambda value: msgspec.convert(value, annotation, str_keys=True),
        "unpacked": lambda value: msgspec.convert(value, annotation),
    }


def type_read_by(read: Reader) -> Any:
    """Return the type that *read* decodes, or `Raw` if that needs more than msgspec."""
    decoder: Any = getattr(read, "__self__", None)
    if type(decoder) not in _DECODERS:
        return msgspec.Raw
    # A type that runs the app's code must be decoded when its turn comes, in the context
    # of the socket.
    parts = _parts(msgspec.inspect.type_info(decoder.type), set())
    return msgspec.Raw if any(_runs_code(getattr(part, "cls", None)) for part in parts) else decoder.type


def unreadable(error: Exception) -> Reject:
    """Return the `Reject` for invalid data: `invalid`, with the `path` of the value."""
    if isinstance(error, msgspec.MsgspecError):
        return _reject(*reason_and_path(str(error)))
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


def _pydantic_readers(annotation: Any) -> EventReaders:
    try:
        from pydantic import PydanticUserError, TypeAdapter, ValidationError
        from pydantic.errors import PydanticUndefinedAnnotation
    except ImportError:
        raise ConfigurationError(f"{annotation!r} needs pydantic 2, which is not installed") from None
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        adapter.rebuild(raise_errors=True)
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise ConfigurationError(str(error).partition("\n")[0]) from None

    def validate(decode: Callable[[Any], Any]) -> Reader:
        def read(data: Any) -> Any:
            try:
                return decode(data)
            except ValidationError as error:
                found = faults(error)
                raise Reject("invalid", found[0].message, details=details_of(found)) from None

        return read

    def from_msgpack(data: Any) -> Any:
        return adapter.validate_python(msgspec.msgpack.decode(data))

    def from_json(data: Any) -> Any:
        return adapter.validate_json(bytes(data) if isinstance(data, msgspec.Raw) else data)

    return {
        "json": validate(from_json),
        "msgpack": validate(from_msgpack),
        "plain": validate(adapter.validate_python),
        "unpacked": validate(adapter.validate_python),
    }


def _reject(reason: str, path: str) -> Reject:
    # Both can quote the peer's message, which may be as long as the limit.
    return Reject("invalid", shortened(reason), details={"path": shortened(path)})


def _types_in(annotation: Any) -> Iterator[Any]:
    annotation = bare(annotation)
    yield annotation
    for argument in get_args(annotation):
        yield from _types_in(argument)


def _parts(info: Any, seen: set[int]) -> Iterator[Any]:
    """Yield the types that a type consists of, from msgspec's description of it."""
    # A recursive type refers to itself with the same object.
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.Type):
        yield info
    if isinstance(info, (msgspec.inspect.Type, msgspec.inspect.Field)):
        for name in info.__struct_fields__:
            yield from _parts(getattr(info, name), seen)
    elif isinstance(info, tuple):
        for part in info:  # pyright: ignore[reportUnknownVariableType]
            yield from _parts(part, seen)


def _foreign_class(part: Any) -> Any:
    """Return the class if msgspec cannot decode this type, otherwise `None`."""
    is_custom = isinstance(part, msgspec.inspect.CustomType)
    is_model = isinstance(part, msgspec.inspect.DataclassType) and is_pydantic(part.cls)
    return part.cls if is_custom or is_model else None


def _runs_code(kind: Any) -> bool:
    """Return whether decoding this class calls code of the app."""
    missing = getattr(kind, "_missing_", _MISSING)
    return hasattr(kind, "__post_init__") or getattr(missing, "__func__", None) is not _MISSING.__func__
