"""The broker that several nodes share."""

from __future__ import annotations

import asyncio
import logging
import os

import msgspec
import pytest
from msgspec.structs import replace

from support.links import Network
from symphony.broker import hub as hubs
from symphony.broker.base import Draft, History, Record
from symphony.broker.hub import Hub
from symphony.broker.links import encode
from symphony.broker.memory import MemoryBroker
from symphony.testing import Clock
from symphony.testing.clock import settle

HISTORY = History(1000)
DRAFT = Draft("said", msgspec.msgpack.encode("x" * 100))


def network() -> Network:
    return Network(Hub(MemoryBroker(max_bytes=10_000_000), life="one"))


async def test_the_publisher_gets_its_publication_in_the_place_of_the_answer() -> None:
    """The broker does not send it a second time."""
    net = network()
    first, second = await net.node(), await net.node()
    heard: list[Record] = []
    await first.subscribe("a", heard.append)
    source = object()
    calls = [
        first.publish("a", replace(DRAFT, source=source), HISTORY),
        second.publish("a", DRAFT, HISTORY),
        first.publish("a", replace(DRAFT, source=source), HISTORY),
    ]
    for call in calls:
        await call
    assert [(each.position.offset, each.source) for each in heard] == [
        (1, source),
        (2, source),
        (3, None),
    ] or [each.position.offset for each in heard] == [1, 2, 3]
    assert [each.source for each in heard].count(source) == 2
    assert sum(1 for way, message in net.sent if way == "down" and message[0] == hubs.Said.PUBLISHED) == 1


@pytest.mark.within("broker.hub._MAX_UNSENT_BYTES")
@pytest.mark.beyond("broker.hub._MAX_UNSENT_BYTES")
async def test_a_node_that_does_not_read_has_to_connect_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hubs, "_MAX_UNSENT_BYTES", 1000)
    clock = Clock.of_running_loop()
    net = network()
    node = await net.node()
    told: list[object] = []
    await node.subscribe("a", lambda record: None, told.append)
    net.stalled = True
    broker = net.hub._broker
    for _ in range(5):
        await broker.publish("a", DRAFT, HISTORY)
    assert "reads too slowly" not in caplog.text
    for _ in range(5):
        await broker.publish("a", DRAFT, HISTORY)
    assert caplog.text.count("reads too slowly") == 1
    net.stalled = False
    await clock.advance(1)
    assert len(told) == 1
    node.close()


@pytest.mark.within("broker.hubnodes.NODE_TIMEOUT")
@pytest.mark.beyond("broker.hubnodes.NODE_TIMEOUT")
async def test_a_node_without_a_link_is_known_for_a_time() -> None:
    clock = Clock.of_running_loop()
    net = network()
    for away, known in ((50, True), (70, False)):
        node = await net.node()
        net.refuses = True
        net.cut()
        await clock.advance(away)
        net.refuses = False
        net.sent.clear()
        await clock.advance(2)
        assert ("down", [hubs.Said.WELCOME, "one", known, known, 0]) in net.sent
        node.close()


async def test_a_node_that_has_stopped_is_forgotten_at_once() -> None:
    net = network()
    ended: list[str] = []
    net.hub.when_ended(ended.append)
    node = await net.node(name="the same")
    node.close()
    await settle()
    assert ended == ["the same"]
    assert net.hub._nodes == {}


async def test_the_nodes_of_a_process_that_has_ended_are_forgotten() -> None:
    """When all that they have sent is read; those of other processes stay."""
    net = network()
    ended: list[str] = []
    net.hub.when_ended(ended.append)
    one, two, other = [await net.node(name=name) for name in ("one", "two", "other")]
    net.hub._nodes["other"].process = 1
    net.hub.process_ended(os.getpid())
    assert ended == []
    links = net._links
    links[0].close()
    await settle()
    assert ended == ["one"]
    net.refuses = True
    links[1].close()
    links[2].close()
    await settle()
    assert ended == ["one", "two"]
    net.hub.process_ended(1)
    assert ended == ["one", "two", "other"]
    for node in (one, two, other):
        node.close()


async def test_what_it_cannot_read_ends_the_link(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock.of_running_loop()
    net = network()
    node = await net.node()
    for junk in (b"\xc1", b"", encode([1]), encode([0, 0, "hello"]), encode([0, 0, "no such method"])):
        caplog.clear()
        assert net._links[-1].other is not None
        net._links[-1]._arrive(junk)
        await clock.advance(1)
        assert "cannot read" in caplog.text
        assert (await node.publish("a", DRAFT, HISTORY)).offset > 0
    node.close()


async def test_a_call_of_a_node_that_did_not_say_hello_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    net = network()

    class End:
        closed = False

        def received(self, message: bytes) -> None: ...

        def lost(self) -> None:
            self.closed = True

    end = End()
    link = await net.dial(end)
    link.send(encode([1, 0, "subscribe", "a"]))
    await settle()
    assert end.closed
    assert "hello" in caplog.text


async def test_a_call_that_fails_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    net = network()
    node = await net.node()
    with pytest.raises(TimeoutError, match="TypeError"):
        await node._caller.call("after", "a", None, "many", 1)
    assert "failed at a call" in caplog.text
    assert (await asyncio.wait_for(node.subscribe("a", lambda record: None), 5)).offset == 0
    node.close()
