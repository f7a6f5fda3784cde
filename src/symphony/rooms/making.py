"""The state of a room, while its factory runs: the joins meanwhile share the result."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from symphony.errors import Reject

if TYPE_CHECKING:
    from symphony.rooms.family import Hook
    from symphony.rooms.live import Live
    from symphony.rooms.room import Room

__all__ = ("Making",)


class Making:
    """One call of a factory.

    Attributes:
        error: What it raised.
        waiting: How many joins wait for it.
    """

    __slots__ = ("_over", "error", "waiting")

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.waiting = 0
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, live: Live, create: Hook, room: Room) -> None:
        """Create the state of a room, and keep the error, which is raised in `wait`."""
        try:
            state: Any = await create(None, room)
        except BaseException as error:
            self.error = error
            if not isinstance(error, Exception):
                raise
        else:
            live.has_state(state)

    def end(self) -> None:
        """Wake the joins, because the factory has ended."""
        self._over.set_result(None)

    async def wait(self, live: Live) -> None:
        """Return when the room has its state.

        Raises:
            Exception: What the factory raised.
            Reject: `unavailable`: the factory was cancelled.
        """
        self.waiting += 1
        try:
            # Not the future itself: a join that is cancelled would cancel it for all.
            await asyncio.wait((self._over,))
        finally:
            self.waiting -= 1
        if isinstance(self.error, Exception):
            raise self.error
        if not live.is_made:
            raise Reject("unavailable", "the state of the room was not created")
