"""The end of a connection, and the errors that report it."""

from __future__ import annotations

from typing import NamedTuple

from symphony.client.link import Close
from symphony.errors import DisconnectedError, RemoteError
from symphony.printable import printable

__all__ = ("Closed", "Loss", "how", "sentence")


class Closed(Close):
    """How a client ended for good: `code`, `reason`, `clean`.

    Attributes:
        refusal: The error with which the server refused the client, or `None`.
    """

    refusal: RemoteError | None = None


class Loss(NamedTuple):
    """The end of a connection, or of the attempts to get one.

    Attributes:
        what: A clause for messages: "the connection to ws://... was lost (1006)".
        close: How it ended.
        final: Whether the client does not reconnect.
        refusal: The error that the server gave for it.
        stopped: Whether the server has told that it stops, and then closed in order.
    """

    what: str
    close: Close
    final: bool
    refusal: RemoteError | None = None
    stopped: bool = False

    def not_begun(self) -> RemoteError | None:
        """Return the error of a request without an answer that has not run; `None`: it may have.

        A server that stops answers what it has begun before it closes. So what has no answer
        has crossed its notice, and arrived too late.
        """
        return RemoteError("unavailable", "the server restarts", retryable=True) if self.stopped else None

    def error(self, consequence: str = "", more: str = "") -> DisconnectedError:
        """Return a new error; it must not be shared, because it collects a traceback.

        Args:
            consequence: What the loss means for the caller.
            more: Further sentences.
        """
        message = sentence(f"{consequence}: {self.what}" if consequence else self.what)
        return DisconnectedError(
            f"{message} {more}".rstrip(), self.close.code, self.close.reason, refusal=self.refusal
        )


def sentence(text: str) -> str:
    """Return a clause as a sentence; an address at its beginning is not changed."""
    if text.startswith(("the ", "a ")):
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "?")) else f"{text}."


def how(close: Close) -> str:
    """Return code and reason, for parentheses and on one line: `1012: restarting`."""
    reason = printable(close.reason)
    return f"{close.code}: {reason}" if reason else str(close.code)
