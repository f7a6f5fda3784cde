"""A room is closed on all nodes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.clients import until
from support.nodes import running, signing_in
from symphony import Leave, Limits, Room, Socket, Symphony
from symphony.errors import RequestTimeoutError
from symphony.testing import TestClient


def make_app(url: str, limits: Limits = Limits(publish_timeout=20)) -> Symphony:  # noqa: B008
    app = Symphony(broker=url, limits=limits)
    signing_in(app)
    app.state.log = []
    app.state.go = asyncio.Event()
    app.state.go.set()
    for pattern, options in (
        ("plain:{name}", {"client_join": True}),
        ("kept:{name}", {"history": 100}),
        ("team:{name}", {"grace": 60, "client_join": True}),
        ("home:{name}", {"state": dict}),
    ):
        rooms = app.rooms(pattern, **options)

        @rooms.on_leave
        async def left(socket: Socket, room: Room, leave: Leave) -> None:
            await app.state.go.wait()
            app.state.log.append((room.name, leave.reason, leave.code))

        @rooms.on_empty
        async def empty(room: Room) -> None:
            app.state.log.append((room.name, "empty"))

    @app.on("join")
    async def join(socket: Socket, data: str) -> None:
        await socket.join(data)

    return app


@pytest.fixture
async def nodes() -> AsyncIterator[list[TestClient]]:
    async with running(make_app) as nodes:
        yield nodes


async def told(connection: Any, room: str) -> list[Any]:
    """Return what a raw connection hears of a room up to its end."""
    heard: list[Any] = []
    while True:
        envelope = await connection.receive_json()
        if envelope.get("left") == room:
            return [*heard, envelope["data"]["code"]]
        if envelope.get("event") == "told":
            heard.append(envelope["data"])


@pytest.mark.parametrize("room", ["plain:a", "kept:a", "team:a"])
async def test_a_room_ends_on_all_nodes(nodes: list[TestClient], room: str) -> None:
    one, two = nodes
    async with (
        one.connect("/?user=ann", protocol="raw") as ann,
        two.connect("/?user=bob", protocol="raw") as bob,
    ):
        for each in (ann, bob):
            await each.send(json.dumps({"event": "join", "data": room, "id": 1}))
            while (await each.receive_json()).get("reply") != 1:
                continue
        # It is closed after everything that was published before.
        for number in range(10):
            one.app.room(room).emit("told", number)
        await one.app.room(room).close(4000, "over")
        for node in nodes:
            log = node.app.state.log
            assert log[0] == (room, "closed", 4000)
            await until(lambda log=log: log[1:] == [(room, "empty")])
            assert node.app.room(room).sockets == ()
        assert await told(ann, room) == [*range(10), "closed"]
        assert await told(bob, room) == [*range(10), "closed"]
        # It can begin anew.
        await bob.send(json.dumps({"event": "join", "data": room, "id": 2}))
        while (await bob.receive_json()).get("reply") != 2:
            continue
        assert await one.app.room(room).count() == 1


async def test_a_room_with_a_home_is_closed_from_another_node(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with two.connect("/?user=bob") as bob:
        await bob.request("join", "home:a")
        await one.app.room("home:a").close()
        assert two.app.state.log == [("home:a", "closed", 1000), ("home:a", "empty")]
        assert one.app.state.log == []


async def test_the_hooks_of_another_node_are_waited_for_but_not_forever() -> None:
    limits = Limits(publish_timeout=0.3, finish_timeout=0.3)
    async with running(lambda url: make_app(url, limits)) as (one, two), two.connect("/?user=bob") as bob:
        await bob.request("join", "plain:a")
        two.app.state.go.clear()
        closing = asyncio.ensure_future(one.app.room("plain:a").close())
        with pytest.raises(RequestTimeoutError, match="1 of 1 nodes did not answer 'close_room'"):
            await closing
        # They go on.
        two.app.state.go.set()
        await until(lambda: two.app.state.log == [("plain:a", "closed", 1000), ("plain:a", "empty")])
