"""Runs handlers in threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final

from symphony.routing.threads import Wait

__all__ = ("run_in_thread",)

logger = logging.getLogger("symphony.app")

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
    """
    loop = asyncio.get_running_loop()
    asked: asyncio.Queue[tuple[Coroutine[Any, Any, Any], Future[Any], bool] | None] = asyncio.Queue()
    # Not in the future of the executor: that one cannot carry a StopIteration, and forgets
    # what happened after it was cancelled. A list, because it is emptied: see below.
    outcome: list[_Outcome] = []
    context = _own_context()
    is_over = False

    def ask(coroutine: Coroutine[Any, Any, Any], answer: Future[Any], closes: bool) -> None:
        if is_over:
            _answer_late(coroutine, answer, closes, context)
        else:
            asked.put_nowait((coroutine, answer, closes))

    def wait(coroutine: Coroutine[Any, Any, Any], *, closes: bool = False) -> Any:
        answer: Future[Any] = Future()
        try:
            loop.call_soon_threadsafe(ask, coroutine, answer, closes)
        except RuntimeError:  # the loop is closed
            coroutine.close()
            raise
        try:
            return answer.result()
        finally:
            del answer  # see below

    def ended() -> None:
        if is_over:
            _report(outcome)
        else:
            asked.put_nowait(None)

    def run() -> None:
        try:
            outcome.append((work(wait), None))
        except BaseException as error:
            outcome.append((None, error))
        try:
            loop.call_soon_threadsafe(ended)
        except RuntimeError:  # the loop is closed
            _report(outcome)

    thread = loop.run_in_executor(None, copy_context().run, run)
    try:
        while (question := await asked.get()) is not None:
            coroutine, answer, _ = question
            try:
                answer.set_result(await coroutine)
            except BaseException as error:
                answer.set_exception(error)
            # An exception that is kept in a frame of its own traceback waits for the
            # garbage collector, and with it the socket.
            del question, coroutine, answer
        return _result(outcome)
    finally:
        is_over = True
        thread.cancel()
        while not asked.empty():
            question = asked.get_nowait()
            if question is None:
                _report(outcome)
            else:
                _answer_late(*question, context)


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
    task = asyncio.get_running_loop().create_task(coroutine, context=context)
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


def _result(outcome: list[_Outcome]) -> Any:
    value, error = outcome.pop()
    try:
        if error is not None:
            raise error
        return value
    finally:
        del error


def _report(outcome: list[_Outcome]) -> None:
    _, error = outcome.pop()
    if error is not None and not isinstance(error, asyncio.CancelledError):
        logger.error("A handler in a thread failed after its call was cancelled.", exc_info=error)
