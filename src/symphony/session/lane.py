"""Hot path, step 2 of 5: runs the handlers of one socket, one after the other.

Creating a task for each message costs 1.9-2.5 us. Stepping the coroutine of the
handler directly costs 0.2 us. So each socket has one task, which normally
sleeps. When a message arrives, the callback of the transport runs the first
step of the handler. During that step the socket's task is the current task
(see "Extending asyncio" in the asyncio documentation).

Most handlers finish in the first step. If a handler suspends, the socket's task
runs it to the end, and later messages wait in a queue.

All handlers of a socket share one context: if one sets a context variable, the
next one sees it.
"""

from __future__ import annotations

import asyncio
from asyncio import _enter_task as enter_task  # pyright: ignore[reportPrivateUsage]
from asyncio import _leave_task as leave_task  # pyright: ignore[reportPrivateUsage]
from collections.abc import Callable, Generator
from contextvars import Context
from time import monotonic
from types import coroutine
from typing import Any, Final, cast

from symphony.session.cancelling import recover, relieved
from symphony.session.contracts import LaneReports
from symphony.session.waiting import Waiting

__all__ = ("Lane",)

Call = Callable[[Any, Any], Any]
"""Called with socket and message; returns a coroutine, or the result of a plain function."""
Driver = Generator[Any, Any, None]

_IDLE: Final = object()
_MARK: Final = "_asyncio_future_blocking"


class Lane:
    """Run the handlers of one socket in the order of its messages.

    Args:
        loop: The event loop of the socket.
        context: The context that all handlers of the socket share.
        reports: Called with what becomes of the messages.
        queue: Holds the messages that wait. When it is full, `reports.full` is called.
        max_turn_time: After how many seconds of queued messages the event loop
            may turn.

    Attributes:
        is_full: The last argument of *full*.
        is_idle: Whether the next message is handled at once.
        queue: The messages that wait.
    """

    __slots__ = (
        "_asleep",
        "_context",
        "_current",
        "_deadline",
        "_done",
        "_ending",
        "_failed",
        "_full",
        "_handed",
        "_in_step",
        "_latest",
        "_loop",
        "_max_turn_time",
        "_over",
        "_run",
        "_send",
        "_step_began",
        "_task",
        "is_full",
        "is_idle",
        "queue",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        reports: LaneReports,
        *,
        queue: Waiting,
        max_turn_time: float = 0.005,
    ) -> None:
        self._loop = loop
        self._context = context
        self._done, self._failed, self._full = reports
        self.queue = queue
        self._max_turn_time = max_turn_time
        self.is_idle = False
        self._ending = False
        self._over = False
        self.is_full = False
        self._deadline: asyncio.TimerHandle | None = None
        self._current: Any = None
        self._handed: tuple[Any] | None = None
        # For a warning about a step that took long; see `recent`.
        self._in_step = 0
        self._step_began = 0.0
        self._latest: Any = None
        self._asleep: asyncio.Future[None] | None = None
        # Set by `serve`. Nothing reads them before `serve` has made the lane idle.
        self._task: Any = None
        self._run: Any = None
        self._send: Any = None

    def deliver(self, message: Any) -> None:
        """Handle *message* now if the lane is idle; otherwise queue it."""
        if not self.is_idle:
            return self._enqueue(message)
        loop, task = self._loop, self._task
        try:
            enter_task(loop, task)
        except RuntimeError:
            # Another task is current, and tasks are never swapped. The socket's task
            # handles the message, one turn of the loop later.
            return self._enqueue(message)
        try:
            run = self._run
            awaited = run(self._send, message)
        except BaseException as error:
            # Not from the handler: what reports its result has failed.
            self._fail(error)
            return None
        finally:
            leave_task(loop, task)
        if awaited is not _IDLE:
            self._current = message
            self._hand_over(awaited)
        elif task.cancelling():
            # The handler cancelled its own task and then finished. The task wakes up
            # because of that. Until then, no other handler may run in it.
            self.is_idle = False
        return None

    async def serve(self, call: Call, socket: Any, *, is_async: bool) -> None:
        """Handle messages until `end`; runs in the socket's own task.

        Args:
            call: Called with *socket* and a message. If *is_async* is true it
                returns a coroutine, otherwise the result.
            socket: The socket.
            is_async: Whether *call* returns a coroutine.
        """
        self._task = task = cast("asyncio.Task[Any]", asyncio.current_task())
        driver = cast("Driver", self._drive(call, socket)) if is_async else self._drive_plain(call, socket)
        driver.send(None)
        self._run, self._send = self._context.run, driver.send
        try:
            await self._take_turns(driver, task)
        finally:
            # Lane and driver refer to each other. Without this, a closed socket would
            # stay in memory until the garbage collector runs.
            self._over = True
            driver.close()
            self.queue.close()

    async def _take_turns(self, driver: Driver, task: asyncio.Task[Any]) -> None:
        while True:
            if self._handed is not None:
                (awaited,), self._handed = self._handed, None
                self._latest = self._current
                work = _until_idle(self, driver, awaited)
                # A future holds the exception that it raises, and that the frames it went
                # through. From Python 3.12 on, this frame is one of them.
                del awaited
                await work
                self._current = None
                self._in_step += 1
            elif self.queue:
                # Nothing else runs until the task suspends, and most handlers never do.
                if not self._step_began:
                    self._step_began = monotonic()
                elif monotonic() - self._step_began > self._max_turn_time:
                    await self._yield(task)
                    continue
                self._current = self._latest = message = self.queue.take()
                self._make_room()
                await _until_idle(self, driver, driver.send(message))
                self._current = message = None
                self._in_step += 1
            elif self._ending:
                if self._deadline is not None:
                    self._deadline.cancel()
                return
            else:
                await self._sleep(driver)
            if task.cancelling():
                await recover(task)

    def end(self, *, timeout: float) -> None:
        """Let `serve` return when all messages are handled.

        After *timeout* seconds, a handler that still runs is cancelled and the
        queued messages are dropped. Both are reported to `failed`.
        """
        self._ending = True
        if self.is_idle:
            self._wake()
        elif self._deadline is None:
            self._deadline = self._loop.call_later(timeout, self.cancel)

    def cancel(self) -> None:
        """Cancel the running handler and drop the queued messages."""
        self._ending = True
        if self.is_idle:
            self._wake()
            return
        if dropped := self.queue.clear():
            self._failed(
                None, TimeoutError(f"{dropped} messages were dropped after a handler that did not end")
            )
        self._task.cancel()

    def drop(self) -> int:
        """Drop the queued messages, and return how many these were."""
        dropped = self.queue.clear()
        self._make_room()
        return dropped

    def recent(self) -> tuple[int, Any]:
        """Return how many messages the task has handled in this step of the loop, and the last of them."""
        return self._in_step + (self._current is not None), self._latest

    def withdraw(self, message: Any) -> bool:
        """Withdraw a message that was delivered and is not handled yet.

        A queued message is dropped. If its handler runs already, the handler is
        cancelled, and `failed` or `done` is called when it ends.

        Returns:
            Whether its handler was running.
        """
        if message is self._current:
            self._task.cancel()
            return True
        if self.queue.remove(message):
            self._make_room()
        return False

    @coroutine
    def _drive(self, call: Call, socket: Any) -> Driver:
        """Run the handler for each message that is sent in; yield `_IDLE` between them.

        Every coroutine that is stepped directly ends with an exception,
        `StopIteration`. Inside a generator, no exception has to be raised and
        caught: 220 ns per message instead of 550.

        Here and elsewhere on the hot path, a callable in a slot is assigned to
        a local name before it is called. Python 3.11 looks up `self.slot(…)` as
        a method, in every base class, which costs 30 ns.
        """
        while True:
            message = yield _IDLE
            try:
                result = yield from call(socket, message)  # pyright: ignore[reportUnknownVariableType]
                done = self._done
                pressure = done(message, result)
            except BaseException as error:
                if self._over and isinstance(error, GeneratorExit):
                    # From `serve`, which closes this generator.
                    raise
                pressure = self._failed(message, error)
            # While the lane is idle, this frame must not keep the last message in memory.
            message = result = None
            if pressure is not None:
                yield from relieved(pressure)

    def _drive_plain(self, call: Call, socket: Any) -> Driver:
        """Do the same for plain functions."""
        while True:
            message = yield _IDLE
            try:
                result = call(socket, message)
                done = self._done
                pressure = done(message, result)
            except BaseException as error:
                pressure = self._failed(message, error)
            message = result = None
            if pressure is not None:
                yield from relieved(pressure)

    def _enqueue(self, message: Any) -> None:
        queue = self.queue
        queue.add(message)
        if queue.is_full and not self.is_full:
            self.is_full = True
            self._full(True)
        if self.is_idle:
            self._wake()

    def _make_room(self) -> None:
        if self.is_full and self.queue.has_room:
            self.is_full = False
            self._full(False)

    def _hand_over(self, awaited: Any) -> None:
        # Remove the mark that says that the future is being awaited. It is set again
        # just before the task yields the future, because asyncio requires it there.
        if getattr(awaited, _MARK, None):
            awaited._asyncio_future_blocking = False
        self._handed = (awaited,)
        self._wake()

    async def _sleep(self, driver: Driver) -> None:
        self._asleep = self._loop.create_future()
        self.is_idle = True
        if self._latest is not None:
            # Who measures this step asks for it when the step ends. An idle lane then frees it.
            self._loop.call_soon(self._free_latest)
        try:
            await self._asleep
        except asyncio.CancelledError as error:
            if self._handed is not None:
                (awaited,), self._handed = self._handed, None
                await _until_idle(self, driver, awaited, error)
                self._current = None
            elif self.is_idle and self._task.cancelling():
                # No handler was running, so the event loop is shutting down. (A handler
                # that cancels its task may have uncancelled it at once.)
                raise
        finally:
            self.is_idle = False
            self._asleep = self._latest = None
            self._in_step, self._step_began = 0, 0.0

    def _free_latest(self) -> None:
        if self.is_idle:
            self._latest = None

    async def _yield(self, task: asyncio.Task[Any]) -> None:
        """Let the event loop turn between two queued messages."""
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            # As in `_sleep`: no handler was running. `cancel` has emptied the queue.
            if not self._ending:
                raise
            await recover(task)
        finally:
            # Only now: `recent` is about the step that has just ended.
            self._in_step, self._step_began, self._latest = 0, 0.0, None

    def _fail(self, error: BaseException) -> None:
        """Let `serve` raise *error*."""
        self.is_idle = False
        if self._asleep is not None and not self._asleep.done():
            # A future cannot carry every exception.
            failed = RuntimeError("the result of a handler could not be reported")
            failed.__cause__ = error
            self._asleep.set_exception(failed)

    def _wake(self) -> None:
        self.is_idle = False
        if self._asleep is not None and not self._asleep.done():
            self._asleep.set_result(None)


@coroutine
def _until_idle(
    lane: Lane, driver: Driver, awaited: Any, error: BaseException | None = None
) -> Generator[Any, Any, None]:
    """Let the current task await what the driver yields, until the driver is idle.

    Args:
        lane: The lane of the driver. A new step of the loop begins with each value.
        driver: A suspended driver.
        awaited: The last object that it yielded.
        error: A cancellation that arrived before the task took over.
    """
    if awaited is not None and hasattr(awaited, _MARK):
        awaited._asyncio_future_blocking = True
        # As in asyncio: cancel the awaited future, which then passes the cancellation
        # on to the handler.
        if error is not None and awaited.cancel(*error.args):
            error = None
    while awaited is not _IDLE:
        if error is not None:
            try:
                awaited = driver.throw(error)
            finally:
                # An exception in a local variable of a frame of its own traceback is a
                # reference cycle, which would keep the socket alive too.
                error = None
            continue
        try:
            value = yield awaited
            lane._in_step, lane._step_began = 0, 0.0  # pyright: ignore[reportPrivateUsage]
        except BaseException as thrown:
            error = thrown
        else:
            awaited = driver.send(value)
