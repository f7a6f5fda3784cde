"""Hot path: encodes Python values as JSON and as MessagePack, or raises if they would change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar, cast

import msgspec

from symphony.protocol.exact import MAX_INTEGER, SAFE, check_json, check_msgpack, with_text_keys
from symphony.protocol.unencodable import encode_foreign, fail_to_encode

__all__ = ("encode_json", "encode_msgpack", "json_encoder", "json_envelope", "msgpack_envelope", "to_message")

T = TypeVar("T")

# For type checkers, which do not know the class of `Any`.
_type_of: Callable[[Any], type[Any]] = type

_LEAST: Final = -MAX_INTEGER
_LARGE: Final = len('{"end":0,"data":}') + len(str(MAX_INTEGER))
"""The least size of an envelope with an integer above `MAX_INTEGER`."""

_json: Final = msgspec.json.Encoder(enc_hook=encode_foreign).encode
_msgpack: Final = msgspec.msgpack.Encoder(enc_hook=encode_foreign).encode


def encode_json(value: Any) -> bytes:
    """Return *value* as JSON.

    Raises:
        UnencodableError: It would arrive as another value.
        Exception: msgspec's own, if the value cannot be encoded.
    """
    encoded = _json(value)
    if type(value) not in SAFE:
        check_json(encoded, value)
    return encoded


def encode_msgpack(value: Any) -> bytes:
    """Return *value* as MessagePack; raises like `encode_json`."""
    if type(value) in SAFE:
        return _msgpack(value)
    encoded = _msgpack(with_text_keys(value))
    check_msgpack(encoded, value)
    return encoded


def json_encoder(
    finish: Callable[[bytes], T], failed: Callable[[Exception, Any], NoReturn]
) -> Callable[[Any], T]:
    """Return a function that encodes an envelope as JSON.

    Args:
        finish: Makes the result of the JSON.
        failed: Called with what was raised, and with the envelope. It raises.
    """

    # One function, since a reply costs 0.05 us more for each function in between.
    def encode(envelope: Any) -> T:
        try:
            encoded = _json(envelope)
            try:
                data: Any = envelope.data
            except AttributeError:
                return finish(encoded)
            # Nearly all replies are of a type that needs no check.
            kind = _type_of(data)
            if kind is int:
                if len(encoded) >= _LARGE and not _LEAST <= data <= MAX_INTEGER:
                    check_json(encoded, data)
            elif kind not in SAFE:
                check_json(encoded, data)
            return finish(encoded)
        except Exception as error:
            failed(error, envelope)

    return encode


def msgpack_envelope(envelope: Any) -> bytes:
    """Return an envelope as MessagePack; raises like `encode_json`."""
    data: Any = getattr(envelope, "data", None)
    kind = _type_of(data)
    if kind is int or kind in SAFE:
        return _msgpack(envelope)
    rewritten = with_text_keys(data)
    if rewritten is not data:
        envelope = msgspec.structs.replace(envelope, data=rewritten)
    encoded = _msgpack(envelope)
    check_msgpack(encoded, data)
    return encoded


json_envelope: Final = json_encoder(bytes, fail_to_encode)
"""Returns an envelope as JSON; raises an `UnencodableError`."""


def to_message(value: Any) -> str | bytes:
    """Return *value* as a message: text and bytes unchanged, the rest as JSON text.

    Raises:
        UnencodableError: The value cannot be encoded as JSON; the message names the type.
    """
    if isinstance(value, str | bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(cast("bytearray", value))
    try:
        return encode_json(value).decode()
    except Exception as error:
        fail_to_encode(error, value)
