"""A clock that a test can advance, and a way to wait until the app is idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, cast

__all__ = ("Clock", "settle")

# More turns of the loop than any handler needs that is not in an endless loop.
_MOST_TURNS: Final = 10_000
# uvloop does not tell what is ready. A message and its reply take seven turns.
_TURNS_UNSEEN: Final = 100


async def settle() -> None:
    """Run everything that does not have to wait for time, a thread or the network."""
    # asyncio has no public API for this. The name has been the same since Python 3.4.
    ready = cast("Collection[Any] | None", getattr(asyncio.get_running_loop(), "_ready", None))
    for _ in range(_MOST_TURNS if ready is not None else _TURNS_UNSEEN):
        await asyncio.sleep(0)
        if ready is not None and not ready:
            return


class Clock:
    """The time of an asyncio event loop, which a test can advance.

    Real time passes as usual, and `advance` skips ahead. Each loop has one
    clock. It stays in place after the client has been left, so that time never
    goes back.
    """

    def __init__(self, loop: asyncio.BaseEventLoop) -> None:
        self._real: Callable[[], float] = loop.time
        # Private in asyncio, and the same since Python 3.4. Our own list would not
        # contain the timers that were set before.
        self._timers = cast("Iterable[asyncio.TimerHandle]", cast("Any", loop)._scheduled)
        self._skipped = 0.0
        self._halted_at: float | None = None
        self._advancing = asyncio.Lock()
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

    async def advance(self, seconds: float) -> None:
        """Advance the time, and run everything that falls due in order.

        When this returns, everything that has fallen due has run as far as it
        can without a thread or the network. This affects all timers of the
        loop: room lingers, limits, `asyncio.sleep`, and the test's own
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
            try:
                while (due := self._next_due()) is not None and due <= end:
                    now = self._halted_at = max(now, due)
                    await settle()
                self._halted_at = now = end
                await settle()
            finally:
                self._skipped = now - self._real()
                self._halted_at = None

    def _next_due(self) -> float | None:
        return min((timer.when() for timer in self._timers if not timer.cancelled()), default=None)
