"""Answers without a connection: each request gets exactly one, whatever becomes of it."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Coroutine
from contextvars import copy_context
from typing import Any, cast

import pytest

from symphony.errors import ProtocolError, Reject
from symphony.limits import Limits
from symphony.outgoing.encoding import V1_DIALECTS
from symphony.outgoing.outbox import Outbox
from symphony.protocol.envelopes import Event
from symphony.session.answering import CANCELLED, INTERNAL, RESTARTS, TOO_LATE, Answering
from symphony.transport.asgi import MESSAGES

GONE = RuntimeError("gone wrong")


class Bench:
    """The answers of one client: the real protocol and outbox, with a list for a wire.

    It is the session and the connection of its answering.

    Attributes:
        sent: What was sent, decoded.
        reported: What was reported.
        closes: The codes that the connection was closed with.
        running: The handlers that `withdraw` finds at work.
    """

    def __init__(self, high: int = 1_000_000, **limits: Any) -> None:
        self.sent: list[Any] = []
        self.reported: list[tuple[BaseException, str]] = []
        self.closes: list[int] = []
        self.running: list[Event] = []
        self.is_over = False
        self.encoding = MESSAGES
        self.outbox = Outbox(asyncio.get_running_loop(), self._write, MESSAGES.join)
        self.outbox.configure(limit=10_000_000, high=high, low=high // 2, overflow=None)
        self.outbox.unblock()
        [dialect] = [each for each in V1_DIALECTS if each.subprotocol == "symphony.v1.json"]
        self.answering = Answering(
            self, cast("Any", self), dialect.make(), Limits(**limits), copy_context(), "s"
        )
        self.answering.withdraw = lambda event: event in self.running

    def _write(self, frames: Any) -> None:
        self.sent += [json.loads(frame) for frame in frames]

    def report(self, error: BaseException, what: str, event: str = "") -> None:
        self.reported.append((error, what))

    def watched(self, work: Coroutine[Any, Any, Any], event: Any = None, /) -> Awaitable[Any]:
        return work

    def close(self, code: int, reason: str) -> None:
        self.closes.append(code)

    def ask(self, id: int | None = 1, timeout: float | None = None) -> Event:
        """Return a request whose handler has not finished at once, as the exchange remembers it."""
        event = Event("x", None, id, timeout)
        if id is not None:
            self.answering.remember(event)
        return event

    async def heard(self) -> list[Any]:
        """Return what has been sent by now."""
        for _ in range(3):
            await asyncio.sleep(0)
        sent, self.sent = self.sent, []
        return sent

    @property
    def left(self) -> list[Any]:
        answering = self.answering
        return [table for table in (answering.active, answering._timers, answering._why) if table]


def codes(frames: list[Any]) -> list[tuple[Any, str]]:
    return [(frame.get("error"), frame["data"]["code"]) for frame in frames]


async def test_a_result_answers_a_request_and_nothing_is_remembered():
    bench = Bench()
    event = bench.ask(timeout=60)
    assert bench.answering.done(event, {"a": 1}) is None
    assert await bench.heard() == [{"reply": 1, "data": {"a": 1}}]
    assert bench.left == []


async def test_a_result_of_an_event_that_is_no_request_goes_nowhere():
    bench = Bench()
    assert bench.answering.done(bench.ask(id=None), "x") is None
    assert await bench.heard() == []


async def test_a_handler_that_finished_at_once_was_never_remembered():
    bench = Bench()
    bench.answering.unsettled = True
    bench.answering.done(Event("x", None, 1), "x")
    assert not bench.answering.unsettled
    assert await bench.heard() == [{"reply": 1, "data": "x"}]


async def test_a_result_that_cannot_be_encoded_leaves_the_request_to_be_answered():
    bench = Bench()
    event = bench.ask()
    with pytest.raises(TypeError) as caught:
        bench.answering.done(event, object())
    assert bench.answering.active == {1: event}
    bench.answering.failed(event, caught.value)
    assert codes(await bench.heard()) == [(1, "internal")]
    assert bench.left == []


async def test_a_reject_is_the_answer_and_is_not_reported():
    bench = Bench()
    bench.answering.failed(bench.ask(), Reject("forbidden", "no", details=[1]))
    [frame] = await bench.heard()
    assert (frame["error"], frame["data"]["message"], frame["data"]["details"]) == (1, "no", [1])
    assert bench.reported == []


async def test_another_exception_is_internal_and_reported():
    bench = Bench()
    bench.answering.failed(bench.ask(), GONE)
    [frame] = await bench.heard()
    assert frame["data"]["code"] == "internal"
    assert "gone wrong" not in json.dumps(frame)
    assert bench.reported == [(GONE, "handler of the event 'x'")]


async def test_an_error_without_a_request_is_told_in_an_event():
    bench = Bench()
    bench.answering.failed(bench.ask(id=None), Reject("invalid", "no"))
    [frame] = await bench.heard()
    assert (frame["event"], frame["data"]["message"]) == ("error", "no")


async def test_what_fails_without_an_event_is_only_reported():
    bench = Bench()
    bench.answering.failed(None, GONE)
    assert await bench.heard() == []
    assert bench.reported == [(GONE, "message handler")]


async def test_a_protocol_error_closes_and_answers_nothing():
    bench = Bench()
    bench.answering.failed(bench.ask(), ProtocolError(1007, "no UTF-8"))
    assert bench.closes == [1007]
    assert await bench.heard() == []


async def test_details_that_cannot_be_encoded_are_reported_and_the_answer_is_internal():
    bench = Bench()
    bench.answering.failed(bench.ask(), Reject("invalid", "no", details=object()))
    assert codes(await bench.heard()) == [(1, "internal")]
    assert [what for _, what in bench.reported] == ["details of a Reject"]


async def test_a_request_that_waits_is_answered_as_soon_as_it_is_cancelled():
    bench = Bench()
    bench.answering.cancel(bench.ask(), CANCELLED)
    assert codes(await bench.heard()) == [(1, "cancelled")]
    assert bench.left == []


async def test_a_request_that_runs_is_answered_when_its_handler_has_ended_with_the_first_reason():
    bench = Bench()
    event = bench.ask()
    bench.running.append(event)
    bench.answering.cancel(event, TOO_LATE)
    bench.answering.cancel(event, CANCELLED)
    assert await bench.heard() == []
    bench.answering.failed(event, asyncio.CancelledError())
    assert codes(await bench.heard()) == [(1, "timeout")]
    assert (bench.left, bench.reported) == ([], [])


async def test_a_handler_that_answers_although_it_was_cancelled_has_answered():
    bench = Bench()
    event = bench.ask()
    bench.running.append(event)
    bench.answering.cancel(event, CANCELLED)
    bench.answering.done(event, "all the same")
    assert await bench.heard() == [{"reply": 1, "data": "all the same"}]
    assert bench.left == []


@pytest.mark.parametrize("draining", [False, True])
async def test_a_cancellation_without_a_reason_is_a_restart_or_a_fault(draining):
    bench = Bench()
    bench.answering.draining = draining
    error = asyncio.CancelledError()
    bench.answering.failed(bench.ask(), error)
    expected = RESTARTS if draining else INTERNAL
    assert codes(await bench.heard()) == [(1, expected.code)]
    assert [what for what, _ in bench.reported] == ([] if draining else [error])


async def test_a_request_that_takes_longer_than_its_timeout_is_cancelled():
    bench = Bench()
    bench.ask(timeout=0)
    assert codes(await bench.heard()) == [(1, "timeout")]
    assert bench.left == []


async def test_the_timers_end_with_the_connection():
    bench = Bench()
    bench.ask(timeout=60)
    [timer] = bench.answering._timers.values()
    bench.answering.connection_lost()
    assert timer.cancelled()


async def count(end: int, failure: Exception | None = None) -> AsyncGenerator[int]:
    for number in range(end):
        yield number
    if failure is not None:
        raise failure


async def test_a_generator_is_answered_item_by_item_and_ends():
    bench = Bench()
    bench.answering.done(bench.ask(), count(2))
    assert await bench.heard() == [{"item": 1, "data": 0}, {"item": 1, "data": 1}, {"end": 1}]
    assert bench.left == []


async def test_a_generator_that_fails_ends_with_an_error():
    bench = Bench()
    bench.answering.done(bench.ask(), count(1, GONE))
    items = await bench.heard()
    assert items[0] == {"item": 1, "data": 0}
    assert codes(items[1:]) == [(1, "internal")]
    assert [error for error, _ in bench.reported] == [GONE]


async def test_a_stream_that_is_cancelled_says_why_and_is_not_asked_twice():
    bench = Bench()
    event = Event("x", None, 1, None, 0)
    bench.answering.remember(event)
    bench.answering.done(event, count(9))
    bench.answering.cancel(event, CANCELLED)
    assert codes(await bench.heard()) == [(1, "cancelled")]
    assert bench.left == []


async def test_a_generator_that_comes_after_the_end_of_the_connection_is_not_started():
    bench = Bench()
    bench.is_over = True
    items = count(1, GONE)
    closing = bench.answering.done(bench.ask(), items)
    assert closing is not None
    await closing
    assert await bench.heard() == []
    assert (bench.left, bench.reported) == ([], [])
    assert [item async for item in items] == []


async def test_a_client_that_reads_too_slowly_is_waited_for():
    bench = Bench(high=10)
    bench.outbox.block()
    waits = bench.answering.done(bench.ask(), "longer than ten bytes")
    assert waits is not None
    waiting = asyncio.ensure_future(waits)
    await asyncio.sleep(0)
    assert not waiting.done()
    bench.outbox.unblock()
    await waiting
    assert await bench.heard() == [{"reply": 1, "data": "longer than ten bytes"}]
