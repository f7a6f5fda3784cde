"""What a task that runs handlers does with cancellations."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from contextlib import suppress
from typing import Any

__all__ = ("recover", "relieved", "uncancel")


def uncancel(task: asyncio.Task[Any]) -> None:
    """Take back all cancellations of a task."""
    while task.cancelling():
        task.uncancel()


async def recover(task: asyncio.Task[Any]) -> None:
    """Make the current task usable again after it was cancelled."""
    uncancel(task)
    # If a handler cancels its task and then finishes, Python 3.11 and 3.12 deliver the
    # cancellation although it was uncancelled. Receive it here, so that it reaches
    # neither the next handler nor the code after `serve`.
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        if task.cancelling():
            raise


def relieved(pressure: Awaitable[None]) -> Generator[Any, Any, None]:
    """Await *pressure*; stop if the task is cancelled, because the handler has finished."""
    with suppress(asyncio.CancelledError):
        yield from pressure.__await__()
