"""Rooms whose members are on two nodes, which share a broker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from symphony import Limits, Room, Socket, Symphony
from symphony.broker.engines import serve
from symphony.broker.ipc import ServedBroker
from symphony.errors import OutcomeUnknownError
from symphony.testing import TestClient, TestConnection

PATIENCE = 10


def make_app(url: str) -> Symphony:
    app = Symphony(broker=url)
    app.rooms("chat:{name}", history=100, client_join=True)
    app.rooms("plain:{name}", client_join=True)
    events = app.route("/", events=True)
    raw = app.route("/raw/{name}")

    @raw.on_connect
    async def enter(socket: Socket, name: str) -> None:
        await socket.join(f"quiet:{name}")

    @raw.on_message
    async def say(socket: Socket, name: str, message: str) -> None:
        await app.room(f"quiet:{name}").send(message, exclude=socket)

    @events.on("say")
    async def say_in(socket: Socket, data: list[str]) -> None:
        room, text = data
        await app.room(room).emit("said", text)
        await socket.emit("done", text)

    return app


class Node:
    def __init__(self, app: Symphony, client: TestClient) -> None:
        self.app = app
        self.client = client

    def room(self, name: str) -> Room[Any]:
        return self.app.room(name)


@pytest.fixture
def server() -> Any:
    served = serve("memory://", Limits())
    yield served
    served.close()


@pytest.fixture
async def nodes(server: ServedBroker) -> AsyncIterator[tuple[Node, Node]]:
    async with AsyncExitStack() as stack:
        made: list[Node] = []
        for _ in range(2):
            app = make_app(server.url)
            made.append(Node(app, await stack.enter_async_context(TestClient(app))))
        yield made[0], made[1]


async def joined(
    connection: TestConnection, room: str, since: dict[str, Any] | None = None
) -> dict[str, Any]:
    envelope: dict[str, Any] = {"join": room, "id": 1}
    if since is not None:
        envelope["since"] = since
    await connection.send(json.dumps(envelope))
    told = None
    # `joined` comes before the reply to the request.
    while True:
        answer = await received(connection)
        assert "error" not in answer, answer
        if "joined" in answer:
            told = answer
        elif answer.get("reply") == 1:
            assert told is not None
            return told


async def received(connection: TestConnection) -> dict[str, Any]:
    message = await connection.receive(timeout=PATIENCE)
    assert isinstance(message, str)
    return json.loads(message)


async def test_a_room_without_a_history_reaches_the_members_on_the_other_node(
    nodes: tuple[Node, Node],
) -> None:
    one, two = nodes
    async with one.client.connect("/raw/a") as ann, two.client.connect("/raw/a") as bob:
        await ann.send("from one")
        assert await bob.receive(timeout=PATIENCE) == "from one"
        await bob.send("from two")
        # The sender was left out, on its node.
        assert await ann.receive(timeout=PATIENCE) == "from two"
        await one.room("quiet:a").send(b"bytes")
        assert await ann.receive(timeout=PATIENCE) == b"bytes"
        assert await bob.receive(timeout=PATIENCE) == b"bytes"
        await two.room("quiet:a").emit("event", {"n": [1, None]})
        assert json.loads(str(await ann.receive(timeout=PATIENCE)))["data"] == {"n": [1, None]}


async def test_a_node_without_members_publishes_to_the_others(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    async with two.client.connect("/raw/a") as bob:
        await one.room("quiet:a").send("hello")
        assert await bob.receive(timeout=PATIENCE) == "hello"
    async with two.client.connect("/", protocol="raw") as bob:
        await joined(bob, "chat:a")
        position = await one.room("chat:a").emit("said", "kept")
        assert position is not None
        assert position.offset == 1
        assert (await received(bob))["offset"] == 1


async def test_everyone_is_on_all_nodes(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    async with one.client.connect("/raw/a") as ann, two.client.connect("/raw/b") as bob:
        await one.app.everyone.send("to all")
        assert await ann.receive(timeout=PATIENCE) == "to all"
        assert await bob.receive(timeout=PATIENCE) == "to all"


async def test_members_on_all_nodes_hear_a_history_in_one_order(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    async with one.client.connect("/", protocol="raw") as ann, two.client.connect("/", protocol="raw") as bob:
        for each in (ann, bob):
            assert (await joined(each, "chat:a"))["position"]["offset"] == 0
        for number in range(20):
            one.room("chat:a").emit("said", number)
            two.room("chat:a").emit("said", number + 100)
        last = await one.room("chat:a").emit("said", "last")
        assert last is not None
        heard: list[list[Any]] = []
        for each in (ann, bob):
            heard.append([])
            while not heard[-1] or heard[-1][-1][0] < last.offset:
                publication = await received(each)
                heard[-1].append((publication["offset"], publication["data"]))
        assert heard[0] == heard[1]
        assert [offset for offset, _ in heard[0]] == list(range(1, last.offset + 1))


async def test_an_app_that_stops_waits_for_its_publications(server: ServedBroker) -> None:
    app = make_app(server.url)
    async with TestClient(app):
        for number in range(20):
            app.room("chat:a").emit("said", number)
    other = make_app(server.url)
    async with TestClient(other):
        assert [each.data for each in await other.room("chat:a").history()] == list(range(20))


async def test_an_app_that_stops_does_not_wait_for_a_broker_that_has_gone(server: ServedBroker) -> None:
    app = make_app(server.url)
    app.limits = Limits(finish_timeout=0.5)

    async def publish_too_late() -> None:
        async with TestClient(app):
            server.close()
            app.room("chat:a").emit("said", "too late")

    with pytest.raises(OutcomeUnknownError, match="the app has stopped"):
        await publish_too_late()


async def test_a_publisher_hears_its_own_publication_before_its_reply(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    async with one.client.connect("/", protocol="raw") as ann, two.client.connect("/", protocol="raw") as bob:
        for each in (ann, bob):
            await joined(each, "chat:a")
        for number in range(10):
            await two.room("chat:a").emit("said", "of the other")
            await ann.send(json.dumps({"event": "say", "data": ["chat:a", f"mine {number}"]}))
            told: list[Any] = []
            while not told or told[-1] != ("done", f"mine {number}"):
                envelope = await received(ann)
                told.append((envelope["event"], envelope["data"]))
            assert ("said", f"mine {number}") in told


async def test_what_is_transient_reaches_the_other_node_and_is_not_kept(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    async with one.client.connect("/", protocol="raw") as ann, two.client.connect("/", protocol="raw") as bob:
        for each in (ann, bob):
            await joined(each, "chat:a")
        assert await one.room("chat:a").emit("typing", "ann", transient=True) is None
        for each in (ann, bob):
            told = await received(each)
            assert (told["event"], told["data"], told.get("offset")) == ("typing", "ann", None)
    assert await two.room("chat:a").history() == []


async def test_a_member_that_comes_back_to_another_node_misses_nothing(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    async with one.client.connect("/", protocol="raw") as ann:
        position = (await joined(ann, "chat:a"))["position"]
    for number in range(5):
        await one.room("chat:a").emit("said", number)
    async with two.client.connect("/", protocol="raw") as ann:
        told = await joined(ann, "chat:a", since=position)
        assert told["recovered"] is True
        assert [(await received(ann))["data"] for _ in range(5)] == [0, 1, 2, 3, 4]
    assert [each.data for each in await two.room("chat:a").history()] == [0, 1, 2, 3, 4]


async def test_what_leaves_a_room_hears_nothing_more_of_it(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    async with one.client.connect("/", protocol="raw") as ann, two.client.connect("/", protocol="raw") as bob:
        for room in ("chat:a", "plain:a"):
            await joined(ann, room)
            await ann.send(json.dumps({"leave": room, "id": 2}))
        await joined(ann, "chat:b")
        await two.room("chat:a").emit("said", "a")
        await two.room("plain:a").emit("said", "a")
        await two.room("chat:b").emit("said", "b")
        while (told := await received(ann)).get("event") != "said":
            continue
        assert (told["room"], told["data"]) == ("chat:b", "b")
        # It can come back.
        await joined(ann, "chat:a")
        await two.room("chat:a").emit("said", "again")
        assert (await received(ann))["data"] == "again"
        await bob.nothing_more()
