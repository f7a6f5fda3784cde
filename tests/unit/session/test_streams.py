"""Streams without a connection: what a generator is asked for, and how it is closed."""

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextvars import ContextVar, copy_context
from itertools import pairwise
from typing import Any, cast

import pytest

from support.clients import connect, until
from support.servers import serve_natively
from symphony import Limits, Symphony
from symphony.errors import Reject
from symphony.protocol.envelopes import Event, Item
from symphony.protocol.v1 import MAX_CREDIT
from symphony.session.streams import OVERDRAWN, Streams

WHY = Reject("cancelled", "enough")


class Bench:
    """Streams, and what they did.

    Attributes:
        sent: The data of all items.
        asked: The numbers that `count` was asked for, and `closed`.
        ends: The id of each stream that ended, and what with.
        pressure: What sending an item returns.
    """

    def __init__(self, limit: int = 10) -> None:
        self.sent: list[Any] = []
        self.asked: list[Any] = []
        self.ends: list[tuple[Any, BaseException | None]] = []
        self.pressure: Callable[[], Awaitable[None] | None] = lambda: None
        self.streams = Streams(
            self._send,
            lambda event, error: self.ends.append((event.id, error)),
            lambda work, event: work,
            copy_context(),
            limit,
            "s",
        )

    def _send(self, item: Item) -> Awaitable[None] | None:
        self.sent.append(item.data)
        return self.pressure()

    async def count(self, end: int = 10**9) -> AsyncGenerator[int]:
        try:
            for number in range(end):
                self.asked.append(number)
                yield number
        finally:
            self.asked.append("closed")

    def begin(self, items: AsyncGenerator[Any], credit: int | None = None, id: int | None = 1) -> None:
        self.streams.begin(Event("x", None, id, None, credit), items)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_generator_is_asked_for_nothing_that_no_credit_allows():
    bench = Bench()
    bench.begin(bench.count(3), credit=0)
    await turns()
    assert bench.asked == []
    for credit, asked in ((1, [0]), (2, [0, 1, 2])):
        assert bench.streams.grant(1, credit)
        await turns()
        assert bench.asked == asked
    assert bench.ends == []
    bench.streams.grant(1, 1)
    await turns()
    assert (bench.asked, bench.ends) == ([0, 1, 2, "closed"], [(1, None)])
    assert not bench.streams.grant(1, 1)


async def test_several_grants_in_one_turn_all_count_also_before_the_first_step():
    bench = Bench()
    bench.begin(bench.count(), credit=0)
    for _ in range(3):
        bench.streams.grant(1, 1)
    await turns()
    assert bench.sent == [0, 1, 2]
    for _ in range(3):
        bench.streams.grant(1, 1)
    await turns()
    assert bench.sent == [0, 1, 2, 3, 4, 5]
    bench.streams.cancel_all(None)
    await turns()


async def test_a_grant_to_a_stream_that_is_not_counted_changes_nothing():
    bench = Bench()
    bench.begin(bench.count(2))
    assert bench.streams.grant(1, MAX_CREDIT)
    assert bench.streams.grant(1, MAX_CREDIT)
    await turns()
    assert (bench.sent, bench.ends) == ([0, 1], [(1, None)])


@pytest.mark.parametrize("first_steps", [0, 2])
async def test_the_highest_credit_is_allowed_and_one_more_is_not(first_steps: int):
    bench = Bench()
    gate = asyncio.Event()

    async def wait() -> AsyncGenerator[int]:
        await gate.wait()
        yield 1

    bench.begin(wait(), credit=0)
    await turns(first_steps)
    bench.streams.grant(1, MAX_CREDIT)
    await turns(first_steps)
    assert bench.ends == []
    bench.streams.grant(1, 1)
    await turns()
    assert bench.ends == [(1, OVERDRAWN)]


@pytest.mark.parametrize("why", [WHY, None])
async def test_a_cancel_before_the_first_step_runs_nothing_of_the_generator(why: Reject | None):
    bench = Bench()
    bench.begin(bench.count())
    if why is None:
        bench.streams.cancel_all(None)
    else:
        assert bench.streams.cancel(1, why)
    await turns()
    assert bench.asked == []
    [(_, error)] = bench.ends
    assert error is why if why else isinstance(error, asyncio.CancelledError)
    assert not bench.streams.cancel(1, WHY)


async def test_a_cancel_closes_a_generator_that_waits_for_credit_within_two_turns():
    bench = Bench()
    bench.begin(bench.count(), credit=1)
    await turns()
    bench.streams.cancel(1, WHY)
    await turns(2)
    assert bench.asked == [0, "closed"]
    await turns(1)
    assert bench.ends == [(1, WHY)]


async def test_a_grant_and_a_cancel_in_one_turn_send_nothing_more():
    bench = Bench()
    bench.begin(bench.count(), credit=1)
    await turns()
    bench.streams.grant(1, 5)
    bench.streams.cancel(1, WHY)
    await turns()
    assert (bench.sent, bench.ends) == ([0], [(1, WHY)])


async def test_the_first_reason_to_end_is_the_one_that_is_told():
    bench = Bench()
    bench.begin(bench.count(), credit=0)
    await turns()
    bench.streams.cancel(1, WHY)
    bench.streams.cancel(1, OVERDRAWN)
    bench.streams.cancel_all(OVERDRAWN)
    await turns()
    assert bench.ends == [(1, WHY)]


async def test_a_cancel_that_a_generator_swallows_ends_it_at_its_next_item():
    """Whoever wraps each item in an `except BaseException` cannot go on forever."""
    bench = Bench()

    async def stubborn() -> AsyncGenerator[int]:
        try:
            for number in range(100):
                yield number
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    bench.asked.append("swallowed")
        finally:
            bench.asked.append("closed")

    bench.begin(stubborn())
    await turns()
    bench.streams.cancel(1, WHY)
    await turns(10)
    swallowed, ends, sent = list(bench.asked), list(bench.ends), list(bench.sent)
    # Whatever came of it, do not leave the task to the loop, which would wait for it.
    for _ in range(200):
        bench.streams.cancel_all(None)
        await turns(1)
    assert sent == [0]
    assert swallowed == ["swallowed", "closed"]
    assert ends == [(1, WHY)]


async def test_a_generator_that_is_done_when_it_is_cancelled_ends_or_is_cancelled_but_is_told_once():
    bench = Bench()

    async def last_word() -> AsyncGenerator[int]:
        try:
            yield 0
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    bench.begin(last_word())
    await turns()
    bench.streams.cancel(1, WHY)
    await turns()
    assert bench.ends in ([(1, None)], [(1, WHY)])


async def test_what_a_generator_raises_while_it_is_closed_is_told_instead():
    bench = Bench()
    error = ValueError("in finally")

    async def fail() -> AsyncGenerator[int]:
        try:
            yield 0
            await asyncio.Event().wait()
        finally:
            raise error

    bench.begin(fail())
    await turns()
    bench.streams.cancel(1, WHY)
    await turns()
    assert bench.ends == [(1, error)]


async def test_nothing_is_asked_for_while_an_item_waits_to_be_sent():
    bench = Bench()
    bench.pressure = (gate := asyncio.Event()).wait  # pyright: ignore[reportAttributeAccessIssue]
    bench.begin(bench.count())
    await turns()
    assert bench.asked == [0]
    gate.set()
    gate.clear()
    await turns()
    assert bench.asked == [0, 1]
    bench.streams.cancel(1, WHY)
    await turns()
    assert (bench.asked, bench.ends) == ([0, 1, "closed"], [(1, WHY)])


async def test_one_that_never_waits_lets_others_run_every_64_items():
    bench = Bench()
    bench.begin(bench.count())
    seen: list[int] = []
    for _ in range(4):
        await turns(1)
        seen.append(len(bench.sent))
    bench.streams.cancel_all(None)
    await turns()
    assert seen[-1] > 0
    assert {later - earlier for earlier, later in pairwise(seen)} <= {0, 64}


async def test_more_than_may_run_are_refused_until_one_has_closed_its_generator():
    bench = Bench(limit=1)
    bench.begin(bench.count(), credit=0)
    with pytest.raises(Reject) as refused:
        bench.begin(bench.count(), id=2)
    assert (refused.value.code, refused.value.details) == ("too_many", {"max_streams": 1})
    bench.streams.cancel(1, WHY)
    await turns()
    bench.begin(bench.count(0), id=2)
    await turns()
    assert bench.ends == [(1, WHY), (2, None)]


async def test_without_an_id_it_is_refused_and_nothing_runs():
    bench = Bench()
    with pytest.raises(Reject) as refused:
        bench.begin(bench.count(), id=None)
    assert (refused.value.code, refused.value.details) == ("request_required", {"event": "x"})
    await turns()
    assert bench.asked == []


async def test_streams_do_not_share_what_they_set_in_context_variables():
    bench = Bench()
    last: ContextVar[str] = ContextVar("last", default="nothing")

    async def say(name: str) -> AsyncGenerator[str]:
        for _ in range(2):
            yield last.get()
            last.set(name)

    for id, name in enumerate("ab"):
        bench.begin(say(name), credit=1, id=id)
    await turns()
    for id in range(2):
        bench.streams.grant(id, 5)
    await turns()
    assert bench.sent == ["nothing", "nothing", "a", "b"]
    assert last.get() == "nothing"


async def test_one_that_does_not_end_in_time_is_named_in_the_log_and_left(caplog: pytest.LogCaptureFixture):
    bench = Bench()
    gate = asyncio.Event()

    async def linger() -> AsyncGenerator[int]:
        try:
            yield 0
            await asyncio.Event().wait()
        finally:
            await gate.wait()

    await bench.streams.ended(timeout=0)
    bench.begin(linger())
    await turns()
    bench.streams.cancel_all(None)
    await bench.streams.ended(timeout=0.01)
    assert "1 streams of socket s did not end" in caplog.text
    gate.set()
    await turns()
    assert len(bench.ends) == 1


@pytest.mark.parametrize("how", ["to its end", "cancelled", "failed"])
async def test_what_a_stream_held_is_freed_without_the_garbage_collector(how: str):
    class Held:
        pass

    bench = Bench()

    async def hold(held: Held) -> AsyncGenerator[int]:
        yield 0
        if how == "failed":
            raise Reject("forbidden")
        if how == "cancelled":
            await asyncio.Event().wait()
        assert held

    held = Held()
    gone = weakref.ref(held)
    gc.collect()
    gc.disable()
    try:
        bench.begin(hold(held))
        del held
        await turns()
        bench.streams.cancel(1, WHY)
        await turns()
        assert len(bench.ends) == 1
        # What it raised has a traceback, and that its frames.
        bench.ends.clear()
        await turns(1)
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("how", ["behind another request", "returned late"])
async def test_a_stream_that_begins_after_its_socket_went_is_closed_at_once(
    how: str, caplog: pytest.LogCaptureFixture
):
    """Nobody was left to cancel it: it ran on beside a socket that had gone."""
    app = Symphony(limits=Limits(finish_timeout=0.5))
    bench = Bench()
    go = asyncio.Event()
    streams: list[asyncio.Task[Any]] = []

    @app.on("tick")
    async def tick() -> AsyncGenerator[int]:
        streams.append(cast("asyncio.Task[Any]", asyncio.current_task()))
        async for number in bench.count():
            yield number
            await asyncio.sleep(0)

    @app.on("wait")
    async def wait() -> Any:
        await go.wait()
        return tick() if how == "returned late" else None

    async with serve_natively(app) as url:
        async with connect(url) as client:
            await client.send('{"event":"wait","id":1}')
            if how == "behind another request":
                await client.send('{"event":"tick","id":2}')
            await client.send('{"ping":1}')
            assert await client.recv() == '{"pong":1}'
            [socket] = app.everyone.sockets
            client.transport.abort()
        await until(lambda: not socket.connected)
        go.set()
        await until(lambda: app.stats.closed == 1)
        left = [task for task in streams if not task.done()]
        for task in left:
            task.cancel()
        await turns()
    assert left == []
    assert len(bench.asked) < 5
    assert "abandoned" not in caplog.text
