"""Hot path, step 5 of 5: frames wait here, and leave in one write.

Frames that are sent while a read buffer is handled, or in one iteration of
the loop, are joined into one `write`: the cork. uvloop writes at once, so
what this saves is system calls: 100k echoes a second become 400k.

Everything that leaves a connection passes here, pongs and close frames
included: that is what makes the order of a socket total.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from typing import Any, Final, Protocol

__all__ = ("READY", "Outbox", "Source")

# What is handed to the transport in one write; the transport keeps what the
# kernel does not take, so this bounds what cannot be dropped any more.
_CHUNK_BYTES: Final = 128 * 1024


class Source(Protocol):
    """Where publications wait that must go ahead of a direct send."""

    @property
    def dirty(self) -> Collection[Any]:
        """What has something to take; empty most of the time."""
        ...

    def take(self, recipient: Any) -> None:
        """Move what *recipient* is to get into its outbox."""
        ...


class _Ready:
    """An awaitable that is done: awaiting it costs no turn of the loop."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


class _Nowhere:
    """The source of an outbox that is in no room."""

    __slots__ = ("dirty",)

    def __init__(self) -> None:
        self.dirty: Collection[Any] = ()

    def take(self, recipient: Any) -> None:
        """There is nothing."""


_NOWHERE: Final = _Nowhere()
READY: Final[Awaitable[None]] = _Ready()


class _Turn:
    """An awaitable that gives the loop one turn."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        yield


_TURN: Final[Awaitable[None]] = _Turn()


class _Drained:
    """An awaitable that begins to wait when it is awaited, and not before.

    Most sends are not awaited: a future made for each would stay until the
    client reads on.
    """

    __slots__ = ("_wait",)

    def __init__(self, wait: Callable[[], Generator[Any, None, None]]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait()


class Outbox:
    """The outgoing frames of one connection that are not written yet.

    It starts blocked, so that what is sent before the handshake is answered
    waits. While it is blocked frames pile up, at most *limit* bytes of them.

    Attributes:
        frames: What waits, oldest first.
        size: The bytes of what waits.
        blocked: Whether the transport takes nothing at the moment.
        corked: Whether a flush is coming or none is possible, so that none need
            be scheduled. While it is false nothing waits here and a block may
            be written: it is all that a room looks at for each member.
        sealed: Whether the last frame has been put; later ones are dropped.
        dropped: How many frames were dropped, for whatever reason.
    """

    __slots__ = (
        "_call_soon",
        "_join",
        "_limit",
        "_low",
        "_overflow",
        "_waiters",
        "blocked",
        "corked",
        "dropped",
        "frames",
        "high",
        "recipient",
        "sealed",
        "size",
        "source",
        "write",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        write: Callable[[Any], None],
        join: Callable[[Sequence[Any]], Any],
    ) -> None:
        # A list, not a deque: a deque is 600 bytes a connection when empty,
        # and frames leave from its left end only where a client is slow.
        self.frames: list[Any] = []
        self.size = 0
        self.blocked = True
        self.corked = True
        self.sealed = False
        self.dropped = 0
        self.high = self._low = self._limit = 0
        self.write = write
        self.source: Source = _NOWHERE
        self.recipient: Any = None
        self._join = join
        self._call_soon = loop.call_soon
        self._overflow: Callable[[], None] | None = None
        self._waiters: dict[asyncio.Future[None], None] | None = None

    def configure(self, *, limit: int, high: int, low: int, overflow: Callable[[], None] | None) -> None:
        """Set the bounds in bytes.

        Args:
            limit: The most that may wait.
            high: Above this `drained` waits.
            low: Below this it goes on.
            overflow: Called when *limit* is passed; `None` drops the oldest.
        """
        self._limit = limit
        self.high = min(high, limit)
        self._low = min(low, limit)
        self._overflow = overflow

    def send(self, frame: Any) -> None:
        """Put a frame behind all publications that came before it."""
        if self.source.dirty:
            self.source.take(self.recipient)
        # From here on it is `put`, written out: a call is 2 % of an echo.
        self.frames.append(frame)
        self.size = size = self.size + len(frame)
        if size > self.high:
            self._press()
        elif not self.corked:
            self.corked = True
            self._call_soon(self.flush)

    def put(self, frame: Any) -> None:
        """Put a frame; it leaves at the next flush, which is scheduled if none is."""
        self.frames.append(frame)
        self.size = size = self.size + len(frame)
        if size > self.high:
            self._press()
        elif not self.corked:
            self.corked = True
            self._call_soon(self.flush)

    def flush(self) -> None:
        """Write what waits, as far as the transport takes it."""
        if self.blocked:
            return
        self.corked = self.sealed
        frames = self.frames
        if self.size <= _CHUNK_BYTES:
            if frames:
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
            self.write(block)

    def block(self) -> None:
        """Stop writing: the transport's own buffer is full."""
        self.blocked = True
        # While blocked a flush does nothing, so none need be scheduled.
        self.corked = True

    def unblock(self) -> None:
        """Write again, and wake who waits if enough has left."""
        self.blocked = False
        self.flush()
        if self.size <= self._low:
            self._wake()

    def seal(self, last: Any | None = None, *, discard: bool = False) -> None:
        """Put the last frame and take no more.

        Args:
            last: The frame to end with, normally a close frame.
            discard: Drop what waits before it.
        """
        if discard:
            self.dropped += len(self.frames)
            self.frames.clear()
            self.size = 0
        if last is not None:
            self.send(last)
        self.sealed = self.corked = True
        # From now on everyone asks `drained`: a handler that sends in an
        # endless loop would never let go of the event loop again.
        self.high = -1
        self._overflow = None
        self._wake()

    def detach(self) -> None:
        """Let go of the recipient, which refers to this outbox, and of its rooms."""
        self.source = _NOWHERE
        self.recipient = None

    def drained(self) -> Awaitable[None]:
        """Return what to await until less than the low-water mark waits."""
        if self.sealed:
            return _TURN
        return READY if self.size <= self.high else _Drained(self._wait)

    def _wait(self) -> Generator[Any, None, None]:
        if self.sealed or self.size <= self.high:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = {}
        waiters = self._waiters
        waiters[waiter] = None
        try:
            yield from waiter
        finally:
            # Left by whoever gave up: nobody else would take it out.
            waiters.pop(waiter, None)

    def _press(self) -> None:
        if self.sealed:
            # Sealing lowers the mark, so that whatever comes later comes here.
            self.size -= len(self.frames.pop())
            self.dropped += 1
            return
        if not self.blocked:
            # Write early rather than let a long loop of sends pile up.
            self.flush()
        if self.size <= self._limit:
            return
        if self._overflow is not None:
            self._overflow()
            return
        # The newest stays even if it alone is above the limit: it is bounded
        # by whoever made it, and an empty outbox would drop everything.
        count = 0
        while self.size > self._limit and count < len(self.frames) - 1:
            self.size -= len(self.frames[count])
            count += 1
        del self.frames[:count]
        self.dropped += count

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)
