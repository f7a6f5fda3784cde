"""Rewrite the client's log and error messages for users of the command line. Pure."""

from __future__ import annotations

import re
from typing import Final

from symphony.cli.connect.close_codes import describe

__all__ = ("connection_problem", "for_command_line", "sentence")

# The client gives its hints in Python; these are the same hints as options.
_HINTS: Final = (
    (
        "Trust its issuer with ssl=ssl.create_default_context(cafile=...).",
        "--insecure accepts any certificate.",
    ),
    ("use token= or headers=", "use --token or --header"),
    ("use client.stream()", "use /stream, or a credit in the envelope"),
    ("use client.request()", "use /request"),
    ("connect_timeout must", "--timeout must"),
    ("request_timeout must", "--timeout must"),
)
_LOST: Final = re.compile(r" was lost \((?P<code>\d{4})(?:: (?P<reason>.*))?\)$", re.DOTALL)
_FAILED: Final = re.compile(
    r"\S+ (?:could not be reached|failed to open the connection|(?P<refused>refused the connection)): "
)


def connection_problem(message: str) -> str:
    """Return a shorter version of what the client logs about a lost connection or a failed attempt."""
    found = _LOST.search(message)
    if found is not None:
        return f"Connection lost ({describe(int(found['code']), found['reason'] or '')})."
    found = _FAILED.match(message)
    if found is None:
        return sentence(message)
    # The user knows the URL.
    message = sentence(message[found.end() :])
    return f"Refused: {message}" if found["refused"] else message[0].upper() + message[1:]


def sentence(message: str) -> str:
    """Return a client's error for the command line, with a full stop."""
    message = for_command_line(message)
    # The client capitalizes its sentence, but this one begins with a URL.
    message = message.replace("Ws", "ws", 1) if message.startswith("Ws") else message
    return message if message.endswith((".", "?")) else f"{message}."


def for_command_line(message: str) -> str:
    """Return a client's error for the command line."""
    for python, option in _HINTS:
        message = message.replace(python, option)
    return message
