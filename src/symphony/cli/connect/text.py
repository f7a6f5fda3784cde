"""Format messages and data as text. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from symphony.protocol.positions import Position

__all__ = ("compact", "escape_controls", "indented", "plain", "text_or_hex", "to_json")

# C0 except tab and newline, DEL, C1: a terminal executes these. Then what changes the direction of
# text, or breaks lines.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_SHORT: Final = 60

_encode = msgspec.json.Encoder(enc_hook=repr).encode


def plain(position: Position | None) -> dict[str, Any] | None:
    """Return a position as it is on the wire."""
    return None if position is None else {"epoch": position.epoch, "offset": position.offset}


def to_json(value: Any) -> str:
    """Return a value as JSON on one line; types that JSON does not have become their `repr`."""
    try:
        return _encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        return _encode(repr(value)).decode()


def indented(json: str) -> str:
    """Return JSON over several lines, unless it is short or invalid."""
    if len(json) <= _SHORT:
        return compact(json) or json
    try:
        return msgspec.json.format(json, indent=2)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return json


def compact(json: str) -> str | None:
    """Return JSON on one line, or `None` if it is invalid."""
    try:
        # `format` does not validate everything.
        msgspec.json.decode(json)
        return msgspec.json.format(json, indent=-1)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def text_or_hex(message: str | bytes) -> str:
    """Return a text message unchanged, and a binary one as hexadecimal digits."""
    return message if isinstance(message, str) else message.hex()


def escape_controls(text: str) -> str:
    """Return text whose control characters are escaped, so that no peer can control the terminal.

    Line breaks and tabs stay.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
