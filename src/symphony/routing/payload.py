"""Readers that decode the messages of raw routes into the payload type of a handler."""

from __future__ import annotations

from typing import Any, Final, get_args

import msgspec

from symphony.errors import ConfigurationError, ProtocolError
from symphony.protocol.annotations import bare, is_pydantic, is_union, metadata
from symphony.protocol.reading import UNTYPED, Reader, event_readers, guarded, unreadable

__all__ = ("payload_reader",)

_UNSUPPORTED_DATA: Final = 1003  # RFC 6455 §7.4.1: a type of data that the endpoint cannot accept


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
    if plain in UNTYPED:
        return None
    if is_union(plain) and set(get_args(plain)) == {str, bytes}:
        if _has_bounds(annotation):
            raise ConfigurationError("str | bytes cannot have bounds; use str or bytes")
        return None
    if plain is str or plain is bytes:
        return _message_reader(plain, annotation)
    return guarded(event_readers(annotation)["json"])


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
