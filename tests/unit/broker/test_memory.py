"""The broker in this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import pytest

from symphony.broker import memory
from symphony.broker.base import Broker, Draft, History
from symphony.broker.memory import MemoryBroker
from symphony.testing import Clock, contracts

HISTORY = History(100)


@pytest.mark.parametrize("check", contracts.BROKER, ids=lambda check: check.__name__)
async def test_it_is_a_broker(check: Callable[[Broker], Awaitable[None]]) -> None:
    await check(MemoryBroker(max_bytes=1_000_000))


def draft(size: int = 10) -> Draft:
    return Draft("said", msgspec.msgpack.encode("x" * size))


async def kept(broker: MemoryBroker, room: str) -> list[int]:
    page = await broker.after(room, None, limit=1000, max_bytes=10_000_000)
    return [record.position.offset for record in page.records]


@pytest.mark.within("max_history_bytes")
async def test_everything_is_kept_up_to_the_limit_of_the_process() -> None:
    broker = MemoryBroker(max_bytes=100_000)
    for room in ("a", "b", "c"):
        for _ in range(10):
            await broker.publish(room, draft(1000), HISTORY)
    assert [await kept(broker, room) for room in ("a", "b", "c")] == [list(range(1, 11))] * 3
    assert broker.evicted == 0


@pytest.mark.beyond("max_history_bytes")
async def test_above_it_the_room_that_was_published_to_least_recently_loses_its_oldest() -> None:
    broker = MemoryBroker(max_bytes=29_000)
    for room in ("a", "b", "a", "c"):
        for _ in range(5):
            await broker.publish(room, draft(1000), HISTORY)
    # `b` is the least recent, though `a` has the oldest publications.
    assert await kept(broker, "a") == list(range(1, 11))
    assert await kept(broker, "b") == [2, 3, 4, 5]
    assert await kept(broker, "c") == list(range(1, 6))
    assert broker.evicted == 1
    for _ in range(100):
        await broker.publish("d", draft(1000), HISTORY)
    assert [await kept(broker, room) for room in ("a", "b", "c")] == [[], [], []]
    assert len(await kept(broker, "d")) == 21


async def test_a_room_whose_publications_were_all_dropped_remembers_its_position() -> None:
    """So a member that comes back is told that it has missed something, and one that has not is not."""
    broker = MemoryBroker(max_bytes=10_000)
    top = await broker.publish("a", draft(1000), HISTORY)
    for _ in range(20):
        await broker.publish("b", draft(1000), HISTORY)
    page = await broker.after("a", top, limit=10, max_bytes=1000)
    assert (list(page.records), page.top, page.complete) == ([], top, True)
    assert (await broker.publish("a", draft(), HISTORY)).offset == 2


async def test_one_publication_above_the_limit_is_passed_on_and_not_kept() -> None:
    broker = MemoryBroker(max_bytes=10_000)
    heard: list[int] = []
    await broker.subscribe("a", lambda record: heard.append(record.position.offset))
    await broker.publish("a", draft(20_000), HISTORY)
    assert (heard, await kept(broker, "a")) == ([1], [])


async def test_publications_are_kept_for_their_time() -> None:
    clock = Clock.of_running_loop()
    broker = MemoryBroker(max_bytes=1_000_000)
    history = History(100, ttl=10)
    await broker.publish("a", draft(), history)
    await clock.advance(6)
    await broker.publish("a", draft(), history)
    assert await kept(broker, "a") == [1, 2]
    await clock.advance(5)
    assert await kept(broker, "a") == [2]
    await clock.advance(5)
    assert await kept(broker, "a") == []
    assert (await broker.publish("a", draft(), history)).offset == 3


async def test_a_quiet_room_frees_its_publications_in_time_without_being_asked() -> None:
    clock = Clock.of_running_loop()
    broker = MemoryBroker(max_bytes=1_000_000)
    history = History(100, ttl=10)
    for room in ("a", "b", "c"):
        await broker.publish(room, draft(1000), history)
    heard: list[object] = []
    await broker.subscribe("a", heard.append)
    await clock.advance(11)
    assert broker.held == 0
    # A subscriber stays one.
    await broker.publish("a", draft(), history)
    assert len(heard) == 1


@pytest.mark.within("broker.memory._MAX_QUIET")
@pytest.mark.beyond("broker.memory._MAX_QUIET")
async def test_rooms_without_publications_are_remembered_up_to_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "_MAX_QUIET", 10)
    clock = Clock.of_running_loop()
    broker = MemoryBroker(max_bytes=1_000_000)
    tops = [await broker.subscribe(f"room:{number}", lambda record: None) for number in range(11)]
    for number, top in enumerate(tops):
        tops[number] = await broker.publish(f"room:{number}", draft(), History(1, ttl=1))
        assert tops[number].epoch == top.epoch
    await clock.advance(2)
    for number in range(11):
        broker.unsubscribe(f"room:{number}")
    complete = [
        (await broker.after(f"room:{number}", top, limit=1, max_bytes=1)).complete
        for number, top in reversed(list(enumerate(tops)))
    ]
    # The one that was quiet for longest has a new epoch, so its members are told.
    assert complete == [True] * 10 + [False]


async def test_those_who_join_and_leave_push_no_room_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MAX_QUIET", 10)
    clock = Clock.of_running_loop()
    broker = MemoryBroker(max_bytes=1_000_000)
    top = await broker.publish("a", draft(), History(1, ttl=1))
    await clock.advance(2)
    for number in range(1000):
        room = f"stranger:{number}"
        start = await broker.subscribe(room, lambda record: None)
        broker.unsubscribe(room)
        # Nothing was published: who comes back has missed nothing.
        assert await broker.subscribe(room, lambda record: None) == start
        broker.unsubscribe(room)
    assert (await broker.after("a", top, limit=1, max_bytes=1)).complete


async def test_a_room_that_was_forgotten_has_no_position_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MAX_QUIET", 2)
    clock = Clock.of_running_loop()
    broker = MemoryBroker(max_bytes=1_000_000)
    seen: set[tuple[str, str, int]] = set()
    for _ in range(3):
        for room in ("a", "b", "c", "d"):
            position = await broker.publish(room, draft(), History(1, ttl=1))
            assert (room, position.epoch, position.offset) not in seen
            seen.add((room, position.epoch, position.offset))
        await clock.advance(2)


async def test_many_rooms_with_little_count_what_they_take() -> None:
    """A room with one small publication takes more than a kilobyte."""
    broker = MemoryBroker(max_bytes=100_000)
    for number in range(1000):
        await broker.publish(f"{number}:{'ä' * 500}", Draft("ä" * 100, b"\xc0"), HISTORY)
    assert 20 <= len([number for number in range(1000) if await kept(broker, f"{number}:{'ä' * 500}")]) <= 40
    assert broker.evicted >= 960
    assert broker.held <= 100_000


async def test_what_was_kept_is_given_back_in_full() -> None:
    clock = Clock.of_running_loop()
    broker = MemoryBroker(max_bytes=100_000)
    for number in range(50):
        await broker.publish(f"ž{number % 5}", draft(number), History(3, ttl=1))
    assert broker.held > 0
    await clock.advance(2)
    assert broker.held == 0


async def test_what_a_subscriber_in_this_process_gets_has_the_source() -> None:
    broker = MemoryBroker(max_bytes=1_000_000)
    heard: list[object] = []
    await broker.subscribe("a", lambda record: heard.append(record.source))
    source = object()
    await broker.publish("a", Draft("said", b"\xc0", source), HISTORY)
    assert heard == [source]
    page = await broker.after("a", None, limit=1, max_bytes=1)
    assert page.records[0].source is None
