"""The time by which rooms tick: that of the event loop, unless a test moves it."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol
from weakref import WeakKeyDictionary

__all__ = ("Pace", "pace_of", "set_pace")


class Pace(Protocol):
    """A time by which rooms tick."""

    def time(self) -> float:
        """Return the time in seconds."""
        ...

    async def sleep_until(self, time: float) -> None:
        """Wait until a time. This suspends also if it has come."""
        ...


class _LoopPace:
    """The time of an event loop."""

    __slots__ = ("_loop",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def time(self) -> float:
        return self._loop.time()

    async def sleep_until(self, time: float) -> None:
        await asyncio.sleep(max(time - self._loop.time(), 0))


_paces: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Pace]] = WeakKeyDictionary()


def set_pace(pace: Pace | None) -> None:
    """Let the rooms of the running loop tick by another time, from their beginning on.

    Args:
        pace: The time; `None`: that of the loop again.
    """
    loop = asyncio.get_running_loop()
    if pace is None:
        _paces.pop(loop, None)
    else:
        _paces[loop] = pace


def pace_of(loop: asyncio.AbstractEventLoop) -> Pace:
    """Return the time by which the rooms of a loop tick."""
    return _paces.get(loop) or _LoopPace(loop)
