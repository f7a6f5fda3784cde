"""JSON and MessagePack of what Python programs have."""

from __future__ import annotations

from typing import Any, cast

import msgspec

__all__ = ("encode_foreign", "to_message")


def encode_foreign(value: Any) -> Any:
    """Return what is encoded in place of a value that msgspec does not know.

    Raises:
        TypeError: It is nothing that can be encoded.
    """
    if hasattr(value, "model_dump"):  # pydantic knows best how its models look
        return value.model_dump(mode="json")
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


_encode = msgspec.json.Encoder(enc_hook=encode_foreign).encode


def to_message(value: Any) -> str | bytes:
    """Return *value* as a message: text and bytes as they are, the rest as JSON text.

    Raises:
        TypeError: The value cannot be encoded as JSON; the message says what.
    """
    if isinstance(value, str | bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(cast("bytearray", value))
    if hasattr(value, "model_dump_json"):
        return str(value.model_dump_json())
    return _encode(value).decode()
