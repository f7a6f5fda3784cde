"""`await app.user(id).revoke()`: `authorize` is asked again, and nothing of the old right is left."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from support.clients import Client, Log, connect, until
from symphony import Identity, Reject, Room, Socket, Symphony


class Rights:
    """An app whose rooms `team:{name}` ask who may be in them."""

    def __init__(self, **family: Any) -> None:
        self.app = app = Symphony()
        self.allowed = {("ann", "red"), ("ann", "blue"), ("bob", "red")}
        self.log = Log()
        self.answers: dict[str, Any] = {}
        self.teams = app.rooms("team:{name}", **family)
        self.teams.authorize(self._may_join)

        @self.teams.on_leave
        async def left(socket: Socket, name: str) -> None:
            self.log.append(f"{socket.user.id} left {name}")

        @app.middleware("connect")
        async def sign_in(socket: Socket, call_next) -> None:
            socket.login(Identity(socket.handshake.query_params["user"]))
            await call_next(socket)

        route = app.route("/", events=True)

        @route.on("join")
        async def join(socket: Socket, data: str) -> None:
            await socket.join(f"team:{data}")

        @route.on("put")
        async def put(socket: Socket, data: str) -> None:
            await socket.join(f"team:{data}", authorize=False)

    async def _may_join(self, name: str, user: Identity) -> bool:
        answer = self.answers.get(name)
        if answer is not None:
            return await answer(user.id)
        return (user.id, name) in self.allowed

    def members(self, name: str) -> list[str]:
        return [socket.user.id for socket in self.app.room(f"team:{name}").sockets]


async def ask(client: Client, event: str, data: str) -> dict[str, Any]:
    """Send a request, and return its reply or error; what comes before it is skipped."""
    await client.send(json.dumps({"event": event, "data": data, "id": 1}))
    while True:
        envelope = json.loads(await client.recv())
        if "reply" in envelope or "error" in envelope:
            return envelope


async def told(client: Client) -> dict[str, Any]:
    async with asyncio.timeout(5):
        return json.loads(await client.recv())


async def test_who_may_not_be_in_a_room_any_more_is_out_when_it_returns(serve):
    rights = Rights()
    app = rights.app
    async with serve(app) as url, AsyncExitStack() as stack:
        phone, laptop = [await stack.enter_async_context(connect(f"{url}/?user=ann")) for _ in range(2)]
        bob = await stack.enter_async_context(connect(f"{url}/?user=bob"))
        for client, name in ((phone, "red"), (phone, "blue"), (laptop, "red"), (bob, "red")):
            assert (await ask(client, "join", name))["reply"] == 1
        assert (await ask(laptop, "put", "green"))["reply"] == 1
        await app.user("ann").revoke()
        assert rights.members("red") == ["ann", "ann", "bob"]

        rights.allowed.discard(("ann", "red"))
        await app.user("bob").revoke()
        assert rights.members("red") == ["ann", "ann", "bob"]
        await app.user("ann").revoke()
        assert (rights.members("red"), rights.members("blue")) == (["bob"], ["ann"])
        # A join without `authorize` is a decision of the server's own code.
        assert rights.members("green") == ["ann"]
        assert rights.log == ["ann left red"] * 2
        for client in (phone, laptop):
            left = await told(client)
            assert (left["left"], left["data"]["code"]) == ("team:red", "forbidden")
        await app.room("team:red").emit("secret")
        await app.everyone.emit("mark")
        for client in (phone, laptop):
            assert (await told(client))["event"] == "mark"
        assert (await ask(phone, "join", "red"))["data"]["code"] == "forbidden"
        await app.user("nobody").revoke()


@pytest.mark.parametrize("kind", ["false", "reject", "failure"])
async def test_every_no_removes_and_the_client_is_told_which(serve, kind):
    rights = Rights(history=10)
    app = rights.app
    errors = Log()

    @app.on_error
    def failed(error: Exception) -> None:
        errors.append(error)

    async def answer(user: str) -> bool:
        if kind == "reject":
            raise Reject("shop.banned", "for a week")
        if kind == "failure":
            raise OSError("no database")
        return False

    async with serve(app) as url, connect(f"{url}/?user=ann") as client:
        assert (await ask(client, "join", "red"))["reply"] == 1
        rights.answers["red"] = answer
        await app.user("ann").revoke()
        assert rights.members("red") == []
        left = await told(client)
        code = {"false": "forbidden", "reject": "shop.banned", "failure": "internal"}[kind]
        assert (left["left"], left["data"]["code"]) == ("team:red", code)
        if kind == "failure":
            await errors.reaches(1)
            assert [type(error) for error in errors] == [OSError]
    assert len(errors) == (kind == "failure")


@pytest.mark.parametrize("history", [None, 10])
async def test_a_join_that_was_allowed_before_asks_again(serve, history):
    """A hook that had read the old right answers after the revocation."""
    rights = Rights(history=history)
    app = rights.app
    asked, go_on = Log(), asyncio.Event()

    async def answer(user: str) -> bool:
        allowed = (user, "red") in rights.allowed
        asked.append(allowed)
        await go_on.wait()
        return allowed

    rights.answers["red"] = answer
    async with serve(app) as url, connect(f"{url}/?user=ann") as client:
        joining = asyncio.ensure_future(ask(client, "join", "red"))
        await asked.reaches(1)
        rights.allowed.discard(("ann", "red"))
        await app.user("ann").revoke()
        go_on.set()
        assert (await joining)["data"]["code"] == "forbidden"
        assert asked == [True, False]
        assert rights.members("red") == []


async def test_a_join_whose_hook_still_runs_is_undone(serve):
    rights = Rights()
    app = rights.app
    entered, go_on = Log(), asyncio.Event()

    @rights.teams.on_join
    async def joined(room: Room) -> None:
        entered.append(room.name)
        await go_on.wait()

    async with serve(app) as url, connect(f"{url}/?user=ann") as client:
        joining = asyncio.ensure_future(ask(client, "join", "red"))
        await entered.reaches(1)
        rights.allowed.discard(("ann", "red"))
        revoking = asyncio.ensure_future(app.user("ann").revoke())
        await until(lambda: rights.members("red") == [])
        go_on.set()
        await revoking
        assert (await joining)["data"]["code"] == "cancelled"
        assert rights.log == ["ann left red"]


async def test_a_socket_that_is_not_open_yet_is_asked_about_too(serve):
    rights = Rights()
    app = rights.app
    entered, go_on = Log(), asyncio.Event()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("team:red")
        entered.append("in")
        await go_on.wait()

    async with serve(app) as url:
        connecting = asyncio.ensure_future(connect(f"{url}/?user=ann").__aenter__())
        await entered.reaches(1)
        assert (rights.members("red"), app.user("ann").sockets) == (["ann"], ())
        rights.allowed.discard(("ann", "red"))
        await app.user("ann").revoke()
        assert rights.members("red") == []
        go_on.set()
        client = await connecting
        await client.close()
