"""Ends a connection: the closing handshake, then TCP (RFC 6455 §7)."""

from __future__ import annotations

import asyncio
from typing import Final

from symphony.outgoing.outbox import Outbox
from symphony.transport.base import Close
from symphony.websocket.frames import close_frame

__all__ = ("Ending",)

_ABNORMAL: Final = Close(1006, "", clean=False)


class Ending:
    """The end of one connection.

    Args:
        transport: The transport of the event loop.
        outbox: The outbox, which is sealed with the close frame.

    Attributes:
        close_timeout: How long the peer may take, in seconds.
        ours: Our close, if we closed first.
        theirs: The peer's close frame.
    """

    __slots__ = (
        *("_finishing", "_outbox", "_peer_is_done", "_timer", "_transport"),
        *("close_timeout", "ours", "theirs"),
    )

    def __init__(self, transport: asyncio.Transport, outbox: Outbox) -> None:
        self._transport = transport
        self._outbox = outbox
        self.close_timeout = 0.0
        self._finishing = self._peer_is_done = False
        self._timer: asyncio.TimerHandle | None = None
        self.ours: Close | None = None
        self.theirs: Close | None = None

    @property
    def begun(self) -> bool:
        """Whether a close frame was sent or received."""
        return self.ours is not None or self.theirs is not None

    def close(self, code: int, reason: str) -> bool:
        """Send a close frame after everything else, and wait for the peer's.

        Returns:
            Whether this was the first close.
        """
        last = close_frame(code, reason)
        if self.ours is not None or self._outbox.sealed:
            return False
        self._say(code, reason, last)
        self.abort_later()
        return True

    def fail(self, code: int, reason: str) -> None:
        """Fail the connection (§7.1.7): send a close frame and stop reading.

        If our close frame has been sent already, this is an invalid answer to
        it, and no other answer is awaited.
        """
        if self._finishing:
            return
        if self.ours is None:
            self._say(code, reason, close_frame(code, reason))
        self._finish()

    def overflow(self, code: int, reason: str) -> None:
        """Discard the outbox and fail the connection."""
        self._say(code, reason, close_frame(code, reason), discard=True)
        self._finish()

    def answer(self, code: int, reason: str) -> None:
        """Handle the peer's close frame, and answer it if the peer closed first."""
        self.theirs = Close(code, reason, clean=True)
        if self.ours is None:
            self._outbox.seal(close_frame(code))
        self._finish()

    def give_up(self, reason: str) -> None:
        """Abort the connection without a close frame, because the peer does not answer."""
        if self.ours is None:
            self.ours = Close(1006, reason, clean=False)
        self._transport.abort()

    def abort_later(self) -> None:
        """Abort the connection after the close timeout."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.close_timeout, self._transport.abort)

    def end_of_file(self) -> bool:
        """Close after everything that is queued, because the peer sends nothing more.

        Returns:
            Whether the transport must stay open for that.
        """
        self.abort_later()
        # TLS is always closed in both directions.
        if not self._outbox.frames or not self._transport.can_write_eof():
            return False
        self._peer_is_done = True
        self._outbox.seal()
        self._finish()
        return True

    def end_when_flushed(self) -> None:
        """End the TCP connection as soon as the last frame has been written."""
        if not self._finishing:
            return
        transport = self._transport
        self._outbox.flush()
        if self._outbox.frames or transport.is_closing():
            return
        if self.theirs is not None or self._peer_is_done or not transport.can_write_eof():
            transport.close()
            return
        # Closing with unread bytes in the kernel's buffer resets the connection, and
        # the reset can overtake our close frame. So send an end of file, and discard
        # everything that the peer still sends.
        transport.write_eof()
        transport.set_protocol(_Discarding(transport.get_protocol()))
        if not transport.is_reading():
            transport.resume_reading()

    def result(self) -> Close:
        """Return how the connection ended. Call it after the end."""
        if self._timer is not None:
            self._timer.cancel()
        if self.ours is not None:
            return self.ours._replace(clean=self.theirs is not None)
        return self.theirs or _ABNORMAL

    def _say(self, code: int, reason: str, last: bytes, *, discard: bool = False) -> None:
        self.ours = Close(code, reason, clean=False)
        self._outbox.seal(last, discard=discard)

    def _finish(self) -> None:
        self._finishing = True
        self.abort_later()
        self.end_when_flushed()


class _Discarding(asyncio.Protocol):
    """The protocol of a failed connection while it waits for its peer to close."""

    def __init__(self, connection: asyncio.BaseProtocol) -> None:
        self._connection = connection

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the connection."""
        self._connection.connection_lost(exc)
