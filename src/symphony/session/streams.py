"""Answers that are streams: an async generator, item by item."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from contextvars import Context
from functools import partial
from typing import Any, Final

from symphony.errors import Reject
from symphony.protocol.envelopes import Event, Item
from symphony.protocol.invalid import shortened
from symphony.protocol.v1 import MAX_CREDIT

__all__ = ("OVERDRAWN", "Streams")

logger = logging.getLogger("symphony.socket")

OVERDRAWN: Final = Reject("invalid", f"more than {MAX_CREDIT} items of credit", details={"path": "$.credit"})
"""What ends a stream whose client granted more than can be counted."""

# A generator that never waits, to a client that reads as fast, would hold the
# event loop for as long as it has items.
_ITEMS_A_TURN: Final = 64


class Streams:
    """The streams of one socket.

    Args:
        send: Sends an item; what it returns is awaited before the next one.
        finished: Called with the request and what the stream raised, or `None`.
        watched: Awaits work for an event, and names it if it holds the event loop.
        context: What generators run in.
        limit: How many may run at once.
        name: How the socket is called in logs.
    """

    __slots__ = ("_context", "_finished", "_limit", "_name", "_send", "_streams", "_watched")

    def __init__(
        self,
        send: Callable[[Item], Awaitable[None] | None],
        finished: Callable[[Event, BaseException | None], None],
        watched: Callable[[Coroutine[Any, Any, Any], Event], Awaitable[Any]],
        context: Context,
        limit: int,
        name: str,
    ) -> None:
        self._send = send
        self._finished = finished
        self._watched = watched
        self._context = context
        self._limit = limit
        self._name = name
        self._streams: dict[Any, _Stream] = {}

    def begin(self, event: Event, items: AsyncGenerator[Any]) -> None:
        """Answer a request with what a generator gives.

        Raises:
            Reject: It is no request, or as many run as may.
        """
        if event.id is None:
            name = shortened(event.event)
            raise Reject(
                "request_required",
                f"the answer to {name!r} is a stream: send an `id`",
                details={"event": name},
            )
        if len(self._streams) >= self._limit:
            raise Reject(
                "too_many", f"{self._limit} streams are under way", details={"max_streams": self._limit}
            )
        stream = _Stream(event.id, items, event.credit, self._send)
        self._streams[event.id] = stream
        loop = asyncio.get_running_loop()
        stream.task = loop.create_task(self._run(event, stream), context=self._context.copy())
        # Not at the end of the task's own work: one that is cancelled before its
        # first step does none.
        stream.task.add_done_callback(partial(self._end, event, stream))

    def grant(self, id: Any, credit: int) -> bool:
        """Allow more items; whether there is such a stream."""
        stream = self._streams.get(id)
        if stream is None:
            return False
        stream.grant(credit)
        return True

    def cancel(self, id: Any, why: Reject) -> bool:
        """End a stream with an error; whether there is one."""
        stream = self._streams.get(id)
        if stream is None:
            return False
        stream.cancel(why)
        return True

    def cancel_all(self, why: Reject | None) -> None:
        """End all streams; with `None`, nobody hears of it any more."""
        for stream in tuple(self._streams.values()):
            stream.cancel(why)

    async def ended(self, *, timeout: float) -> None:
        """Return when all have closed their generators, or time is up."""
        tasks = [stream.task for stream in self._streams.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            if late:
                logger.error("%d streams of socket %s do not end and are left behind.", len(late), self._name)

    async def _run(self, event: Event, stream: _Stream) -> None:
        try:
            await self._watched(stream.run(), event)
        except (KeyboardInterrupt, SystemExit) as error:
            # Raised out of a task it would end the event loop, and nothing in order.
            stream.stop = error

    def _end(self, event: Event, stream: _Stream, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception() or stream.stop
        if isinstance(error, asyncio.CancelledError) and stream.why is not None:
            error = stream.why
        # The task keeps what cancelled it, whose traceback keeps the stream.
        del self._streams[event.id], stream.task
        self._finished(event, error)


class _Stream:
    """One stream on its way to a client.

    Args:
        id: Of the request that it answers.
        items: The handler's generator.
        credit: How many items may come before the first grant; `None`: they
            are not counted.
        send: Sends an item; what it returns is awaited before the next one.

    Attributes:
        why: What it is to end with, once it was cancelled.
        task: What runs it.
        stop: What its generator raised to end the program.
    """

    __slots__ = ("_cancelled", "_credit", "_granted", "_id", "_items", "_send", "stop", "task", "why")

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
        self._cancelled = False
        self.why: Reject | None = None
        self.stop: BaseException | None = None

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
                if self._cancelled:
                    # The generator has caught it and goes on: not any further.
                    raise asyncio.CancelledError
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
        self._cancelled = True
        if self.why is None:
            self.why = why
        self.task.cancel()

    async def _wait_for_credit(self) -> None:
        self._granted = asyncio.get_running_loop().create_future()
        try:
            await self._granted
        finally:
            self._granted = None
