"""JSON and MessagePack encoding of Python values."""

from __future__ import annotations

from typing import Any, cast

import msgspec

__all__ = ("encode_foreign", "to_message")


def encode_foreign(value: Any) -> Any:
    """Return a value to encode in place of one that msgspec does not know.

    Raises:
        TypeError: The value cannot be encoded.
    """
    if hasattr(value, "model_dump"):  # pydantic encodes its own models
        return value.model_dump(mode="json")
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


_encode = msgspec.json.Encoder(enc_hook=encode_foreign).encode


def to_message(value: Any) -> str | bytes:
    """Return *value* as a message: text and bytes unchanged, the rest as JSON text.

    Raises:
        TypeError: The value cannot be encoded as JSON; the message names the type.
    """
    if isinstance(value, str | bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(cast("bytearray", value))
    if hasattr(value, "model_dump_json"):
        return str(value.model_dump_json())
    return _encode(value).decode()
