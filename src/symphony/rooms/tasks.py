"""The tasks of one room: each registered function runs once at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any, Final

from symphony.rooms.family import Hook

__all__ = ("RoomTasks", "has_to_end")

_OWN: Final[ContextVar[_Slot | None]] = ContextVar("_OWN", default=None)
"""The room task in whose context code runs."""


class _Slot:
    """One registered function, and the task that runs it.

    Attributes:
        hook: The function.
        task: The task, `None` if none runs.
        finished: Whether the function has returned. It then runs again only in the
            next life of the room.
        ending: Whether the task has to end, because the room is empty.
        spared: Whether it is not cancelled at once, because it has closed the room.
        again: Whether to start another one when it has ended.
        timer: Cancels a task that has emptied its own room.
    """

    __slots__ = ("again", "ending", "finished", "hook", "spared", "task", "timer")

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        self.task: asyncio.Task[Any] | None = None
        self.finished = self.ending = self.again = self.spared = False
        self.timer: asyncio.TimerHandle | None = None


def has_to_end() -> bool:
    """Whether the task of a room that calls this has ended the room, and is not to go on."""
    slot = _OWN.get()
    return slot is not None and (slot.spared or slot.ending)


class RoomTasks:
    """The tasks of one room.

    Args:
        hooks: The registered functions.
        room: The handle of the room, which they get.
        run: Starts a task.
        report: Called with the exception of a task, and where it was raised.
        patience: How many seconds a task may go on after it has emptied its own room.
    """

    __slots__ = ("_patience", "_report", "_room", "_run", "_slots", "_started", "_suspended")

    def __init__(
        self,
        hooks: Sequence[Hook],
        room: Any,
        run: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        report: Callable[[BaseException, Any, str], None],
        patience: float,
    ) -> None:
        self._slots = [_Slot(hook) for hook in hooks]
        self._room = room
        self._run = run
        self._report = report
        self._patience = patience
        self._started = self._suspended = False

    @property
    def running(self) -> list[asyncio.Task[Any]]:
        """The tasks that have not ended."""
        return [slot.task for slot in self._slots if slot.task is not None]

    def start(self) -> None:
        """Start those that do not run: at the first join, and after a failure.

        A task of the room's last life may still be ending. The next one starts after it.
        """
        self._started = True
        if self._suspended:
            return
        for slot in self._slots:
            if slot.task is not None:
                slot.again = slot.ending
            elif not slot.finished:
                self._begin(slot)

    def suspend(self) -> None:
        """Cancel those that run, until `resume`: another node may be the home of the room."""
        self._suspended = True
        for slot in self._slots:
            slot.again = False
            if slot.task is not None and not slot.ending:
                slot.ending = True
                slot.task.cancel()

    def resume(self) -> None:
        """Start those again that `suspend` has cancelled."""
        if self._suspended:
            self._suspended = False
            if self._started:
                self.start()

    def spare_current(self) -> None:
        """Let the task that calls this go on for some seconds when the room ends."""
        for slot in self._slots:
            slot.spared |= _OWN.get() is slot and slot.task is not None

    def end(self) -> None:
        """Cancel all tasks, because the room is empty.

        The task that has made the last member leave is not cancelled at once: it may
        still have to save a result. It has some seconds to end.
        """
        self._started = False
        for slot in self._slots:
            slot.finished = slot.again = False
            if slot.task is None or slot.ending:
                continue
            slot.ending = True
            if slot.spared or _OWN.get() is slot:
                loop = asyncio.get_running_loop()
                slot.timer = loop.call_later(self._patience, slot.task.cancel)
            else:
                slot.task.cancel()

    def _begin(self, slot: _Slot) -> None:
        slot.task = task = self._run(self._live(slot))
        # A callback, because a task that is cancelled before its first step runs no code.
        task.add_done_callback(lambda _: self._ended(slot))

    async def _live(self, slot: _Slot) -> None:
        _OWN.set(slot)
        try:
            await slot.hook(None, self._room)
            slot.finished = not slot.ending
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and slot.ending:
                raise
            self._report(error, None, f"task of room {self._room.name!r}")

    def _ended(self, slot: _Slot) -> None:
        if slot.timer is not None:
            slot.timer.cancel()
        slot.task = slot.timer = None
        slot.ending = slot.spared = False
        if slot.again:
            slot.again = False
            self._begin(slot)
