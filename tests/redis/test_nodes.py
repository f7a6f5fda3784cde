"""Two servers that share a Redis, or a cluster of it: rooms, members, users, homes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import symphony
from support.clients import until
from support.process import Running
from support.redisclusters import RedisCluster
from support.redisnodes import client, nodes
from support.redisservers import RedisServer
from symphony.errors import RemoteError

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=["server", "cluster"])
async def pair(
    request: pytest.FixtureRequest,
    server: RedisServer,
    clusters: Callable[[str], RedisCluster],
    tmp_path: Path,
) -> AsyncIterator[list[Running]]:
    url = server.url if request.param == "server" else clusters("redis").url
    async with nodes(tmp_path, url) as running:
        yield running


async def test_publications_members_and_users_are_the_same_on_both_nodes(pair: list[Running]) -> None:
    async with client(pair[0]) as ann, client(pair[1]) as bob, client(pair[1]) as eve:
        assert await ann.request("where") != await bob.request("where")
        rooms = [await one.join("kept:a") for one in (ann, bob)]
        positions = [await rooms[number % 2].emit("posted", number) for number in range(20)]
        assert [position.offset for position in positions] == list(range(1, 21))
        for room in rooms:
            heard: list[int] = []
            async for publication in room:
                heard.append(publication.data)
                if len(heard) == 20:
                    break
            assert heard == list(range(20))

        for one, name in ((ann, "ann"), (bob, "bob"), (eve, "eve")):
            await one.request("login", name)
        seats = [await one.join("seats:a") for one in (ann, bob)]
        for room in seats:
            await until(lambda room=room: sorted(room.presence) == ["ann", "bob"])
        with pytest.raises(RemoteError) as refused:
            await eve.join("seats:a")
        assert refused.value.code == "room_full"

        told: list[str] = []
        bob.on("told")(lambda data: told.append(data))
        await ann.request("tell", ["bob", "hi"])
        await until(lambda: told == ["hi"])
        assert await ann.request("count", "bob") == 1
        await seats[1].leave()
        await until(lambda: list(seats[0].presence) == ["ann"])


async def test_a_room_with_state_is_on_one_node_and_moves_when_that_ends(pair: list[Running]) -> None:
    async with client(pair[0]) as ann:
        await ann.join("game:a")
        async with client(pair[1]) as bob:
            with pytest.raises(RemoteError) as refused:
                await asyncio.wait_for(bob.join("game:a"), 20)
            assert refused.value.code == "elsewhere"
            pair[0].signal(signal.SIGTERM)
            await pair[0].end()
            await bob.join("game:a")


async def test_a_member_of_a_killed_node_is_back_at_the_other_in_its_grace(pair: list[Running]) -> None:
    async with client(pair[1]) as bob:
        await bob.request("login", "bob")
        seats = await bob.join("seats:a")
        lost = client(pair[0])
        await lost
        await lost.request("login", "ann")
        await lost.join("seats:a")
        await until(lambda: sorted(seats.presence) == ["ann", "bob"])
        pair[0].signal(signal.SIGKILL)
        await lost.close()
        # Nobody has said that ann has left, and the seat is hers.
        async with client(pair[1]) as ann:
            await ann.request("login", "ann")
            await ann.join("seats:a")
            assert sorted(seats.presence) == ["ann", "bob"]
            await seats.leave()
            await ann.request("where")


async def joined(one: symphony.Client, room: str) -> bool:
    """Return whether a client may join a room that has a home, which may be elsewhere."""
    try:
        await one.join(room)
    except RemoteError as error:
        if error.code != "elsewhere":
            raise
        return False
    return True


HELD = """
import asyncio

from symphony import Identity, Limits, Socket, Symphony

app = Symphony(limits=Limits(drain_time=0.2, finish_timeout=300, notice_time=None))
chat = app.route("/")
app.rooms("game:{name}", client_join=True, state=dict, members=dict, grace=300.0)

@chat.on("login")
async def login(socket: Socket, data: str) -> None:
    socket.login(Identity(data))

@chat.on("hold")
async def hold(socket: Socket) -> None:
    socket.emit("holds")
    await asyncio.Event().wait()
"""


async def test_the_home_of_a_room_is_free_before_the_stop_of_its_node_has_ended(
    server: RedisServer, tmp_path: Path
) -> None:
    """Its members come back at once, and their clients would be sent elsewhere until then."""
    async with nodes(tmp_path, server.url, app=HELD) as (one, two):
        ann = client(one)
        await ann
        await ann.request("login", "ann")
        await ann.join("game:a")
        async with client(one) as bob:
            holds = asyncio.Event()
            bob.on("holds")(holds.set)
            held = asyncio.ensure_future(bob.request("hold", timeout=600))
            await holds.wait()
            one.signal(signal.SIGTERM)
            async with client(two) as back:
                await back.request("login", "ann")
                while not await joined(back, "game:a"):
                    pass
            assert not held.done()
            one.signal(signal.SIGKILL)
            held.cancel()
        await ann.close()
