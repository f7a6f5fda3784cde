"""JSON for what is neither text nor bytes."""

from __future__ import annotations

from typing import Any, cast

import msgspec

__all__ = ("to_message",)

_encode = msgspec.json.Encoder().encode


def to_message(value: Any) -> str | bytes:
    """Return *value* as a message: text and bytes as they are, the rest as JSON text.

    Raises:
        TypeError: The value cannot be encoded as JSON; the message says what.
    """
    if isinstance(value, str | bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(cast("bytearray", value))
    if hasattr(value, "model_dump_json"):  # pydantic knows best how its models look
        return str(value.model_dump_json())
    return _encode(value).decode()
