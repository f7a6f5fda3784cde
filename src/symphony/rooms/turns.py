"""Work on one key at a time, in the order in which it was asked for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ("Turn", "Turns")

_INSIDE: Final[ContextVar[tuple[Hashable, ...]]] = ContextVar("_INSIDE", default=())
"""The keys whose turn the running code has. It must not wait for these."""


class Turn:
    """A place in the queue of one key. It ends once, in any case."""

    __slots__ = ("_begins", "_key", "_turns")

    def __init__(self, turns: Turns, key: Hashable) -> None:
        self._turns = turns
        self._key = key
        self._begins: asyncio.Future[None] | None = None

    @asynccontextmanager
    async def taken(self) -> AsyncGenerator[None]:
        """Wait until all earlier ones have ended, and hold the turn meanwhile."""
        try:
            if not self._turns.is_first(self._key, self):
                self._begins = asyncio.get_running_loop().create_future()
                await self._begins
            token = _INSIDE.set((*_INSIDE.get(), self._key))
            try:
                yield
            finally:
                _INSIDE.reset(token)
        finally:
            self._turns.end(self._key, self)

    def begin(self) -> None:
        """Let it go on, because it is the first now."""
        if self._begins is not None and not self._begins.done():
            self._begins.set_result(None)


class Turns:
    """The queues of all keys."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[Turn]] = {}

    def take(self, key: Hashable) -> Turn:
        """Take the next place in the queue of a key. It must be `taken`."""
        turn = Turn(self, key)
        self._queues.setdefault(key, deque()).append(turn)
        return turn

    def is_inside(self, key: Hashable) -> bool:
        """Return whether the running code has the turn of a key."""
        return key in _INSIDE.get()

    def is_first(self, key: Hashable, turn: Turn) -> bool:
        """Return whether no earlier turn of the key is left."""
        return self._queues[key][0] is turn

    def end(self, key: Hashable, turn: Turn) -> None:
        """Remove a turn, and let the next one go on."""
        queue = self._queues[key]
        was_first = queue[0] is turn
        queue.remove(turn)
        if not queue:
            del self._queues[key]
        elif was_first:
            queue[0].begin()
