"""Rooms of the Python clients on a real server: what they miss, they get when they are back."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from support.clients import until
from support.elsewhere import serving
from support.servers import serve_natively
from symphony import Limits, Reject, Room, Socket, Symphony
from symphony.client import Client, Position, Publication, connect, sync
from symphony.errors import RemoteError

codecs = pytest.mark.parametrize("codec", ["json", "msgpack"])


def make(history: int | None = 100, limits: Limits | None = None) -> Symphony:
    """Return an app with rooms that clients may join, and others that it puts them into."""
    app = Symphony(limits=limits)
    app.rooms("chat:{name}", history=history, client_join=True)
    secret = app.rooms("secret:{name}", history=history)
    app.rooms("own:{name}", history=history)
    route = app.route("/")

    @secret.authorize
    def allowed(room: Room, socket: Socket) -> bool:
        return room.name == "secret:open"

    @route.on_connect
    async def put(socket: Socket) -> None:
        await socket.join("own:1")

    @route.on("say")
    async def say(data: dict[str, Any]) -> None:
        await app.room(data["room"]).emit("said", data["text"])

    @route.on("remove")
    async def remove(socket: Socket, data: str) -> None:
        await socket.leave(data)

    return app


@asynccontextmanager
async def opened(app: Symphony, codec: str = "json", **options: Any) -> AsyncIterator[Client]:
    async with (
        serve_natively(app) as url,
        connect(f"{url}/", protocol=codec, backoff=0.05, max_backoff=0.05, **options) as client,
    ):
        yield client


async def cut(client: Client) -> None:
    """Cut the connection, and return when the client has noticed."""
    link = client._core.reconnector._link
    assert link is not None
    link.abort()
    await until(lambda: client.state != "open")


@codecs
async def test_what_is_published_meanwhile_is_handled_once_and_in_order(codec: Any) -> None:
    app = make()
    log: list[int] = []
    async with opened(app, codec) as client:
        room = await client.join("chat:a")
        room.on("said", log.append)
        number = 0
        for _ in range(5):
            for _ in range(10):
                await app.room("chat:a").emit("said", number)
                number += 1
            await cut(client)
            for _ in range(10):
                await app.room("chat:a").emit("said", number)
                number += 1
            await until(lambda: client.state == "open")
        await until(lambda number=number: len(log) >= number)
        assert log == list(range(number))
        assert room.recovered is True
        assert room.position is not None
        assert room.position.offset == number


@codecs
async def test_what_the_history_no_longer_has_is_told_to_be_lost(codec: Any) -> None:
    app = make(history=3)
    log: list[Any] = []
    async with opened(app, codec) as client:
        room = await client.join("chat:a")
        room.on("said", log.append)
        room.on_lost(lambda position: log.append(position.offset))
        await app.room("chat:a").emit("said", "first")
        await until(lambda: log == ["first"])
        await cut(client)
        for number in range(10):
            await app.room("chat:a").emit("said", number)
        await until(lambda: room.recovered is False)
        await app.room("chat:a").emit("said", "last")
        await until(lambda: len(log) >= 3)
        assert log == ["first", 11, "last"]


@codecs
async def test_a_room_that_the_server_puts_the_client_into_is_recovered(codec: Any) -> None:
    app = make()
    log: list[int] = []
    async with opened(app, codec) as client:
        client.on("said", log.append)
        for number in range(3):
            await app.room("own:1").emit("said", number)
        await until(lambda: log == [0, 1, 2])
        await cut(client)
        for number in range(3, 6):
            await app.room("own:1").emit("said", number)
        await until(lambda: log == [0, 1, 2, 3, 4, 5])
        # Clients may not join this room otherwise.
        with pytest.raises(RemoteError):
            await client.join("own:2")


@codecs
async def test_an_iteration_begins_at_a_position_of_another_client(codec: Any) -> None:
    app = make()
    async with opened(app, codec) as client:
        for number in range(5):
            await app.room("chat:a").emit("said", number)
        async with await client.join("chat:a", since="start") as room:
            taken: list[Publication] = []
            async for publication in room:
                taken.append(publication)
                if len(taken) == 3:
                    break
            assert [publication.data for publication in taken] == [0, 1, 2]
            assert room.position == taken[1].position
        position = taken[-1].position
        assert position is not None
        room = await client.join("chat:a", since=Position(position.epoch, position.offset))
        assert [(await anext(room)).data for _ in range(2)] == [3, 4]
        assert room.recovered is True


@codecs
async def test_a_slow_iteration_loses_nothing(codec: Any) -> None:
    app = make(history=1000)
    async with opened(app, codec, max_queue=5) as client:
        room = await client.join("chat:a")
        aiter(room)
        for number in range(200):
            await app.room("chat:a").emit("said", number)
        assert [(await anext(room)).data for _ in range(200)] == list(range(200))


@codecs
async def test_refusals(codec: Any) -> None:
    app = make()
    async with opened(app, codec) as client:
        for name in ("secret:closed", "own:1x/y", "nowhere"):
            with pytest.raises(RemoteError) as refused:
                await client.join(name)
            assert not refused.value.retryable
        assert (await client.join("secret:open")).name == "secret:open"


async def test_a_member_that_is_refused_after_a_lost_connection_is_told() -> None:
    app = Symphony()
    allowed = [True]
    rooms = app.rooms("chat:{name}", history=10)
    app.route("/", events=True)

    @rooms.authorize
    def may_join() -> None:
        if not allowed[0]:
            raise Reject("forbidden", "banned")

    async with opened(app) as client:
        room, left = await client.join("chat:a"), asyncio.Event()
        room.on_left(lambda error: left.set())
        allowed[0] = False
        await cut(client)
        await left.wait()
        assert isinstance(room.ended, RemoteError)
        assert (room.ended.code, room.ended.message) == ("forbidden", "banned")


@codecs
async def test_leave_and_removal(codec: Any) -> None:
    app = make()
    async with opened(app, codec) as client:
        room, other = await client.join("chat:a"), await client.join("chat:b")
        await room.leave()
        assert isinstance(room.ended, RemoteError)
        assert room.ended.code == "left"
        await client.request("remove", "chat:b")
        await until(lambda: other.ended is not None)
        with pytest.raises(RemoteError):
            await anext(other)


async def test_a_room_without_a_history() -> None:
    app = make(history=None)
    log: list[Any] = []
    async with opened(app) as client:
        room = await client.join("chat:a")
        room.on("said", log.append)
        await client.request("say", {"room": "chat:a", "text": "hi"})
        assert log == ["hi"]
        assert room.position is None
        await cut(client)
        await app.room("chat:a").emit("said", "nobody hears it")
        await until(lambda: client.state == "open")
        # It is after the join.
        await client.request("say", {"room": "chat:a", "text": "again"})
        await until(lambda: log == ["hi", "again"])


# The blocking client


@contextmanager
def blocking(**options: Any) -> Iterator[sync.Client]:
    with (
        serving(make()) as url,
        sync.connect(f"{url}/", backoff=0.05, max_backoff=0.05, **options) as client,
    ):
        yield client


def test_the_blocking_client_receives_publications() -> None:
    with blocking() as client:
        with client.join("chat:a") as room:
            for number in range(3):
                client.request("say", {"room": "chat:a", "text": number})
            first = room.receive(timeout=5)
            assert (first.event, first.data) == ("said", 0)
            assert first.position is not None
            assert next(room).data == 1
            assert room.position == first.position
            assert room.receive(timeout=0).data == 2
            with pytest.raises(TimeoutError, match="No publication of the room 'chat:a'"):
                room.receive(timeout=0.01)
            with pytest.raises(ValueError, match="timeout"):
                room.receive(timeout=-1)
        assert isinstance(room.ended, RemoteError)
        assert list(room) == []
        with pytest.raises(RemoteError):
            room.receive()
        again = client.join("chat:a", since=first.position)
        assert [again.receive(timeout=5).data for _ in range(2)] == [1, 2]
        assert again.recovered is True
        assert (again.name, again.dropped) == ("chat:a", 0)
        with pytest.raises(RemoteError):
            client.join("nowhere")
