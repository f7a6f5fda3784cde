"""The tests that each broker and each presence store passes.

Run them against your own engine. Each is a function that takes a new broker:

    @pytest.mark.parametrize("check", contracts.BROKER, ids=lambda check: check.__name__)
    async def test_it_is_a_broker(check):
        await check(make_broker())

Those of `PRESENCE` also take a function that lets the time of the store pass:

    @pytest.mark.parametrize("check", contracts.PRESENCE, ids=lambda check: check.__name__)
    async def test_it_is_a_presence_store(check):
        await check(make_store(), clock.advance)

A store that keeps its members over a restart passes those of `RESTARTS`, too. These take a
function that kills the present store and opens it again:

    @pytest.mark.parametrize("check", contracts.RESTARTS, ids=lambda check: check.__name__)
    async def test_its_members_survive(check):
        await check(restart_store, clock.advance)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from symphony.broker.base import Broker, History, Record
from symphony.protocol.positions import Position
from symphony.testing.drafts import PAGE, content, data_of, draft, read_all
from symphony.testing.keycontracts import KEYS
from symphony.testing.leasechecks import PRESENCE
from symphony.testing.restartchecks import RESTARTS

__all__ = (
    "BROKER",
    "PRESENCE",
    "RESTARTS",
    "SHARED_BROKER",
    "a_broker_that_answers_is_ok",
    "a_delivery_is_counted",
    "a_message_has_no_event",
    "a_position_of_another_history_is_noticed",
    "a_process_that_has_stopped_to_listen_hears_nothing",
    "a_publication_that_is_not_awaited_is_published",
    "a_room_without_publications_has_a_position",
    "a_subscriber_gets_everything_after_the_position",
    "all_processes_have_the_same_positions",
    "each_process_gets_what_the_others_publish",
    "nothing_is_received_after_the_subscription_has_ended",
    "positions_follow_each_other",
    "rooms_have_histories_of_their_own",
    "the_history_is_limited_in_bytes",
    "the_history_is_limited_in_number",
    "the_history_is_read_backwards",
    "the_history_is_read_forwards_in_pages",
    "what_is_relayed_arrives_in_order_at_the_others",
    "what_is_relayed_does_not_come_back",
)

_PATIENCE: Final = 10.0
_LARGE: Final = History(1000)


async def a_broker_that_answers_is_ok(broker: Broker) -> None:
    """Its state says so."""
    await broker.publish("a", draft("one"), _LARGE)
    assert broker.state == "ok"


async def positions_follow_each_other(broker: Broker) -> None:
    """The first publication has the offset 1, and each later one the next, in one epoch."""
    positions = [await broker.publish("a", draft(number), _LARGE) for number in range(3)]
    assert [position.offset for position in positions] == [1, 2, 3]
    assert len({position.epoch for position in positions}) == 1


async def rooms_have_histories_of_their_own(broker: Broker) -> None:
    """What is published to one room changes nothing in another."""
    await broker.publish("a", draft("to a"), _LARGE)
    await broker.publish("b", draft("to b"), _LARGE)
    assert await read_all(broker, "a") == ["to a"]
    assert await read_all(broker, "b") == ["to b"]


async def a_subscriber_gets_everything_after_the_position(broker: Broker) -> None:
    """In the order of the positions, each once, before the publisher has its result."""
    heard: list[Record] = []
    before = await broker.publish("a", draft("before"), _LARGE)
    assert await broker.subscribe("a", heard.append) == before
    for number in range(3):
        position = await broker.publish("a", draft(number, "counted"), _LARGE)
        assert heard[-1].position == position
    assert [(record.position.offset, record.event, data_of(record)) for record in heard] == [
        (2, "counted", 0),
        (3, "counted", 1),
        (4, "counted", 2),
    ]


async def a_publication_that_is_not_awaited_is_published(broker: Broker) -> None:
    """And it has the place of the call."""
    heard: list[Record] = []
    await broker.subscribe("a", heard.append)
    for number in range(3):
        broker.publish("a", draft(number), _LARGE)
    await broker.publish("a", draft("last"), _LARGE)
    assert [data_of(record) for record in heard] == [0, 1, 2, "last"]


async def nothing_is_received_after_the_subscription_has_ended(broker: Broker) -> None:
    """But it is kept."""
    heard: list[Record] = []
    await broker.subscribe("a", heard.append)
    broker.unsubscribe("a")
    await broker.publish("a", draft(1), _LARGE)
    assert heard == []
    top = await broker.subscribe("a", heard.append)
    assert top.offset == 1
    assert heard == []
    assert await read_all(broker, "a") == [1]


async def a_message_has_no_event(broker: Broker) -> None:
    """It comes back as it was published."""
    await broker.publish("a", draft("hi", None), _LARGE)
    page = await broker.after("a", None, limit=1, max_bytes=PAGE)
    assert [(record.event, data_of(record)) for record in page.records] == [(None, "hi")]


async def the_history_is_read_forwards_in_pages(broker: Broker) -> None:
    """A page is limited in number and in bytes, and says where the history ends."""
    positions = [await broker.publish("a", draft(number), _LARGE) for number in range(5)]
    page = await broker.after("a", None, limit=2, max_bytes=PAGE)
    assert (content(page.records), page.top, page.complete) == ([0, 1], positions[-1], True)
    assert page.end == positions[1]
    page = await broker.after("a", page.records[-1].position, limit=2, max_bytes=PAGE)
    assert (content(page.records), page.complete) == ([2, 3], True)
    page = await broker.after("a", positions[0], limit=10, max_bytes=1)
    assert (content(page.records), page.complete) == ([1], True)
    page = await broker.after("a", positions[-1], limit=2, max_bytes=PAGE)
    assert (list(page.records), page.top, page.complete) == ([], positions[-1], True)
    assert page.end == positions[-1]


async def the_history_is_read_backwards(broker: Broker) -> None:
    """From the newest, or from a position."""
    positions = [await broker.publish("a", draft(number), _LARGE) for number in range(5)]
    page = await broker.before("a", None, limit=2)
    assert (content(page.records), page.complete) == ([3, 4], True)
    page = await broker.before("a", positions[3], limit=2)
    assert (content(page.records), page.complete) == ([1, 2], True)
    page = await broker.before("a", positions[1], limit=10)
    assert content(page.records) == [0]
    assert not (await broker.before("a", Position("another", 3), limit=1)).complete


async def a_position_of_another_history_is_noticed(broker: Broker) -> None:
    """Another epoch, and an offset that was never reached."""
    top = await broker.publish("a", draft(1), _LARGE)
    for position in (Position("another", 1), Position(top.epoch, 2), Position("another", 0)):
        page = await broker.after("a", position, limit=1, max_bytes=PAGE)
        assert (list(page.records), page.top, page.complete) == ([], top, False)
        # All that is kept may be new to whoever has it, unless the offset is beyond the end.
        assert page.end in (Position(top.epoch, 0), top)


async def a_room_without_publications_has_a_position(broker: Broker) -> None:
    """What is published later follows it."""
    before = await broker.subscribe("a", lambda record: None)
    assert before.offset == 0
    broker.unsubscribe("a")
    await broker.publish("a", draft(1), _LARGE)
    page = await broker.after("a", before, limit=10, max_bytes=PAGE)
    assert (content(page.records), page.complete) == ([1], True)


async def the_history_is_limited_in_number(broker: Broker) -> None:
    """And a position before the oldest is noticed."""
    positions = [await broker.publish("a", draft(number), History(3)) for number in range(5)]
    assert await read_all(broker, "a") == [2, 3, 4]
    page = await broker.after("a", positions[1], limit=10, max_bytes=PAGE)
    assert (content(page.records), page.complete) == ([2, 3, 4], True)
    page = await broker.after("a", positions[0], limit=10, max_bytes=PAGE)
    assert (list(page.records), page.complete, page.end) == ([], False, positions[1])


async def the_history_is_limited_in_bytes(broker: Broker) -> None:
    """The newest publication is kept in any case."""
    history = History(100, bytes=120)
    for number in range(5):
        await broker.publish("a", draft(str(number) * 30), history)
    assert await read_all(broker, "a") == [str(number) * 30 for number in (2, 3, 4)]
    await broker.publish("a", draft("x" * 1000), history)
    assert await read_all(broker, "a") == ["x" * 1000]


async def what_is_relayed_does_not_come_back(broker: Broker) -> None:
    """And it has nothing to do with the room of the same name."""
    heard: list[object] = []
    await broker.subscribe("a", heard.append)
    await broker.listen("a", heard.append)
    await broker.relay("a", b"1")
    broker.unlisten("a")
    await broker.relay("a", b"2")
    await broker.publish("a", draft("kept"), _LARGE)
    assert [type(each) for each in heard] == [Record]


async def all_processes_have_the_same_positions(first: Broker, second: Broker) -> None:
    """And they read the same history."""
    assert first.shared
    assert second.shared
    one = await first.publish("a", draft("one"), _LARGE)
    two = await second.publish("a", draft("two"), _LARGE)
    assert (two.epoch, two.offset) == (one.epoch, one.offset + 1)
    assert await second.subscribe("a", lambda record: None) == two
    assert await read_all(first, "a") == await read_all(second, "a") == ["one", "two"]


async def each_process_gets_what_the_others_publish(first: Broker, second: Broker) -> None:
    """In the order of the positions, and its own publications too."""
    heard: tuple[list[Record], list[Record]] = [], []
    arrived = asyncio.Event()

    def receive(record: Record) -> None:
        heard[1].append(record)
        if data_of(record) == "last":
            arrived.set()

    await first.subscribe("a", heard[0].append)
    await second.subscribe("a", receive)
    for number in range(5):
        await first.publish("a", draft(number), _LARGE)
        await second.publish("a", draft(number + 100), _LARGE)
    await first.publish("a", draft("last", None), _LARGE)
    async with asyncio.timeout(_PATIENCE):
        await arrived.wait()
    assert [record.position.offset for record in heard[1]] == list(range(1, 12))
    assert [(each.event, data_of(each)) for each in heard[0]] == [
        (each.event, data_of(each)) for each in heard[1]
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


async def a_delivery_is_counted(first: Broker, second: Broker) -> None:
    """It arrives in one order with what is relayed, and not at the sender."""
    heard: list[bytes] = []
    own: list[bytes] = []
    arrived = asyncio.Event()

    def receive(message: bytes) -> None:
        heard.append(message)
        if message == b"last":
            arrived.set()

    assert await first.deliver("a", b"to nobody") == 0
    await first.listen("a", own.append)
    assert await first.deliver("a", b"to nobody else") == 0
    await second.listen("a", receive)
    for number in range(20):
        if number % 2:
            first.deliver("a", b"%d" % number)
        else:
            first.relay("a", b"%d" % number)
    assert await first.deliver("a", b"last") == 1
    async with asyncio.timeout(_PATIENCE):
        await arrived.wait()
    assert heard == [*(b"%d" % number for number in range(20)), b"last"]
    assert own == []
    second.unlisten("a")
    # An answer says that the engine has carried out what was called before.
    await second.subscribe("any", lambda record: None)
    assert await first.deliver("a", b"to nobody again") == 0


BROKER: Final[tuple[Callable[[Broker], Awaitable[None]], ...]] = (
    a_broker_that_answers_is_ok,
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
    what_is_relayed_does_not_come_back,
    *KEYS,
)
"""What each `Broker` does; each function takes a broker that is new."""

SHARED_BROKER: Final[tuple[Callable[[Broker, Broker], Awaitable[None]], ...]] = (
    all_processes_have_the_same_positions,
    each_process_gets_what_the_others_publish,
    what_is_relayed_arrives_in_order_at_the_others,
    a_process_that_has_stopped_to_listen_hears_nothing,
    a_delivery_is_counted,
)
"""What each `Broker` does that is shared; each function takes two that use the same new store."""
