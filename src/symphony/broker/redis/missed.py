"""Finds out what was missed in rooms whose channels were not heard for a moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from symphony.errors import SymphonyError
from symphony.protocol.positions import Position
from symphony.tasks import start

__all__ = ("Missed",)

logger = logging.getLogger("symphony.app")

# How many rooms are compared at once.
_SLICE: Final = 500
_PAUSE: Final = 1.0


class Missed:
    """The rooms whose last publication is not known at this moment.

    Args:
        top: Returns the position of the last publication of a room.
        found: Called with each room and this position.
    """

    def __init__(
        self, top: Callable[[str], Awaitable[Position]], found: Callable[[str, Position], object]
    ) -> None:
        self._top = top
        self._found = found
        self._rooms: dict[str, None] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, room: str) -> None:
        """Compare a room soon. It may be added again while it is compared."""
        self._rooms[room] = None
        if self._task is None or self._task.done():
            self._task = start(self._compare())

    def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()

    async def _compare(self) -> None:
        while self._rooms:
            part = list(self._rooms)[:_SLICE]
            for room in part:
                del self._rooms[room]
            tops = await asyncio.gather(*map(self._top, part), return_exceptions=True)
            failed: list[SymphonyError] = []
            for room, top in zip(part, tops, strict=True):
                if isinstance(top, Position):
                    self._found(room, top)
                elif isinstance(top, SymphonyError):
                    self._rooms[room] = None
                    failed.append(top)
                else:
                    raise top
            if failed:
                logger.warning("What was missed from the broker of the rooms is not known yet: %s", failed[0])
                await asyncio.sleep(_PAUSE)
