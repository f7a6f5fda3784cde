"""The contract between a client and what carries its messages.

`websocket.py` keeps it over a socket; for tests, one can be made in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from symphony.errors import RemoteError
from symphony.websocket.close import Close

__all__ = ("Close", "Dial", "DialError", "Link", "Listener", "Offer")


class Offer(NamedTuple):
    """What one attempt to connect says of the client.

    Attributes:
        subprotocols: In the order of preference.
        headers: Of the handshake, besides those that make it one.
        stage: Called with what is being waited for, in words that say what may
            be wrong if it takes too long. Calling it is optional.
    """

    subprotocols: Sequence[str]
    headers: Mapping[str, str]
    stage: Callable[[str], None] = lambda words: None


class DialError(Exception):
    """An attempt to connect has failed.

    Args:
        code: As a close code; 1006 where no server said anything.
        message: What happened, and what to do about it, for people.
        reason: The same in a few words; the server's own if it said something.
        again: Whether another attempt makes sense.
        retry_after: Seconds that the server wants to be left alone.
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
        retry_after: float | None = None,
        refusal: RemoteError | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.again = again
        self.retry_after = retry_after
        self.refusal = refusal
        self.status = status


class Listener(Protocol):
    """Who is told what happens on a link. None of these may raise or wait."""

    def received(self, message: str | bytes) -> None:
        """Take a message; in the order in which they were sent."""
        ...

    def relieved(self) -> None:
        """Hear that the link is no longer congested."""
        ...

    def closed(self, close: Close) -> None:
        """Hear that nothing more can be sent or received; once, and last."""
        ...


class Link(Protocol):
    """One open connection. All of it belongs to the event loop's thread."""

    @property
    def subprotocol(self) -> str | None:
        """What the server chose of the offer."""
        ...

    @property
    def congested(self) -> bool:
        """Whether more is sent than the peer takes; `relieved` tells when that ends."""
        ...

    def start(self, listener: Listener) -> None:
        """Begin to deliver. What has come already may be delivered before this returns."""
        ...

    def send(self, message: str | bytes) -> None:
        """Send a message behind all others; after the end it is dropped.

        Never waits and never refuses: whoever sends on a congested link lets
        it grow.
        """
        ...

    def pause_reading(self) -> None:
        """Deliver no more, apart from what was read already; may be called before `start`."""
        ...

    def resume_reading(self) -> None:
        """Deliver again."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Say goodbye behind everything that was sent; `closed` is called within the close timeout."""
        ...

    def abort(self) -> None:
        """End it without a word; `closed` is called soon, not before this returns."""
        ...

    async def wait_closed(self) -> None:
        """Return when nothing of it is left, at most the close timeout after `closed`."""
        ...


class Dial(Protocol):
    """How a client gets a link."""

    @property
    def where(self) -> str:
        """To whom, for people: `wss://example.com/chat`."""
        ...

    async def __call__(self, offer: Offer) -> Link:
        """Open a link. Cancelled, it leaves nothing behind.

        Raises:
            DialError: There is none, or the server refused.
        """
        ...
