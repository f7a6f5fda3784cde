"""The answer to a request that is a stream: an async generator, item by item."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

from symphony.errors import Reject
from symphony.protocol.envelopes import Item
from symphony.protocol.v1 import MAX_CREDIT

__all__ = ("OVERDRAWN", "Stream")

OVERDRAWN: Final = Reject("invalid", f"more than {MAX_CREDIT} items of credit", details={"path": "$.credit"})
"""What ends a stream whose client granted more than can be counted."""

# A generator that never waits, to a client that reads as fast, would hold the
# event loop for as long as it has items.
_ITEMS_A_TURN: Final = 64


class Stream:
    """One stream on its way to a client.

    Args:
        id: Of the request that it answers.
        items: The handler's generator.
        credit: How many items may come before the first grant; `None`: they
            are not counted.
        send: Sends an item; what it returns is awaited before the next one.

    Attributes:
        why: What it is to end with, once it was cancelled.
        task: What runs it; set by whoever started it.
    """

    __slots__ = ("_credit", "_granted", "_id", "_items", "_send", "task", "why")

    task: asyncio.Task[None]

    def __init__(
        self,
        id: Any,
        items: AsyncGenerator[Any],
        credit: int | None,
        send: Callable[[Item], Awaitable[None] | None],
    ) -> None:
        self._id = id
        self._items = items
        self._credit = credit
        self._send = send
        self._granted: asyncio.Future[None] | None = None
        self.why: Reject | None = None

    async def run(self) -> None:
        """Send all items; the generator is closed when this returns or raises."""
        count = 0
        async with aclosing(self._items) as items:
            while True:
                if self._credit == 0:
                    await self._wait_for_credit()
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
                if self._credit is not None:
                    self._credit -= 1
                count += 1
                pressure = self._send(Item(self._id, item))
                if pressure is not None:
                    await pressure
                elif count % _ITEMS_A_TURN == 0:
                    await asyncio.sleep(0)

    def grant(self, credit: int) -> None:
        """Allow more items."""
        if self._credit is None:
            return
        self._credit += credit
        if self._granted is not None and not self._granted.done():
            self._granted.set_result(None)
        if self._credit > MAX_CREDIT:
            self.cancel(OVERDRAWN)

    def cancel(self, why: Reject | None) -> None:
        """End it; the generator is closed in the next turn of the loop.

        Args:
            why: The error it ends with; `None`: nobody hears it.
        """
        if self.why is None:
            self.why = why
        self.task.cancel()

    async def _wait_for_credit(self) -> None:
        self._granted = asyncio.get_running_loop().create_future()
        try:
            await self._granted
        finally:
            self._granted = None
