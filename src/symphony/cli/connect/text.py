"""How what was sent and received is written down. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

__all__ = ("compact", "harmless", "indented", "one_line", "to_json")

# C0 but tab and newline, DEL, C1: what a terminal would obey.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SHORT: Final = 60

_encode = msgspec.json.Encoder(enc_hook=repr).encode


def to_json(value: Any) -> str:
    """Return a value as JSON on one line; what JSON has not is written as Python does."""
    try:
        return _encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        return _encode(repr(value)).decode()


def indented(json: str) -> str:
    """Return JSON over several lines, unless it is short or none."""
    if len(json) <= _SHORT:
        return compact(json) or json
    try:
        return msgspec.json.format(json, indent=2)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return json


def compact(json: str) -> str | None:
    """Return JSON on one line, `None`: it is none."""
    try:
        # `format` does not look at all of it.
        msgspec.json.decode(json)
        return msgspec.json.format(json, indent=-1)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def one_line(message: str | bytes) -> str:
    """Return a message as it is, and a binary one in hexadecimal digits."""
    return message if isinstance(message, str) else message.hex()


def harmless(text: str) -> str:
    """Return text that a terminal only shows, whoever wrote it."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
