"""What a node calls at the broker in another process: once, in order, and with an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from support.links import Network
from symphony import (
    BrokerUnavailableError,
    MessageTooLargeError,
    OutcomeUnknownError,
    Position,
    QueueFullError,
)
from symphony.broker import links
from symphony.broker.base import Draft, History, Key, Record
from symphony.broker.hub import Hub
from symphony.broker.memory import MemoryBroker
from symphony.broker.remote import RemoteBroker
from symphony.testing import Clock
from symphony.testing.clock import settle

HISTORY = History(1000)


def draft(data: object, key: str | None = None) -> Draft:
    return Draft(
        "said", msgspec.msgpack.encode(data), key=None if key is None else Key("ann", key, b"digest")
    )


def hub(life: str = "first") -> Hub:
    return Hub(MemoryBroker(max_bytes=10_000_000), life=life)


async def kept(broker: RemoteBroker, room: str = "a") -> list[Any]:
    page = await broker.after(room, None, limit=1000, max_bytes=10_000_000)
    return [msgspec.msgpack.decode(record.payload) for record in page.records]


@pytest.fixture
async def network() -> Network:
    return Network(hub())


@pytest.fixture
async def node(network: Network) -> AsyncIterator[RemoteBroker]:
    broker = await network.node()
    yield broker
    broker.close()


@pytest.fixture
async def clock() -> Clock:
    return Clock.of_running_loop()


def loses(direction: str, what: object, times: int = 1) -> Any:
    """Return a fate: the first messages of a kind are lost, and with them the link, as in reality."""
    left = times

    def fate(way: str, message: Sequence[Any]) -> Sequence[float]:
        nonlocal left
        kind = message[2] if way == "up" else message[0]
        if way == direction and kind == what and left:
            left -= 1
            return ()
        return (0.0,)

    return fate


async def test_a_publication_whose_answer_was_lost_with_the_link_is_published_once(
    network: Network, node: RemoteBroker, clock: Clock
) -> None:
    network.fate = loses("down", links.Said.ANSWER)
    publication = asyncio.ensure_future(node.publish("a", draft("once"), HISTORY))
    await settle()
    network.cut()
    await clock.advance(1)
    assert (await publication).offset == 1
    assert network.methods().count("publish") == 2
    assert await kept(node) == ["once"]


async def test_a_call_that_was_lost_is_repeated_on_a_new_link(
    network: Network, node: RemoteBroker, clock: Clock
) -> None:
    """A link that answers nothing for half of the timeout is given up."""
    network.fate = loses("up", "publish")
    publication = asyncio.ensure_future(node.publish("a", draft("once"), HISTORY))
    await clock.advance(4)
    assert (await publication).offset == 1
    assert network.methods().count("hello") == 2


async def test_what_is_published_without_a_link_is_published_in_order_when_there_is_one(
    network: Network, node: RemoteBroker, clock: Clock
) -> None:
    network.refuses = True
    network.cut()
    await settle()
    publications = [asyncio.ensure_future(node.publish("a", draft(n), HISTORY)) for n in range(5)]
    await clock.advance(2)
    network.refuses = False
    await clock.advance(2)
    assert [(await each).offset for each in publications] == [1, 2, 3, 4, 5]
    assert await kept(node) == [0, 1, 2, 3, 4]


@pytest.mark.beyond("publish_timeout")
async def test_a_call_that_was_never_sent_fails_and_says_that_nothing_was_done(
    network: Network, node: RemoteBroker, clock: Clock
) -> None:
    network.refuses = True
    network.cut()
    await settle()
    publication = asyncio.ensure_future(node.publish("a", draft("late"), HISTORY))
    await clock.advance(6)
    with pytest.raises(BrokerUnavailableError, match="cannot be reached"):
        await publication
    network.refuses = False
    await clock.advance(2)
    assert await kept(node) == []


@pytest.mark.beyond("publish_timeout")
async def test_a_call_that_was_sent_fails_and_says_that_it_may_have_been_done(
    network: Network, node: RemoteBroker, clock: Clock
) -> None:
    network.fate = loses("down", links.Said.ANSWER, times=100)
    publication = asyncio.ensure_future(node.publish("a", draft("perhaps"), HISTORY))
    await clock.advance(6)
    with pytest.raises(OutcomeUnknownError, match="may or may not"):
        await publication
    network.fate = loses("up", "nothing")
    assert await kept(node) == ["perhaps"]


@pytest.mark.within("publish_timeout")
async def test_a_slow_answer_is_an_answer(network: Network, node: RemoteBroker, clock: Clock) -> None:
    network.fate = lambda way, message: (1.0,)
    publication = asyncio.ensure_future(node.publish("a", draft("slow"), HISTORY))
    await clock.advance(4.5)
    assert (await publication).offset == 1


async def test_a_restarted_broker_does_not_know_what_was_done(
    network: Network, node: RemoteBroker, clock: Clock
) -> None:
    """It would publish a second time. With a key it notices, so such a publication is repeated."""
    network.fate = loses("down", links.Said.ANSWER, times=2)
    publications = [
        asyncio.ensure_future(node.publish("a", draft("once"), HISTORY)),
        asyncio.ensure_future(node.publish("a", draft("with a key", key="1"), HISTORY)),
    ]
    await settle()
    network.hub = hub("second")
    network.cut()
    await clock.advance(1)
    with pytest.raises(OutcomeUnknownError, match="restarted"):
        await publications[0]
    assert (await publications[1]).offset == 1
    assert await kept(node) == ["with a key"]


async def test_a_node_subscribes_and_listens_again_and_is_told_the_positions(
    network: Network, node: RemoteBroker, clock: Clock
) -> None:
    heard: list[Record] = []
    tops: list[Position] = []
    relayed: list[bytes] = []
    await node.subscribe("a", heard.append, tops.append)
    await node.listen("t", relayed.append)
    other = await network.node()
    network.cut()
    await settle()
    # Neither hears anything now.
    missed = asyncio.ensure_future(other.publish("a", draft("missed"), HISTORY))
    await clock.advance(1)
    await missed
    assert [top.offset for top in tops] in ([0], [1])
    await other.publish("a", draft("heard"), HISTORY)
    await other.relay("t", b"heard")
    await settle()
    assert msgspec.msgpack.decode(heard[-1].payload) == "heard"
    assert relayed == [b"heard"]
    other.close()


async def test_a_room_that_nobody_wants_any_more_is_unsubscribed_again(
    network: Network, node: RemoteBroker
) -> None:
    """As when the first message was lost."""
    heard: list[Record] = []
    network.fate = loses("up", "unsubscribe")
    await node.subscribe("a", heard.append)
    node.unsubscribe("a")
    other = await network.node()
    await other.publish("a", draft(1), HISTORY)
    await settle()
    assert network.methods().count("unsubscribe") == 2
    before = len(network.sent)
    await other.publish("a", draft(2), HISTORY)
    await settle()
    assert [message[0] for way, message in network.sent[before:] if way == "down"] == [links.Said.ANSWER]
    assert heard == []
    other.close()


@pytest.mark.within("max_broker_calls", "max_broker_bytes")
async def test_many_calls_may_wait(network: Network) -> None:
    node = await network.node(max_calls=10, max_bytes=10_000)
    calls = [node.publish("a", draft("x" * 500), HISTORY) for _ in range(10)]
    assert [(await call).offset for call in calls] == list(range(1, 11))
    node.close()


@pytest.mark.parametrize("options", [{"max_calls": 10}, {"max_bytes": 6000}])
@pytest.mark.beyond("max_broker_calls", "max_broker_bytes")
async def test_a_further_call_is_refused_and_nothing_is_lost_of_the_others(
    network: Network, options: dict[str, int]
) -> None:
    node = await network.node(**options)
    calls = [asyncio.ensure_future(node.publish("a", draft("x" * 500), HISTORY)) for _ in range(15)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    full = [each for each in results if isinstance(each, QueueFullError)]
    assert 0 < len(full) < 15
    assert "wait for the broker" in str(full[0])
    assert len(await kept(node)) == 15 - len(full)
    node.close()


async def test_relayed_messages_are_refused_if_too_much_is_unsent_or_there_is_no_link(
    network: Network, clock: Clock
) -> None:
    node = await network.node(max_bytes=10_000)
    network.stalled = True
    for _ in range(9):
        await node.relay("t", b"x" * 1000)
    with pytest.raises(QueueFullError, match="too slow"):
        await node.relay("t", b"x" * 1000)
    network.stalled = False
    network.refuses = True
    network.cut()
    await settle()
    with pytest.raises(BrokerUnavailableError):
        await node.relay("t", b"lost")
    node.close()


@pytest.mark.within("broker.links.MAX_MESSAGE_BYTES")
@pytest.mark.beyond("broker.links.MAX_MESSAGE_BYTES")
async def test_a_publication_may_have_a_size(node: RemoteBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("symphony.broker.waiting.MAX_MESSAGE_BYTES", 1000)
    assert (await node.publish("a", draft("x" * 900), HISTORY)).offset == 1
    with pytest.raises(MessageTooLargeError) as caught:
        await node.publish("a", draft("x" * 1000), HISTORY)
    assert (caught.value.limit, caught.value.size > 1000) == (1000, True)
    with pytest.raises(MessageTooLargeError):
        await node.relay("t", b"x" * 1000)


async def test_calls_end_when_the_app_stops(network: Network) -> None:
    node = await network.node()
    network.stalled = True
    sent = asyncio.ensure_future(node.publish("a", draft(1), HISTORY))
    await settle()
    node.close()
    with pytest.raises(OutcomeUnknownError, match="stopped"):
        await sent
    with pytest.raises(BrokerUnavailableError, match="stopped"):
        await node.publish("a", draft(2), HISTORY)


async def test_a_broker_that_does_not_come_back_has_ended(network: Network, clock: Clock) -> None:
    ended: list[str] = []
    node = await network.node(ended=lambda: ended.append("ended"))
    network.cut()
    await clock.advance(5)
    assert ended == []
    network.refuses = True
    network.cut()
    await clock.advance(1)
    assert ended == []
    await clock.advance(10)
    assert ended == ["ended"]
    node.close()


async def test_it_does_not_start_without_a_broker(network: Network, clock: Clock) -> None:
    network.refuses = True
    starting = asyncio.ensure_future(network.node())
    await clock.advance(6)
    with pytest.raises(BrokerUnavailableError):
        await starting


@pytest.mark.parametrize(("begins", "ends"), [("subscribe", "unsubscribe"), ("listen", "unlisten")])
async def test_what_was_given_up_with_the_last_link_is_ended_on_the_next_one(
    network: Network, node: RemoteBroker, clock: Clock, begins: str, ends: str
) -> None:
    """A node left a room while it subscribed to it, and its link ended then.

    The call was repeated on the next link, and the end was not. So the broker sent everything
    to this node until the next publication, and kept the room.
    """
    network.fate = lambda way, message: ()
    beginning = asyncio.ensure_future(getattr(node, begins)("a", print))
    await settle()
    beginning.cancel()
    await settle()
    assert network.methods()[-2:] == [begins, ends]
    network.fate = lambda way, message: (0.0,)
    network.cut()
    await clock.advance(1)
    assert network.methods()[-3:] == ["hello", begins, ends]
