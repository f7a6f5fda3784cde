"""Rooms of two nodes whose broker has a bad day."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from support.links import Network
from symphony import BrokerUnavailableError, OutcomeUnknownError, Socket, Symphony
from symphony.broker.base import Broker
from symphony.broker.hub import Hub
from symphony.broker.memory import MemoryBroker
from symphony.node import brokers
from symphony.testing import Clock, TestClient, TestConnection


class Node:
    def __init__(self, app: Symphony, client: TestClient) -> None:
        self.app = app
        self.client = client
        self.errors: list[BaseException] = []
        app.on_error(self.failed)

    async def failed(self, socket: Socket | None, error: BaseException) -> None:
        self.errors.append(error)


def new_hub(life: str) -> Hub:
    return Hub(MemoryBroker(max_bytes=10_000_000), life=life)


@pytest.fixture
async def network() -> Network:
    return Network(new_hub("first"))


@pytest.fixture
async def nodes(network: Network, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Node, Node]]:
    async def opened(*_: object, **__: object) -> Broker:
        return await network.node()

    monkeypatch.setattr(brokers, "open_broker", opened)
    async with AsyncExitStack() as stack:
        made: list[Node] = []
        for _ in range(2):
            # The URL is not used; it is one that names no broker in memory.
            app = Symphony(broker="ipc:///somewhere")
            app.rooms("chat:{name}", history=10, client_join=True)
            app.rooms("plain:{name}", client_join=True)
            app.route("/", events=True)
            client = TestClient(app)
            node = Node(app, client)
            await stack.enter_async_context(client)
            made.append(node)
        yield made[0], made[1]


async def joined(connection: TestConnection, room: str) -> dict[str, Any]:
    await connection.send(json.dumps({"join": room, "id": 1}))
    told = json.loads(str(await connection.receive()))
    assert json.loads(str(await connection.receive())) == {"reply": 1, "data": None}
    return told


async def heard(node: Node, connection: TestConnection) -> list[Any]:
    """Return what a member was told up to now: numbers for publications."""
    await node.client.settle()
    told: list[Any] = []
    while True:
        try:
            envelope = json.loads(str(await connection.receive(timeout=0)))
        except TimeoutError:
            return told
        told.append("lost" if "lost" in envelope else envelope["data"])


async def test_what_was_missed_without_a_link_is_repaired(nodes: tuple[Node, Node], network: Network) -> None:
    one, two = nodes
    clock = Clock.of_running_loop()
    async with two.client.connect("/", protocol="raw") as bob:
        await joined(bob, "chat:a")
        await one.app.room("chat:a").emit("said", 1)
        # One node loses what is pushed to it, and then its link.
        network.fate = lambda way, message: () if way == "down" and message[0] == 3 else (0.0,)
        for number in range(2, 6):
            await one.app.room("chat:a").emit("said", number)
        network.fate = lambda way, message: (0.0,)
        network.cut()
        await clock.advance(2)
        await one.app.room("chat:a").emit("said", 6)
        assert await heard(two, bob) == [1, 2, 3, 4, 5, 6]


async def test_more_than_the_history_keeps_is_told_once(nodes: tuple[Node, Node], network: Network) -> None:
    one, two = nodes
    clock = Clock.of_running_loop()
    async with (
        two.client.connect("/", protocol="raw") as bob,
        two.client.connect("/", protocol="raw") as eve,
    ):
        await joined(bob, "chat:a")
        await joined(eve, "chat:a")
        network.fate = lambda way, message: () if way == "down" and message[0] == 3 else (0.0,)
        for number in range(1, 31):
            await one.app.room("chat:a").emit("said", number)
        network.fate = lambda way, message: (0.0,)
        await one.app.room("chat:a").emit("said", 31)
        await clock.advance(2)
        for each in (bob, eve):
            assert await heard(two, each) == ["lost", *range(22, 32)]
        await one.app.room("chat:a").emit("said", 32)
        assert await heard(two, bob) == [32]


async def test_a_restarted_broker_is_told_once(nodes: tuple[Node, Node], network: Network) -> None:
    """Its memory is gone, and the members go on in its new life."""
    one, two = nodes
    clock = Clock.of_running_loop()
    async with (
        one.client.connect("/", protocol="raw") as ann,
        two.client.connect("/", protocol="raw") as bob,
    ):
        for each in (ann, bob):
            await joined(each, "chat:a")
        for number in range(3):
            await one.app.room("chat:a").emit("said", number)
        network.hub = new_hub("second")
        network.cut()
        await clock.advance(2)
        await one.app.room("chat:a").emit("said", "after")
        await clock.advance(2)
        assert await heard(one, ann) == [0, 1, 2, "lost", "after"]
        assert await heard(two, bob) == [0, 1, 2, "lost", "after"]


async def test_publications_fail_loudly_while_the_broker_is_gone(
    nodes: tuple[Node, Node], network: Network
) -> None:
    """To those who await them, and otherwise to `on_error`. The sockets stay."""
    one, two = nodes
    clock = Clock.of_running_loop()
    async with one.client.connect("/", protocol="raw") as ann:
        await joined(ann, "chat:a")
        await joined(ann, "plain:a")
        network.refuses = True
        network.cut()
        await two.client.settle()
        # The members on this node have it all the same.
        with pytest.raises(BrokerUnavailableError):
            await one.app.room("plain:a").emit("said", "here")
        assert await heard(one, ann) == ["here"]
        one.app.room("plain:a").emit("said", "not awaited")
        await clock.advance(0.1)
        assert [type(error) for error in one.errors] == [BrokerUnavailableError]
        one.app.room("chat:a").emit("said", "kept")
        await clock.advance(6)
        assert [type(error) for error in one.errors[1:]] == [BrokerUnavailableError]
        network.refuses = False
        await clock.advance(2)
        await one.app.room("chat:a").emit("said", "again")
        assert await heard(one, ann) == ["not awaited", "again"]
    one.client.errors.clear()


async def test_a_publication_whose_outcome_is_unknown_says_so(
    nodes: tuple[Node, Node], network: Network
) -> None:
    one, _ = nodes
    clock = Clock.of_running_loop()
    network.fate = lambda way, message: () if way == "down" else (0.0,)

    async def publish() -> None:
        await one.app.room("chat:a").emit("said", 1)

    publishing = asyncio.ensure_future(publish())
    await clock.advance(6)
    with pytest.raises(OutcomeUnknownError):
        await publishing
    network.fate = lambda way, message: (0.0,)
    await clock.advance(3)
    assert [each.data for each in await one.app.room("chat:a").history()] == [1]
