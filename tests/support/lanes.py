"""A lane at work, and what it has told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from symphony.session.contracts import LaneReports
from symphony.session.lane import Lane
from symphony.session.waiting import Waiting
from symphony.websocket.queued import Queued

__all__ = ("Bench",)


class Bench:
    """Serves a lane in a task of its own, as a session does.

    Args:
        handler: Handles a message; a plain function with *is_async* false.
        is_async: Which of the two.
        max_queue: How many messages may wait before the lane is full.
        max_bytes: How many bytes they may have.
        done: Takes results instead of `results`.
        failed: Takes what handlers raise instead of `failures`.
        full: Hears of fullness instead of `fullness`.

    Attributes:
        lane: The lane.
        task: The task that serves it.
        results: What handlers gave, in order.
        failures: What handlers raised, in order.
        fullness: What `full` was told, in order.
        complaints: What the loop's exception handler was told.
    """

    def __init__(
        self,
        handler: Callable[[Any], Any],
        *,
        is_async: bool = True,
        max_queue: int = 100,
        max_bytes: int = 10**9,
        done: Callable[[Any], Any] | None = None,
        failed: Callable[[BaseException], Any] | None = None,
        full: Callable[[bool], None] | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.results: list[Any] = []
        self.failures: list[BaseException] = []
        self.fullness: list[bool] = []
        self.complaints: list[dict[str, Any]] = []
        complain = self.complaints.append
        self.loop.set_exception_handler(lambda loop, context: complain(context))
        context = copy_context()
        took, lost = done or self.results.append, failed or self.failures.append
        self.lane = Lane(
            self.loop,
            context,
            LaneReports(
                done=lambda message, result: None if result is None else took(result),
                failed=lambda message, error: lost(error),
                full=full or self.fullness.append,
            ),
            queue=Waiting(max_count=max_queue, max_bytes=max_bytes, queued=Queued(10**9)),
        )
        self.task = self.loop.create_task(
            self.lane.serve(lambda _, message: handler(message), None, is_async=is_async), context=context
        )

    async def receive(self, *messages: Any) -> list[Any]:
        """Deliver messages in one callback, where no task is current.

        Returns:
            The results that were there when the callback ended: what is among
            them was handled inline.
        """
        received: asyncio.Future[list[Any]] = self.loop.create_future()

        def callback() -> None:
            try:
                for message in messages:
                    self.lane.deliver(message)
                    assert asyncio.current_task() is None
                received.set_result(list(self.results))
            except BaseException as error:
                received.set_exception(error)

        self.loop.call_soon(callback)
        return await received

    async def turn(self, count: int = 3) -> None:
        """Give the loop some turns."""
        for _ in range(count):
            await asyncio.sleep(0)

    async def end(self, *, timeout: float = 5) -> None:
        """End the lane, and return when `serve` has."""
        self.lane.end(timeout=timeout)
        await self.task
