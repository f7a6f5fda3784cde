"""Words for people: what close codes mean, and what a client's error says on a command line. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ("MEANINGS", "Meaning", "ended", "explained", "for_command_line", "lost", "meaning", "sentence")


class Meaning(NamedTuple):
    """What a close code says (`docs/protocol.md`, "Closing").

    Attributes:
        text: In a few words.
        retry: Whether a client comes back.
    """

    text: str
    retry: bool


MEANINGS: Final[Mapping[int, Meaning]] = {
    1000: Meaning("the normal end", retry=False),
    1001: Meaning("the server goes away", retry=True),
    1002: Meaning("a breach of the WebSocket protocol", retry=False),
    1003: Meaning("a kind of message that is not taken", retry=False),
    1005: Meaning("closed without a code", retry=True),
    1006: Meaning("the connection was lost", retry=True),
    1007: Meaning("text that is not UTF-8", retry=False),
    1008: Meaning("not allowed", retry=False),
    1009: Meaning("a message that is too large", retry=False),
    1010: Meaning("an extension is missing", retry=False),
    1011: Meaning("a failure in the server", retry=True),
    1012: Meaning("the server restarts", retry=True),
    1013: Meaning("too slow in reading", retry=True),
    1014: Meaning("a proxy could not reach the server", retry=True),
    1015: Meaning("TLS failed", retry=False),
    4400: Meaning("invalid", retry=False),
    4401: Meaning("unauthorized", retry=False),
    4403: Meaning("forbidden", retry=False),
    4404: Meaning("not found", retry=False),
    4408: Meaning("timeout, or idle for too long", retry=True),
    4409: Meaning("conflict, or room full", retry=False),
    4429: Meaning("too many", retry=True),
    4503: Meaning("unavailable", retry=True),
}
_OWN: Final = Meaning("a code of the app's own", retry=False)

# What the client says to whoever writes Python, and what it is called here.
_HINTS: Final = (
    (
        "Trust its issuer with ssl=ssl.create_default_context(cafile=...).",
        "--insecure accepts any certificate.",
    ),
    ("use token= or headers=", "use --token or --header"),
    ("use client.stream()", "use /stream, or a credit in the frame"),
    ("use client.request()", "use /request"),
    ("connect_timeout must", "--timeout must"),
    ("request_timeout must", "--timeout must"),
)
_LOST: Final = re.compile(r" was lost \((?P<code>\d{4})(?:: (?P<reason>.*))?\)$", re.DOTALL)
_FAILED: Final = re.compile(
    r"\S+ (?:could not be reached|failed to open the connection|(?P<refused>refused the connection)): "
)
_NORMAL: Final = 1000


def meaning(code: int) -> Meaning:
    """Return what a close code means."""
    return MEANINGS.get(code, _OWN)


def explained(code: int, reason: str) -> str:
    """Return code, meaning and reason: `4403: forbidden, "members only"`."""
    said = f"{code}: {meaning(code).text}"
    return f'{said}, "{reason}"' if reason and reason != meaning(code).text else said


def ended(code: int, reason: str) -> str:
    """Return how a connection ended for good, and whether it makes sense to come back."""
    said = f"Closed by the server ({explained(code, reason)})."
    if code == _NORMAL:
        return said
    return f"{said} {'Connecting again may work.' if meaning(code).retry else 'This is final.'}"


def lost(message: str) -> str:
    """Return what a client logs of a lost connection, or of an attempt that failed, in fewer words."""
    found = _LOST.search(message)
    if found is not None:
        return f"Lost ({explained(int(found['code']), found['reason'] or '')})."
    found = _FAILED.match(message)
    if found is None:
        return sentence(message)
    # Where to is known.
    message = sentence(message[found.end() :])
    return f"Refused: {message}" if found["refused"] else message[0].upper() + message[1:]


def sentence(message: str) -> str:
    """Return a client's error in terms of the command line, with a full stop."""
    message = for_command_line(message)
    # The client's capital letter is that of a sentence, and this is a URL.
    message = message.replace("Ws", "ws", 1) if message.startswith("Ws") else message
    return message if message.endswith((".", "?")) else f"{message}."


def for_command_line(message: str) -> str:
    """Return a client's error in terms of the command line."""
    for python, here in _HINTS:
        message = message.replace(python, here)
    return message
