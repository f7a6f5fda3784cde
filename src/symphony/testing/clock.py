"""A clock that a test can advance, and a way to wait until the app is idle."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, cast

from symphony.rooms.pace import set_pace

__all__ = ("Clock", "settle")

# More turns of the loop than any handler needs that is not in an endless loop.
_MOST_TURNS: Final = 10_000
# uvloop does not tell what is ready. A message and its reply take seven turns.
_TURNS_UNSEEN: Final = 100
# Sums of times differ by less, and so do the times at which a loop runs its timers.
_NO_TIME: Final = 1e-9


async def settle() -> None:
    """Run everything that does not have to wait for time, a thread or the network."""
    # asyncio has no public API for this. The name has been the same since Python 3.4.
    ready = cast("Collection[Any] | None", getattr(asyncio.get_running_loop(), "_ready", None))
    for _ in range(_MOST_TURNS if ready is not None else _TURNS_UNSEEN):
        await asyncio.sleep(0)
        if ready is not None and not ready:
            return


class _Ticks:
    """The time by which rooms tick in tests: it stands still, except in `Clock.advance`.

    Attributes:
        now: The time in seconds.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = count()
        self._sleeping: list[tuple[float, int, asyncio.Future[None]]] = []

    def time(self) -> float:
        """See `Pace.time`."""
        return self.now

    async def sleep_until(self, time: float) -> None:
        """See `Pace.sleep_until`."""
        if time <= self.now + _NO_TIME:
            await asyncio.sleep(0)
            return
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleeping, (time, next(self._numbers), wake))
        await wake

    @property
    def due(self) -> float | None:
        """When the next tick is due."""
        while self._sleeping and self._sleeping[0][2].done():
            heapq.heappop(self._sleeping)
        return self._sleeping[0][0] if self._sleeping else None

    def move(self, time: float) -> None:
        """Move to a time, and wake what is due."""
        self.now = max(self.now, time)
        while (due := self.due) is not None and due <= self.now + _NO_TIME:
            heapq.heappop(self._sleeping)[2].set_result(None)


class Clock:
    """The time of an asyncio event loop, which a test can advance.

    Real time passes as usual, and `advance` skips ahead. Each loop has one
    clock. It stays in place after the client has been left, so that time never
    goes back.

    While a `TestClient` is open, the rooms of its loop tick only in `advance`: a machine
    that is slow gets no tick more.
    """

    def __init__(self, loop: asyncio.BaseEventLoop) -> None:
        self._real: Callable[[], float] = loop.time
        # Private in asyncio, and the same since Python 3.4. Our own list would not
        # contain the timers that were set before.
        self._timers = cast("Iterable[asyncio.TimerHandle]", cast("Any", loop)._scheduled)
        self._skipped = 0.0
        self._halted_at: float | None = None
        self._advancing = asyncio.Lock()
        self._ticks = _Ticks()
        self._users = 0
        loop.time = self.time

    @classmethod
    def of_running_loop(cls) -> Clock:
        """Return the clock of the running loop.

        Raises:
            RuntimeError: It is not one of asyncio's own loops.
        """
        loop = asyncio.get_running_loop()
        if not isinstance(loop, asyncio.BaseEventLoop):
            kind = f"{type(loop).__module__}.{type(loop).__qualname__}"
            raise RuntimeError(
                f"The time of {kind} cannot be advanced. Run this test on asyncio's own event loop."
            )
        earlier = getattr(loop.time, "__self__", None)
        return earlier if isinstance(earlier, cls) else cls(loop)

    def time(self) -> float:
        """Return the loop's time in seconds."""
        return self._real() + self._skipped if self._halted_at is None else self._halted_at

    @property
    def _ticks_wait(self) -> bool:
        """Whether rooms wait for a tick."""
        return self._ticks.due is not None

    @contextmanager
    def _ticking(self) -> Generator[None]:
        """Let rooms that begin in this block tick only in `advance`; used by `TestClient`."""
        self._users += 1
        set_pace(self._ticks)
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                set_pace(None)

    async def advance(self, seconds: float) -> None:
        """Advance the time, and run everything that falls due in order.

        When this returns, everything that has fallen due has run as far as it
        can without a thread or the network. This affects the ticks of rooms, and all
        timers of the loop: room lingers, limits, `asyncio.sleep`, and the test's own
        timeouts.

        Args:
            seconds: The seconds to advance, 0 or more.
        """
        if seconds < 0:
            raise ValueError(f"Time cannot go back: advance({seconds}).")
        async with self._advancing:
            await settle()
            # Stop the real time, so that a handler that sleeps for 1 s in a loop wakes
            # exactly five times in 5 s, no matter how long it runs.
            now = self.time()
            end = now + seconds
            ticks = self._ticks
            last_tick = ticks.now + seconds
            # From the time of the ticks to that of the loop.
            later = now - ticks.now
            try:
                while True:
                    due, tick = self._next_due(), ticks.due
                    if (
                        tick is not None
                        and tick <= last_tick + _NO_TIME
                        and (due is None or tick + later <= due)
                    ):
                        now = self._halted_at = min(max(now, tick + later), end)
                        ticks.move(tick)
                    elif due is not None and due <= end:
                        now = self._halted_at = max(now, due)
                        ticks.move(min(now - later, last_tick))
                    else:
                        break
                    await settle()
                self._halted_at = now = end
                ticks.move(last_tick)
                await settle()
            finally:
                self._skipped = now - self._real()
                self._halted_at = None

    def _next_due(self) -> float | None:
        return min((timer.when() for timer in self._timers if not timer.cancelled()), default=None)
