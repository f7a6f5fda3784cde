"""The background tasks of one socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from symphony.complaints import MAX_FAILURES, Complaint
from symphony.errors import DisconnectedError

__all__ = ("BackgroundTasks", "check_coroutine")

_abandoned = Complaint(
    logging.getLogger("symphony.socket"),
    logging.ERROR,
    "%d background tasks of socket %s did not end and are abandoned.",
    most=MAX_FAILURES,
)


def check_coroutine(what: str, coroutine: object) -> None:
    """Refuse what cannot run in the background, such as what `socket.close()` returns.

    Raises:
        TypeError: It is not a coroutine.
    """
    if not asyncio.iscoroutine(coroutine):
        raise TypeError(
            f"{what}() takes a coroutine, such as work() of an `async def work`, not "
            f"{type(coroutine).__name__}. "
            "`send`, `emit` and `close` begin when you call them, and need no background task."
        )


class BackgroundTasks:
    """Tasks that run at most as long as their socket.

    Args:
        start: Starts a task whose exception is reported.
        limit: How many may run at once.
        name: The id of the socket, for errors.
    """

    __slots__ = ("_limit", "_name", "_start", "_tasks")

    def __init__(
        self, start: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]], limit: int, name: str
    ) -> None:
        self._start = start
        self._limit = limit
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self, coroutine: Coroutine[Any, Any, Any], *, is_over: bool) -> asyncio.Task[Any]:
        """Run a coroutine.

        Raises:
            TypeError: It is not a coroutine.
            DisconnectedError: The socket has gone.
            RuntimeError: Too many of its tasks run.
        """
        check_coroutine("socket.background", coroutine)
        if is_over or len(self._tasks) >= self._limit:
            coroutine.close()
            why = "it is closed" if is_over else f"{self._limit} of its tasks run already"
            error = DisconnectedError if is_over else RuntimeError
            raise error(f"Socket {self._name} takes no background task: {why}.")
        task = self._start(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def end(self, timeout: float) -> None:
        """Cancel all of them, and return when they have ended, or after *timeout* seconds."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            if late:
                _abandoned.log(len(late), self._name)
