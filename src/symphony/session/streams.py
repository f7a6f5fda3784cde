"""Streams: sends the items of async generators as answers to requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from contextvars import Context
from functools import partial
from typing import Any, Final

from symphony.complaints import MAX_FAILURES, Complaint
from symphony.errors import Reject
from symphony.protocol.envelopes import Event, Item
from symphony.protocol.invalid import shortened
from symphony.protocol.v1 import MAX_CREDIT
from symphony.tasks import start

__all__ = ("OVERDRAWN", "Streams")

_abandoned = Complaint(
    logging.getLogger("symphony.socket"),
    logging.ERROR,
    "%d streams of socket %s did not end and are abandoned.",
    most=MAX_FAILURES,
)

OVERDRAWN: Final = Reject("invalid", f"more than {MAX_CREDIT} items of credit", details={"path": "$.credit"})
"""The error that ends a stream whose client granted too much credit."""

# If neither the generator nor the client ever waits, a stream would block the event
# loop until its end. So it yields to the loop after this many items.
_ITEMS_A_TURN: Final = 64


class Streams:
    """The streams of one socket.

    Args:
        send: Sends an item. If it returns an awaitable, that is awaited before
            the next item.
        finished: Called with the request and the exception of the stream, or
            `None`.
        watched: Wraps a coroutine, to log a warning if it blocks the event loop.
        context: The context of the generators.
        limit: How many streams may run at once.
        name: The socket's name in logs.
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
        """Answer a request with the items of a generator.

        Raises:
            Reject: The event is not a request, or too many streams are running.
        """
        if event.id is None:
            name = shortened(event.event)
            raise Reject(
                "request_required",
                f"the answer to {name!r} is a stream: send it as a request, with an `id`",
                details={"event": name},
            )
        if len(self._streams) >= self._limit:
            raise Reject(
                "too_many", f"{self._limit} streams are running already", details={"max_streams": self._limit}
            )
        stream = _Stream(event.id, items, event.credit, self._send)
        self._streams[event.id] = stream
        stream.task = start(self._run(event, stream), self._context.copy())
        # A callback, not a `finally` in the task: a task that is cancelled before its
        # first step runs no code at all.
        stream.task.add_done_callback(partial(self._end, event, stream))

    def grant(self, id: Any, credit: int) -> bool:
        """Allow more items; return whether there is such a stream."""
        stream = self._streams.get(id)
        if stream is None:
            return False
        stream.grant(credit)
        return True

    def cancel(self, id: Any, why: Reject) -> bool:
        """End a stream with an error; return whether there is such a stream."""
        stream = self._streams.get(id)
        if stream is None:
            return False
        stream.cancel(why)
        return True

    def cancel_all(self, why: Reject | None) -> None:
        """End all streams with an error, or silently if *why* is `None`."""
        for stream in tuple(self._streams.values()):
            stream.cancel(why)

    async def ended(self, *, timeout: float) -> None:
        """Return when all streams have closed their generators, or after *timeout* seconds."""
        tasks = [stream.task for stream in self._streams.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            if late:
                _abandoned.log(len(late), self._name)

    async def _run(self, event: Event, stream: _Stream) -> None:
        try:
            await self._watched(stream.run(), event)
        except (KeyboardInterrupt, SystemExit) as error:
            # Do not raise it in the task: that would stop the event loop without any
            # clean-up.
            stream.stop = error

    def _end(self, event: Event, stream: _Stream, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception() or stream.stop
        if isinstance(error, asyncio.CancelledError) and stream.why is not None:
            error = stream.why
        # The task keeps the exception that cancelled it, and its traceback the stream.
        del self._streams[event.id], stream.task
        self._finished(event, error)


class _Stream:
    """One running stream.

    Args:
        id: The id of the request that it answers.
        items: The handler's generator.
        credit: How many items may be sent before the first grant. `None` means
            no flow control.
        send: Sends an item. If it returns an awaitable, that is awaited before
            the next item.

    Attributes:
        why: The error to end with, after the stream was cancelled.
        task: The task that runs it.
        stop: The `KeyboardInterrupt` or `SystemExit` of its generator.
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
        """Send all items. The generator is closed when this returns or raises."""
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
                    # The generator has suppressed the cancellation. Stop it here.
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
        """End the stream. The generator is closed in the next turn of the loop.

        Args:
            why: The error to send, or `None` to send none.
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
