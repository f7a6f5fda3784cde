"""`room.open`, `room.close`, and why a membership ended."""

import asyncio
import json
from typing import Any

import pytest

from support.clients import Log, closed, connect, error_in, until
from symphony import ConfigurationError, Leave, Reject, Room, Socket, Symphony, WrongThreadError
from symphony.testing import TestClient


class Game:
    def __init__(self, id: int = 0) -> None:
        self.id = id


def joining(app: Symphony) -> None:
    """Let sockets join with `+name`, leave with `-name`, and be closed with `!code`."""

    @app.on_message
    async def handle(socket: Socket, message: str) -> str | None:
        name = message[1:]
        if message.startswith("!"):
            await socket.close(int(name))
            return None
        if message.startswith("+"):
            await socket.join(name)
        else:
            await socket.leave(name)
        return message


async def say(client: Any, message: str) -> None:
    await client.send(message)
    assert await client.recv() == message


def watched(app: Symphony, log: Log, **options: Any) -> Any:
    """Add rooms whose hooks are logged."""
    rooms = app.rooms("game:{id:int}", state=Game, **options)

    @rooms.task
    async def play(room: Room[Game]) -> None:
        log.append("task")
        try:
            await asyncio.Event().wait()
        finally:
            log.append("task ends")

    rooms.on_join(lambda: log.append("join"))

    @rooms.on_leave
    def left(leave: Leave, room: Room[Game]) -> None:
        log.append((leave.reason, leave.code, room.state.id))

    @rooms.on_empty
    def empty(room: Room[Game]) -> None:
        log.append(f"empty {room.state.id}")

    return rooms


async def test_open_makes_a_room_before_anybody_is_in_it_and_says_so(serve):
    app, log = Symphony(), Log()
    joining(app)
    watched(app, log)
    async with serve(app) as url, connect(f"{url}/") as client:
        room = app.room("game:7")
        assert await room.open(state=Game(70))
        await log.reaches(1)
        assert (room.state.id, room.sockets, log) == (70, (), ["task"])
        assert not await room.open(state=Game(71))
        await say(client, "+game:7")
        assert not await room.open()
        assert room.state.id == 70
        await say(client, "-game:7")
        await log.reaches(5)
        assert log == ["task", "join", ("left", None, 70), "task ends", "empty 70"]
        await until(lambda: room.state is None)
        assert await room.open()
        assert room.state.id == 7


async def test_a_room_that_was_opened_and_not_joined_ends_after_its_ttl():
    app, log = Symphony(), Log()
    joining(app)
    watched(app, log)
    async with TestClient(app) as client:
        room = app.room("game:7")
        assert await room.open(ttl=5)
        await client.clock.advance(4.9)
        assert not await room.open(ttl=60)
        assert log == ["task"]
        await client.clock.advance(0.2)
        assert (room.state, log) == (None, ["task", "task ends", "empty 7"])
        # By default, it waits 30 seconds.
        assert await room.open()
        await client.clock.advance(29.9)
        assert room.state is not None
        await client.clock.advance(0.2)
        assert room.state is None


async def test_a_join_that_fails_does_not_end_the_wait_for_the_first_member():
    app, log = Symphony(), Log()
    joining(app)
    rooms = watched(app, log)

    @rooms.on_join
    def refuse(socket: Socket) -> None:
        if not socket.handshake.query_params:
            raise Reject("forbidden", "not you")

    async with TestClient(app) as client:
        room = app.room("game:7")
        await room.open(ttl=10)
        async with client.connect("/") as one:
            await one.send("+game:7")
            assert error_in(await one.receive())["message"] == "not you"
            await client.clock.advance(9)
            assert room.state is not None
        async with client.connect("/?yes") as one:
            await one.send("+game:7")
            assert await one.receive() == "+game:7"
            await client.clock.advance(9)
            assert room.state is not None
        await client.settle()
        assert room.state is None


async def test_a_room_that_only_open_makes_has_a_factory_that_refuses(serve):
    app = Symphony()
    joining(app)

    def refuse() -> Game:
        raise Reject("not_found", "there is no such game")

    app.rooms("game:{id:int}", state=refuse)
    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("+game:7")
        assert error_in(await client.recv())["code"] == "not_found"
        with pytest.raises(Reject, match="no such game"):
            await app.room("game:7").open()
        assert await app.room("game:7").open(state=Game(1))
        await say(client, "+game:7")


async def test_of_calls_at_the_same_time_one_has_made_the_room():
    app, log = Symphony(), Log()
    joining(app)

    async def make(id: int) -> Game:
        log.append("made")
        await asyncio.sleep(0)
        return Game(id)

    app.rooms("game:{id:int}", state=make)
    async with TestClient(app):
        room = app.room("game:7")
        made = await asyncio.gather(*(room.open() for _ in range(5)), room.open(state=Game(1)))
        assert sorted(made) == [False] * 5 + [True]
        assert (room.state.id, log) == (7, ["made"])


@pytest.mark.parametrize("pattern", ["game:{id:int}", "other:{id}", None])
async def test_what_open_and_close_refuse(pattern: str | None):
    app = Symphony()
    joining(app)
    if pattern is not None:
        app.rooms(pattern)
    async with TestClient(app):
        room = app.room("game:7")
        with pytest.raises(ValueError, match="have no state"):
            await room.open(state=Game())
        for ttl in (0, -1, float("nan")):
            with pytest.raises(ValueError, match="ttl is a number of seconds above 0"):
                room.open(ttl=ttl)
        for code in (1005, 1006, 999, 5000):
            with pytest.raises(ValueError, match=str(code)):
                room.close(code)
        for call in (room.open, room.close):
            with pytest.raises(WrongThreadError):
                await asyncio.to_thread(call)
        assert await room.open()
        assert not await room.open()
        await room.close()
        await room.close()
        assert await room.open()


async def test_close_ends_all_memberships_after_what_was_published(serve):
    app, log = Symphony(), Log()
    joining(app)
    watched(app, log, linger=60)
    async with serve(app) as url, connect(f"{url}/") as one, connect(f"{url}/") as two:
        room = app.room("game:7")
        for client in (one, two):
            await say(client, "+game:7")
        room.state.id = 9
        await room.send("last")
        await room.close(4000, "over")
        assert room.sockets == ()
        await room.send("too late")
        await log.reaches(7)
        left = ("closed", 4000, 9)
        assert log == ["task", "join", "join", left, left, "task ends", "empty 9"] or log == [
            *["join", "task", "join", left, left, "task ends", "empty 9"]
        ]
        for client in (one, two):
            assert await client.recv() == "last"
            # The connection goes on, and the next life of the room is a new one.
            await say(client, "+game:7")
        assert room.state.id == 7


async def test_clients_are_told_that_the_room_was_closed(serve):
    app = Symphony()
    app.rooms("chat:{name}", client_join=True)
    app.route("/", events=True)
    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send(json.dumps({"join": "chat:a", "id": 1}))
        assert json.loads(await client.recv()) == {"joined": "chat:a"}
        assert json.loads(await client.recv()) == {"reply": 1, "data": None}
        await app.room("chat:a").close(4000, "the meeting is over")
        assert json.loads(await client.recv()) == {
            "left": "chat:a",
            "data": {
                "code": "closed",
                "message": "the meeting is over",
                "retryable": False,
                "details": None,
            },
        }


async def test_a_join_during_the_close_waits_and_makes_a_new_room(serve):
    app, log = Symphony(), Log()
    joining(app)
    gate = asyncio.Event()
    rooms = watched(app, log)

    @rooms.on_empty
    async def save() -> None:
        log.append("saving")
        await gate.wait()
        log.append("saved")

    async with serve(app) as url, connect(f"{url}/") as one, connect(f"{url}/") as two:
        await say(one, "+game:7")
        room = app.room("game:7")
        old = room.state
        await room.close()
        await log.reaches(6)
        await two.send("+game:7")
        await one.send("+game:7")
        opening = asyncio.create_task(room.open())
        await asyncio.sleep(0)
        assert room.state is old
        log.clear()
        gate.set()
        assert await one.recv() == await two.recv() == "+game:7"
        assert await opening in (True, False)
        assert room.state is not old
        assert log[0] == "saved"


async def test_a_hook_or_a_task_of_the_room_may_close_it(serve):
    app, log = Symphony(), Log()
    joining(app)
    rooms = app.rooms("game:{id:int}", state=Game)
    over = asyncio.Event()

    @rooms.task
    async def play(room: Room[Game], id: int) -> None:
        await over.wait()
        if id == 1:
            await room.close(4001)
            log.append("the task goes on")

    @rooms.on_leave
    async def left(socket: Socket, room: Room[Game], leave: Leave, id: int) -> None:
        log.append(leave.reason)
        if id == 2:
            await room.close()

    @rooms.on_join
    async def joined(room: Room[Game], id: int) -> None:
        if id == 3:
            await room.close()

    rooms.on_empty(lambda id: log.append(f"empty {id}"))
    async with serve(app) as url, connect(f"{url}/") as one, connect(f"{url}/") as two:
        await say(one, "+game:1")
        over.set()
        await log.reaches(3)
        assert sorted(log) == ["closed", "empty 1", "the task goes on"]
        log.clear()
        await say(one, "+game:2")
        await say(two, "+game:2")
        await say(one, "-game:2")
        await log.reaches(3)
        assert log == ["left", "closed", "empty 2"]
        log.clear()
        await one.send("+game:3")
        assert error_in(await one.recv())["code"] == "cancelled"
        await log.reaches(2)
        assert log == ["closed", "empty 3"]


@pytest.mark.parametrize("kind", ["on_empty", "on_leave"])
async def test_a_hook_that_joins_the_room_it_ends_is_refused_and_does_not_wait_for_itself(kind: str):
    app, log = Symphony(), Log()
    rooms = app.rooms("game:{id:int}", state=Game)
    other: list[Socket] = []

    async def hook(room: Room[Game]) -> None:
        for attempt in (lambda: other[0].join(room.name), room.open):
            try:
                await attempt()
            except Reject as refusal:
                log.append(refusal.code)

    getattr(rooms, kind)(hook)

    @app.on_connect
    async def enter(socket: Socket) -> None:
        if socket.handshake.query_params:
            other.append(socket)
        else:
            await socket.join("game:7")

    app.on_message(lambda message: message)
    async with TestClient(app) as client, client.connect("/?other"):
        async with client.connect("/"):
            await app.room("game:7").close()
            await client.settle()
            assert log == ["unavailable", "unavailable"]
        assert app.room("game:7").state is None


@pytest.mark.parametrize(
    ("end", "leave"),
    [
        ("-game:7", Leave("left")),
        ("!1000", Leave("left", 1000)),
        ("!4000", Leave("left", 4000)),
        ("!1012", Leave("lost", 1012)),
        ("!4503", Leave("lost", 4503)),
        ("!4410", Leave("replaced", 4410)),
        (1000, Leave("left", 1000)),
        (1001, Leave("lost", 1001)),
        (1005, Leave("lost", 1005)),
        (4000, Leave("lost", 4000)),
        ("cut", Leave("lost", 1006)),
    ],
)
async def test_on_leave_is_told_why(serve, end: Any, leave: Leave):
    app, log = Symphony(), Log()
    joining(app)

    def why(leave: Leave) -> None:
        log.append(leave)

    app.rooms("game:{id:int}").on_leave(why)
    async with serve(app) as url:
        client = await connect(f"{url}/")
        await say(client, "+game:7")
        if isinstance(end, int):
            if end == 1005:
                client.protocol.send_close()
                client.transport.writelines(client.protocol.data_to_send())
            else:
                await client.close(end)
        elif end == "cut":
            client.transport.abort()
        else:
            await client.send(end)
        await log.reaches(1)
        # uvicorn does not tell the app that there was no close frame.
        assert log == [leave] or (end == "cut" and log == [Leave("lost", 1005)])
        if end == "-game:7":
            await client.close()
        await client.wait_closed()


async def test_a_refusal_that_may_be_retried_is_a_loss(serve):
    app, log = Symphony(), Log()

    def why(leave: Leave) -> None:
        log.append(leave)

    app.rooms("game:{id:int}").on_leave(why)
    route = app.route("/{retryable:int}")

    @route.on_connect
    async def enter(socket: Socket, retryable: int) -> None:
        await socket.join("game:7")
        await socket.send("hello")
        raise Reject("conflict", "not now", retryable=bool(retryable))

    route.on_message(lambda message: message)
    async with serve(app) as url:
        for retryable, reason, code in ((0, "left", 4409), (1, "lost", 1013)):
            async with connect(f"{url}/{retryable}") as client:
                await closed(client)
                await log.reaches(1)
                assert log.pop() == Leave(reason, code)


async def test_a_member_that_is_behind_gets_everything_before_it_is_told_that_the_room_is_closed(serve):
    app, log = Symphony(), Log()
    rooms = app.rooms("feed:{name}", history=1000, client_join=True)

    @rooms.on_leave
    def left(leave: Leave) -> None:
        log.append(leave.reason)

    app.route("/", events=True)
    async with serve(app) as url, connect(f"{url}/") as client:
        room = app.room("feed:a")
        for number in range(500):
            await room.emit("line", number)
        await client.send(json.dumps({"join": "feed:a", "since": "start", "id": 1}))
        await until(lambda: room.sockets)
        await room.close()
        await room.emit("line", "after it")
        lines, kinds = [], []
        while "left" not in kinds:
            envelope = json.loads(await client.recv())
            kinds.append(next(iter(envelope)))
            if kinds[-1] == "event":
                lines.append(envelope["data"])
        assert lines[:500] == list(range(500))
        assert log == ["closed"]
        # The history goes on in the next life of the room.
        await client.send(json.dumps({"join": "feed:a", "id": 2}))
        rest = [json.loads(await client.recv()) for _ in range(2)]
        assert {"joined", "reply"} == {next(iter(each)) for each in rest}


@pytest.mark.parametrize("kind", ["authorize", "on_join", "on_empty", "task", "state", "on_connect"])
async def test_only_hooks_of_a_leave_have_one(kind: str):
    app = Symphony()
    app.on_message(lambda message: message)

    def hook(leave: Leave) -> None: ...

    if kind == "on_connect":
        app.on_connect(hook)
    elif kind == "state":
        app.rooms("game:{id:int}", state=hook)
    else:
        getattr(app.rooms("game:{id:int}"), kind)(hook)
    with pytest.raises(
        ConfigurationError, match="only on_leave, on_away and on_depart of rooms have a Leave"
    ):
        async with app.lifespan():
            pass
