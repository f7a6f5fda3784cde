"""The tests that each broker passes.

Run them against your own engine. Each is a function that takes a new broker:

    @pytest.mark.parametrize("check", contracts.BROKER, ids=lambda check: check.__name__)
    async def test_it_is_a_broker(check):
        await check(make_broker())
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from symphony.broker.base import Broker, Draft, History, Key, Record
from symphony.errors import Reject
from symphony.protocol.positions import Position

__all__ = (
    "BROKER",
    "SHARED_BROKER",
    "a_key_and_a_replacement_are_one_edit",
    "a_key_belongs_to_its_publisher_and_room",
    "a_message_has_no_event",
    "a_position_of_another_history_is_noticed",
    "a_process_that_has_stopped_to_listen_hears_nothing",
    "a_publication_that_is_not_awaited_is_published",
    "a_repeat_has_the_position_of_the_first",
    "a_replaced_publication_leaves_its_place_empty",
    "a_room_without_publications_has_a_position",
    "a_subscriber_gets_everything_after_the_position",
    "all_processes_have_the_same_positions",
    "an_empty_place_does_not_count_as_lost",
    "another_content_with_the_same_key_is_a_conflict",
    "each_process_gets_what_the_others_publish",
    "nothing_is_received_after_the_subscription_has_ended",
    "of_a_chain_of_replacements_only_the_last_is_kept",
    "positions_follow_each_other",
    "rooms_have_histories_of_their_own",
    "the_history_is_limited_in_bytes",
    "the_history_is_limited_in_number",
    "the_history_is_read_backwards",
    "the_history_is_read_forwards_in_pages",
    "what_is_relayed_arrives_in_order_at_the_others",
    "what_is_relayed_does_not_come_back",
    "what_replaces_something_unknown_is_published",
)

_PAGE: Final = 1_000_000
_PATIENCE: Final = 10.0
_LARGE: Final = History(1000)


async def positions_follow_each_other(broker: Broker) -> None:
    """The first publication has the offset 1, and each later one the next, in one epoch."""
    positions = [await broker.publish("a", _draft(number), _LARGE) for number in range(3)]
    assert [position.offset for position in positions] == [1, 2, 3]
    assert len({position.epoch for position in positions}) == 1


async def rooms_have_histories_of_their_own(broker: Broker) -> None:
    """What is published to one room changes nothing in another."""
    await broker.publish("a", _draft("to a"), _LARGE)
    await broker.publish("b", _draft("to b"), _LARGE)
    assert await _all(broker, "a") == ["to a"]
    assert await _all(broker, "b") == ["to b"]


async def a_subscriber_gets_everything_after_the_position(broker: Broker) -> None:
    """In the order of the positions, each once, before the publisher has its result."""
    heard: list[Record] = []
    before = await broker.publish("a", _draft("before"), _LARGE)
    assert await broker.subscribe("a", heard.append) == before
    for number in range(3):
        position = await broker.publish("a", _draft(number, "counted"), _LARGE)
        assert heard[-1].position == position
    assert [(record.position.offset, record.event, _data(record)) for record in heard] == [
        (2, "counted", 0),
        (3, "counted", 1),
        (4, "counted", 2),
    ]


async def a_publication_that_is_not_awaited_is_published(broker: Broker) -> None:
    """And it has the place of the call."""
    heard: list[Record] = []
    await broker.subscribe("a", heard.append)
    for number in range(3):
        broker.publish("a", _draft(number), _LARGE)
    await broker.publish("a", _draft("last"), _LARGE)
    assert [_data(record) for record in heard] == [0, 1, 2, "last"]


async def nothing_is_received_after_the_subscription_has_ended(broker: Broker) -> None:
    """But it is kept."""
    heard: list[Record] = []
    await broker.subscribe("a", heard.append)
    broker.unsubscribe("a")
    await broker.publish("a", _draft(1), _LARGE)
    assert heard == []
    top = await broker.subscribe("a", heard.append)
    assert top.offset == 1
    assert heard == []
    assert await _all(broker, "a") == [1]


async def a_message_has_no_event(broker: Broker) -> None:
    """It comes back as it was published."""
    await broker.publish("a", _draft("hi", None), _LARGE)
    page = await broker.after("a", None, limit=1, max_bytes=_PAGE)
    assert [(record.event, _data(record)) for record in page.records] == [(None, "hi")]


async def the_history_is_read_forwards_in_pages(broker: Broker) -> None:
    """A page is limited in number and in bytes, and says where the history ends."""
    positions = [await broker.publish("a", _draft(number), _LARGE) for number in range(5)]
    page = await broker.after("a", None, limit=2, max_bytes=_PAGE)
    assert (_content(page.records), page.top, page.complete) == ([0, 1], positions[-1], True)
    assert page.end == positions[1]
    page = await broker.after("a", page.records[-1].position, limit=2, max_bytes=_PAGE)
    assert (_content(page.records), page.complete) == ([2, 3], True)
    page = await broker.after("a", positions[0], limit=10, max_bytes=1)
    assert (_content(page.records), page.complete) == ([1], True)
    page = await broker.after("a", positions[-1], limit=2, max_bytes=_PAGE)
    assert (list(page.records), page.top, page.complete) == ([], positions[-1], True)
    assert page.end == positions[-1]


async def the_history_is_read_backwards(broker: Broker) -> None:
    """From the newest, or from a position."""
    positions = [await broker.publish("a", _draft(number), _LARGE) for number in range(5)]
    page = await broker.before("a", None, limit=2)
    assert (_content(page.records), page.complete) == ([3, 4], True)
    page = await broker.before("a", positions[3], limit=2)
    assert (_content(page.records), page.complete) == ([1, 2], True)
    page = await broker.before("a", positions[1], limit=10)
    assert _content(page.records) == [0]
    assert not (await broker.before("a", Position("another", 3), limit=1)).complete


async def a_position_of_another_history_is_noticed(broker: Broker) -> None:
    """Another epoch, and an offset that was never reached."""
    top = await broker.publish("a", _draft(1), _LARGE)
    for position in (Position("another", 1), Position(top.epoch, 2), Position("another", 0)):
        page = await broker.after("a", position, limit=1, max_bytes=_PAGE)
        assert (list(page.records), page.top, page.complete) == ([], top, False)


async def a_room_without_publications_has_a_position(broker: Broker) -> None:
    """What is published later follows it."""
    before = await broker.subscribe("a", lambda record: None)
    assert before.offset == 0
    broker.unsubscribe("a")
    await broker.publish("a", _draft(1), _LARGE)
    page = await broker.after("a", before, limit=10, max_bytes=_PAGE)
    assert (_content(page.records), page.complete) == ([1], True)


async def the_history_is_limited_in_number(broker: Broker) -> None:
    """And a position before the oldest is noticed."""
    positions = [await broker.publish("a", _draft(number), History(3)) for number in range(5)]
    assert await _all(broker, "a") == [2, 3, 4]
    page = await broker.after("a", positions[1], limit=10, max_bytes=_PAGE)
    assert (_content(page.records), page.complete) == ([2, 3, 4], True)
    page = await broker.after("a", positions[0], limit=10, max_bytes=_PAGE)
    assert (list(page.records), page.complete) == ([], False)


async def the_history_is_limited_in_bytes(broker: Broker) -> None:
    """The newest publication is kept in any case."""
    history = History(100, bytes=120)
    for number in range(5):
        await broker.publish("a", _draft(str(number) * 30), history)
    assert await _all(broker, "a") == [str(number) * 30 for number in (2, 3, 4)]
    await broker.publish("a", _draft("x" * 1000), history)
    assert await _all(broker, "a") == ["x" * 1000]


async def a_repeat_has_the_position_of_the_first(broker: Broker) -> None:
    """It is neither kept nor passed on, even if the first is no longer kept."""
    heard: list[Record] = []
    await broker.subscribe("a", heard.append)
    first = await broker.publish("a", _keyed("ann", "k1", "hi"), History(2))
    other = await broker.publish("a", _keyed("ann", "k2", "hi"), History(2))
    assert [first.offset, other.offset] == [1, 2]
    assert await broker.publish("a", _keyed("ann", "k1", "hi"), History(2)) == first
    await broker.publish("a", _draft("bye"), History(2))
    assert await broker.publish("a", _keyed("ann", "k1", "hi"), History(2)) == first
    assert await _all(broker, "a") == ["hi", "bye"]
    assert _content(heard) == ["hi", "hi", "bye"]


async def a_key_belongs_to_its_publisher_and_room(broker: Broker) -> None:
    """Others may use the same one."""
    offsets = [
        (await broker.publish(room, _keyed(publisher, "k", "hi"), _LARGE)).offset
        for room, publisher in (("a", "ann"), ("a", "bob"), ("b", "ann"))
    ]
    assert offsets == [1, 2, 1]


async def another_content_with_the_same_key_is_a_conflict(broker: Broker) -> None:
    """Nothing is published, and the key stays what it was."""
    first = await broker.publish("a", _keyed("ann", "k", "hi"), _LARGE)
    assert await _refusal(broker, "a", _keyed("ann", "k", "bye")) == "conflict"
    assert await _all(broker, "a") == ["hi"]
    assert await broker.publish("a", _keyed("ann", "k", "hi"), _LARGE) == first


async def a_replaced_publication_leaves_its_place_empty(broker: Broker) -> None:
    """The replacement has a new position, and pages cover the empty place."""
    heard: list[Record] = []
    await broker.subscribe("a", heard.append)
    one, two, three = [await broker.publish("a", _draft(number), _LARGE) for number in (1, 2, 3)]
    edit = await broker.publish("a", _replacing(two, "two"), _LARGE)
    assert edit.offset == 4
    assert heard[-1].replaces == two
    page = await broker.after("a", None, limit=10, max_bytes=_PAGE)
    assert (_content(page.records), page.complete, page.end) == ([1, 3, "two"], True, edit)
    assert [(record.position.offset, record.replaces) for record in page.records] == [
        (1, None),
        (3, None),
        (4, two),
    ]
    for after in (one, two):
        page = await broker.after("a", after, limit=1, max_bytes=_PAGE)
        assert (_content(page.records), page.complete, page.end) == ([3], True, three)
    page = await broker.after("a", three, limit=1, max_bytes=_PAGE)
    assert (_content(page.records), page.complete, page.end) == (["two"], True, edit)
    page = await broker.before("a", edit, limit=10)
    assert (_content(page.records), page.end) == ([1, 3], three)
    page = await broker.before("a", three, limit=10)
    assert (_content(page.records), page.end) == ([1], two)


async def of_a_chain_of_replacements_only_the_last_is_kept(broker: Broker) -> None:
    """It replaces the first of the chain, whichever was named."""
    first = await broker.publish("a", _draft(1), _LARGE)
    await broker.publish("a", _draft("between"), _LARGE)
    second = await broker.publish("a", _replacing(first, 2), _LARGE)
    third = await broker.publish("a", _replacing(second, 3), _LARGE)
    assert await _replaced(broker, "a") == [("between", None), (3, first)]
    await broker.publish("a", _replacing(first, 4), _LARGE)
    assert await _replaced(broker, "a") == [("between", None), (4, first)]
    # The third is not kept any more, so nothing says what it stood for.
    await broker.publish("a", _replacing(third, 5), _LARGE)
    assert await _replaced(broker, "a") == [("between", None), (4, first), (5, third)]


async def what_replaces_something_unknown_is_published(broker: Broker) -> None:
    """It was trimmed, never there, or is of another epoch."""
    positions = [await broker.publish("a", _draft(number), History(2)) for number in range(3)]
    epoch = positions[0].epoch
    unknown = [positions[0], Position(epoch, 1000), Position("another", 2)]
    for number, position in enumerate(unknown, start=4):
        assert (await broker.publish("a", _replacing(position, number), History(5))).offset == number
    assert await _replaced(broker, "a") == [(1, None), (2, None)] + [
        (number, position) for number, position in enumerate(unknown, start=4)
    ]
    # And each can be replaced in its turn.
    for number, position in enumerate(unknown, start=7):
        await broker.publish("a", _replacing(position, number), History(5))
    assert await _replaced(broker, "a") == [(1, None), (2, None)] + [
        (number, position) for number, position in enumerate(unknown, start=7)
    ]


async def an_empty_place_does_not_count_as_lost(broker: Broker) -> None:
    """A member that stands before, at or after it has missed nothing; one before the oldest has."""
    history = History(2)
    positions = [await broker.publish("a", _draft(number), history) for number in (1, 2)]
    for number in (3, 4, 5):
        positions.append(await broker.publish("a", _replacing(positions[1], number), history))
    for position in positions[:4]:
        page = await broker.after("a", position, limit=10, max_bytes=_PAGE)
        expected = [5]
        assert (_content(page.records), page.complete, page.end) == (expected, True, positions[4])
    top = await broker.publish("a", _draft(6), history)
    page = await broker.after("a", positions[0], limit=10, max_bytes=_PAGE)
    assert (_content(page.records), page.complete, page.end) == ([5, 6], True, top)
    await broker.publish("a", _draft(7), history)
    page = await broker.after("a", positions[4], limit=10, max_bytes=_PAGE)
    assert (_content(page.records), page.complete) == ([6, 7], True)
    page = await broker.after("a", positions[3], limit=10, max_bytes=_PAGE)
    assert (list(page.records), page.complete) == ([], False)


async def a_key_and_a_replacement_are_one_edit(broker: Broker) -> None:
    """It is done once."""
    first = await broker.publish("a", _draft(1), _LARGE)
    edit = _keyed("ann", "k", 2)._replace(replaces=first)
    position = await broker.publish("a", edit, _LARGE)
    await broker.publish("a", _replacing(first, 3), _LARGE)
    assert await broker.publish("a", edit, _LARGE) == position
    assert await _replaced(broker, "a") == [(3, first)]


async def what_is_relayed_does_not_come_back(broker: Broker) -> None:
    """And it has nothing to do with the room of the same name."""
    heard: list[object] = []
    await broker.subscribe("a", heard.append)
    await broker.listen("a", heard.append)
    await broker.relay("a", b"1")
    broker.unlisten("a")
    await broker.relay("a", b"2")
    await broker.publish("a", _draft("kept"), _LARGE)
    assert [type(each) for each in heard] == [Record]


async def all_processes_have_the_same_positions(first: Broker, second: Broker) -> None:
    """And they read the same history."""
    assert first.shared
    assert second.shared
    one = await first.publish("a", _draft("one"), _LARGE)
    two = await second.publish("a", _draft("two"), _LARGE)
    assert (two.epoch, two.offset) == (one.epoch, one.offset + 1)
    assert await second.subscribe("a", lambda record: None) == two
    assert await _all(first, "a") == await _all(second, "a") == ["one", "two"]


async def each_process_gets_what_the_others_publish(first: Broker, second: Broker) -> None:
    """In the order of the positions, and its own publications too."""
    heard: tuple[list[Record], list[Record]] = [], []
    arrived = asyncio.Event()

    def receive(record: Record) -> None:
        heard[1].append(record)
        if _data(record) == "last":
            arrived.set()

    await first.subscribe("a", heard[0].append)
    await second.subscribe("a", receive)
    for number in range(5):
        await first.publish("a", _draft(number), _LARGE)
        await second.publish("a", _draft(number + 100), _LARGE)
    await first.publish("a", _draft("last", None), _LARGE)
    async with asyncio.timeout(_PATIENCE):
        await arrived.wait()
    assert [record.position.offset for record in heard[1]] == list(range(1, 12))
    assert [(each.event, _data(each)) for each in heard[0]] == [
        (each.event, _data(each)) for each in heard[1]
    ]


async def what_is_relayed_arrives_in_order_at_the_others(first: Broker, second: Broker) -> None:
    """On each topic by itself, and not at the sender."""
    heard: list[bytes] = []
    others: list[bytes] = []
    arrived = asyncio.Event()

    def receive(message: bytes) -> None:
        heard.append(message)
        if message == b"last":
            arrived.set()

    await second.listen("a", receive)
    await second.listen("b", others.append)
    await first.listen("a", others.append)
    for number in range(100):
        first.relay("a", b"%d" % number)
    await first.relay("a", b"last")
    async with asyncio.timeout(_PATIENCE):
        await arrived.wait()
    assert heard == [*(b"%d" % number for number in range(100)), b"last"]
    assert others == []


async def a_process_that_has_stopped_to_listen_hears_nothing(first: Broker, second: Broker) -> None:
    """Messages on other topics still arrive."""
    heard: list[bytes] = []
    arrived = asyncio.Event()
    await second.listen("a", heard.append)
    await second.listen("b", lambda message: arrived.set())
    second.unlisten("a")
    # An answer says that the engine has carried out what was called before.
    await second.subscribe("any", lambda record: None)
    await first.relay("a", b"1")
    await first.relay("b", b"2")
    async with asyncio.timeout(_PATIENCE):
        await arrived.wait()
    assert heard == []


BROKER: Final[tuple[Callable[[Broker], Awaitable[None]], ...]] = (
    positions_follow_each_other,
    rooms_have_histories_of_their_own,
    a_subscriber_gets_everything_after_the_position,
    a_publication_that_is_not_awaited_is_published,
    nothing_is_received_after_the_subscription_has_ended,
    a_message_has_no_event,
    the_history_is_read_forwards_in_pages,
    the_history_is_read_backwards,
    a_position_of_another_history_is_noticed,
    a_room_without_publications_has_a_position,
    the_history_is_limited_in_number,
    the_history_is_limited_in_bytes,
    a_repeat_has_the_position_of_the_first,
    a_key_belongs_to_its_publisher_and_room,
    another_content_with_the_same_key_is_a_conflict,
    a_replaced_publication_leaves_its_place_empty,
    of_a_chain_of_replacements_only_the_last_is_kept,
    what_replaces_something_unknown_is_published,
    an_empty_place_does_not_count_as_lost,
    a_key_and_a_replacement_are_one_edit,
    what_is_relayed_does_not_come_back,
)
"""What each `Broker` does; each function takes a broker that is new."""

SHARED_BROKER: Final[tuple[Callable[[Broker, Broker], Awaitable[None]], ...]] = (
    all_processes_have_the_same_positions,
    each_process_gets_what_the_others_publish,
    what_is_relayed_arrives_in_order_at_the_others,
    a_process_that_has_stopped_to_listen_hears_nothing,
)
"""What each `Broker` does that is shared; each function takes two that use the same new store."""


def _draft(data: object, event: str | None = "said") -> Draft:
    return Draft(event, msgspec.msgpack.encode(data))


def _keyed(publisher: str, key: str, data: object) -> Draft:
    draft = _draft(data)
    return draft._replace(key=Key(publisher, key, draft.payload))


def _replacing(position: Position, data: object) -> Draft:
    return _draft(data)._replace(replaces=position)


async def _refusal(broker: Broker, room: str, draft: Draft) -> str | None:
    try:
        await broker.publish(room, draft, _LARGE)
    except Reject as refusal:
        return refusal.code
    return None


async def _replaced(broker: Broker, room: str) -> list[tuple[object, Position | None]]:
    page = await broker.after(room, None, limit=1000, max_bytes=_PAGE)
    return [(_data(record), record.replaces) for record in page.records]


def _data(record: Record) -> object:
    return msgspec.msgpack.decode(record.payload)


def _content(records: Sequence[Record]) -> list[object]:
    return [_data(record) for record in records]


async def _all(broker: Broker, room: str) -> list[object]:
    page = await broker.after(room, None, limit=1000, max_bytes=_PAGE)
    assert page.complete
    return _content(page.records)
