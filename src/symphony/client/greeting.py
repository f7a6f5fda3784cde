"""Runs `on_open` on a new connection, until it ends or the connection does."""

from __future__ import annotations

import asyncio
from typing import Final

from symphony.client.owner import ConnectionOwner
from symphony.tasks import start

__all__ = ("TOO_SLOW", "greet")

TOO_SLOW: Final = "on_open did not return in time"


async def greet(
    owner: ConnectionOwner, gone: asyncio.Future[None], timeout: float | None
) -> BaseException | None:
    """Run what comes before the queue, and return the error with which it failed.

    When this returns, it has ended.

    Args:
        owner: The client.
        gone: Done when the connection is closed. The greeting is then
            cancelled, which is not an error.
        timeout: How many seconds it may take.
    """
    greeting = start(owner.greet())
    await asyncio.wait((greeting, gone), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    if gone.done() or not greeting.done():
        greeting.cancel()
        await asyncio.wait((greeting,))
        return None if gone.done() else TimeoutError(TOO_SLOW)
    if greeting.cancelled():
        return asyncio.CancelledError("something that on_open awaited was cancelled")
    return greeting.exception()
