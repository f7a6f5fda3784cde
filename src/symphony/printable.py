"""The one filter for text of a peer in log lines and exceptions."""

from __future__ import annotations

from typing import Final

__all__ = ("MAX_SHOWN", "escaped", "printable")

MAX_SHOWN: Final = 200
"""How many characters of a peer's text are shown."""


def printable(text: object, most: int = MAX_SHOWN) -> str:
    """Return a peer's text in a form that is safe in a log line or an exception.

    It has no line breaks, no control characters (C0 and C1), and none that
    change the direction of text. They are escaped. Longer text is cut.
    """
    whole = str(text)
    shown = escaped(whole[:most])
    return shown if len(shown) <= most and len(whole) <= most else shown[: most - 1] + "…"


def escaped(text: str, keep: str = "") -> str:
    r"""Return *text* with escapes such as `\x1b` for all unprintable characters except *keep*."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else ascii(one)[1:-1] for one in text)
