"""Saves a room after changes: `room.touch()` and `@rooms.save(every=…)`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from symphony.rooms.family import Hook
    from symphony.rooms.room import Room

__all__ = ("Saving",)

logger = logging.getLogger("symphony.app")


class Saving:
    """Calls one `save` hook of one room. It never runs twice at a time.

    Args:
        every: How many seconds after a change the hook is called.
        hook: The hook.
        room: The room.
        run: Starts a task.
        report: Called with the exceptions of the hook, and where they were raised.

    Attributes:
        changed: Whether something has changed that is not saved.
    """

    __slots__ = ("_every", "_hook", "_report", "_room", "_run", "_task", "_timer", "changed")

    def __init__(
        self,
        every: float,
        hook: Hook,
        room: Room,
        run: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        report: Callable[[BaseException, Any, str], None],
    ) -> None:
        self._every = every
        self._hook = hook
        self._room = room
        self._run = run
        self._report = report
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.changed = False

    @property
    def is_busy(self) -> bool:
        """Whether something is to be saved, or is being saved."""
        return self.changed or self._task is not None

    def touch(self) -> None:
        """Note a change: the hook is called in a while, once for all changes until then."""
        self.changed = True
        if self._timer is None and self._task is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._every, self._start)

    async def finish(self, patience: float) -> None:
        """Save what has changed, because the room ends; if that fails, try for *patience* seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while self.is_busy:
            if self._task is None:
                self._start()
            assert self._task is not None
            # Not cancelled if it takes long: half of a save may be worse than none.
            await asyncio.wait((self._task,))
            self._stop_timer()
            if not self.changed:
                return
            if loop.time() + self._every > until:
                logger.error("The last changes of room %r were not saved.", self._room.name)
                return
            await asyncio.sleep(self._every)

    def _start(self) -> None:
        self._stop_timer()
        self._task = self._run(self._save())
        # A callback, because a task that is cancelled before its first step runs no code.
        self._task.add_done_callback(self._ended)

    async def _save(self) -> None:
        self.changed = False
        try:
            await self._hook(None, self._room)
        except BaseException as error:
            self.changed = True
            if not isinstance(error, Exception):
                raise
            self._report(error, None, f"save of room {self._room.name!r}")

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._task = None
        if self.changed:
            self.touch()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
