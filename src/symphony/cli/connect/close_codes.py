"""Explain close codes to people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ("MEANINGS", "Meaning", "describe", "describe_end", "meaning")


class Meaning(NamedTuple):
    """The meaning of a close code (`docs/protocol.md`, "Closing").

    Attributes:
        text: The meaning in a few words.
        retry: Whether a client reconnects after it.
    """

    text: str
    retry: bool


MEANINGS: Final[Mapping[int, Meaning]] = {
    1000: Meaning("normal", retry=False),
    1001: Meaning("the server is going away", retry=True),
    1002: Meaning("WebSocket protocol error", retry=False),
    1003: Meaning("unsupported kind of message", retry=False),
    1005: Meaning("closed without a code", retry=True),
    1006: Meaning("no close frame received", retry=True),
    1007: Meaning("text is not UTF-8", retry=False),
    1008: Meaning("not allowed", retry=False),
    1009: Meaning("message too large", retry=False),
    1010: Meaning("missing extension", retry=False),
    1011: Meaning("internal server error", retry=True),
    1012: Meaning("the server restarts", retry=True),
    1013: Meaning("the client reads too slowly", retry=True),
    1014: Meaning("a proxy could not reach the server", retry=True),
    1015: Meaning("TLS failed", retry=False),
    4400: Meaning("invalid", retry=False),
    4401: Meaning("unauthorized", retry=False),
    4403: Meaning("forbidden", retry=False),
    4404: Meaning("not found", retry=False),
    4408: Meaning("timeout, or idle for too long", retry=True),
    4409: Meaning("conflict, or room full", retry=False),
    4410: Meaning("replaced by another connection of the user", retry=False),
    4421: Meaning("the room is on another node", retry=True),
    4429: Meaning("too many", retry=True),
    4503: Meaning("unavailable", retry=True),
}
_APPLICATION: Final = Meaning("a code of the application", retry=False)
_NORMAL: Final = 1000


def meaning(code: int) -> Meaning:
    """Return the meaning of a close code."""
    return MEANINGS.get(code, _APPLICATION)


def describe(code: int, reason: str) -> str:
    """Return code, meaning and reason: `4403: forbidden, "members only"`."""
    text = f"{code}: {meaning(code).text}"
    return f'{text}, "{reason}"' if reason and reason != meaning(code).text else text


def describe_end(code: int, reason: str) -> str:
    """Return how the connection ended, and whether connecting again can help."""
    text = f"Closed by the server ({describe(code, reason)})."
    if code == _NORMAL:
        return text
    if meaning(code).retry:
        return f"{text} Connecting again may work."
    return f"{text} Connecting again will not help."
