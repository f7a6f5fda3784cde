from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from symphony.session.contracts import LaneReports
from symphony.session.parallel import Parallel
from symphony.session.waiting import Waiting
from symphony.websocket.queued import Queued

word: ContextVar[str] = ContextVar("word")


class Bench:
    """Serves a `Parallel`, and writes down what it tells; handlers wait at a gate."""

    def __init__(
        self,
        handler: Callable[[Any], Any] | None = None,
        *,
        is_async: bool = True,
        concurrency: int = 2,
        max_queue: int = 4,
        pressure: Callable[[], Awaitable[None] | None] = lambda: None,
    ) -> None:
        self.begun: list[Any] = []
        self.results: list[Any] = []
        self.failures: list[tuple[Any, str]] = []
        self.fullness: list[bool] = []
        self.gates: dict[Any, asyncio.Future[Any]] = {}
        self.handler, self.is_async = handler or self.wait, is_async
        self.pressure = pressure
        self.parallel = Parallel(
            asyncio.get_running_loop(),
            copy_context(),
            LaneReports(self.done, self.failed, self.fullness.append),
            queue=Waiting(max_count=max_queue, max_bytes=10**9, queued=Queued(10**9)),
            concurrency=concurrency,
            watched=lambda work: work,
        )
        self.task: asyncio.Task[None] | None = None

    def done(self, message: Any, result: Any) -> Awaitable[None] | None:
        self.results.append((message, result))
        return self.pressure()

    def failed(self, message: Any, error: BaseException) -> None:
        self.failures.append((message, type(error).__name__))

    async def wait(self, message: Any) -> Any:
        self.begun.append(message)
        self.gates[message] = gate = asyncio.get_running_loop().create_future()
        return await gate

    async def serve(self, *messages: Any) -> None:
        self.task = asyncio.create_task(
            self.parallel.serve(lambda _, message: self.handler(message), None, is_async=self.is_async)
        )
        await self.deliver(*messages)

    async def deliver(self, *messages: Any) -> None:
        for message in messages:
            self.parallel.deliver(message)
        await self.turn()

    async def open(self, message: Any, result: Any = None) -> None:
        self.gates.pop(message).set_result(result)
        await self.turn()

    async def turn(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def ended(self, *, timeout: float = 5) -> None:
        assert self.task is not None
        self.parallel.end(timeout=timeout)
        async with asyncio.timeout(2):
            await self.task


async def test_so_many_run_at_once_and_start_in_the_order_they_came() -> None:
    bench = Bench()
    await bench.serve()
    await bench.deliver(1, 2, 3, 4, 5)
    assert (bench.begun, len(bench.parallel.queue)) == ([1, 2], 3)
    await bench.open(2, "b")
    assert bench.begun == [1, 2, 3]
    await bench.open(1, "a")
    await bench.open(3, "c")
    assert bench.begun == [1, 2, 3, 4, 5]
    assert bench.results == [(2, "b"), (1, "a"), (3, "c")]
    await bench.open(4)
    await bench.open(5)
    await bench.ended()
    assert bench.failures == []


async def test_what_came_before_serve_is_handled_in_order() -> None:
    bench = Bench()
    await bench.deliver(1, 2, 3)
    assert (bench.begun, len(bench.parallel.queue)) == ([], 3)
    await bench.serve()
    await bench.turn()
    assert bench.begun == [1, 2]
    bench.parallel.cancel()
    await bench.ended()


async def test_full_is_told_once_and_not_full_when_half_has_gone() -> None:
    bench = Bench(concurrency=1, max_queue=4)
    await bench.serve()
    await bench.deliver(0, 1, 2, 3)
    assert bench.fullness == []
    await bench.deliver(4)
    assert (bench.fullness, bench.parallel.is_full) == ([True], True)
    await bench.deliver(5)
    assert bench.fullness == [True]
    for message in range(2):
        await bench.open(message)
    assert (len(bench.parallel.queue), bench.fullness) == (3, [True])
    await bench.open(2)
    assert (len(bench.parallel.queue), bench.fullness, bench.parallel.is_full) == (2, [True, False], False)
    bench.parallel.cancel()
    await bench.ended()


async def test_a_withdrawn_message_that_waits_is_dropped_without_a_word() -> None:
    bench = Bench(concurrency=1, max_queue=2)
    first, second, third = ["same"], ["same"], ["same"]

    async def handler(message: list[str]) -> None:
        await bench.wait(id(message))

    bench.handler = handler
    await bench.serve()
    await bench.deliver(first, second, third)
    assert bench.fullness == [True]
    # It is this message and not one like it.
    assert bench.parallel.withdraw(["same"]) is False
    assert len(bench.parallel.queue) == 2
    assert bench.parallel.withdraw(second) is False
    assert (len(bench.parallel.queue), bench.fullness) == (1, [True, False])
    await bench.open(id(first))
    assert bench.begun == [id(first), id(third)]
    assert bench.parallel.withdraw(first) is False
    assert bench.failures == []
    bench.parallel.cancel()
    await bench.ended()


@pytest.mark.parametrize("has_begun", [True, False])
async def test_a_withdrawn_message_that_runs_is_cancelled_and_failed_hears(has_begun: bool) -> None:
    bench = Bench(concurrency=1)
    await bench.serve()
    await bench.turn()
    bench.parallel.deliver("a")
    bench.parallel.deliver("b")
    if has_begun:
        await bench.turn()
    assert bench.parallel.withdraw("a") is True
    await bench.turn()
    assert bench.failures == [("a", "CancelledError")]
    assert bench.begun == (["a", "b"] if has_begun else ["b"])
    bench.parallel.cancel()
    await bench.ended()


async def test_end_handles_what_waits_and_then_serve_returns() -> None:
    bench = Bench(concurrency=1)
    await bench.serve()
    await bench.deliver(1, 2)
    bench.parallel.end(timeout=5)
    await bench.open(1)
    assert bench.begun == [1, 2]
    assert bench.task is not None
    assert not bench.task.done()
    await bench.open(2)
    assert bench.task.done()
    assert bench.failures == []


async def test_end_of_an_idle_one_returns_at_once() -> None:
    bench = Bench()
    await bench.serve()
    await bench.ended()


async def test_what_is_left_after_the_timeout_is_cancelled_and_what_waits_is_dropped() -> None:
    bench = Bench(concurrency=1)
    await bench.serve()
    await bench.deliver(1, 2, 3)
    await bench.ended(timeout=0)
    assert bench.begun == [1]
    assert bench.failures == [(None, "TimeoutError"), (1, "CancelledError")]


async def test_handlers_have_a_copy_of_the_context_each() -> None:
    seen = []

    async def handler(message: str) -> None:
        seen.append(word.get())
        word.set(message)
        await asyncio.sleep(0)
        seen.append(word.get())

    word.set("of the socket")
    bench = Bench(handler)
    word.set("later")
    await bench.serve()
    await bench.deliver("a", "b")
    await bench.ended()
    assert seen == ["of the socket", "of the socket", "a", "b"]


@pytest.mark.parametrize("error", [LookupError, asyncio.CancelledError, BaseExceptionGroup])
@pytest.mark.parametrize("is_async", [True, False])
async def test_what_a_handler_raises_is_told_and_the_next_goes_on(
    error: type[BaseException], is_async: bool
) -> None:
    def plain(message: int) -> int:
        if message == 1:
            raise error("x", [LookupError()]) if error is BaseExceptionGroup else error("x")
        return message

    async def handler(message: int) -> int:
        return plain(message)

    bench = Bench(handler if is_async else plain, is_async=is_async, concurrency=1)
    await bench.serve()
    await bench.deliver(1, 2)
    await bench.ended()
    assert [message for message, _ in bench.failures] == [1]
    assert bench.results == [(2, 2)]


async def test_a_place_is_taken_until_what_done_gives_was_awaited() -> None:
    drained = asyncio.get_running_loop().create_future()
    bench = Bench(concurrency=1, pressure=lambda: drained)
    await bench.serve()
    await bench.deliver(1, 2)
    await bench.open(1)
    assert bench.begun == [1]
    drained.set_result(None)
    await bench.turn()
    assert bench.begun == [1, 2]
    await bench.open(2)
    await bench.ended()
