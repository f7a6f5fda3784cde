"""An event loop whose time only passes when everything waits, and which can stop a part of what it runs."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import random
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from itertools import count
from random import Random
from typing import Any, Final, TypeVar, cast

__all__ = ("HOST", "Host", "SimulatedLoop", "simulated")

T = TypeVar("T")

# In virtual seconds. A scenario that takes longer waits for what never comes.
_LONGEST: Final = 24 * 3600.0
# How long a turn of the loop takes.
_TURN: Final = 1e-6
# A task may ignore its first cancellation.
_CANCELLATIONS: Final = 5


class Host:
    """A simulated process: what it runs can be stopped and continued, without its knowledge.

    Args:
        name: Its name, for the trace.

    Attributes:
        context: What runs in this context belongs to it, with everything that this starts.
        stopped: What is due while it is stopped; `None`: it runs.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.context = contextvars.copy_context()
        self.context.run(HOST.set, self)
        self.stopped: deque[asyncio.Handle] | None = None

    def __repr__(self) -> str:
        return self.name


HOST: Final[contextvars.ContextVar[Host | None]] = contextvars.ContextVar("HOST", default=None)
"""The process that the running code belongs to; `None`: the test and its clients."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop without a real clock, sockets and threads.

    The same program runs in the same way each time. If nothing is ready, the time goes on to
    the next timer.

    Attributes:
        errors: What callbacks and forgotten tasks have raised.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        # Private in asyncio, and the same since Python 3.4.
        self._due: deque[asyncio.Handle] = cast("Any", self)._ready
        # Tuples are compared faster than handles.
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._number = count()
        self.errors: list[BaseException] = []
        self._stopped: dict[Host, None] = {}
        self.set_exception_handler(self._failed)

    def time(self) -> float:
        """Return the virtual time, in seconds since the start."""
        return self._now

    # What asyncio does, without its checks. They take a good part of the time of a simulation.

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """See `AbstractEventLoop.call_soon`."""
        handle = asyncio.Handle(callback, args, self, context)
        self._due.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """See `AbstractEventLoop.call_later`."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """See `AbstractEventLoop.call_at`."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._number), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A timer that is cancelled stays until it would be due."""

    def stop_host(self, host: Host) -> None:
        """Stop a process: nothing of it runs until it is continued."""
        if host.stopped is None:
            host.stopped = deque()
            self._stopped[host] = None

    def continue_host(self, host: Host) -> None:
        """Continue a process. What has become due meanwhile runs now, in order."""
        stopped, host.stopped = host.stopped, None
        self._stopped.pop(host, None)
        self._due.extend(stopped or ())

    def continue_all(self) -> None:
        """Continue all processes that are stopped."""
        for host in tuple(self._stopped):
            self.continue_host(host)

    def _run_once(self) -> None:
        due, timers = self._due, self._timers
        if not due:
            while timers and timers[0][2].cancelled():
                heapq.heappop(timers)
            if not timers:
                raise RuntimeError("Everything waits, and no timer is set: this would never go on.")
            self._now = max(self._now, timers[0][0])
            if self._now > _LONGEST:
                raise RuntimeError(f"The simulation has not ended after {_LONGEST / 3600:g} virtual hours.")
        # Like a real clock, this one does not stand still while code runs.
        self._now = now = self._now + _TURN
        while timers and timers[0][0] <= now:
            timer = heapq.heappop(timers)[2]
            if not timer.cancelled():
                due.append(timer)
        for _ in range(len(due)):
            handle: Any = due.popleft()
            if handle._cancelled:
                continue
            host = handle._context.get(HOST) if self._stopped else None
            if host is not None and host.stopped is not None:
                host.stopped.append(handle)
            else:
                handle._run()

    def _process_events(self, event_list: Any) -> None:
        """There are no events of sockets."""

    def _write_to_self(self) -> None:
        """Nothing waits outside of the loop."""

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Refuse threads: they would not run in the same way each time."""
        raise RuntimeError(
            "A simulated cluster has no threads. Handlers with thread=True, and plain `def` dependencies, "
            "run in one; use `async def`."
        )

    def _failed(self, loop: Any, context: dict[str, Any]) -> None:
        self.errors.append(context.get("exception") or RuntimeError(context["message"]))


@contextmanager
def _seeded(seed: int) -> Generator[None]:
    """Let all random numbers and ids follow from a seed, inside the block."""
    source = Random(f"ids of {seed}")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

    def token_urlsafe(nbytes: int | None = None) -> str:
        return "".join(source.choices(alphabet, k=-(-(nbytes or 32) * 4 // 3)))

    # When garbage is collected depends on what else the process has done.
    collects = gc.isenabled()
    gc.disable()
    before, of_random = secrets.token_urlsafe, random.getstate()
    secrets.token_urlsafe = token_urlsafe
    random.seed(f"delays of {seed}")
    try:
        yield
    finally:
        secrets.token_urlsafe = before
        random.setstate(of_random)
        if collects:
            gc.enable()


def simulated(seed: int, main: Callable[[SimulatedLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in a new simulated loop, and return its result.

    Raises:
        RuntimeError: It never ends.
    """
    loop = SimulatedLoop()
    with _seeded(seed):
        try:
            return loop.run_until_complete(main(loop))
        finally:
            _end(loop)


def _end(loop: SimulatedLoop) -> None:
    """Cancel what is left, and let it end."""
    # What goes wrong from here on is no concern of a test.
    loop.set_exception_handler(lambda loop, context: None)
    loop.continue_all()
    for _ in range(_CANCELLATIONS):
        left = asyncio.all_tasks(loop)
        if not left:
            break
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.wait(left, timeout=1.0))
    loop.close()
