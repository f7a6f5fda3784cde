"""A room with a history that several processes share: what a node holds, and for whom it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from symphony import BrokerUnavailableError, Position
from symphony.broker.base import Page, Receive, Record
from symphony.rooms.sharedfeed import SharedFeed
from symphony.testing import Clock
from symphony.testing.clock import settle


def record(offset: int, size: int = 10, epoch: str = "one") -> Record:
    return Record(Position(epoch, offset), "said", b"\xc4" + bytes([size % 256]) + b"x" * size)


class Broker:
    """One room, whose publications the test passes on."""

    shared = True

    def __init__(self) -> None:
        self.receive: Receive = lambda record: None
        self.interrupted: Callable[[Position], None] | None = None
        self.kept: list[Record] = []
        self.reads = 0
        self.fails = False
        self.confirmed = asyncio.Event()
        self.confirmed.set()
        self.answers: asyncio.Event | None = None
        # What the next answer has, instead of what is kept.
        self.stale: list[Record] | None = None

    async def subscribe(self, room: str, receive: Receive, interrupted: Any = None) -> Position:
        self.receive, self.interrupted = receive, interrupted
        top = self.kept[-1].position if self.kept else Position("one", 0)
        await self.confirmed.wait()
        return top

    def unsubscribe(self, room: str) -> None:
        self.receive = lambda record: None

    async def after(self, room: str, position: Position | None, *, limit: int, max_bytes: int) -> Page:
        self.reads += 1
        await asyncio.sleep(0)
        if self.answers is not None:
            await self.answers.wait()
        if self.fails:
            raise BrokerUnavailableError("it is gone")
        assert position is not None
        kept, self.stale = self.stale or self.kept, None
        top = kept[-1].position
        found = [each for each in kept if each.position.offset > position.offset][:limit]
        if position.offset < kept[0].position.offset - 1:
            return Page((), top, complete=False, end=top)
        return Page(found, top, complete=True, end=found[-1].position if found else top)


@pytest.fixture
async def broker() -> Broker:
    return Broker()


@pytest.fixture
async def got() -> list[int]:
    return []


@pytest.fixture
async def feed(broker: Broker, got: list[int]) -> Any:
    def deliver(announced: object, position: Position) -> None:
        got.append(position.offset)

    failed: list[Exception] = []
    made = SharedFeed(broker, "a", deliver, failed.append, jumped=lambda before: None, random=lambda: 0.5)  # type: ignore[arg-type]
    yield made
    made.close()
    assert failed == []


async def test_what_comes_before_the_subscription_is_confirmed_is_held(
    broker: Broker, feed: SharedFeed, got: list[int]
) -> None:
    broker.kept = [record(1), record(2)]
    broker.confirmed.clear()
    opening = asyncio.ensure_future(feed.open())
    await settle()
    for offset in (2, 3, 4):
        broker.receive(record(offset))
    assert got == []
    broker.confirmed.set()
    await opening
    assert got == [3, 4]
    assert broker.reads == 0


@pytest.mark.within("rooms.sharedfeed._MAX_HELD", "rooms.sharedfeed._MAX_HELD_BYTES")
async def test_what_follows_a_hole_is_held_and_the_hole_is_read_once(
    broker: Broker, feed: SharedFeed, got: list[int]
) -> None:
    broker.kept = [record(0)]
    await feed.open()
    broker.kept = [record(offset) for offset in range(1, 501)]
    for offset in range(2, 501):
        broker.receive(record(offset))
    assert got == []
    await settle()
    assert got == list(range(1, 501))
    # One page fills the hole; what is held follows.
    assert broker.reads == 1


@pytest.mark.parametrize(("many", "size"), [(1500, 10), (300, 5000)])
@pytest.mark.beyond("rooms.sharedfeed._MAX_HELD", "rooms.sharedfeed._MAX_HELD_BYTES")
async def test_if_too_much_is_held_it_is_dropped_and_read(
    broker: Broker, feed: SharedFeed, got: list[int], many: int, size: int
) -> None:
    broker.kept = [record(0)]
    await feed.open()
    broker.kept = [record(offset, size) for offset in range(1, many + 1)]
    most = 0
    for offset in range(2, many + 1):
        broker.receive(record(offset, size))
        most = max(most, feed._held_bytes)
        assert len(feed._held) <= 1000
    assert most <= 1024 * 1024
    await settle()
    assert got == list(range(1, many + 1))
    assert broker.reads > 1
    assert feed._held_bytes == 0


async def test_the_last_publication_may_get_lost(broker: Broker, feed: SharedFeed, got: list[int]) -> None:
    """A quiet room is compared with its history after a second, and once more every 25 seconds or so."""
    clock = Clock.of_running_loop()
    broker.kept = [record(0)]
    await feed.open()
    broker.kept = [record(1), record(2)]
    broker.receive(record(1))
    await clock.advance(0.9)
    assert got == [1]
    await clock.advance(0.2)
    assert got == [1, 2]
    broker.kept.append(record(3))
    await clock.advance(32)
    assert got == [1, 2, 3]


async def test_a_repair_goes_on_until_the_broker_is_back(
    broker: Broker, feed: SharedFeed, got: list[int]
) -> None:
    clock = Clock.of_running_loop()
    broker.kept = [record(0)]
    await feed.open()
    broker.kept = [record(1), record(2)]
    broker.fails = True
    broker.receive(record(2))
    await clock.advance(60)
    assert 20 < broker.reads < 60
    assert got == []
    broker.fails = False
    await clock.advance(3)
    assert got == [1, 2]


async def test_who_waits_for_a_position_waits_until_the_members_have_it(
    broker: Broker, feed: SharedFeed, got: list[int]
) -> None:
    clock = Clock.of_running_loop()
    broker.kept = [record(0)]
    await feed.open()
    broker.kept = [record(1), record(2)]
    broker.fails = True
    waiting = [asyncio.ensure_future(feed.reached(Position("one", offset))) for offset in (0, 1, 2)]
    await settle()
    assert [each.done() for each in waiting] == [True, False, False]
    broker.receive(record(1))
    await settle()
    assert [each.done() for each in waiting] == [True, True, False]
    broker.fails = False
    await clock.advance(3)
    assert all(each.done() for each in waiting)
    # Of another life, it will never be reached.
    await feed.reached(Position("another", 99))
    late = asyncio.ensure_future(feed.reached(Position("one", 99)))
    await settle()
    assert not late.done()
    feed.close()
    await late


@pytest.mark.parametrize("waits", [False, True])
async def test_what_is_asked_for_while_a_repair_reads_is_read_after_that(
    broker: Broker, feed: SharedFeed, got: list[int], waits: bool
) -> None:
    """A read was answered late, with an answer from before the link was lost.

    The new link told the node meanwhile that there was more. That was ignored, because a repair
    was under way, and members got it 25 seconds later.
    """
    broker.kept = [record(0)]
    await feed.open()
    broker.kept = [record(1)]
    broker.answers = asyncio.Event()
    broker.receive(record(2))
    await settle()
    old, broker.kept = broker.kept, [record(1), record(2), record(3)]
    if waits:
        reached = asyncio.ensure_future(feed.reached(Position("one", 3)))
    else:
        assert broker.interrupted is not None
        broker.interrupted(Position("one", 3))
    await settle()
    broker.stale = old
    broker.answers.set()
    await settle()
    assert got == [1, 2, 3]
    if waits:
        await reached


async def test_a_member_that_has_lost_something_is_not_told_a_position_before_its_own(
    broker: Broker, feed: SharedFeed
) -> None:
    """It came from a node that was faster, and this one told it how far it was itself."""
    broker.kept = [record(2)]
    await feed.open()
    broker.kept = [record(12), record(13)]
    assert await feed.start_of(Position("one", 9), 100) == (None, False)
    assert feed.last == Position("one", 13)
