"""Starts tasks whose first step runs in a later turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

__all__ = ("start",)

T = TypeVar("T")


def start(work: Coroutine[Any, Any, T], context: Context | None = None) -> asyncio.Task[T]:
    """Start a task, whose first step runs in a later turn of the loop.

    Not `loop.create_task`: with `asyncio.eager_task_factory` it would run the
    first step at once, before the caller knows the task, and a handler in the
    middle of the parser.

    Args:
        work: The coroutine.
        context: The context that it runs in; `None`: a copy of the current one.
    """
    return asyncio.Task(work, loop=asyncio.get_running_loop(), context=context)
