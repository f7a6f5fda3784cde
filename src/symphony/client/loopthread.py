"""An event loop in a background thread, for the blocking client."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from threading import RLock, Thread, get_ident
from typing import Final, TypeVar

from symphony.errors import WrongThreadError

__all__ = ("LoopThread",)

logger = logging.getLogger("symphony.client")

T = TypeVar("T")

_STOP_TIMEOUT: Final = 5.0


class LoopThread:
    """Runs an event loop in a daemon thread; other threads call into it and wait.

    Args:
        where: The address of the server, for messages.
    """

    __slots__ = ("_has_ended", "_lock", "_loop", "_process", "_thread", "_where")

    def __init__(self, where: str) -> None:
        self._where = where
        self._process = os.getpid()
        # The garbage collector may drop the client while its own thread holds the lock.
        self._lock = RLock()
        self._has_ended = False
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
            RuntimeError: The loop has ended, or the interpreter is shutting down.
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
        if sys.is_finalizing():
            # Daemon threads do not run any more, so the result would never come.
            raise RuntimeError(
                f"The client of {self._where} was used while Python exits, when its thread has ended. "
                "Use it before, such as in a function for atexit.register()."
            )
        with self._lock:
            if self._has_ended:
                raise self._ended()
            future = asyncio.run_coroutine_threadsafe(_awaited(call), self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise self._ended() from None
        except BaseException:
            future.cancel()
            raise

    def stop(self, *, wait: bool = True) -> None:
        """End the loop; in a forked process, or while Python exits, this does nothing.

        Args:
            wait: Wait for the thread, for `_STOP_TIMEOUT` seconds at most. A thread
                that takes longer, as in a DNS lookup, is left running, and a warning
                is logged.
        """
        if self.forked or sys.is_finalizing():
            return
        with self._lock:
            # Once only: a second time would stop the loop while it cleans up.
            if not self._has_ended:
                self._has_ended = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        if wait and get_ident() != self._thread.ident:
            self._thread.join(_STOP_TIMEOUT)
            if self._thread.is_alive():
                logger.warning(
                    "The thread of the client of %s did not end in %.1f s and is left running. "
                    "It waits for a DNS lookup, or for a callback of the program, such as token=.",
                    self._where,
                    _STOP_TIMEOUT,
                )

    def _ended(self) -> RuntimeError:
        return RuntimeError(f"The client of {self._where} was closed by another thread.")

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            with self._lock:
                self._has_ended = True
            # Calls that were handed over before become tasks here, and are cancelled too. Otherwise
            # their callers would wait forever.
            loop.run_until_complete(asyncio.sleep(0))
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
