"""An event loop in a background thread, for the blocking client."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
from collections.abc import Awaitable, Callable
from threading import Thread, get_ident
from typing import TypeVar

from symphony.errors import WrongThreadError

__all__ = ("LoopThread",)

T = TypeVar("T")


class LoopThread:
    """Runs an event loop in a daemon thread; other threads call into it and wait.

    Args:
        where: The address of the server, for messages.
    """

    __slots__ = ("_loop", "_process", "_thread", "_where")

    def __init__(self, where: str) -> None:
        self._where = where
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, name=f"symphony {where}", daemon=True)
        self._thread.start()

    @property
    def forked(self) -> bool:
        """Whether this is a child process, in which the thread does not exist."""
        return os.getpid() != self._process

    def wait(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await the result of *call* in the event loop, and return it here.

        If waiting is interrupted, as by Ctrl+C, the call is cancelled.

        Raises:
            WrongThreadError: Called in a forked process, or in the loop's thread.
            RuntimeError: The loop has ended.
        """
        if self.forked:
            raise WrongThreadError(
                f"The client of {self._where} belongs to the process that forked this one. "
                "Connect a client in this process."
            )
        if get_ident() == self._thread.ident:
            raise WrongThreadError(
                f"The client of {self._where} was used in its own thread, where it would wait forever."
            )
        coroutine = _awaited(call)
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise self._ended() from None
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise self._ended() from None
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop and wait for its thread; in a forked process this does nothing."""
        if self.forked:
            return
        try:
            self._loop.call_soon_threadsafe(self._loop.stop)
        except RuntimeError:
            return
        if get_ident() != self._thread.ident:
            self._thread.join()

    def _ended(self) -> RuntimeError:
        return RuntimeError(f"The client of {self._where} was closed by another thread.")

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()


async def _awaited(call: Callable[[], Awaitable[T]]) -> T:
    return await call()
