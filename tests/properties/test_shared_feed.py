"""A node that hears a room badly, against the promise: everything in order and once, or a jump is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony import BrokerUnavailableError, Position
from symphony.broker.base import Draft, History, Page, Receive, Record
from symphony.broker.memory import MemoryBroker
from symphony.outgoing.encoding import Content
from symphony.rooms.sharedfeed import SharedFeed
from symphony.testing import Clock
from symphony.testing.clock import settle

ROOM = "a"

# After how many seconds a publication arrives, each time that it does.
FATES = st.sampled_from([(), (0.0,), (0.0,), (0.0,), (0.5,), (3.0,), (0.0, 0.0), (0.0, 2.0), (1.0, 0.2)])
OPERATIONS = st.one_of(
    st.tuples(st.just("publish"), FATES),
    st.tuples(st.just("publish"), FATES),
    st.tuples(st.just("publish"), FATES),
    st.tuples(st.just("flood"), st.sampled_from([(), (0.0,)])),
    st.tuples(st.just("time"), st.sampled_from([0.1, 1.0, 4.0])),
    st.tuples(st.just("away"), st.booleans()),
    st.tuples(st.just("deaf"), st.just(True)),
    st.tuples(st.just("interrupt"), st.just(True)),
    st.tuples(st.just("restart"), st.just(True)),
)


class BadBroker:
    """A broker whose messages get lost, late, doubled and mixed up.

    Attributes:
        fate: After how many seconds the next publication arrives.
        away: Whether reads fail.
    """

    shared = True

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.fate: tuple[float, ...] = (0.0,)
        self.away = False
        self.receive: Receive | None = None
        self.interrupted: Callable[[Position], None] | None = None
        self._epochs = iter(f"epoch {number}" for number in range(1000))
        self.restart()

    def restart(self) -> None:
        self.store = MemoryBroker(max_bytes=10_000_000, new_epoch=lambda: next(self._epochs))

    async def publish(self, number: int, history: History) -> Position:
        position = await self.store.publish(ROOM, Draft("said", msgspec.msgpack.encode(number)), history)
        record = Record(position, "said", msgspec.msgpack.encode(number))
        for delay in self.fate:
            self.loop.call_later(delay, self._arrive, record)
        return position

    def _arrive(self, record: Record) -> None:
        if self.receive is not None:
            self.receive(record)

    async def subscribe(
        self, room: str, receive: Receive, interrupted: Callable[[Position], None] | None = None
    ) -> Position:
        await asyncio.sleep(0)
        if self.away:
            raise BrokerUnavailableError("away")
        self.receive, self.interrupted = receive, interrupted
        return await self.store.subscribe(room, lambda record: None)

    def unsubscribe(self, room: str) -> None:
        self.receive = None

    async def after(self, room: str, position: Position | None, *, limit: int, max_bytes: int) -> Page:
        await asyncio.sleep(0)
        if self.away:
            raise BrokerUnavailableError("away")
        page = await self.store.after(room, position, limit=limit, max_bytes=max_bytes)
        # Meanwhile other things happen.
        await asyncio.sleep(0)
        return page


class Node:
    """What the members of one node get."""

    def __init__(self, broker: BadBroker) -> None:
        self.got: list[Any] = []
        self.feed = SharedFeed(
            broker,  # pyright: ignore
            ROOM,
            self.deliver,
            lambda error: self.got.append(error),
            jumped=lambda before: self.got.append(("jump", before, self.feed.last)),
            random=lambda: 0.5,
        )

    def deliver(self, announced: Any, *position: Any) -> None:
        content: Content = announced._content
        self.got.append((self.feed.last, content.plain))


def check(node: Node, published: dict[Position, int], begun: Position, size: int) -> None:
    last = begun
    for each in node.got:
        assert not isinstance(each, Exception), each
        if each[0] == "jump":
            last = each[2]
            continue
        position, number = each
        assert published[position] == number
        assert (position.epoch, position.offset) == (last.epoch, last.offset + 1)
        last = position


async def _run(operations: list[tuple[str, Any]], size: int) -> None:
    clock = Clock.of_running_loop()
    broker = BadBroker()
    history = History(size, ttl=10_000)
    published: dict[Position, int] = {}
    number = 0

    async def publish() -> None:
        nonlocal number
        number += 1
        published[await broker.publish(number, history)] = number

    await publish()
    node = Node(broker)
    await node.feed.open()
    begun = node.feed.last
    lost = False
    for operation, argument in operations:
        if operation == "publish":
            broker.fate = argument
            await publish()
        elif operation == "flood":
            broker.fate = argument
            for _ in range(30):
                await publish()
        elif operation == "time":
            await clock.advance(argument)
        elif operation == "away":
            broker.away = argument
        elif operation == "deaf":
            broker.receive = None
        elif operation == "interrupt" and broker.interrupted is not None:
            broker.interrupted(broker.store.position(ROOM))
        elif operation == "restart":
            lost = True
            broker.restart()
            broker.fate = (0.0,)
            await publish()
        await settle()
    broker.away = False
    broker.fate = (0.0,)
    await clock.advance(80)
    check(node, published, begun, size)
    assert node.feed.last == broker.store.position(ROOM)
    # A node that has missed something hears again. One that is deaf and does not know misses the first.
    await publish()
    await clock.advance(40)
    assert node.feed.last == broker.store.position(ROOM)
    await publish()
    await clock.advance(0.01)
    assert node.got[-1] == (broker.store.position(ROOM), number)
    jumps = [each for each in node.got if each[0] == "jump"]
    if number <= size and not lost:
        # All of it is kept.
        assert jumps == []
        assert [each[1] for each in node.got] == list(range(2, number + 1))
    # No jump leads to where it was.
    assert all(before != after for _, before, after in jumps)
    node.feed.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(OPERATIONS, max_size=40), st.sampled_from([5, 1000]))
def test_a_node_gets_everything_in_order_and_once_or_learns_that_it_did_not(
    operations: list[tuple[str, Any]], size: int
) -> None:
    asyncio.run(_run(operations, size))
