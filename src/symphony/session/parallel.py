"""Runs several handlers of one socket at once, for routes with `concurrency=`.

A `Parallel` replaces the `Lane`. Each message gets a separate task with a copy
of the socket's context. This costs about 2 us more per message than a lane.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any

from symphony.session.contracts import LaneReports
from symphony.session.waiting import Waiting
from symphony.tasks import start

__all__ = ("Parallel",)


class Parallel:
    """Run up to *concurrency* handlers of one socket at once.

    Messages are started in order, but their handlers may finish in any order.

    Args:
        loop: The event loop of the socket.
        context: The context of the socket. Each handler gets a copy.
        reports: Called with what becomes of the messages.
        queue: Holds the messages that wait. When it is full, `reports.full` is called.
        concurrency: How many handlers may run at once.
        watched: Wraps a coroutine, to log a warning if it blocks the event loop.

    Attributes:
        is_full: The last argument of *full*.
        queue: The messages that wait.
    """

    __slots__ = (
        "_call",
        "_concurrency",
        "_context",
        "_deadline",
        "_done",
        "_ended",
        "_ending",
        "_failed",
        "_full",
        "_is_async",
        "_loop",
        "_running",
        "_socket",
        "_watched",
        "is_full",
        "queue",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        reports: LaneReports,
        *,
        queue: Waiting,
        concurrency: int,
        watched: Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]],
    ) -> None:
        self._loop = loop
        self._context = context
        self._done, self._failed, self._full = reports
        self.queue = queue
        self._concurrency = concurrency
        self._watched = watched
        self._call: Callable[[Any, Any], Any] | None = None
        self._socket: Any = None
        self._is_async = True
        self._running: dict[asyncio.Task[None], Any] = {}
        self._ending = False
        self._ended: asyncio.Future[None] = loop.create_future()
        self._deadline: asyncio.TimerHandle | None = None
        self.is_full = False

    def deliver(self, message: Any) -> None:
        """Start the handler of *message* now if there is a free place; otherwise queue it."""
        if self.is_idle:
            self._start(message)
            return
        self.queue.add(message)
        if self.queue.is_full and not self.is_full:
            self.is_full = True
            self._full(True)

    async def serve(self, call: Callable[[Any, Any], Any], socket: Any, *, is_async: bool) -> None:
        """Handle messages until `end`.

        Args:
            call: Called with *socket* and a message. If *is_async* is true it
                returns a coroutine, otherwise the result.
            socket: The socket.
            is_async: Whether *call* returns a coroutine.
        """
        self._call, self._socket, self._is_async = call, socket, is_async
        try:
            self._go_on()
            await asyncio.shield(self._ended)
        finally:
            self._call = self._socket = None
            self.queue.close()
            if self._deadline is not None:
                self._deadline.cancel()

    def end(self, *, timeout: float) -> None:
        """Let `serve` return when all messages are handled; call `cancel` after *timeout* seconds."""
        self._ending = True
        self._go_on()
        if self._deadline is None and not self._ended.done():
            self._deadline = self._loop.call_later(timeout, self.cancel)

    def cancel(self) -> None:
        """Cancel the running handlers and drop the queued messages."""
        self._ending = True
        if dropped := self.queue.clear():
            self._failed(
                None, TimeoutError(f"{dropped} messages were dropped after handlers that did not end")
            )
        for task in tuple(self._running):
            task.cancel()
        self._go_on()

    def drop(self) -> int:
        """Drop the queued messages, and return how many these were."""
        dropped = self.queue.clear()
        self._go_on()
        return dropped

    @property
    def is_idle(self) -> bool:
        """Whether the next message is handled at once."""
        return self._call is not None and len(self._running) < self._concurrency

    def recent(self) -> tuple[int, Any]:
        """Return how many messages are handled in this step of the loop, and the last of them."""
        task: Any = asyncio.current_task(self._loop)
        return 1, self._running.get(task)

    def withdraw(self, message: Any) -> bool:
        """Withdraw a message that was delivered and is not handled yet.

        A queued message is dropped. If its handler runs already, the handler is
        cancelled, and `failed` or `done` is called when it ends.

        Returns:
            Whether its handler was running.
        """
        for task, handled in self._running.items():
            if handled is message:
                task.cancel()
                return True
        if self.queue.remove(message):
            self._go_on()
        return False

    def _start(self, message: Any) -> None:
        task = start(self._run(message), self._context.copy())
        self._running[task] = message
        task.add_done_callback(self._finished)

    async def _run(self, message: Any) -> None:
        await self._watched(self._handle(message))

    async def _handle(self, message: Any) -> None:
        assert self._call is not None
        try:
            result = self._call(self._socket, message)
            pressure = self._done(message, await result if self._is_async else result)
        except BaseException as error:
            pressure = self._failed(message, error)
        if pressure is not None:
            with suppress(asyncio.CancelledError):
                await pressure

    def _finished(self, task: asyncio.Task[None]) -> None:
        message = self._running.pop(task)
        if task.cancelled():
            # Cancelled before its first step, so `_handle` has not reported it.
            self._failed(message, asyncio.CancelledError())
        elif (error := task.exception()) is not None and not self._ended.done():
            # Not from the handler: what reports its result has failed. A future cannot
            # carry every exception.
            failed = RuntimeError("the result of a handler could not be reported")
            failed.__cause__ = error
            self._ended.set_exception(failed)
        self._go_on()

    def _go_on(self) -> None:
        while self.queue and self.is_idle:
            self._start(self.queue.take())
        if self.is_full and self.queue.has_room:
            self.is_full = False
            self._full(False)
        if self._ending and not self._running and not self.queue and not self._ended.done():
            self._ended.set_result(None)
