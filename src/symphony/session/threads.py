"""Runs handlers in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any

__all__ = ("run_in_thread",)

Wait = Callable[[Coroutine[Any, Any, Any]], Any]


async def run_in_thread(work: Callable[[Wait], Any]) -> Any:
    """Run a function in a thread, and return its result.

    Cancelled, it does not wait for the thread, which cannot be interrupted: that goes on, and
    its next `wait` raises `CancelledError`.

    Args:
        work: Called in the thread with a function `wait`. What it passes to `wait` is awaited
            here, in the calling task, so that what is opened and closed that way is opened and
            closed in one task.
    """
    loop = asyncio.get_running_loop()
    asked: asyncio.Queue[tuple[Coroutine[Any, Any, Any], Future[Any]] | None] = asyncio.Queue()
    is_over = False

    def ask(coroutine: Coroutine[Any, Any, Any], answer: Future[Any]) -> None:
        if is_over:
            _refuse(coroutine, answer)
        else:
            asked.put_nowait((coroutine, answer))

    def wait(coroutine: Coroutine[Any, Any, Any]) -> Any:
        answer: Future[Any] = Future()
        try:
            loop.call_soon_threadsafe(ask, coroutine, answer)
        except RuntimeError:  # the loop is closed
            coroutine.close()
            raise
        try:
            return answer.result()
        finally:
            del answer  # see below

    run: Callable[..., Any] = copy_context().run
    thread = loop.run_in_executor(None, run, work, wait)
    thread.add_done_callback(lambda _: asked.put_nowait(None))
    try:
        while (question := await asked.get()) is not None:
            coroutine, answer = question
            try:
                answer.set_result(await coroutine)
            except BaseException as error:
                answer.set_exception(error)
            # An exception that is kept in a frame of its own traceback waits for the
            # garbage collector, and with it the socket.
            del question, coroutine, answer
        return thread.result()
    finally:
        is_over = True
        thread.cancel()
        del thread
        while not asked.empty():
            if (question := asked.get_nowait()) is not None:
                _refuse(*question)


def _refuse(coroutine: Coroutine[Any, Any, Any], answer: Future[Any]) -> None:
    coroutine.close()
    answer.set_exception(asyncio.CancelledError())
