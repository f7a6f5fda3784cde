"""The nodes of an app ask one another, whatever becomes of their messages."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from support.links import Network
from symphony import (
    DisconnectedError,
    MessageTooLargeError,
    OutcomeUnknownError,
    QueueFullError,
    Reject,
    RemoteError,
    RequestTimeoutError,
    WrongRouteError,
)
from symphony.broker import links
from symphony.broker.hub import Hub
from symphony.broker.memory import MemoryBroker
from symphony.broker.peererrors import is_told, pack_error, unpack_error
from symphony.broker.peers import Peers
from symphony.testing import Clock
from symphony.testing.clock import settle


class Nodes:
    """Three nodes on one network: a, b and c. Each notes what is called."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.peers: dict[str, Peers] = {}
        self.brokers: dict[str, Any] = {}
        self.called: list[tuple[str, Any]] = []
        self.reported: list[str] = []
        self.go = asyncio.Event()

    async def add(self, name: str) -> None:
        broker = self.brokers[name] = await self.network.node()
        peers = self.peers[name] = Peers(broker, name, lambda error, what: self.reported.append(what))

        def note(value: Any) -> str:
            self.called.append((name, value))
            return name

        async def wait(value: Any) -> str:
            self.called.append((name, value))
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.called.append((name, "cancelled"))
                raise
            return name

        def fail(value: Any) -> None:
            raise KeyError(value) if value == "bug" else Reject("conflict", "no", details={"at": name})

        def large(value: Any) -> bytes:
            return bytes(links.MAX_MESSAGE_BYTES)

        for method in (note, wait, fail, large):
            peers.offer(method.__name__, method)
        peers.offer("last", wait, goes_on=True)
        peers.offer("object", lambda value: object())
        await peers.start()


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    nodes = Nodes(Network(Hub(MemoryBroker(max_bytes=10_000_000), life="one")))
    for name in "abc":
        await nodes.add(name)
    yield nodes
    for name, peers in nodes.peers.items():
        peers.close()
        nodes.brokers[name].close()
    await settle()


@pytest.fixture
async def clock() -> Clock:
    return Clock.of_running_loop()


async def test_one_node_or_all_others_are_asked(nodes: Nodes) -> None:
    a = nodes.peers["a"]
    assert await a.ask("b", "note", [1, None, b"x"], timeout=5) == "b"
    heard: list[tuple[str, Any]] = []
    assert sorted(await a.ask_all("note", 2, timeout=5, heard=lambda *each: heard.append(each))) == ["b", "c"]
    assert sorted(heard) == [("b", "b"), ("c", "c")]
    assert await a.tell("c", "note", 3) == 1
    await settle()
    assert nodes.called[0] == ("b", [1, None, b"x"])
    assert nodes.called[-1] == ("c", 3)


async def test_a_node_that_is_not_there_is_not_found(nodes: Nodes) -> None:
    a = nodes.peers["a"]
    for nowhere in ("d", "", "a"):
        with pytest.raises(Reject, match="not_found"):
            await a.ask(nowhere, "note", 1, timeout=5)
        assert await a.tell(nowhere, "note", 1) == 0
    with pytest.raises(Reject, match="does not know 'nothing'"):
        await a.ask("b", "nothing", 1, timeout=5)


async def test_errors_arrive_and_bugs_are_reported_where_they_are(nodes: Nodes) -> None:
    a = nodes.peers["a"]
    with pytest.raises(Reject) as refusal:
        await a.ask("b", "fail", "refused", timeout=5)
    assert (refusal.value.code, refusal.value.details) == ("conflict", {"at": "b"})
    with pytest.raises(Reject):
        await a.ask_all("fail", "refused", timeout=5)
    assert nodes.reported == []
    for method, value in (("fail", "bug"), ("object", 1)):
        with pytest.raises(OutcomeUnknownError, match="its log says why"):
            await a.ask("b", method, value, timeout=5)
    with pytest.raises(MessageTooLargeError):
        await a.ask("b", "large", 1, timeout=5)
    assert nodes.reported == ["fail for another node", "object for another node"]
    with pytest.raises(TypeError):
        await a.ask("b", "note", object(), timeout=5)


@pytest.mark.parametrize("lost", ["ask", "answer"])
async def test_a_lost_message_ends_a_question_in_time(nodes: Nodes, clock: Clock, lost: str) -> None:
    def fate(direction: str, message: Sequence[Any]) -> Sequence[float]:
        said = direction == "down" and message[0] == links.Said.RELAYED
        topic = ("node:b", "nodes") if lost == "ask" else ("node:a",)
        return () if said and message[1] in topic else (0.0,)

    nodes.network.fate = fate
    one = asyncio.ensure_future(nodes.peers["a"].ask("b", "note", 1, timeout=3))
    every = asyncio.ensure_future(nodes.peers["a"].ask_all("note", 2, timeout=3))
    await clock.advance(4)
    with pytest.raises(RequestTimeoutError, match="1 of 1 nodes did not answer 'note' within 3 s"):
        await one
    with pytest.raises(RequestTimeoutError, match="2 of 2 nodes"):
        await every
    assert nodes.peers["a"]._questions == {}


async def test_a_node_that_dies_at_work_is_not_waited_for(nodes: Nodes, clock: Clock) -> None:
    a = nodes.peers["a"]
    one = asyncio.ensure_future(a.ask("b", "wait", 1, timeout=60))
    every = asyncio.ensure_future(a.ask_all("wait", 2, timeout=60))
    await settle()
    assert len(nodes.called) == 3
    nodes.brokers["b"].close()
    await clock.advance(2.5)
    with pytest.raises(DisconnectedError, match="has ended before it answered"):
        await one
    assert not every.done()
    nodes.go.set()
    assert await every == ["c"]


async def test_a_node_that_works_for_long_and_loses_its_link_for_a_moment_is_waited_for(
    nodes: Nodes, clock: Clock
) -> None:
    one = asyncio.ensure_future(nodes.peers["a"].ask("b", "wait", 1, timeout=60))
    await clock.advance(5)
    nodes.network.cut()
    await clock.advance(5)
    assert not one.done()
    nodes.go.set()
    assert await one == "b"


@pytest.mark.parametrize("method", ["wait", "last"])
async def test_what_is_not_waited_for_any_more_is_cancelled_unless_it_goes_on(
    nodes: Nodes, clock: Clock, method: str
) -> None:
    a = nodes.peers["a"]
    given_up = asyncio.ensure_future(a.ask("b", method, 1, timeout=60))
    late = asyncio.ensure_future(a.ask_all(method, 2, timeout=1))
    await settle()
    given_up.cancel()
    await clock.advance(2)
    with pytest.raises(RequestTimeoutError):
        await late
    cancelled = [each for each in nodes.called if each[1] == "cancelled"]
    assert len(cancelled) == (3 if method == "wait" else 0)
    nodes.go.set()
    await settle()
    assert all(peers._work == {} for peers in nodes.peers.values())


async def test_a_delivery_whose_answer_was_lost_is_passed_on_once(nodes: Nodes, clock: Clock) -> None:
    left = 1

    def fate(direction: str, message: Sequence[Any]) -> Sequence[float]:
        nonlocal left
        if direction == "down" and message[0] == links.Said.ANSWER and left:
            left = 0
            return ()
        return (0.0,)

    nodes.network.fate = fate
    told = nodes.peers["a"].tell("b", "note", "once")
    await settle()
    nodes.network.cut()
    await clock.advance(2)
    assert await told == 1
    assert nodes.called == [("b", "once")]
    assert nodes.network.methods().count("deliver") == 2


@pytest.mark.parametrize(
    "error",
    [
        Reject("shop.sold_out", "gone", details=[1], retryable=True, retry_after=2.0),
        RemoteError("not_found", "no", details=None),
        MessageTooLargeError("large", size=2, limit=1),
        RequestTimeoutError("late"),
        DisconnectedError("gone"),
        WrongRouteError("raw"),
        QueueFullError("full"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_the_same_on_the_other_side(error: Exception) -> None:
    assert is_told(error)
    other = unpack_error(pack_error(error))
    assert (type(other), str(other)) == (type(error), str(error))
    for name in ("code", "details", "retryable", "retry_after", "size", "limit"):
        assert getattr(other, name, None) == getattr(error, name, None)


def test_any_other_error_is_not_told() -> None:
    assert not is_told(KeyError("secret"))
    assert "secret" not in str(unpack_error(pack_error(KeyError("secret"))))


async def test_a_node_that_stops_gets_its_last_answers(nodes: Nodes) -> None:
    a = nodes.peers["a"]
    asked = asyncio.ensure_future(a.ask_all("wait", 1, timeout=60))
    await settle()
    finished = asyncio.ensure_future(a.finish(timeout=30))
    await settle()
    assert not finished.done()
    nodes.go.set()
    await settle()
    assert finished.done()
    assert sorted(await asked) == ["b", "c"]


async def test_a_node_that_stops_waits_for_a_time_only(nodes: Nodes, clock: Clock) -> None:
    a = nodes.peers["a"]
    asked = asyncio.ensure_future(a.ask_all("wait", 1, timeout=60))
    await settle()
    finished = asyncio.ensure_future(a.finish(timeout=30))
    await clock.advance(31)
    assert finished.done()
    assert not asked.done()
    nodes.go.set()
    await asked
    # Nothing is asked now.
    await a.finish(timeout=30)


async def test_a_call_that_is_cancelled_before_it_begins_leaves_nothing() -> None:
    peers = Peers(MemoryBroker(max_bytes=1000), "a", lambda error, what: None)

    async def wait() -> None:
        raise AssertionError("it has begun")

    work = wait()
    peers.offer("wait", lambda: work)
    peers._called("b", 1, "wait", (), is_asked=False)  # pyright: ignore[reportPrivateUsage]
    peers.close()
    await settle()
    assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED
