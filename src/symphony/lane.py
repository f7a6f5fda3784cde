"""Hot path, step 2 of 4: the handlers of one socket, one after the other.

Spawning a task for each message costs 1.9-2.5 us, stepping its coroutine at
once 0.2. So each socket has one task, asleep, and a message's handler is
stepped right in the transport's callback with that task entered as current
("Extending asyncio" in the asyncio documentation). Most handlers finish in
that step. One that suspends is handed to the task, which drives it to its
end; messages that come meanwhile wait in a queue.

The context is the socket's: what one message sets in a context variable, the
next one sees.
"""

from __future__ import annotations

import asyncio
from asyncio import _enter_task as enter_task  # pyright: ignore[reportPrivateUsage]
from asyncio import _leave_task as leave_task  # pyright: ignore[reportPrivateUsage]
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any

__all__ = ("Lane",)

Call = Callable[[Any], Any]
"""Makes a coroutine from a message, or handles it and gives the result."""


class Lane:
    """Run the handlers of one socket in the order of its messages.

    Args:
        loop: The loop of the socket.
        context: The context that all handlers of the socket share.
        done: Called with the result of a handler that gave one.
        failed: Called with what a handler raised.
        full: Called with `True` when the queue is full, with `False` when
            there is room again.
        max_queue: How many messages may wait before *full* is called.
    """

    __slots__ = (
        "_asleep",
        "_call",
        "_context_run",
        "_done",
        "_ending",
        "_failed",
        "_full",
        "_handed",
        "_idle",
        "_is_async",
        "_is_full",
        "_loop",
        "_max_queue",
        "_queue",
        "_task",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        *,
        done: Callable[[Any], None],
        failed: Callable[[BaseException], None],
        full: Callable[[bool], None],
        max_queue: int,
    ) -> None:
        self._loop = loop
        self._context_run = context.run
        self._done = done
        self._failed = failed
        self._full = full
        self._max_queue = max_queue
        self._queue: deque[Any] | None = None
        self._idle = False
        self._ending = False
        self._is_full = False
        self._handed: tuple[Coroutine[Any, Any, Any], Any] | None = None
        self._asleep: asyncio.Future[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._call: Call = _nothing
        self._is_async = False

    def deliver(self, message: Any) -> None:
        """Handle *message* now if nothing is under way, else after what is."""
        if not self._idle:
            return self._enqueue(message)
        loop, task = self._loop, self._task
        try:
            enter_task(loop, task)  # pyright: ignore[reportArgumentType]
        except RuntimeError:
            # Another task is current: tasks are never swapped, the message
            # waits for the socket's own task, one turn of the loop later.
            return self._enqueue(message)
        coroutine = awaited = result = None
        try:
            if self._is_async:
                coroutine = self._call(message)
                awaited = self._context_run(coroutine.send, None)
            else:
                result = self._context_run(self._call, message)
        except StopIteration as stop:
            coroutine = None
            result = stop.value
        except BaseException as error:
            leave_task(loop, task)  # pyright: ignore[reportArgumentType]
            return self._stepped_badly(error)
        leave_task(loop, task)  # pyright: ignore[reportArgumentType]
        if task.cancelling():  # pyright: ignore[reportOptionalMemberAccess]
            self._idle = False
        if coroutine is not None:
            return self._hand_over(coroutine, awaited)
        if result is not None:
            self._done(result)
        return None

    async def serve(self, call: Call, *, is_async: bool) -> None:
        """Handle messages until `end`; runs in the socket's own task.

        Args:
            call: Makes a coroutine from a message, or with *is_async* false
                handles it and gives the result.
            is_async: Which of the two.
        """
        self._task = asyncio.current_task()
        self._call, self._is_async = call, is_async
        while True:
            if self._handed is not None:
                (coroutine, awaited), self._handed = self._handed, None
                await self._finish(_Resumed(coroutine, awaited))
            elif self._queue:
                message = self._queue.popleft()
                if self._is_full and len(self._queue) <= self._max_queue // 2:
                    self._is_full = False
                    self._full(False)
                await self._finish(self._handle(message))
            elif self._ending:
                return
            else:
                await self._sleep()

    def end(self, *, timeout: float) -> None:
        """Let `serve` return when all messages are handled.

        After *timeout* seconds a handler that still runs is cancelled and the
        messages behind it are dropped; each is reported to `failed`.
        """
        self._ending = True
        if self._idle:
            self._wake()
        else:
            self._loop.call_later(timeout, self._cancel)

    @property
    def is_full(self) -> bool:
        """Whether the queue is full, as `full` was last told."""
        return self._is_full

    def _enqueue(self, message: Any) -> None:
        if self._queue is None:
            self._queue = deque()
        self._queue.append(message)
        if len(self._queue) >= self._max_queue and not self._is_full:
            self._is_full = True
            self._full(True)
        if self._idle:
            self._wake()

    def _hand_over(self, coroutine: Coroutine[Any, Any, Any], awaited: Any) -> None:
        # The future was marked as being awaited; the task sets the mark again
        # just before it yields it, else asyncio refuses it.
        if awaited is not None:
            awaited._asyncio_future_blocking = False
        self._handed = (coroutine, awaited)
        self._wake()

    def _stepped_badly(self, error: BaseException) -> None:
        if self._task is not None and self._task.cancelling():
            self._idle = False
        self._failed(error)

    async def _handle(self, message: Any) -> Any:
        result = self._call(message)
        return await result if self._is_async else result

    async def _finish(self, handling: Any) -> None:
        try:
            result = await handling
        except BaseException as error:
            self._forgive()
            self._failed(error)
        else:
            if result is not None:
                self._done(result)

    async def _sleep(self) -> None:
        self._asleep = self._loop.create_future()
        self._idle = True
        try:
            await self._asleep
        except asyncio.CancelledError as error:
            if self._handed is not None:
                (coroutine, awaited), self._handed = self._handed, None
                await self._finish(_Resumed(coroutine, awaited, error))
            elif self._idle:
                # Nobody's handler was at work: the loop is being torn down.
                raise
            else:
                # A handler cancelled the task it ran in, and then finished.
                self._forgive()
        finally:
            self._idle = False
            self._asleep = None

    def _wake(self) -> None:
        self._idle = False
        if self._asleep is not None and not self._asleep.done():
            self._asleep.set_result(None)

    def _cancel(self) -> None:
        if self._task is None or self._task.done():
            return
        dropped = len(self._queue or ())
        if self._queue:
            self._queue.clear()
        self._task.cancel()
        if dropped:
            self._failed(TimeoutError(f"{dropped} messages were dropped behind a handler that did not end"))

    def _forgive(self) -> None:
        while self._task is not None and self._task.cancelling():
            self._task.uncancel()


class _Resumed:
    """Await a coroutine that has taken its first step elsewhere.

    Args:
        coroutine: Suspended on *awaited*.
        awaited: The future it yielded, or `None` for a bare yield.
        error: The cancellation that came before the task took over.
    """

    __slots__ = ("_awaited", "_coroutine", "_error")

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], awaited: Any, error: BaseException | None = None
    ) -> None:
        self._coroutine = coroutine
        self._awaited = awaited
        self._error = error

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, awaited, error = self._coroutine, self._awaited, self._error
        if awaited is not None:
            awaited._asyncio_future_blocking = True
            # As asyncio does: cancel what is awaited, which then brings the
            # cancellation to the coroutine.
            if error is not None and awaited.cancel():
                error = None
        try:
            while True:
                if error is None:
                    try:
                        value = yield awaited
                    except BaseException as thrown:
                        error = thrown
                        continue
                    awaited = coroutine.send(value)
                else:
                    thrown, error = error, None
                    awaited = coroutine.throw(thrown)
        except StopIteration as stop:
            return stop.value


def _nothing(message: Any) -> None:
    """Stand in until `serve` names the call."""
