"""Hot path, step 5 of 5: frames are queued here, and leave in one write.

All frames that are sent while one read buffer is handled, or in one turn of the
event loop, are joined into one `write`. This is called corking. uvloop calls the
kernel for every write, so corking saves system calls: 100,000 echoes a second
become 400,000.

Every frame of a connection passes through the outbox, including pongs and the
close frame. Therefore a socket's frames have one total order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Final

from symphony.outgoing.notices import tell_dropped
from symphony.outgoing.slow import place, without_rooms
from symphony.outgoing.source import NOWHERE, Source
from symphony.websocket.backpressure import READY, TURN, Drained

if TYPE_CHECKING:
    from symphony.outgoing.terms import Terms

__all__ = ("Outbox",)

# The most that one write passes to the transport. The transport buffers what the
# kernel does not accept, and frames in that buffer can no longer be dropped.
_CHUNK_BYTES: Final = 128 * 1024


class _LookedAt:
    """What a publication reads of each member's outbox.

    A base class, because its slots are the first of the object: they are in one line of the
    processor's cache. Among the others, in the order of the alphabet, they were in two.
    """

    __slots__ = ("corked", "write")


class Outbox(_LookedAt):
    """The outgoing frames of one connection that are not written yet.

    It starts blocked, so that frames are queued until the handshake is answered.
    While it is blocked it queues at most *limit* bytes.

    Attributes:
        at_once: Up to how many queued bytes awaiting a send does not suspend. It is
            `high`, until the turn has sent its share; then every send suspends.
        frames: The queued frames, oldest first.
        size: The size of the queued frames in bytes.
        blocked: Whether the transport accepts no writes at the moment.
        corked: Whether no flush has to be scheduled, because one is scheduled
            already or none is possible. While it is false, no frame is queued and
            a block may be written at once. A room checks nothing else for each
            member.
        sealed: Whether the last frame has been queued. Later frames are dropped.
        dropped: How many frames were dropped, for any reason.
        resync: If it is set, all frames are dropped when there are too many or they are too
            old, and this is called.
        rebuild: Sends what the peer needs when messages were dropped; `None`: its route has
            no handler for that.
        disconnect: Disconnects a slow peer.
        limit: The most that may be queued.
        places: Where in `frames` those stand that a later one with the same key replaces, and
            those of rooms with a policy.
        marks: The last frames at the two latest looks at the age.
        notice: What tells the peer of dropped frames, while it is queued.
        untold: How many it names.
        high: Above this many queued bytes, awaiting a send waits.
        low: At or below this many, it stops waiting.
    """

    __slots__ = (
        "_call_soon", "_join", "_loop", "_max_age", "_overflow", "_timer", "_waiters", "at_once", "blocked",
        "disconnect", "dropped", "frames", "high", "limit", "low", "marks", "notice", "places", "rebuild",
        "recipient", "resync", "sealed", "size", "source", "untold",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        write: Callable[[Any], None],
        join: Callable[[Sequence[Any]], Any],
    ) -> None:
        # A list, not a deque: an empty deque takes 600 bytes per connection, and
        # frames are removed from the left only if a client is slow.
        self.frames: list[Any] = []
        self.size = 0
        self.blocked = True
        self.corked = True
        self.sealed = False
        self.dropped = 0
        self.high = self.at_once = self.low = self.limit = 0
        self.write = write
        self.source: Source = NOWHERE
        self.recipient: Any = None
        self._join = join
        self._loop = loop
        self._call_soon = loop.call_soon
        self._max_age: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.marks: tuple[Any, Any] = (None, None)
        self._overflow: Callable[[], None] | None = None
        self.disconnect: Callable[[], None] | None = None
        self._waiters: dict[asyncio.Future[None], None] | None = None
        self.resync: Callable[[], None] | None = None
        self.rebuild: Callable[[], None] | None = None
        self.notice: Any = None
        self.untold = 0
        self.places: dict[Any, int] | None = None

    def configure(
        self,
        *,
        limit: int,
        high: int,
        low: int,
        overflow: Callable[[], None] | None,
        disconnect: Callable[[], None] | None = None,
        max_age: float | None = None,
    ) -> None:
        """Set the limits, in bytes.

        Args:
            limit: The most that may be queued.
            high: Above this, awaiting `drained` waits.
            low: At or below this, it stops waiting.
            overflow: Called when *limit* is exceeded. `None` drops the oldest
                frames instead.
            disconnect: Disconnects the peer, if a room says so.
            max_age: The same if the oldest frame waits for longer, in seconds.
                The check may be late by half of that.
        """
        self._max_age = max_age
        self.limit = limit
        self.high = self.at_once = min(high, limit)
        self.low = min(low, limit)
        self._overflow = overflow
        self.disconnect = disconnect

    def send(self, frame: Any) -> None:
        """Queue a frame after all earlier publications."""
        if self.source.dirty:
            self.source.take(self.recipient)
        # The rest is `put`, inlined: a call would take 2 % of the time of an echo.
        self.frames.append(frame)
        self.size = size = self.size + len(frame)
        if size > self.high:
            self._press()
        elif not self.corked:
            self.corked = True
            self._call_soon(self.flush)

    def put(self, frame: Any) -> None:
        """Queue a frame, and schedule a flush if necessary."""
        self.frames.append(frame)
        self.size = size = self.size + len(frame)
        if size > self.high:
            self._press()
        elif not self.corked:
            self.corked = True
            self._call_soon(self.flush)

    def replace(self, key: Any, frame: Any) -> None:
        """Queue a frame in the place of the queued one that has the same key.

        The place is kept, so that a key whose frames come often is written as soon as
        the others.
        """
        if self.places is None:
            self.places = {}
        index = None if self.sealed else self.places.get(key)
        if index is None:
            if not self.sealed:
                self.places[key] = len(self.frames)
            self.put(frame)
            return
        old = self.frames[index]
        self.frames[index] = frame
        # The age of a place is that of the first frame there.
        earlier, later = self.marks
        self.marks = (frame if earlier is old else earlier, frame if later is old else later)
        self.size += len(frame) - len(old)
        if self.size > self.high:
            self._press()

    def flush(self) -> None:
        """Write the queued frames, until the transport blocks."""
        if self.blocked:
            return
        self.corked = self.sealed
        frames = self.frames
        if self.size <= _CHUNK_BYTES:
            if frames:
                if self.places is not None:
                    self.places = None
                join, write = self._join, self.write
                block = join(frames)
                frames.clear()
                self.size = 0
                write(block)
            return
        while frames and not self.blocked:
            count = size = 0
            while count < len(frames) and (not count or size + len(frames[count]) <= _CHUNK_BYTES):
                size += len(frames[count])
                count += 1
            block = self._join(frames[:count])
            del frames[:count]
            self.size -= size
            self.shift(count)
            self.write(block)

    def block(self) -> None:
        """Stop writing: the transport's own buffer is full."""
        self.blocked = True
        # A flush does nothing while the outbox is blocked, so none is scheduled.
        self.corked = True
        if self._timer is None and self._max_age is not None and not self.sealed:
            self._timer = self._loop.call_later(self._max_age / 2, self._look_at_age)

    def unblock(self) -> None:
        """Write again, and wake the waiters of `drained` if few enough bytes are left."""
        self.blocked = False
        self.flush()
        if self.size <= self.low:
            self._wake()

    def seal(self, last: Any | None = None, *, discard: bool = False) -> None:
        """Queue the last frame, and drop all later ones.

        Args:
            last: The last frame, normally a close frame.
            discard: Drop the frames that are queued before it.
        """
        if discard:
            self.forget()
        self.places = None
        if last is not None:
            self.send(last)
        self.sealed = self.corked = True
        # From now on every send waits for `drained`. Otherwise a handler that sends
        # in an endless loop would block the event loop.
        self.high = self.at_once = -1
        self._overflow = self.disconnect = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.marks = (None, None)
        self.resync = self.rebuild = None
        self._wake()

    def forget(self) -> None:
        """Drop the frames that are queued."""
        self.dropped += len(self.frames)
        self.frames.clear()
        self.size = 0
        self.places = None

    def detach(self) -> None:
        """Release the recipient, which refers to this outbox, and its rooms."""
        self.source = NOWHERE
        self.recipient = None

    def drained(self) -> Awaitable[None]:
        """Return an awaitable that waits until the queue has shrunk to the low-water mark.

        It waits one turn of the event loop if the outbox is sealed, or if this turn has
        sent its share.
        """
        if self.sealed:
            return TURN
        if self.size <= self.high:
            return READY if self.size <= self.at_once else TURN
        return Drained(self._wait)

    async def lowered(self) -> None:
        """Wait until the queue has shrunk to the low-water mark, or the outbox is sealed."""
        while self.size > self.low and not self.sealed:
            if self.blocked:
                await Drained(self._woken)
            else:
                # It is written at the end of this turn.
                await TURN

    def _next_turn(self) -> None:
        self.at_once = self.high

    def _wait(self) -> Generator[Any, None, None]:
        if not self.sealed and self.size > self.high:
            yield from self._woken()

    def _woken(self) -> Generator[Any, None, None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = {}
        waiters = self._waiters
        waiters[waiter] = None
        try:
            yield from waiter
        finally:
            # Otherwise cancelled waiters would stay until the next `_wake`.
            waiters.pop(waiter, None)

    def _press(self) -> None:
        if self.sealed:
            # Sealing sets `high` to -1, so every later frame reaches this line.
            self.size -= len(self.frames.pop())
            self.dropped += 1
            return
        if not self.blocked:
            # Write early, so that a long loop of sends does not fill the queue. Such a
            # loop must also suspend: a client that reads as fast, or has gone without
            # the event loop having heard of it, never blocks the transport.
            self.flush()
            if self.at_once >= 0:
                self.at_once = -1
                self._call_soon(self._next_turn)
        if self.size <= self.limit:
            return
        if self._overflow is not None:
            self._overflow()
            return
        if self.resync is not None:
            self._drop(len(self.frames), keep=0)
            self.resync()
            return
        count, size = 0, self.size
        while size > self.limit and count < len(self.frames):
            size -= len(self.frames[count])
            count += 1
        self._drop(count)

    def _drop(self, count: int, *, keep: int = 1) -> None:
        """Drop the oldest frames, and tell the peer how many."""
        # Keep the newest frame, even if it alone exceeds the limit. Otherwise the
        # outbox would drop every such frame, and the client would get nothing.
        count = min(count, len(self.frames) - keep)
        self.size -= sum(map(len, self.frames[:count]))
        told = int(count > 0 and self.frames[0] is self.notice)
        del self.frames[:count]
        self.shift(count)
        tell_dropped(self, count - told, self.untold * told)

    def place(self, frame: Any, terms: Terms) -> None:
        """Queue a frame of a room that has a policy for slow members."""
        place(self, frame, terms)

    def shift(self, count: int) -> None:
        """Note that the oldest frames have gone."""
        if self.places is not None:
            self.places = {key: at - count for key, at in self.places.items() if at >= count}

    def _look_at_age(self) -> None:
        """Apply the policy to frames that were queued two looks ago and are still here.

        A time for each frame would cost more than all the rest of the outbox.
        """
        assert self._max_age is not None
        self._timer = None
        frames = self.frames
        if not frames:
            # `block` starts the timer again.
            self.marks = (None, None)
            return
        old, young = self.marks
        stale = 0
        if old is not None:
            stale = next((index + 1 for index, frame in enumerate(frames) if frame is old), 0)
        if stale and self.places is not None:
            stale = without_rooms(self, stale)
            if self.sealed:
                return
        if stale and self._overflow is not None:
            self._overflow()
            return
        if stale and self.resync is not None:
            self._drop(len(frames), keep=0)
            self.resync()
        elif stale:
            self._drop(stale)
        self.marks = (young, frames[-1] if frames else None)
        self._timer = self._loop.call_later(self._max_age / 2, self._look_at_age)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)
