"""What is sent to users, to everyone and to routes reaches the sockets on all nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.nodes import running, signing_in
from symphony import Router, Socket, Symphony
from symphony.outgoing import encoding
from symphony.testing import TestClient


def make_app(url: str) -> Symphony:
    app = Symphony(broker=url)
    signing_in(app)
    app.rooms("kept:{name}", history=100)
    app.rooms("plain:{name}")
    chat, other = app.route("/chat"), app.route("/other")
    api = Router(prefix="/api")
    # The same path twice: nodes have to tell them apart.
    first, second = api.route("/feed"), Router(prefix="/api2")
    inner = second.route("/feed")
    raw = app.route("/raw")
    app.include(api)
    app.include(second)
    app.state.groups = {"chat": chat, "other": other, "api": api, "first": first, "inner": inner}

    @raw.on_message
    async def ignore(message: str) -> None: ...

    @app.on("join")
    async def join(socket: Socket, data: str) -> None:
        await socket.join(data)

    return app


@pytest.fixture
async def nodes() -> AsyncIterator[list[TestClient]]:
    async with running(make_app) as nodes:
        yield nodes


async def test_what_is_sent_to_a_user_reaches_the_sockets_on_all_nodes(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with (
        one.connect("/chat?user=ann") as here,
        two.connect("/chat?user=ann") as there,
        two.connect("/raw?user=ann") as raw,
        two.connect("/chat?user=bob") as bob,
    ):
        await one.app.user("ann").emit("told", {"n": 1})
        await one.app.user("ann").send("text")
        await one.app.user("ann").emit("told", 2, volatile=True)
        for each in (here, there):
            assert await each.receive_event("told") == {"n": 1}
            assert await each.receive_event("message") == "text"
            assert await each.receive_event("told") == 2
        assert (await raw.receive_json())["data"] == {"n": 1}
        assert await raw.receive_text() == "text"
        await two.app.user("ann").emit("told", 3)
        assert await here.receive_event("told") == 3
        await bob.nothing_more()


@pytest.mark.parametrize("user", ["ann", "ünï", "a/b c"])
async def test_a_node_without_the_user_reaches_those_of_the_other(nodes: list[TestClient], user: str) -> None:
    one, two = nodes
    async with two.connect(f"/chat?user={user}") as there:
        await one.app.user(user).emit("told", user)
        assert await there.receive_event("told") == user
        await one.app.users("nobody", user).emit("told", "both")
        assert await there.receive_event("told") == "both"


async def test_several_users_are_reached_on_all_nodes_and_the_message_is_encoded_once(
    nodes: list[TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = nodes
    async with (
        one.connect("/chat?user=ann") as ann,
        two.connect("/chat?user=bob") as bob,
        two.connect("/chat?user=ann") as also_ann,
        two.connect("/chat?user=eve") as eve,
    ):
        packed: list[object] = []
        encode = encoding.encode_msgpack

        def counted(data: object) -> bytes:
            packed.append(data)
            return encode(data)

        monkeypatch.setattr(encoding, "encode_msgpack", counted)
        await one.app.users("ann", "bob", "dan").emit("told", [1])
        await one.app.users("ann", "bob", "dan").send(b"\xff", transient=True)
        for each in (ann, also_ann, bob):
            assert await each.receive_event("told") == [1]
        assert packed == [[1], b"\xff"]
        await eve.nothing_more()


async def test_exclude_holds_on_all_nodes(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with (
        one.connect("/chat?user=ann") as ann,
        two.connect("/chat?user=ann") as also_ann,
        two.connect("/chat?user=bob") as bob,
        two.connect("/other?user=eve") as eve,
    ):
        for each in (ann, also_ann, bob, eve):
            await each.request("join", "plain:a")
        [also] = two.app.user("ann").sockets
        room = one.app.room("plain:a")
        everyone, groups = one.app.everyone, one.app.state.groups
        # To whom each goes, besides the last one, which goes to all.
        await room.emit("but", "not ann", exclude=one.app.user("ann"))
        await room.emit("but", "not one of ann", exclude=one.app.socket(also.id))
        await room.emit("but", "not ann nor eve", exclude=one.app.users("ann", "eve"))
        await room.emit("but", "not bob, volatile", exclude=[one.app.user("bob")], volatile=True)
        await everyone.emit("but", "not the route", exclude=groups["other"].everyone)
        await everyone.emit("but", "not the room", exclude=room)
        await one.app.users("ann", "bob").emit("but", "the other", exclude=one.app.user("bob"))
        await one.app.user("ann").emit("but", "ann elsewhere", exclude=one.app.user("ann").sockets)
        await groups["chat"].everyone.emit("but", "chat, not bob", exclude=one.app.user("bob"))
        await everyone.emit("but", "last")

        async def heard(connection) -> list[str]:
            texts: list[str] = []
            while not texts or texts[-1] != "last":
                texts.append(await connection.receive_event("but"))
            return texts[:-1]

        assert await heard(ann) == [
            "not one of ann",
            "not bob, volatile",
            "not the route",
            "the other",
            "chat, not bob",
        ]
        assert await heard(also_ann) == [
            "not bob, volatile",
            "not the route",
            "the other",
            "ann elsewhere",
            "chat, not bob",
        ]
        assert await heard(bob) == [
            "not ann",
            "not one of ann",
            "not ann nor eve",
            "not the route",
        ]
        assert await heard(eve) == ["not ann", "not one of ann", "not bob, volatile"]


async def test_what_is_kept_excludes_nobody_wherever_they_are(nodes: list[TestClient]) -> None:
    one, two = nodes
    async with two.connect("/chat?user=ann") as ann:
        [socket] = two.app.user("ann").sockets
        await ann.request("join", "kept:a")
        for excluded in (one.app.user("ann"), one.app.socket(socket.id), [one.app.users("ann", "bob")]):
            with pytest.raises(ValueError, match="exclude= would leave a gap"):
                await one.app.room("kept:a").emit("told", 1, exclude=excluded)
            await one.app.room("kept:a").emit("told", 2, exclude=excluded, transient=True)
        await one.app.room("kept:a").emit("told", 3)
        assert await ann.receive_event("told") == 3


async def test_everyone_of_a_route_or_a_router_is_on_all_nodes(nodes: list[TestClient]) -> None:
    one, two = nodes
    groups = one.app.state.groups
    paths = {
        "chat": "/chat",
        "other": "/other",
        "api": "/api/feed",
        "first": "/api/feed",
        "inner": "/api2/feed",
    }
    async with (
        two.connect("/chat") as chat,
        two.connect("/other") as other,
        two.connect("/api/feed") as first,
        two.connect("/api2/feed") as inner,
        one.connect("/chat") as here,
    ):
        at = {"/chat": [chat, here], "/other": [other], "/api/feed": [first], "/api2/feed": [inner]}
        for name, group in groups.items():
            await group.everyone.emit("told", name)
            await group.everyone.emit("told", f"volatile {name}", volatile=True)
            await group.everyone.send({"to": name})
        await one.app.everyone.emit("told", "last")
        for path, connections in at.items():
            for connection in connections:
                for name in paths:
                    if paths[name] == path:
                        assert await connection.receive_event("told") == name
                        assert await connection.receive_event("told") == f"volatile {name}"
                        assert await connection.receive_event("message") == {"to": name}
                assert await connection.receive_event("told") == "last"
                await connection.nothing_more()


async def test_a_route_that_the_other_node_does_not_know_is_no_error(nodes: list[TestClient]) -> None:
    """During a restart, an old worker may not have the new routes yet."""
    one, two = nodes
    async with two.connect("/chat") as chat:
        name = "route '/chat'"
        two.app._core.node.targets._named.pop(name)
        await one.app.state.groups["chat"].everyone.emit("told", 1)
        await one.app.everyone.emit("told", 2)
        assert await chat.receive_event("told") == 2
