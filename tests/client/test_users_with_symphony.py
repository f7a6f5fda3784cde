"""The Python client, and what its user is sent: the server is Symphony's own, on a real socket."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from support.clients import until
from support.servers import serve_natively
from symphony import Identity, RefusedError, Reject, RemoteError, Room, Socket, Symphony
from symphony.client import Client, connect


def make(**family: Any) -> Symphony:
    app = Symphony()
    if family:
        app.rooms("user:{id}", **family)

    @app.middleware("connect")
    async def sign_in(socket: Socket, call_next) -> None:
        if user := socket.handshake.query_params.get("user"):
            socket.login(Identity(user))
        await call_next(socket)

    app.route("/", events=True).on("login")(log_in)
    return app


def log_in(socket: Socket, data: str) -> None:
    socket.login(Identity(data))


async def cut(client: Client) -> None:
    """Cut the connection, and return when the client has noticed."""
    link = client._core.reconnector._link
    assert link is not None
    link.abort()
    await until(lambda: client.state != "open")


def dial(url: str, **options: Any) -> Client:
    return connect(url, backoff=0.05, max_backoff=0.05, **options)


async def refusal(url: str) -> str:
    """Open a connection that must be refused, and return the code."""
    with pytest.raises(RefusedError) as refused:
        async with dial(url, reconnect=False):
            pass
    assert refused.value.refusal is not None
    return refused.value.refusal.code


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_messages_to_a_user_who_is_away_arrive_when_the_client_is_back(codec: Any) -> None:
    app = make(history=100)
    log: list[int] = []
    async with serve_natively(app) as url, dial(f"{url}/?user=ann", protocol=codec) as client:
        client.on("told", log.append)
        number = 0
        for _ in range(4):
            position = await app.user("ann").emit("told", number)
            assert position is not None
            assert position.offset == number + 1
            number += 1
            await cut(client)
            await until(lambda: not app.user("ann").sockets)
            for _ in range(5):
                await app.user("ann").emit("told", number)
                number += 1
            await app.user("ann").emit("told", -1, transient=True)
            await app.users("ann", "bob").emit("told", number)
            number += 1
            await until(lambda: client.state == "open")
            await until(lambda number=number: len(log) >= number)
        assert log == list(range(number))
        kept = await app.user("bob").history()
        assert [each.data for each in kept] == [6, 13, 20, 27]


async def test_a_program_may_hold_the_room_of_its_user_and_no_other() -> None:
    app = make(history=100, client_join=True)
    log: list[int] = []
    async with serve_natively(app) as url, dial(f"{url}/?user=ann") as client:
        room = await client.join("user:ann")
        room.on("told", log.append)
        await app.user("ann").emit("told", 0)
        await until(lambda: log == [0])
        await cut(client)
        await app.user("ann").emit("told", 1)
        await until(lambda: log == [0, 1])
        assert room.recovered is True
        for other in ("user:bob", "user:ann2"):
            with pytest.raises(RemoteError) as refused:
                await client.join(other)
            assert refused.value.code == "forbidden"


async def test_a_login_in_a_handler_lets_the_client_recover_too() -> None:
    app = make(history=100)
    log: list[int] = []
    async with serve_natively(app) as url, AsyncExitStack() as stack:
        client = dial(f"{url}/")

        @client.on_open
        async def sign_in() -> None:
            await client.request("login", "ann")

        client.on("told", log.append)
        await stack.enter_async_context(client)
        for number in range(0, 6, 2):
            await until(lambda: len(app.user("ann").sockets) == 1)
            await app.user("ann").emit("told", number)
            await until(lambda number=number: len(log) == number + 1)
            await cut(client)
            await until(lambda: not app.user("ann").sockets)
            await app.user("ann").emit("told", number + 1)
            await until(lambda number=number: len(log) == number + 2)
        assert log == list(range(6))


async def test_hooks_of_the_family_run_for_the_sockets_of_a_user() -> None:
    app = make()
    family = app.rooms("user:{id}")
    log: list[str] = []

    @family.on_join
    async def joined(room: Room, id: str, user: Identity) -> None:
        if id == "eve":
            raise Reject("shop.closed", "not you")
        log.append(f"{user.id} joined {room.name}")

    @family.on_leave
    async def left(id: str) -> None:
        log.append(f"{id} left")

    async with serve_natively(app) as url, AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(dial(f"{url}/?user=ann"))
        assert log == ["ann joined user:ann"] * 2
        assert await refusal(f"{url}/?user=eve") == "shop.closed"
        assert await app.user("eve").count() == 0
    await until(lambda: log[2:] == ["eve left", "ann left", "ann left"])


async def test_a_replaced_client_does_not_come_back_and_its_user_stays_in_the_rooms() -> None:
    app = make()
    family = app.rooms("table:{id}")
    empty: list[str] = []
    family.on_empty(lambda: empty.append("empty"))
    one = app.route("/one", per_user=1)

    @one.on_connect
    async def sit(socket: Socket) -> None:
        await socket.join("table:1")

    @one.on("move")
    async def move(data: int) -> int:
        return data

    async with serve_natively(app) as url, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(dial(f"{url}/one?user=ann"))]
        other = await stack.enter_async_context(dial(f"{url}/one?user=bob"))
        for _ in range(3):
            clients.append(await stack.enter_async_context(dial(f"{url}/one?user=ann")))
            closed = await clients[-2].wait_closed()
            assert (closed.code, closed.refusal.code, closed.refusal.retryable) == (4410, "replaced", False)
            assert clients[-2].state == "closed"
            assert await clients[-1].request("move", 1) == 1
        await until(lambda: len(app.user("ann").sockets) == 1)
        assert len(app.room("table:1").sockets) == 2
        assert empty == []
        assert await other.request("move", 2) == 2
        # It was cut, and may take its own place again.
        await cut(clients[-1])
        await until(lambda: clients[-1].state == "open")
        assert await clients[-1].request("move", 3) == 3


async def test_an_anonymous_client_and_a_second_one_are_refused() -> None:
    app = make()
    entered: list[str] = []
    app.route("/one", events=True, per_user=1)
    exam = app.route("/exam", events=True, per_user=1, on_conflict="refuse")

    @exam.on_connect
    async def enter(user: Identity | None) -> None:
        entered.append(user.id if user else "nobody")

    async with serve_natively(app) as url:
        for path in ("one", "exam"):
            assert await refusal(f"{url}/{path}") == "unauthorized"
        async with dial(f"{url}/exam?user=ann"):
            for _ in range(2):
                assert await refusal(f"{url}/exam?user=ann") == "conflict"
            async with dial(f"{url}/exam?user=bob"), dial(f"{url}/one?user=ann"):
                assert entered == ["nobody", "ann", "bob"]
        await until(lambda: app.stats.closed == 3)
        async with dial(f"{url}/exam?user=ann"):
            assert entered == ["nobody", "ann", "bob", "ann"]


@pytest.mark.parametrize("same_moment", [2, 5])
async def test_of_several_that_connect_at_once_one_is_left(same_moment: int) -> None:
    app = make()
    app.route("/one", events=True, per_user=1)
    async with serve_natively(app) as url, AsyncExitStack() as stack:
        clients = [dial(f"{url}/one?user=ann") for _ in range(same_moment)]
        await asyncio.gather(*(stack.enter_async_context(client) for client in clients))
        await until(lambda: len(app.user("ann").sockets) == 1)
        await until(lambda: sum(client.state == "closed" for client in clients) == same_moment - 1)
        assert app._core.node._per_user._claims._claims.keys() == {("/one", "ann")}
    assert app._core.started is False
