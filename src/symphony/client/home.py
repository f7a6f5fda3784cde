"""The event loop that a client belongs to."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING

from symphony.errors import WrongThreadError

__all__ = ("AsyncOnly", "Home")

_ANEW = "Open another client there, with symphony.connect()."


class AsyncOnly:
    """What is opened by `async with`: a plain `with` says so."""

    __slots__ = ()

    # Type checkers know the mistake without it.
    if not TYPE_CHECKING:

        def __enter__(self):
            raise TypeError(
                f"{self!r} is opened by `async with`, not `with`. "
                "Without an event loop, use symphony.client.sync.connect()."
            )

        def __exit__(self, *_):
            raise NotImplementedError


class Home:
    """The loop, thread and process in which a client or a pool was opened.

    Attributes:
        loop: The event loop.
    """

    __slots__ = ("_process", "_thread", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self._process = os.getpid()

    def dropped(self, client: object, close: Callable[[], None]) -> None:
        """Warn about a client that was dropped without being closed, and close it."""
        if self._process != os.getpid():
            return  # it still exists in the process that it belongs to
        warnings.warn(
            f"{client!r} was dropped without being closed. Use `async with`, or await its close().",
            ResourceWarning,
            source=client,
            stacklevel=3,
        )
        if not self.loop.is_closed():
            # Not directly: `__del__` may run in any thread, and in the middle of a write.
            self.loop.call_soon_threadsafe(close)

    def check(self, client: object) -> None:
        """Check that *client* is used where it belongs.

        Raises:
            WrongThreadError: It is not.
        """
        if self._process != os.getpid():
            raise WrongThreadError(f"{client!r} belongs to the process that forked this one. {_ANEW}")
        if self.loop.is_closed():
            raise WrongThreadError(f"{client!r} belongs to an event loop that has ended. {_ANEW}")
        if self._thread != get_ident():
            raise WrongThreadError(
                f"{client!r} was used outside its event loop's thread. Use "
                "loop.call_soon_threadsafe(client.emit, ...)."
            )
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            return  # between two runs of its loop
        if running is not self.loop:
            raise WrongThreadError(f"{client!r} belongs to another event loop. {_ANEW}")
