"""Events to rooms, to everyone and to one socket, whatever each of them speaks."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest

from support.clients import Client, Log, connect, until
from symphony import Socket, Symphony

KINDS = ("raw", "json", "msgpack", "plain")


class Counted:
    """Data that counts how often it is encoded."""

    def __init__(self) -> None:
        self.count = 0

    def model_dump(self, *, mode: str) -> Any:
        assert mode == "json"
        self.count += 1
        return {"n": 7}


class Points(msgspec.Struct):
    x: int
    image: bytes


def mixed() -> Symphony:
    """Make an app with a raw route and one for events; all sockets join the room `all`."""
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("all")

    @app.route("/raw").on_message
    async def raw(message: str) -> str:
        return message

    app.route("/events").on("echo")(lambda data: data)
    return app


def open_one(url: str, kind: str) -> Any:
    if kind in ("raw", "plain"):
        return connect(f"{url}/{'raw' if kind == 'raw' else 'events'}")
    return connect(f"{url}/events", subprotocols=[f"symphony.v1.{kind}"])


@asynccontextmanager
async def members(app: Symphony, url: str, count: int = 1) -> AsyncIterator[dict[str, list[Client]]]:
    """Connect so many clients of each kind, and wait until all are in the room."""
    async with AsyncExitStack() as stack:
        clients: dict[str, list[Client]] = {}
        for kind in KINDS:
            opened = [await stack.enter_async_context(open_one(url, kind)) for _ in range(count)]
            clients[kind] = opened
        await until(lambda: len(app.room("all").sockets) == count * len(KINDS))
        yield clients


async def heard(client: Client, kind: str) -> Any:
    async with asyncio.timeout(5):
        message = await client.recv()
    assert isinstance(message, bytes) is (kind == "msgpack")
    return msgspec.msgpack.decode(message) if kind == "msgpack" else json.loads(message)


@pytest.mark.parametrize("target", ["room", "everyone"])
async def test_an_event_reaches_each_member_in_the_words_of_its_own_protocol(serve, target):
    app = mixed()
    async with serve(app) as url, members(app, url) as clients:
        to = app.everyone if target == "everyone" else app.room("all")
        await to.emit("moved", Points(1, b"\xff"))
        await to.emit("nothing")
        for kind, [client] in clients.items():
            image = b"\xff" if kind == "msgpack" else "/w=="
            assert await heard(client, kind) == {"event": "moved", "data": {"x": 1, "image": image}}
            assert await heard(client, kind) == {"event": "nothing", "data": None}


async def test_the_envelope_on_a_raw_connection_is_the_one_of_json(serve):
    app = mixed()
    async with serve(app) as url, members(app, url) as clients:
        await app.room("all").emit("a.b", {"x": [1, None]})
        texts = {await clients[kind][0].recv() for kind in ("raw", "json", "plain")}
    assert texts == {'{"event":"a.b","data":{"x":[1,null]}}'}


async def test_send_to_a_room_is_a_message_where_it_is_raw_and_the_event_message_elsewhere(serve):
    app = mixed()
    async with serve(app) as url, members(app, url) as clients:
        for message, text in (("text", "text"), ({"x": 1}, '{"x":1}'), (None, "null")):
            await app.room("all").send(message)
            for kind, [client] in clients.items():
                if kind == "raw":
                    assert await client.recv() == text
                else:
                    assert await heard(client, kind) == {"event": "message", "data": message}
        await app.room("all").send(b"\xff")
        assert await clients["raw"][0].recv() == b"\xff"
        assert await heard(clients["msgpack"][0], "msgpack") == {"event": "message", "data": b"\xff"}
        assert await heard(clients["json"][0], "json") == {"event": "message", "data": "/w=="}


async def test_it_is_encoded_once_for_each_encoding_in_use_however_many_listen(serve):
    app = mixed()
    data = Counted()
    async with serve(app) as url, members(app, url, count=5) as clients:
        for number, target in enumerate((app.room("all"), app.everyone), 1):
            await target.emit("x", data)
            for kind, members_of_kind in clients.items():
                for client in members_of_kind:
                    assert await heard(client, kind) == {"event": "x", "data": {"n": 7}}
            # Raw messages, JSON frames and MessagePack frames.
            assert data.count == 3 * number
        for client in (*clients["raw"], *clients["msgpack"]):
            await client.close()
        await until(lambda: len(app.room("all").sockets) == 10)
        await app.room("all").emit("x", data)
        assert data.count == 7
    await until(lambda: app.stats.closed == 20)


async def test_it_is_encoded_when_it_is_emitted(serve):
    app = mixed()
    async with serve(app) as url, members(app, url) as clients:
        state = {"n": 1}
        app.room("all").emit("x", state)
        state["n"] = 2
        app.room("all").emit("x", state)
        for kind, [client] in clients.items():
            assert [(await heard(client, kind))["data"]["n"] for _ in range(2)] == [1, 2]


async def test_exclude_leaves_sockets_out_whatever_they_speak(serve):
    app = mixed()
    async with serve(app) as url, members(app, url) as clients:
        sockets = {socket.route + socket.protocol: socket for socket in app.everyone.sockets}
        raw, msgpack = sockets["/rawraw"], sockets["/eventssymphony.v1.msgpack"]
        await app.room("all").emit("not raw", exclude=raw)
        await app.everyone.emit("neither", exclude=[raw, msgpack])
        await app.room("all").emit("nobody", exclude=app.room("all").sockets)
        await app.room("all").emit("all")
        names = {}
        for kind, [client] in clients.items():
            names[kind] = [(await heard(client, kind))["event"]]
            while names[kind][-1] != "all":
                names[kind].append((await heard(client, kind))["event"])
    assert names == {
        "raw": ["all"],
        "json": ["not raw", "neither", "all"],
        "plain": ["not raw", "neither", "all"],
        "msgpack": ["not raw", "all"],
    }


@pytest.mark.parametrize("seed", range(3))
async def test_what_a_socket_is_sent_in_any_way_comes_in_one_order(serve, seed):
    app = mixed()
    dice = random.Random(seed)
    async with serve(app) as url, members(app, url) as clients:
        room, sockets = app.room("all"), app.everyone.sockets
        ways = Counter()
        for number in range(300):
            way = dice.randrange(6)
            ways[way] += 1
            match way:
                case 0:
                    room.emit("n", number)
                case 1:
                    app.everyone.emit("n", number)
                case 2:
                    room.send({"event": "n", "data": number})
                case 3:
                    for socket in sockets:
                        socket.emit("n", number)
                case 4:
                    for socket in sockets:
                        socket.send({"event": "n", "data": number})
                case 5:
                    for socket in sockets:
                        app.socket(socket.id).emit("n", number)
            if dice.random() < 0.05:
                await asyncio.sleep(0)
        assert len(ways) == 6
        for kind, [client] in clients.items():
            numbers = []
            for _ in range(300):
                said = await heard(client, kind)
                if said["event"] == "message":
                    said = said["data"]
                assert said["event"] == "n"
                numbers.append(said["data"])
            assert numbers == list(range(300))


async def test_the_reply_of_a_handler_comes_behind_what_it_emitted_to_its_room(serve):
    app = Symphony()

    @app.on("say")
    async def speak(socket: Socket, data: str) -> str:
        await socket.join("room")
        for number in range(3):
            await app.room("room").emit("said", f"{data}{number}")
            await socket.emit("told", number)
        return data

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send('{"event":"say","data":"x","id":1}')
        frames = [json.loads(await client.recv()) for _ in range(7)]
    assert [frame.get("event", "reply") for frame in frames] == ["said", "told"] * 3 + ["reply"]


async def test_what_cannot_be_encoded_raises_at_who_emits_it_and_reaches_nobody(serve):
    app = mixed()
    async with serve(app) as url, members(app, url) as clients:
        room = app.room("all")
        for data in (object(), {"a": object()}, 1j):
            for emit in (room.emit, app.everyone.emit, app.everyone.sockets[0].emit):
                with pytest.raises(TypeError):
                    emit("x", data)
        # What only one of the encodings cannot say.
        with pytest.raises((TypeError, OverflowError)):
            room.emit("x", 2**70)
        await room.emit("y")
        for kind, [client] in clients.items():
            assert (await heard(client, kind))["event"] == "y"


async def test_app_socket_emits_to_one_in_its_own_words(serve):
    app = mixed()
    async with serve(app) as url, members(app, url) as clients:
        for socket in app.everyone.sockets:
            await app.socket(socket.id).emit("you", socket.protocol)
        expected = {"raw": "raw", "json": "symphony.v1.json", "plain": "symphony.v1.json"}
        for kind, [client] in clients.items():
            name = expected.get(kind, "symphony.v1.msgpack")
            assert await heard(client, kind) == {"event": "you", "data": name}


async def test_an_event_before_the_socket_is_open_comes_after_its_handshake(serve):
    app = Symphony()
    app.on("x")(lambda: None)

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("a")
        await app.room("a").emit("from the room")
        await socket.emit("from the handler")

    async with serve(app) as url, connect(f"{url}/") as client:
        names = [json.loads(await client.recv())["event"] for _ in range(2)]
    assert names == ["from the room", "from the handler"]


async def test_emit_to_a_socket_that_has_gone_does_nothing_but_count(serve):
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
        gone.append(socket)

    async with serve(app) as url, connect(f"{url}/") as stays:
        async with connect(f"{url}/"):
            await until(lambda: len(app.everyone.sockets) == 2)
        await gone.reaches(1)
        assert json.loads(await stays.recv())["event"] == "somebody left"
        assert app.socket(gone[0].id) is None
