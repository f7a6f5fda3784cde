"""Rooms: who is in, who hears what, and in which order."""

import asyncio
import json
import random

import pytest

from support.clients import Log, connect, error_in, refused, until
from symphony import Limits, Reject, Room, Socket, Symphony, WrongThreadError
from symphony.outgoing.encoding import RAW


def chat() -> Symphony:
    """An app whose sockets join the room in their path, and say what they get to the others."""
    app = Symphony()
    route = app.route("/rooms/{name}")

    @route.on_connect
    async def enter(socket: Socket, name: str) -> None:
        await socket.join(name)

    @route.on_message
    async def say(socket: Socket, name: str, message: str) -> None:
        await app.room(name).send(message, exclude=socket)

    return app


async def test_a_message_to_a_room_reaches_its_members_and_nobody_else(serve):
    app = chat()
    async with (
        serve(app) as url,
        connect(f"{url}/rooms/a") as ann,
        connect(f"{url}/rooms/a") as bob,
        connect(f"{url}/rooms/b") as eve,
    ):
        await ann.send("hi bob")
        assert await bob.recv() == "hi bob"
        await bob.send("hi ann")
        assert await ann.recv() == "hi ann"
        await app.room("b").send("only eve")
        assert await eve.recv() == "only eve"


async def test_join_gives_the_room_and_leave_ends_it(serve):
    app = Symphony()

    @app.on_message
    async def handle(socket: Socket, message: str):
        room = await socket.join("a")
        assert isinstance(room, Room)
        assert room == app.room("a")
        assert room.name == "a"
        assert socket in room
        assert socket.rooms == {"a"}
        assert room.sockets == (socket,)
        assert await room.count() == 1
        # A second join changes nothing.
        assert await socket.join("a") == room
        assert await room.count() == 1
        await room.send("in")
        assert await socket.leave("a") is True
        await room.send("out")
        assert await socket.leave("a") is False
        assert socket not in room
        assert socket.rooms == frozenset()
        assert room.sockets == ()
        assert await room.count() == 0
        return "done"

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("go")
        assert [await client.recv(), await client.recv()] == ["in", "done"]


async def test_exclude_takes_a_socket_or_several(serve):
    app = Symphony()
    sockets = Log()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("a")
        sockets.append(socket)

    async with serve(app) as url:
        clients = [await connect(f"{url}/") for _ in range(4)]
        await sockets.reaches(4)
        room = app.room("a")
        await room.send("not 0", exclude=sockets[0])
        await room.send("not 1 and 2", exclude=[sockets[1], sockets[2]])
        await room.send("nobody", exclude=room.sockets)
        await room.send("everybody")
        heard = []
        for client in clients:
            messages = []
            while not messages or messages[-1] != "everybody":
                messages.append(await client.recv())
            heard.append(messages[:-1])
            await client.close()
    assert heard == [["not 1 and 2"], ["not 0"], ["not 0"], ["not 0", "not 1 and 2"]]


async def test_room_messages_may_be_text_bytes_or_anything_json(serve):
    app = chat()
    async with serve(app) as url, connect(f"{url}/rooms/a") as client:
        await until(lambda: app.room("a").sockets)
        room = app.room("a")
        for message in ("text", b"bytes", {"a": [1]}, 7):
            await room.send(message)
        assert [await client.recv() for _ in range(4)] == ["text", b"bytes", '{"a":[1]}', "7"]


async def test_a_message_is_encoded_when_it_is_sent(serve):
    app = chat()
    async with serve(app) as url, connect(f"{url}/rooms/a") as client:
        await until(lambda: app.room("a").sockets)
        state = {"n": 1}
        app.room("a").send(state)
        state["n"] = 2
        app.room("a").send(state)
        assert [await client.recv(), await client.recv()] == ['{"n":1}', '{"n":2}']


async def test_direct_sends_and_publications_of_all_rooms_keep_one_order(serve):
    app = Symphony()

    @app.on_message
    async def handle(socket: Socket, message: str) -> str:
        dice = random.Random(int(message))
        rooms = [await socket.join(name) for name in "abc"]
        for number in range(300):
            match dice.randrange(4):
                case 0:
                    socket.send(str(number))
                case 1:
                    app.everyone.send(str(number))
                case _:
                    dice.choice(rooms).send(str(number))
            if dice.random() < 0.05:
                await asyncio.sleep(0)
        return "300"

    async with serve(app) as url, connect(f"{url}/") as client:
        for seed in range(5):
            await client.send(str(seed))
            assert [await client.recv() for _ in range(301)] == [str(number) for number in range(301)]


async def test_all_members_hear_a_room_in_the_same_order(serve):
    app = chat()
    async with serve(app) as url:
        clients = [await connect(f"{url}/rooms/a") for _ in range(10)]
        await until(lambda: len(app.room("a").sockets) == 10)

        async def publish(name: str) -> None:
            for number in range(20):
                await app.room("a").send(f"{name}{number}")
                if number % 3 == 0:
                    await asyncio.sleep(0)

        await asyncio.gather(*map(publish, "xyz"))
        heard = [[await client.recv() for _ in range(60)] for client in clients]
        for client in clients:
            await client.close()
    assert all(messages == heard[0] for messages in heard)


async def test_a_member_hears_what_came_between_its_join_and_its_leave(serve):
    app = Symphony()

    @app.on_message
    async def handle(socket: Socket, message: str) -> str:
        room = app.room("a")
        room.send("before")
        await socket.join("a")
        room.send("during")
        await socket.leave("a")
        room.send("after")
        return "end"

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("go")
        assert [await client.recv(), await client.recv()] == ["during", "end"]


async def test_a_disconnect_leaves_all_rooms(serve):
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        for number in range(10):
            await socket.join(f"room {number}")

    async with serve(app) as url:
        async with connect(f"{url}/"):
            await until(lambda: app.room("room 9").sockets)
        await until(lambda: app.stats.closed == 1)
        assert [app.room(f"room {number}").sockets for number in range(10)] == [()] * 10


async def test_a_socket_that_is_refused_after_a_join_is_in_no_room(serve):
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("a")
        raise Reject("forbidden")

    async with serve(app) as url:
        await refused(f"{url}/")
        await until(lambda: app.stats.refused == 1)
        assert app.room("a").sockets == ()


async def test_what_a_room_hears_before_a_member_is_open_comes_after_the_handshake(serve):
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("a")
        await app.room("a").send("from the room")
        await socket.send("from the handler")

    async with serve(app) as url, connect(f"{url}/") as client:
        assert [await client.recv(), await client.recv()] == ["from the room", "from the handler"]


async def test_everyone_is_every_open_socket(serve):
    app = Symphony()
    app.route("/a")
    app.route("/b")
    async with serve(app) as url, connect(f"{url}/a") as one, connect(f"{url}/b") as two:
        await until(lambda: len(app.everyone.sockets) == 2)
        assert await app.everyone.count() == 2
        await app.everyone.send({"news": 1})
        assert await one.recv() == '{"news":1}'
        first, second = app.everyone.sockets
        await app.everyone.send("one only", exclude=second)
        await app.everyone.send("both")
        assert first in app.everyone
        assert [await one.recv(), await one.recv()] == ["one only", "both"]
        assert [await two.recv(), await two.recv()] == ['{"news":1}', "both"]


async def test_app_socket_finds_an_open_socket_by_its_id(serve):
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        assert app.socket(socket.id).sockets == ()
        await socket.send(socket.id)
        assert app.socket(socket.id).sockets == (socket,)

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            id = await client.recv()
            await app.socket(id).send("found")
            assert await client.recv() == "found"
        await until(lambda: app.stats.closed == 1)
        assert app.socket(id).sockets == app.socket("nobody").sockets == ()


@pytest.mark.parametrize("name", ["", "chat:{name}", "a}"])
async def test_app_room_refuses_what_is_no_name(serve, name):
    app = Symphony()
    async with serve(app):
        with pytest.raises(Reject, match="is not the name of a room"):
            app.room(name)


@pytest.mark.within("max_room_name")
@pytest.mark.beyond("max_room_name")
@pytest.mark.parametrize("longest", [None, 1, 9, 2000])
async def test_join_refuses_what_is_no_name(serve, longest: int | None):
    app = Symphony(limits=Limits() if longest is None else Limits(max_room_name=longest))
    longest = longest or 512

    @app.on_message
    async def join(socket: Socket, message: str) -> str:
        with pytest.raises(
            Reject, match=f"is not the name of a room: it must have 1 to {longest} characters"
        ):
            await socket.join(message)
        return "refused"

    async with serve(app) as url, connect(f"{url}/") as client:
        for name in ("", "x" * (longest + 1)):
            await client.send(name)
            assert await client.recv() == "refused"
        [socket] = app.everyone.sockets
        await socket.join("x" * longest)


async def test_a_room_that_refuses_a_message_that_is_not_json_stays_usable(serve):
    app = Symphony()

    @app.on_message
    async def handle(socket: Socket, message: str) -> None:
        room = await socket.join("a")
        if message == "bad":
            room.send(object())
        room.send("good")

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("bad")
        assert error_in(await client.recv())["code"] == "internal"
        await client.send("good")
        assert await client.recv() == "good"


@pytest.mark.asyncio(loop_factories=["native-uvloop"])
@pytest.mark.timeout(60)
async def test_joining_and_leaving_100_000_random_rooms_leaves_nothing_behind(serve):
    app = Symphony()

    @app.on_message
    async def wander(socket: Socket, message: int) -> dict:
        dice = random.Random(message)
        for _ in range(message):
            name = f"room {dice.randrange(10**9)}"
            await socket.join(name)
            app.room(name).send("x", exclude=socket)
            await socket.leave(name)
        return {"rooms": len(socket.rooms)}

    async with serve(app) as url, connect(f"{url}/") as client:
        tables = app._core.node.rooms
        await client.send("100000")
        assert json.loads(await client.recv()) == {"rooms": 0}
        assert len(tables) == 0
        assert len(tables.batches.dirty) == 0
        [socket] = app.everyone.sockets
        assert len(socket._recipient.batches) == 1


async def test_mistakes_in_a_publication_are_named_before_anything_is_sent():
    app = Symphony()
    async with app.lifespan():
        room = app.room("a")
        with pytest.raises(TypeError, match="exclude= takes sockets, not the id 'some-id'"):
            room.emit("said", 1, exclude="some-id")
        with pytest.raises(TypeError, match=r"The name of an event is a string, not \{'event': 'said'\}"):
            RAW.event({"event": "said"}, None)


async def test_counting_from_another_thread_is_refused_at_the_call():
    """It gave a coroutine, which a `def` endpoint tried to encode."""
    app = Symphony()
    async with app.lifespan():
        with pytest.raises(WrongThreadError, match=r"Use app\.threadsafe\.room\('a'\)\.count"):
            await asyncio.to_thread(app.room("a").count)
        assert await app.room("a").count() == 0
