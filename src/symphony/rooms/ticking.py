"""Calls a function of a room at a fixed rate: `@rooms.every(seconds)`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from symphony.rooms.pace import pace_of
from symphony.rooms.tasks import has_to_end

if TYPE_CHECKING:
    from symphony.rooms.family import Hook
    from symphony.rooms.room import Room
    from symphony.stats import Stats

__all__ = ("DT", "Tick", "Ticking")

DT: Final = "dt"
"""The parameter of a tick that has the seconds since the last one."""

# Multiples of it, modulo 1, are spread evenly, however many there are (the golden ratio).
_SPREAD: Final = 0.6180339887498949


class Tick(NamedTuple):
    """What a hook is called for at a tick.

    Attributes:
        room: The room.
        dt: The seconds since the last tick.
    """

    room: Room
    dt: float

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters in the name of the room, and `dt`."""
        return {**self.room.params, DT: self.dt}


class Ticking:
    """A task of a room that calls one function at a fixed rate.

    The times of the ticks are multiples of the interval after the start, so they do not
    drift. They begin at another part of the interval in each room, so that the ticks of
    many rooms do not fall in one moment. If a tick or something else takes so long that
    others are missed, they are skipped and counted.

    Args:
        seconds: The interval.
        hook: The function.
        report: Called with the exceptions of the function, and where they were raised.
        stats: Counts the ticks that were missed.
        number: How many were made before it: the ticks of each begin at another time.
        may_run: Whether the room may run on this node now. Otherwise the tick is missed.
    """

    __slots__ = ("_hook", "_may_run", "_phase", "_report", "_seconds", "_stats")

    def __init__(
        self,
        seconds: float,
        hook: Hook,
        report: Callable[[BaseException, Any, str], None],
        stats: Stats,
        number: int,
        may_run: Callable[[], bool],
    ) -> None:
        self._seconds = seconds
        self._hook = hook
        self._report = report
        self._stats = stats
        self._may_run = may_run
        # The first of a node, as in most tests, begins after a whole interval.
        self._phase = (1 - number * _SPREAD % 1) * seconds

    async def __call__(self, socket: Any, room: Room) -> None:
        """Call the function until this task is cancelled, or the function has ended the room."""
        pace, seconds = pace_of(asyncio.get_running_loop()), self._seconds
        start = pace.time() + self._phase - seconds
        number, missed = 1, 0
        while True:
            # It suspends also if it is late. Otherwise nothing else would run.
            await pace.sleep_until(start + number * seconds)
            # The time of the last tick that is due. A timer may wake a moment too early.
            due = max(int((pace.time() - start) / seconds), number)
            missed, number = missed + due - number, due + 1
            if not self._may_run():
                missed += 1
                continue
            self._stats.missed_ticks += missed
            dt, missed = (missed + 1) * seconds, 0
            try:
                await self._hook(None, Tick(room, dt))
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                    raise
                self._report(error, None, f"every({seconds:g}) of room {room.name!r}")
            if has_to_end():
                return


def _is_cancelled() -> bool:
    # A function, because the traceback of the exception keeps the variables of its frames.
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
