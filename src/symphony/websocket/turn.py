"""Hot path: shares the event loop between connections.

A read can bring thousands of frames, and picows delivers all of them in one
call. A `Turn` decides how many of them are handled in this turn of the loop. The
others are kept, and handled in the next turns. Reading is paused meanwhile.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Protocol, cast

from picows import WSFrame, WSMsgType

from symphony.websocket.backlog import Backlog
from symphony.websocket.queued import Queued

__all__ = ("BRIEF", "KeptFrame", "Turn", "Turned")

BRIEF: Final = 0.001
"""After a read that took longer, in seconds, reading pauses until the next turn.

libuv reads from one socket up to 32 times before it looks at the others.
"""
# How many frames are handled between two looks at the clock. Fewer if they are slow.
_STRIDE: Final = 16
_NOWHERE: Final = Queued(0)
_KINDS: Final = {kind.value: kind for kind in WSMsgType}


class Turned(Protocol):
    """A connection that shares the event loop with others."""

    def on_ws_frame(self, transport: Any, frame: Any, /) -> None:
        """Handle one frame, of picows or a `KeptFrame`."""
        ...

    def turn_over(self, seconds: float, frames: int) -> None:
        """Flush what was sent while *frames* frames were handled, in *seconds*."""
        ...


class KeptFrame:
    """A frame that was kept, with what a connection uses of picows' `WSFrame`."""

    __slots__ = ("_payload", "fin", "last_in_buffer", "msg_type", "rsv1", "rsv2", "rsv3")

    def __init__(self, first: int, payload: bytes) -> None:
        self._payload = payload
        self.msg_type = _KINDS[first & 0x0F]
        self.fin = first & 0x80
        self.rsv1 = first & 0x40
        self.rsv2 = first & 0x20
        self.rsv3 = first & 0x10
        # The turn itself knows when it is over.
        self.last_in_buffer = False

    def get_payload_as_bytes(self) -> bytes:
        """Return the payload."""
        return self._payload

    def get_payload_as_utf8_text(self) -> str:
        """Return the payload as text; raise `UnicodeDecodeError` if it is not UTF-8."""
        return self._payload.decode()


class Turn:
    """What one connection may do in one turn of the event loop.

    The connection counts its frames in *count*, and asks `keeps` above *look_at*.

    Args:
        transport: The transport of the event loop.
        connection: The connection.

    Attributes:
        count: How many frames of the current read were delivered; 0 between
            two reads.
        look_at: Above this count, `keeps` must be asked.
        stride: How many frames are handled between two looks at the clock.
        began: When the current read began, or the last one.
        held: Whether reading is paused until `resume`.
    """

    __slots__ = (
        "_backlog",
        "_connection",
        "_handled",
        "_last",
        "_loop",
        "_max_frames",
        "_max_seconds",
        "_queued",
        "_replaying",
        "_scheduled",
        "_transport",
        "began",
        "count",
        "held",
        "look_at",
        "stride",
    )

    def __init__(self, transport: asyncio.Transport, connection: Turned) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._connection: Turned | None = connection
        self._max_frames = _STRIDE
        self._max_seconds = BRIEF
        self._queued: Queued = _NOWHERE
        self._backlog: Backlog | None = None
        self._last: Callable[[], None] | None = None
        self._scheduled = self._replaying = False
        self._handled = 0
        self.count = 0
        self.began = 0.0
        # One at first, as nothing is known about the handlers.
        self.look_at = self.stride = 1
        self.held = False

    def configure(self, *, max_frames: int, max_seconds: float, queued: Queued) -> None:
        """Set the limits of a turn, before the first frame.

        Args:
            max_frames: How many frames are handled in one turn.
            max_seconds: How long they may take. A handler that takes longer is
                not interrupted, but no other frame is handled after it.
            queued: The bytes of all queues, among them those of kept frames.
        """
        self._queued = queued
        self._max_frames = max_frames
        self._max_seconds = max_seconds

    def keeps(self, frame: WSFrame) -> bool:
        """Keep *frame* for a later turn if its connection has had its turn; return whether it did."""
        backlog = self._backlog
        if not backlog:
            if not self.held and self._has_time():
                return False
            self._handled = self.count - 1
            self.look_at = 0
            self._pause()
            if backlog is None:
                self._backlog = backlog = Backlog()
        first = (
            (0x80 if frame.fin else 0)
            | (0x40 if frame.rsv1 else 0)
            | (0x20 if frame.rsv2 else 0)
            | (0x10 if frame.rsv3 else 0)
            | frame.msg_type.value
        )
        before = len(backlog)
        backlog.add(first, frame.get_payload_as_bytes())
        self._queued.size += len(backlog) - before
        if frame.last_in_buffer:
            self.count = 0
            handled, self._handled = self._handled, 0
            self._over(monotonic() - self.began, handled)
            if not self.held:
                self._schedule()
        return True

    def rest(self, seconds: float, frames: int) -> None:
        """Read nothing more until the next turn: *frames* frames took *seconds*."""
        self._adapt(seconds, frames)
        if not self.held:
            self._pause()
            self._schedule()

    def pause(self) -> None:
        """Stop reading and handling frames until `resume`. Frames that were read are kept."""
        self.held = True
        self.look_at = 0
        self._pause()

    def resume(self) -> None:
        """Handle the kept frames in the next turns, and then read again."""
        self.held = False
        if self._scheduled or self._replaying:
            return
        if self._backlog or self._last is not None:
            self._schedule()
        else:
            self._read()

    def end(self, last: Callable[[], None]) -> None:
        """Stop reading for good, and call *last* when the kept frames are handled."""
        self._last = last
        self._pause()
        self._schedule()

    def release(self) -> None:
        """Drop the kept frames, and the reference to the connection."""
        self._queued.size -= self.kept
        self._connection = self._last = self._backlog = None

    @property
    def kept(self) -> int:
        """How many bytes are kept."""
        return len(self._backlog) if self._backlog is not None else 0

    def _has_time(self) -> bool:
        count = self.count
        if count > self._max_frames or monotonic() - self.began > self._max_seconds:
            return False
        self.stride = min(self.stride * 2, _STRIDE, self._max_frames)
        self.look_at = min(count - 1 + self.stride, self._max_frames)
        return True

    def _adapt(self, seconds: float, frames: int) -> None:
        if seconds > self._max_seconds:
            self.stride = max(1, min(_STRIDE, self._max_frames, int(frames * self._max_seconds / seconds)))
        if self.look_at:
            self.look_at = self.stride

    def _over(self, seconds: float, frames: int) -> None:
        self._adapt(seconds, frames)
        if self._connection is not None:
            self._connection.turn_over(seconds, frames)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._scheduled = False
        if self._connection is None:
            return
        backlog = self._backlog
        if backlog and not self.held:
            self._replaying = True
            try:
                self._replay(self._connection, backlog)
            finally:
                self._replaying = False
        # The connection may have let it go meanwhile.
        backlog = self._backlog
        if backlog:
            if not self.held:
                self._schedule()
        elif self._last is not None:
            last, self._last = self._last, cast("Any", _nothing)
            last()
        elif not self.held:
            self._read()

    def _replay(self, connection: Turned, backlog: Backlog) -> None:
        began, before = monotonic(), len(backlog)
        self.count = 0
        try:
            while backlog and not self.held:
                # It belongs to no read: the connection need not ask.
                self.look_at = sys.maxsize
                connection.on_ws_frame(None, KeptFrame(*backlog.take()))
                count = self.count
                if count >= self._max_frames or (
                    count % self.stride == 0 and monotonic() - began > self._max_seconds
                ):
                    break
        finally:
            if self._backlog is not None:
                self._queued.size -= before - len(backlog)
            frames, self.count = self.count, 0
            self.look_at = 0 if backlog or self.held else self.stride
            self._over(monotonic() - began, frames)

    def _pause(self) -> None:
        transport = self._transport
        if transport.is_reading() and not transport.is_closing():
            transport.pause_reading()

    def _read(self) -> None:
        self.look_at = self.stride
        transport = self._transport
        if not transport.is_reading() and not transport.is_closing():
            transport.resume_reading()


def _nothing() -> None:
    """Take the place of what has been called: nothing is read after it."""
