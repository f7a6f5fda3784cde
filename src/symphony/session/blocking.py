"""Detects code that blocks the event loop."""

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
    """Await *work* and measure the time of each step.

    Args:
        work: A coroutine that has not started.
        limit: How many seconds one step may take.
        slow: Called for each step that took longer, with its seconds.

    Returns:
        The result of *work*.
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
            # Also if it raises. An exception in a local variable of a frame of its own
            # traceback is a reference cycle, which would keep the socket alive too.
            value = error = None
        try:
            value = yield awaited
        except BaseException as thrown:
            error = thrown
