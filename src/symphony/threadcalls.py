"""Calls of other threads: the event loop runs them, and a future has their results."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from symphony.errors import QueueFullError, WrongThreadError
from symphony.limits import Limits

if TYPE_CHECKING:
    from symphony.rooms.target import RoomTable

__all__ = ("CallingNode", "ThreadCall", "ThreadCalls", "snapshot")

T = TypeVar("T")

# What nothing can change.
_CONSTANT: Final = (str, bytes, int, float, bool, type(None))


class CallingNode(Protocol):
    """What calls need of a running app."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the app."""
        ...

    @property
    def limits(self) -> Limits:
        """The limits of the app."""
        ...

    @property
    def rooms(self) -> RoomTable:
        """The rooms."""
        ...

    def report(self, error: BaseException, socket: Any, where: str) -> None:
        """Log an error, and hand it to the app's error handlers."""
        ...


class ThreadCall(Future[T], Generic[T]):
    """The result of a call that another thread has made: a `concurrent.futures.Future`.

    If the call fails and nothing asks for its result, the error is logged, and handed to
    `on_error`. `cancel` takes the call back if it has not begun. Otherwise its task is
    cancelled: what was sent stays sent.
    """

    def __init__(self, node: CallingNode, where: str, timeout: float) -> None:
        super().__init__()
        self._node = node
        self._where = where
        self._timeout = timeout
        self._is_asked = False
        self._task: asyncio.Task[Any] | None = None

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result, and return it.

        Args:
            timeout: How many seconds to wait. `None`: `Limits.thread_timeout`, and the
                time that the call itself may take.

        Raises:
            TimeoutError: It was not there in time: the event loop is blocked, or the
                client does not read. The call is cancelled, unless *timeout* is given.
            RuntimeError: The app has stopped meanwhile.
            Exception: What the call has raised.
        """
        self._is_asked = True
        if timeout is not None:
            return super().result(timeout)
        self._refuse_in_loop()
        try:
            return super().result(self._timeout)
        except TimeoutError:
            # It may have raised that itself, or have ended just now.
            if not self.cancel():
                return super().result()
            raise TimeoutError(
                f"{self._where} did not finish within {self._timeout:g} s: the event loop is blocked, "
                "or the client does not read."
            ) from None

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end of the call, and return what it has raised, if it has."""
        self._is_asked = True
        return super().exception(timeout)

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call a function with this future when the call has ended, in the thread of the event loop."""
        self._is_asked = True
        super().add_done_callback(fn)

    def cancel(self) -> bool:
        """Cancel the call, unless it has ended; return whether it is cancelled."""
        cancelled = super().cancel()
        if cancelled:
            with suppress(RuntimeError):
                self._node.loop.call_soon_threadsafe(self._cancel_task)
        return cancelled

    def begin(self, call: Callable[[], Awaitable[T]]) -> None:
        """Run the call, unless it was cancelled; in the thread of the event loop."""
        if self.cancelled():
            return

        async def run() -> T:
            return await call()

        self._task = asyncio.ensure_future(run())
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[T]) -> None:
        self._task = None
        if self.cancelled():
            if not task.cancelled():
                task.exception()
            return
        # It may be cancelled in this moment.
        with suppress(InvalidStateError):
            if task.cancelled():
                self.set_exception(RuntimeError(f"{self._where}: the app stopped before it was done."))
            elif (error := task.exception()) is not None:
                self.set_exception(error)
            else:
                self.set_result(task.result())

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _refuse_in_loop(self) -> None:
        if not self.done() and _runs_here(self._node):
            raise WrongThreadError(
                f"The result of {self._where} was waited for in the event loop's own thread, which would "
                "wait forever. Use await asyncio.wrap_future(…) there."
            )

    def __del__(self) -> None:
        if self._is_asked or not self.done() or self.cancelled():
            return
        error = super().exception(0)
        if error is not None:
            with suppress(RuntimeError):
                self._node.loop.call_soon_threadsafe(self._node.report, error, None, self._where)


class ThreadCalls:
    """The calls of other threads that have not ended.

    Args:
        node: Returns the running app; raises `RuntimeError` if it is not running.
    """

    def __init__(self, node: Callable[[], CallingNode]) -> None:
        self._node = node
        self._lock = Lock()
        self._count = 0

    def submit(self, call: Callable[[], Awaitable[T]], where: str, *, extra: float = 0.0) -> ThreadCall[T]:
        """Let the event loop run a call, after all earlier ones of this thread.

        Args:
            call: Called in the event loop's thread.
            where: What it is, for errors.
            extra: How many seconds it may take, beyond `Limits.thread_timeout`.

        Raises:
            WrongThreadError: This is the event loop's own thread.
            RuntimeError: The app is not running.
            QueueFullError: As many calls as `Limits.max_thread_calls` have not ended.
        """
        node = self._node()
        if _runs_here(node):
            raise WrongThreadError(
                f"{where} was called in the event loop's own thread, where it would wait forever. "
                f"Use {where.replace('app.threadsafe', 'app', 1)} there."
            )
        with self._lock:
            if self._count >= node.limits.max_thread_calls:
                raise QueueFullError(
                    f"{where}: {self._count} calls of other threads have not ended. The event loop is "
                    "busy, or they come too fast: wait for the results."
                )
            self._count += 1
        result = ThreadCall[T](node, where, node.limits.thread_timeout + extra)
        # Not its own method, which notes that the result is asked for.
        super(ThreadCall, result).add_done_callback(self._ended)
        try:
            node.loop.call_soon_threadsafe(result.begin, call)
        except RuntimeError:
            result.cancel()
            raise RuntimeError(f"{where}: the app is not running, its event loop has ended.") from None
        return result

    def _ended(self, result: Future[Any]) -> None:
        with self._lock:
            self._count -= 1


def snapshot(data: object) -> object:
    """Return a copy of data, which its thread may change before the event loop has encoded it."""
    if isinstance(data, _CONSTANT):
        return data
    if isinstance(data, memoryview):
        return data.tobytes()
    try:
        return copy.deepcopy(data)
    except Exception:
        # It cannot be encoded either, and that error says more.
        return data


def _runs_here(node: CallingNode) -> bool:
    return node.rooms.thread == get_ident()
