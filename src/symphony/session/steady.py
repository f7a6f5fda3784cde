"""Keeps a task alive when a future that its code awaits raises a `GeneratorExit`."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

__all__ = ("Steady",)


class Steady(Coroutine[Any, Any, Any]):
    """A coroutine for a task that outlives the handlers that it runs.

    A task passes on what an awaited future has raised with `throw`. Python treats a
    `GeneratorExit` there like `close`: it would end every coroutine of the task, from the
    handler to the session. The handler gets a `RuntimeError` instead, as a generator turns a
    `StopIteration` into one.

    Args:
        work: The coroutine.
    """

    __slots__ = ("_work", "send")

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self._work = work
        # The method itself: a step of the task costs nothing more.
        self.send = work.send

    def throw(self, error: Any, *rest: Any) -> Any:
        """Raise an exception where the coroutine waits."""
        if isinstance(error, GeneratorExit):
            error = _carried(error)
        try:
            return self._work.throw(error, *rest)
        finally:
            # An error waits for the garbage collector if a frame in its traceback refers to it.
            del error

    def close(self) -> None:
        """Close the coroutine."""
        self._work.close()

    def __await__(self) -> Any:
        return self._work.__await__()

    def __getattr__(self, name: str) -> Any:
        # Such as `cr_frame`, with which asyncio shows where a task waits.
        return getattr(self._work, name)


def _carried(error: GeneratorExit) -> RuntimeError:
    carried = RuntimeError("what a handler awaited raised GeneratorExit")
    carried.__cause__ = error
    return carried
