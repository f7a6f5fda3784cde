"""How a connection ends: the closing handshake, then TCP (RFC 6455 §7)."""

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
        transport: The event loop's.
        outbox: Sealed with the close frame.

    Attributes:
        close_timeout: How long the peer may take, in seconds.
        ours: What we closed with, if we did so first.
        theirs: The peer's close frame.
    """

    __slots__ = ("_finishing", "_outbox", "_timer", "_transport", "close_timeout", "ours", "theirs")

    def __init__(self, transport: asyncio.Transport, outbox: Outbox) -> None:
        self._transport = transport
        self._outbox = outbox
        self.close_timeout = 0.0
        self._finishing = False
        self._timer: asyncio.TimerHandle | None = None
        self.ours: Close | None = None
        self.theirs: Close | None = None

    @property
    def begun(self) -> bool:
        """Whether a close frame was sent or received."""
        return self.ours is not None or self.theirs is not None

    def close(self, code: int, reason: str) -> bool:
        """Send a close frame behind everything else, and await the peer's.

        Returns:
            Whether this was the first one.
        """
        last = close_frame(code, reason)
        if self.ours is not None or self._outbox.sealed:
            return False
        self._say(code, reason, last)
        self.abort_later()
        return True

    def fail(self, code: int, reason: str) -> None:
        """Fail the connection (§7.1.7): close frame, no more reading.

        If ours has gone already, this is a bad answer to it: nothing better
        is to be waited for.
        """
        if self._finishing:
            return
        if self.ours is None:
            self._say(code, reason, close_frame(code, reason))
        self._finish()

    def overflow(self, code: int, reason: str) -> None:
        """Fail the connection without what waits in the outbox."""
        self._say(code, reason, close_frame(code, reason), discard=True)
        self._finish()

    def answer(self, code: int, reason: str) -> None:
        """Take the peer's close frame, and answer it if it came first."""
        self.theirs = Close(code, reason, clean=True)
        if self.ours is None:
            self._outbox.seal(close_frame(code))
        self._finish()

    def give_up(self, reason: str) -> None:
        """End the connection without a word: nobody would hear it."""
        if self.ours is None:
            self.ours = Close(1006, reason, clean=False)
        self._transport.abort()

    def abort_later(self) -> None:
        """Give the peer the close timeout, and no more."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.close_timeout, self._transport.abort)

    def go_on(self) -> None:
        """Hear that the transport takes bytes again."""
        if self._finishing:
            # Not in here: asyncio looks whether its transport is closing right
            # after it has told us, and would report it lost a second time.
            asyncio.get_running_loop().call_soon(self.end_when_flushed)

    def end_when_flushed(self) -> None:
        """End the TCP connection as soon as the last frame is written."""
        if not self._finishing:
            return
        transport = self._transport
        self._outbox.flush()
        if self._outbox.frames or transport.is_closing():
            return
        if self.theirs is not None or not transport.can_write_eof():
            transport.close()
            return
        # Closing with unread bytes in the kernel's buffer resets the
        # connection, and the reset can overtake our close frame. So the peer
        # gets an end of file, and what it still sends goes nowhere.
        transport.write_eof()
        transport.set_protocol(_Discarding(transport.get_protocol()))
        if not transport.is_reading():
            transport.resume_reading()

    def result(self) -> Close:
        """Say how it ended, once it has."""
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
    """In place while a failed connection waits for its peer to go."""

    def __init__(self, connection: asyncio.BaseProtocol) -> None:
        self._connection = connection

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._connection.connection_lost(exc)
