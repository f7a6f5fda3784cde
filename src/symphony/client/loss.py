"""What is known when a connection ends, and the errors that say so."""

from __future__ import annotations

from typing import NamedTuple

from symphony.client.link import Close
from symphony.errors import Disconnected

__all__ = ("Loss", "how")


class Loss(NamedTuple):
    """The end of a connection, or of the attempts to get one.

    Attributes:
        what: A clause for people: "the connection to ws://... was lost (1006)".
        close: How it ended.
        final: Whether the client stays away.
    """

    what: str
    close: Close
    final: bool

    def error(self, consequence: str = "") -> Disconnected:
        """Return an error; each gets one of its own, as it collects a traceback."""
        message = f"{self.what}{consequence}."
        return Disconnected(message[0].upper() + message[1:], self.close.code, self.close.reason)


def how(close: Close) -> str:
    """Return code and reason in parentheses' words: `1012: restarting`."""
    return f"{close.code}: {close.reason}" if close.reason else str(close.code)
