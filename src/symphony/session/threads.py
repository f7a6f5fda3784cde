"""Runs handlers in threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import aclosing
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final, NamedTuple

from symphony.complaints import MAX_FAILURES, Complaint
from symphony.routing.threads import Wait
from symphony.tasks import start

__all__ = ("run_in_thread",)

_failed_late = Complaint(
    logging.getLogger("symphony.app"),
    logging.ERROR,
    "A handler in a thread failed after its call was cancelled.",
    most=MAX_FAILURES,
)

_Outcome = tuple[Any, BaseException | None]

# The event loop holds only weak references to tasks.
_closing: Final[set[asyncio.Task[Any]]] = set()


async def run_in_thread(work: Callable[[Wait], Any]) -> Any:
    """Run a function in a thread, and return its result.

    Cancelled, it does not wait for the thread, which cannot be interrupted: that goes on. Its
    next `wait` raises `CancelledError`, unless it closes something. What the function raises
    then is logged.

    Args:
        work: Called in the thread with a function `wait`. What it passes to `wait` is awaited
            here, in the calling task, so that what is opened and closed that way is opened and
            closed in one task. Only what is closed after a cancellation is closed in another.
            If it passes a generator to `wait.stream`, this returns a generator of the same
            items, which has been started, and the thread lives until that one has ended.
    """
    call = _ThreadCall()
    call.start(work)
    try:
        stream = await call.answer()
    except BaseException:
        call.end()
        raise
    if stream is None:
        call.end()
        return call.result()
    items = call.keep(*stream)
    # A generator that was never started closes nothing.
    await anext(items)
    return items


class _Question(NamedTuple):
    """What the thread wants to be awaited."""

    coroutine: Coroutine[Any, Any, Any]
    answer: Future[Any]
    closes: bool


class _Stream(NamedTuple):
    """A generator that the thread waits for."""

    items: AsyncGenerator[Any]
    ended: Future[None]


class _ThreadCall:
    """One call of a function in a thread. What the thread asks is answered in the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = _own_context()
        self._asked: asyncio.Queue[_Question | _Stream | None] = asyncio.Queue()
        # Not in the future of the executor: that one cannot carry a StopIteration, and forgets
        # what happened after it was cancelled. A list, because it is emptied: see below.
        self._outcome: list[_Outcome] = []
        self._is_over = False

    # In the thread

    def __call__(self, coroutine: Coroutine[Any, Any, Any], *, closes: bool = False) -> Any:
        answer: Future[Any] = Future()
        try:
            self._loop.call_soon_threadsafe(self._ask, _Question(coroutine, answer, closes))
        except RuntimeError:  # the loop is closed
            coroutine.close()
            raise
        try:
            return answer.result()
        finally:
            del answer  # see below

    def stream(self, items: AsyncGenerator[Any]) -> None:
        ended: Future[None] = Future()
        self._loop.call_soon_threadsafe(self._ask, _Stream(items, ended))
        try:
            ended.result()
        finally:
            del ended  # see below

    def _run(self, work: Callable[[Wait], Any]) -> None:
        try:
            self._outcome.append((work(self), None))
        except BaseException as error:
            self._outcome.append((None, error))
        try:
            self._loop.call_soon_threadsafe(self._ended)
        except RuntimeError:  # the loop is closed
            _report(self._outcome)

    # In the event loop

    def start(self, work: Callable[[Wait], Any]) -> None:
        """Start the thread."""
        self._thread = self._loop.run_in_executor(None, copy_context().run, partial(self._run, work))

    async def answer(self) -> _Stream | None:
        """Await what the thread asks for, until it has ended or waits for a generator."""
        while (question := await self._asked.get()) is not None:
            if isinstance(question, _Stream):
                return question
            coroutine, answer, _ = question
            try:
                answer.set_result(await coroutine)
            except BaseException as error:
                answer.set_exception(error)
            # An exception that is kept in a frame of its own traceback waits for the
            # garbage collector, and with it the socket.
            del question, coroutine, answer
        return None

    async def keep(self, items: AsyncGenerator[Any], ended: Future[None]) -> AsyncGenerator[Any]:
        """Yield `None`, then *items*; then let the thread go on, and wait until it has ended."""
        try:
            try:
                yield None
                async with aclosing(items):
                    async for item in items:
                        yield item
            except BaseException as error:
                # The thread raises it, and closes its dependencies with it.
                ended.set_exception(error)
            else:
                ended.set_result(None)
            del ended  # see above
            await self.answer()
            self.result()
        finally:
            self.end()

    def result(self) -> Any:
        """Return what the function has returned, or raise what it has raised."""
        value, error = self._outcome.pop()
        try:
            if error is not None:
                raise error
            return value
        finally:
            del error

    def end(self) -> None:
        """Answer nothing more, except to close what is open."""
        self._is_over = True
        self._thread.cancel()
        while not self._asked.empty():
            question = self._asked.get_nowait()
            if question is None:
                _report(self._outcome)
            else:
                self._ask(question)

    def _ask(self, question: _Question | _Stream) -> None:
        if not self._is_over:
            self._asked.put_nowait(question)
        elif isinstance(question, _Stream):
            question.ended.set_exception(asyncio.CancelledError())
        else:
            _answer_late(*question, self._context)

    def _ended(self) -> None:
        if self._is_over:
            _report(self._outcome)
        else:
            self._asked.put_nowait(None)


def _own_context() -> Context:
    """Return the context of the calling task, in which it may reset its variables; else a copy."""
    task: Any = asyncio.current_task()
    # Python 3.11 does not tell the context of a task.
    return task.get_context() if hasattr(task, "get_context") else copy_context()


def _answer_late(
    coroutine: Coroutine[Any, Any, Any], answer: Future[Any], closes: bool, context: Context
) -> None:
    """Answer a thread whose call was cancelled: it may close what is open, and open nothing."""
    if not closes:
        coroutine.close()
        answer.set_exception(asyncio.CancelledError())
        return
    task = start(coroutine, context)
    _closing.add(task)
    # A callback, because a task that is cancelled before its first step runs no code, and
    # the thread waits for an answer.
    task.add_done_callback(partial(_closed, answer))


def _closed(answer: Future[Any], task: asyncio.Task[Any]) -> None:
    _closing.discard(task)
    if task.cancelled():
        answer.set_exception(asyncio.CancelledError())
    elif (error := task.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(task.result())


def _report(outcome: list[_Outcome]) -> None:
    _, error = outcome.pop()
    if error is not None and not isinstance(error, asyncio.CancelledError):
        _failed_late.log(error=error)
