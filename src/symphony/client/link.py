"""The contract between a client and the transport of its messages.

`websocket.py` implements it with a socket. Tests can implement it in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from symphony.errors import RemoteError
from symphony.websocket.close import Close

__all__ = ("Close", "Dial", "DialError", "Link", "Listener", "Offer")


class Offer(NamedTuple):
    """The client's part of one attempt to connect.

    Attributes:
        subprotocols: In order of preference.
        headers: Headers to add to the handshake.
        stage: Called before each step of the attempt, with a message to use if
            that step takes too long. Calling it is optional.
    """

    subprotocols: Sequence[str]
    headers: Mapping[str, str]
    stage: Callable[[str], None] = lambda words: None


class DialError(Exception):
    """An attempt to connect has failed.

    Args:
        code: A close code; 1006 if no server answered.
        message: What happened, and what to do about it, for people.
        reason: A short reason; the server's own if it sent one.
        again: Whether another attempt makes sense.
        decided: Whether the server has decided about this client, so that the
            answer cannot come from a proxy during a restart.
        retry_after: Seconds to wait before the next attempt, as the server
            asked.
        refusal: The error that a Symphony server refused with.
        status: The HTTP status of the answer, if there was one.
    """

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str = "",
        again: bool,
        decided: bool = False,
        retry_after: float | None = None,
        refusal: RemoteError | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.again = again
        self.decided = decided
        self.retry_after = retry_after
        self.refusal = refusal
        self.status = status


class Listener(Protocol):
    """Receives what happens on a link. Its methods must not raise or block."""

    def received(self, message: str | bytes) -> None:
        """Handle a message; messages arrive in the order in which they were sent."""
        ...

    def relieved(self) -> None:
        """Continue to send: the link is no longer congested."""
        ...

    def closed(self, close: Close) -> None:
        """Handle the end of the link; called once, after all other calls."""
        ...


class Link(Protocol):
    """One open connection. Use it only in the thread of the event loop."""

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server chose from the offer."""
        ...

    @property
    def congested(self) -> bool:
        """Whether the peer reads too slowly; `relieved` is called when that ends."""
        ...

    def start(self, listener: Listener) -> None:
        """Begin to deliver messages, perhaps some before this returns."""
        ...

    def send(self, message: str | bytes) -> None:
        """Send a message after all others; a closed link drops it.

        Never waits and never refuses. Sending on a congested link makes its
        buffer grow.
        """
        ...

    def pause_reading(self) -> None:
        """Stop delivering, except what was already read; may be called before `start`."""
        ...

    def resume_reading(self) -> None:
        """Continue to deliver."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Send a close frame after all messages; `closed` is called within the close timeout."""
        ...

    def abort(self) -> None:
        """Cut the connection without a close frame; `closed` is called after this returns."""
        ...

    async def wait_closed(self) -> None:
        """Wait until the link has ended, at most the close timeout after `closed`."""
        ...


class Dial(Protocol):
    """Opens links for a client."""

    @property
    def where(self) -> str:
        """The address of the server, for messages: `wss://example.com/chat`."""
        ...

    async def __call__(self, offer: Offer) -> Link:
        """Open a link. If it is cancelled, everything is cleaned up.

        Raises:
            DialError: The server could not be reached, or refused.
        """
        ...
