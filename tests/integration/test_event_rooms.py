"""Rooms whose members speak differently: raw, JSON and MessagePack."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest

from support.clients import Client, Log, connect, until
from symphony import Socket, Symphony

KINDS = ("raw", "json", "msgpack")


class Counted:
    """A value that counts how often it is encoded."""

    def __init__(self, value: Any = None) -> None:
        self.value = value
        self.times = 0

    def model_dump(self, *, mode: str) -> Any:
        self.times += 1
        return {"value": self.value}


class Member:
    """A client, and what its kind of connection hears."""

    def __init__(self, kind: str, client: Client, socket: Socket) -> None:
        self.kind = kind
        self.client = client
        self.socket = socket

    async def hear(self) -> Any:
        async with asyncio.timeout(5):
            message = await self.client.recv()
        if self.kind == "msgpack":
            assert isinstance(message, bytes)
            return msgspec.msgpack.decode(message)
        assert isinstance(message, str)
        return json.loads(message)

    async def hears(self, *expected: Any) -> None:
        assert [await self.hear() for _ in expected] == list(expected)

    async def silent(self) -> None:
        """Check that nothing is on its way, by what is said behind it."""
        await self.socket.emit("last")
        assert (await self.hear())["event"] == "last"


@asynccontextmanager
async def hall(serve, kinds: Sequence[str]):
    """Serve an app with a member of each of the kinds in the room `r`."""
    app = Symphony()
    entered: list[Socket] = []

    async def enter(socket: Socket) -> None:
        await socket.join("r")
        entered.append(socket)

    raw, talk = app.route("/raw"), app.route("/talk")
    raw.on_message(lambda message: None)
    talk.on("say")(lambda data: data)
    raw.on_connect(enter)
    talk.on_connect(enter)
    async with serve(app) as url, AsyncExitStack() as stack:
        members = []
        for kind in kinds:
            path = "raw" if kind == "raw" else "talk"
            offer = None if kind == "raw" else [f"symphony.v1.{kind}"]
            client = await stack.enter_async_context(connect(f"{url}/{path}", subprotocols=offer))
            members.append(Member(kind, client, entered[-1]))
        yield app, members


def targets(app: Symphony) -> dict[str, Any]:
    return {"room": app.room("r"), "everyone": app.everyone}


@pytest.mark.parametrize("target", ["room", "everyone"])
async def test_an_event_reaches_each_in_its_own_words_encoded_once_for_each_of_them(serve, target):
    async with hall(serve, KINDS * 3) as (app, members):
        value = Counted("hi")
        await targets(app)[target].emit("news", value)
        for member in members:
            await member.hears({"event": "news", "data": {"value": "hi"}})
        assert value.times == 3


@pytest.mark.parametrize("kinds", [["raw"], ["json"], ["msgpack"], ["json", "msgpack"]])
async def test_it_is_not_encoded_for_what_nobody_speaks(serve, kinds):
    async with hall(serve, kinds * 4) as (app, members):
        value = Counted("hi")
        await app.room("r").emit("news", value)
        for member in members:
            await member.hears({"event": "news", "data": {"value": "hi"}})
        assert value.times == len(kinds)


async def test_it_is_not_encoded_for_an_empty_room(serve):
    async with hall(serve, ["json"]) as (app, _):
        value = Counted()
        await app.room("nobody").emit("news", value)
        await app.room("nobody").send(value)
        assert value.times == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_app_socket_emits_to_one(serve, kind):
    async with hall(serve, [*KINDS, kind]) as (app, members):
        value = Counted(1)
        await app.socket(members[-1].socket.id).emit("news", value)
        await members[-1].hears({"event": "news", "data": {"value": 1}})
        assert value.times == 1
        for member in members[:-1]:
            await member.silent()


@pytest.mark.parametrize("target", ["room", "everyone"])
async def test_an_event_without_data_has_null(serve, target):
    async with hall(serve, KINDS) as (app, members):
        await targets(app)[target].emit("ready")
        for member in members:
            heard = await member.hear()
            assert heard["event"] == "ready"
            assert heard.get("data") is None


async def test_a_send_is_the_message_itself_to_raw_sockets_and_the_event_message_to_others(serve):
    async with hall(serve, KINDS * 2) as (app, members):
        value = Counted(1)
        await app.room("r").send(value)
        await app.everyone.send("text")
        for member in members:
            await member.socket.send([1])
        assert value.times == 3
        for member in members:
            if member.kind == "raw":
                await member.hears({"value": 1})
                assert await member.client.recv() == "text"
                await member.hears([1])
            else:
                await member.hears(
                    {"event": "message", "data": {"value": 1}},
                    {"event": "message", "data": "text"},
                    {"event": "message", "data": [1]},
                )


async def test_bytes_are_bytes_where_there_are_bytes_and_base64_in_json(serve):
    async with hall(serve, KINDS) as (app, members):
        raw, text, packed = members
        await app.room("r").emit("blob", b"\x00\xff")
        await raw.hears({"event": "blob", "data": "AP8="})
        await text.hears({"event": "blob", "data": "AP8="})
        await packed.hears({"event": "blob", "data": b"\x00\xff"})
        await app.room("r").send(b"\x00\xff")
        assert await raw.client.recv() == b"\x00\xff"
        await text.hears({"event": "message", "data": "AP8="})
        await packed.hears({"event": "message", "data": b"\x00\xff"})


@pytest.mark.parametrize("target", ["room", "everyone"])
async def test_who_is_excluded_hears_nothing_whatever_it_speaks(serve, target):
    async with hall(serve, KINDS * 2) as (app, members):
        to = targets(app)[target]
        out = members[:3]
        await to.emit("a", 1, exclude=[member.socket for member in out])
        await to.emit("b", 2, exclude=members[3].socket)
        for member in members:
            if member not in out:
                await member.hears({"event": "a", "data": 1})
            if member is not members[3]:
                await member.hears({"event": "b", "data": 2})
            await member.silent()


async def test_publications_and_direct_sends_keep_their_order(serve):
    async with hall(serve, KINDS * 2) as (app, members):
        expected: list[list[int]] = [[] for _ in members]
        for number in range(60):
            index = number % len(members)
            match number % 5:
                case 0:
                    members[index].socket.emit("n", number)
                    expected[index].append(number)
                    continue
                case 1:
                    app.everyone.emit("n", number)
                case 2:
                    app.room("r").emit("n", number, exclude=members[index].socket)
                case _:
                    app.room("r").emit("n", number)
            for other, numbers in enumerate(expected):
                if number % 5 != 2 or other != index:
                    numbers.append(number)
        for member, numbers in zip(members, expected, strict=True):
            await member.hears(*({"event": "n", "data": number} for number in numbers))


async def test_replies_and_publications_of_one_handler_keep_their_order(serve):
    app = Symphony()

    @app.on("go")
    async def go(socket: Socket) -> str:
        room = await socket.join("r")
        room.emit("first")
        socket.emit("second")
        app.everyone.emit("third")
        return "fourth"

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send('{"event":"go","id":1}')
        heard = [json.loads(await client.recv()) for _ in range(4)]
        assert [frame.get("event") or frame["data"] for frame in heard] == [
            *("first", "second", "third", "fourth")
        ]


@pytest.mark.parametrize("verb", ["emit", "send"])
@pytest.mark.parametrize("order", [KINDS, KINDS[::-1], ("json", "msgpack", "raw")])
@pytest.mark.parametrize("target", ["room", "everyone"])
async def test_data_that_cannot_be_encoded_reaches_nobody(serve, target, order, verb):
    async with hall(serve, order) as (app, members):
        to = targets(app)[target]

        def publish(data: Any) -> Any:
            return to.emit("news", data) if verb == "emit" else to.send(data)

        with pytest.raises(TypeError):
            publish({"a": object()})
        # MessagePack has such keys, JSON has not.
        with pytest.raises(TypeError):
            publish({(1, 2): 3})
        for member in members:
            await member.silent()
        await to.emit("after", 1)
        for member in members:
            await member.hears({"event": "after", "data": 1})


async def test_what_one_of_the_protocols_cannot_encode_reaches_nobody(serve):
    async with hall(serve, KINDS) as (app, members):
        # JSON has such integers, MessagePack has not.
        with pytest.raises(TypeError):
            app.room("r").emit("news", 2**70)
        for member in members:
            await member.silent()


@pytest.mark.parametrize("kind", KINDS)
async def test_an_emit_to_one_that_cannot_be_encoded_sends_nothing(serve, kind):
    async with hall(serve, [kind]) as (_, [member]):
        with pytest.raises(TypeError):
            member.socket.emit("news", object())
        await member.silent()


async def test_data_is_encoded_when_it_is_emitted(serve):
    async with hall(serve, KINDS) as (app, members):
        data = [1]
        published = app.room("r").emit("news", data)
        data.append(2)
        await published
        for member in members:
            await member.hears({"event": "news", "data": [1]})


async def test_an_event_to_a_room_before_a_member_is_open_comes_after_its_handshake(serve):
    app = Symphony()
    app.on("x")(lambda: None)

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("a")
        await app.room("a").emit("from the room")
        await socket.emit("from the handler")

    async with serve(app) as url, connect(f"{url}/") as client:
        heard = [json.loads(await client.recv())["event"] for _ in range(2)]
    assert heard == ["from the room", "from the handler"]


async def test_an_emit_to_a_socket_that_has_gone_does_nothing_but_count(serve):
    app = Symphony()
    app.on("x")(lambda: None)
    gone = Log()

    @app.on_disconnect
    async def leave(socket: Socket) -> None:
        before = socket.dropped
        await socket.emit("bye")
        await socket.send("bye")
        assert socket.dropped == before + 2
        await app.everyone.emit("somebody left", exclude=socket)
        gone.append(socket.id)

    async with serve(app) as url, connect(f"{url}/") as stays:
        async with connect(f"{url}/"):
            await until(lambda: len(app.everyone.sockets) == 2)
        await gone.reaches(1)
        assert json.loads(await stays.recv())["event"] == "somebody left"
        await until(lambda: not app.socket(gone[0]).sockets)
