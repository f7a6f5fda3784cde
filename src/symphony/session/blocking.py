"""Tells who holds the event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from time import monotonic
from types import coroutine
from typing import Any

__all__ = ("watched",)


@coroutine
def watched(
    work: Coroutine[Any, Any, Any], limit: float, slow: Callable[[float], None]
) -> Generator[Any, Any, Any]:
    """Await *work*, and time each of its steps.

    Args:
        work: A coroutine that has not started.
        limit: Seconds that one step may take.
        slow: Called with the seconds of each step that took longer.

    Returns:
        What *work* returns.
    """
    value: Any = None
    error: BaseException | None = None
    while True:
        began = monotonic()
        try:
            awaited = work.send(value) if error is None else work.throw(error)
        except StopIteration as stop:
            return stop.value
        finally:
            held = monotonic() - began
            if held > limit:
                slow(held)
            # Also when it raises: an exception that is kept in a frame of its own
            # traceback waits for the garbage collector, and with it the socket.
            value = error = None
        try:
            value = yield awaited
        except BaseException as thrown:
            error = thrown
