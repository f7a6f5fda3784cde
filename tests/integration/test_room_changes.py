"""Joins, leaves and ends of one room at the same time; names; the tasks of rooms."""

import asyncio
import json
from typing import Any

import pytest

from support.clients import Log, closed, connect, until
from symphony import DisconnectedError, Limits, Reject, Room, Socket, Symphony
from symphony.testing import TestClient


async def ask(client: Any, event: str, data: Any = None) -> Any:
    await client.send(json.dumps({"event": event, "data": data, "id": 1}))
    while "reply" not in (answer := json.loads(await client.recv())) and "error" not in answer:
        pass
    return answer.get("data")


class Doors:
    """A family of rooms whose hooks wait until the test opens them."""

    def __init__(self, app: Symphony) -> None:
        self.log = Log()
        self.may, self.joined = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        rooms = app.rooms("door:{id}")

        @rooms.authorize
        async def authorize(socket: Socket, room: Room) -> None:
            self.log.append("authorize")
            await self.may.wait()

        @rooms.on_join
        async def on_join(socket: Socket, room: Room) -> None:
            self.log.append("on_join")
            await self.joined.wait()
            self.log.append("on_join ends")
            if self.error is not None:
                raise self.error

        @rooms.on_leave
        async def on_leave(socket: Socket, room: Room) -> None:
            self.log.append("on_leave")

        @app.route("/", concurrency=4).on("join")
        async def join(socket: Socket) -> str:
            try:
                await socket.join("door:1")
            except (Reject, DisconnectedError) as error:
                self.log.append(getattr(error, "code", None))
                raise
            self.log.append("in" if socket in app.room("door:1") else "out")
            return "joined"


async def test_a_second_join_at_the_same_time_waits_for_the_first(serve):
    app = Symphony()
    doors = Doors(app)
    doors.may.set()
    async with serve(app) as url, connect(f"{url}/") as client:
        for number in (1, 2):
            await client.send(json.dumps({"event": "join", "id": number}))
        await doors.log.reaches(2)
        await client.ping()
        assert doors.log == ["authorize", "on_join"]
        doors.joined.set()
        await doors.log.reaches(5)
        assert doors.log == ["authorize", "on_join", "on_join ends", "in", "in"]


async def test_a_second_join_asks_itself_if_the_first_is_refused(serve):
    app = Symphony()
    doors = Doors(app)
    doors.may.set()
    doors.error = Reject("shop.closed")
    async with serve(app) as url, connect(f"{url}/") as client:
        for number in (1, 2):
            await client.send(json.dumps({"event": "join", "id": number}))
        await doors.log.reaches(2)
        doors.joined.set()
        await doors.log.reaches(10)
        assert doors.log == ["authorize", "on_join", "on_join ends", "on_leave", "shop.closed"] * 2
        assert not app.room("door:1").sockets


@pytest.mark.parametrize("when", ["authorize", "on_join"])
async def test_a_leave_during_a_join_undoes_it(serve, when: str):
    app = Symphony()
    doors = Doors(app)
    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send(json.dumps({"event": "join", "id": 1}))
        await doors.log.reaches(1)
        [socket] = app.everyone.sockets
        if when == "on_join":
            doors.may.set()
            await doors.log.reaches(2)
        leaving = asyncio.ensure_future(socket.leave("door:1"))
        await asyncio.sleep(0)
        assert socket not in app.room("door:1")
        doors.may.set()
        doors.joined.set()
        assert await leaving is (when == "on_join")
        if when == "on_join":
            assert json.loads(await client.recv()) == {"joined": "door:1"}
            assert json.loads(await client.recv())["left"] == "door:1"
        assert json.loads(await client.recv())["data"]["code"] == "cancelled"
        hooks = ["on_join", "on_join ends", "on_leave"] if when == "on_join" else []
        assert doors.log == ["authorize", *hooks, "cancelled"]
        assert not app.room("door:1").sockets
        assert len(app._core.node.rooms) == 0


@pytest.mark.parametrize("when", ["authorize", "on_join"])
async def test_a_client_that_goes_during_a_join_is_no_member_afterwards(serve, when: str):
    app = Symphony()
    doors = Doors(app)
    async with serve(app) as url:
        client = await connect(f"{url}/")
        await client.send(json.dumps({"event": "join", "id": 1}))
        await doors.log.reaches(1)
        if when == "on_join":
            doors.may.set()
            await doors.log.reaches(2)
        client.transport.abort()
        await until(lambda: not app.everyone.sockets)
        assert not app.room("door:1").sockets
        doors.may.set()
        doors.joined.set()
        await until(lambda: app.stats.closed == 1)
        hooks = ["on_join", "on_join ends", "on_leave"] if when == "on_join" else []
        assert doors.log == ["authorize", *hooks, 1006]
        assert len(app._core.node.rooms) == 0


async def test_a_member_that_has_gone_is_out_of_its_rooms_while_its_handler_still_runs(serve):
    app = Symphony(limits=Limits(finish_timeout=30))
    rooms = app.rooms("room:{id}")
    log, go_on = Log(), asyncio.Event()

    @rooms.on_leave
    async def left(socket: Socket, room: Room) -> None:
        log.append("left")
        await room.send("bye")

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("room:1")

    @app.on_message
    async def linger(socket: Socket, message: str) -> None:
        log.append("running")
        await go_on.wait()
        log.append(socket.rooms)

    @app.on_disconnect
    async def gone(socket: Socket) -> None:
        log.append("gone")

    async with serve(app) as url, connect(f"{url}/") as stays:
        leaves = await connect(f"{url}/")
        await leaves.send("x")
        await log.reaches(1)
        leaves.transport.abort()
        assert await stays.recv() == "bye"
        assert log == ["running", "left"]
        assert len(app.room("room:1").sockets) == len(app.everyone.sockets) == 1
        go_on.set()
        await log.reaches(4)
        assert log == ["running", "left", frozenset(), "gone"]


def acting(app: Symphony, path: str, kind: str, handled: Log, **options: Any) -> None:
    route = app.route(path, **options)

    async def act(message: str) -> None:
        handled.append(message)
        await asyncio.sleep(0.02)

    async def act_on(data: str) -> None:
        await act(data)

    (route.on_message(act) if kind == "raw" else route.on("act")(act_on))


@pytest.mark.parametrize(("kind", "options"), [("raw", {}), ("event", {}), ("event", {"concurrency": 2})])
@pytest.mark.parametrize("how", ["close", "slow consumer", "refuse"])
async def test_nothing_of_a_client_is_handled_after_the_server_has_closed(serve, kind, options, how):
    app = Symphony(limits=Limits(max_outbox_bytes=1000, high_water_bytes=1000, low_water_bytes=1000))
    handled = Log()
    acting(app, "/", kind, handled, **options)

    @app.route("/echo").on_message
    async def echo(message: str) -> str:
        return message

    async with serve(app) as url, connect(f"{url}/echo") as other, connect(f"{url}/") as bad:
        [*_, socket] = app.everyone.sockets
        for number in range(20):
            await bad.send(
                str(number) if kind == "raw" else json.dumps({"event": "act", "data": str(number)})
            )
        await handled.reaches(2)
        if how == "close":
            await socket.close(4403, "banned")
        elif how == "refuse":
            socket._connection.close(1008, "refused")
        else:
            socket._connection._overflow()
        begun = len(handled)
        assert not socket.connected
        await until(lambda: app.stats.closed == 1)
        await other.send("x")
        await other.recv()
        assert len(handled) == begun


async def test_a_batch_ends_where_its_handler_closes(serve):
    from symphony.protocol.jsonrpc import JsonRpc

    app = Symphony()
    handled = Log()

    @app.route("/", protocol=JsonRpc).on("act")
    async def act(socket: Socket, data: list[int]) -> None:
        handled.append(data[0])
        if data[0] == 2:
            await socket.close(4403)

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send(
            json.dumps([{"jsonrpc": "2.0", "method": "act", "params": [number]} for number in range(5)])
        )
        assert (await closed(client))[0] == 4403
        await until(lambda: app.stats.closed == 1)
    assert handled == [0, 1, 2]


@pytest.mark.within("max_rooms")
@pytest.mark.beyond("max_rooms")
async def test_a_socket_is_in_at_most_max_rooms_rooms(serve):
    app = Symphony(limits=Limits(max_rooms=3))

    @app.on("join")
    async def join(socket: Socket, data: str) -> list[str]:
        await socket.join(data)
        return sorted(socket.rooms)

    @app.on("leave")
    async def leave(socket: Socket, data: str) -> bool:
        return await socket.leave(data)

    async with serve(app) as url, connect(f"{url}/") as client:
        for name in ("a", "b", "c"):
            rooms = await ask(client, "join", name)
        assert rooms == ["a", "b", "c"]
        refused = await ask(client, "join", "d")
        assert (refused["code"], refused["details"]) == ("too_many", {"max_rooms": 3})
        assert await ask(client, "join", "a") == ["a", "b", "c"]
        assert await ask(client, "leave", "b") is True
        assert await ask(client, "join", "d") == ["a", "c", "d"]


NO_NAMES = (
    "",
    "x" * 513,
    "chat:{x}",
    "}",
    "a\nb",
    "a\x00",
    "\x7f",
    "a\x85b",
    "\x1b[31m",
    7,
    None,
    True,
    ["a"],
    {"a": 1},
    "game:",
    "game:%37",
    "game:7 ",
    "game:7.0",
    "game:\u0667",
    "game:007",
    "game:+7",
    "game:x",
    "game:" + "9" * 5000,
    "at:1.50",
    "at:1.0",
    "key:C0FFEE00-0000-4000-8000-000000000000",
    "key:c0ffee00000040008000000000000000",
    "key:{c0ffee00-0000-4000-8000-000000000000}",
)


@pytest.mark.parametrize("name", NO_NAMES)
async def test_a_name_that_is_not_that_of_a_room_is_invalid(serve, name: Any):
    app = Symphony()
    for pattern in ("game:{id:int}", "at:{x:float}", "key:{id:uuid}"):
        app.rooms(pattern)

    @app.on("join")
    async def join(socket: Socket, data: Any) -> None:
        await socket.join(data)

    @app.on("room")
    async def room(data: Any) -> None:
        await app.room(data).emit("x")

    @app.on("leave")
    async def leave(socket: Socket, data: Any) -> None:
        await socket.leave(data)

    @app.on("handle")
    async def handle(data: Any) -> None:
        app.room(data)

    @app.on("thread", thread=True)
    def in_thread(data: Any) -> None:
        app.threadsafe.room(data)

    async with serve(app) as url, connect(f"{url}/") as client:
        refused = await ask(client, "join", name)
        assert refused["code"] == "invalid"
        assert len(refused["message"]) < 500
        # A handle of such a room reached no one, silently.
        for event in ("room", "leave", "handle", "thread"):
            assert await ask(client, event, name) == refused, event


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("game:007", "game:7"),
        ("at:1.50", "at:1.5"),
        ("key:C0FFEE00-0000-4000-8000-000000000000", "key:c0ffee00-0000-4000-8000-000000000000"),
        ("game:x", None),
        ("game:", None),
    ],
)
async def test_a_name_that_is_only_spelled_wrong_is_refused_with_the_right_one(name: str, right: str | None):
    app = Symphony()
    for pattern in ("game:{id:int}", "at:{x:float}", "key:{id:uuid}"):
        app.rooms(pattern)
    async with app.lifespan():
        with pytest.raises(Reject, match="is not a name of the rooms") as caught:
            app.room(name)
    assert ("; write " in caught.value.message) == (right is not None)
    if right is not None:
        assert caught.value.message.endswith(f"; write {right!r}")


async def test_a_threadsafe_room_is_checked_when_it_is_used_if_the_app_did_not_run_before():
    app = Symphony()
    app.rooms("game:{id:int}")
    early = app.threadsafe.room("game:007")
    async with app.lifespan():
        with pytest.raises(Reject, match="write 'game:7'"):
            await asyncio.wrap_future(await asyncio.to_thread(early.emit, "x"))
        with pytest.raises(Reject, match="write 'game:7'"):
            app.threadsafe.room("game:007")


@pytest.mark.parametrize("name", ["game:7", "game:0", "at:1.5", "at:1", "at:0.1", "slug:007"])
async def test_a_name_as_its_pattern_writes_it_is_a_room_of_the_family(serve, name: str):
    app = Symphony()
    families = [app.rooms(pattern) for pattern in ("game:{id:int}", "at:{x:float}", "slug:{s}")]
    for family in families:

        @family.authorize
        async def no(room: Room) -> bool:
            return False

    @app.on("join")
    async def join(socket: Socket, data: str) -> None:
        await socket.join(data)

    async with serve(app) as url, connect(f"{url}/") as client:
        assert (await ask(client, "join", name))["code"] == "forbidden"


class Game:
    """An app with a room that has a task, and a way to join it."""

    def __init__(self, **options: Any) -> None:
        self.log: list[Any] = []
        self.app = Symphony(limits=Limits(finish_timeout=5))
        self.rooms = self.app.rooms("game:{id}", **options)

        @self.app.on_error
        async def failed(socket: Socket | None, error: Exception) -> None:
            self.log.append(("on_error", socket, str(error)))

        @self.app.on_connect
        async def enter(socket: Socket) -> None:
            await socket.join("game:1")


async def test_a_task_may_make_the_last_member_leave_and_goes_on():
    game, log = Game(), []

    @game.rooms.task
    async def play(room: Room) -> None:
        try:
            await asyncio.sleep(1)
            for socket in room.sockets:
                await socket.leave(room.name)
            log.append("left")
            await asyncio.sleep(2)
            log.append("saved")
        finally:
            log.append("ended")

    @game.rooms.on_empty
    async def empty(room: Room) -> None:
        log.append("empty")

    async with TestClient(game.app) as client, client.connect("/"):
        await client.clock.advance(1.5)
        await client.settle()
        assert log == ["left"]
        await client.clock.advance(2)
        await client.settle()
        assert log == ["left", "saved", "ended", "empty"]
        assert len(game.app._core.node.rooms) == 0


async def test_a_task_that_empties_its_room_and_never_ends_is_cancelled_after_finish_timeout():
    game, log = Game(), []

    @game.rooms.task
    async def play(room: Room) -> None:
        while True:
            await asyncio.sleep(1)
            log.append("tick")
            for socket in room.sockets:
                await socket.leave(room.name)

    async with TestClient(game.app) as client, client.connect("/"):
        for _ in range(20):
            await client.clock.advance(1)
            await client.settle()
        assert 4 <= len(log) <= 7
        assert len(game.app._core.node.rooms) == 0


async def test_a_task_that_fails_is_named_with_its_room_and_starts_again_at_the_next_join(caplog):
    game = Game(linger=30)
    log = game.log

    @game.rooms.task
    async def play(room: Room) -> None:
        log.append("began")
        raise ValueError("boom")

    @game.rooms.task
    async def fine(room: Room) -> None:
        log.append("fine")

    async with TestClient(game.app, raise_errors=False) as client:
        async with client.connect("/"), client.connect("/"):
            await client.settle()
        await client.clock.advance(5)
        async with client.connect("/"):
            await client.settle()
        await client.settle()
    assert [entry for entry in log if entry in ("began", "fine")].count("began") == 3
    assert log.count("fine") == 1
    assert log.count(("on_error", None, "boom")) == 3
    assert "The task of room 'game:1' failed." in caplog.text


@pytest.mark.parametrize(
    "error", [KeyError("x"), GeneratorExit(), StopAsyncIteration(), asyncio.CancelledError()]
)
async def test_however_a_task_fails_the_next_join_starts_it_again(error: BaseException):
    game = Game(linger=30)
    runs: list[int] = []

    @game.rooms.task
    async def play(room: Room) -> None:
        runs.append(1)
        raise error

    async with TestClient(game.app, raise_errors=False) as client:
        async with client.connect("/"):
            await client.settle()
        async with client.connect("/"):
            await client.settle()
        client.errors.clear()
    assert len(runs) == 2


async def test_one_task_runs_at_a_time_however_slowly_the_last_one_ends():
    game, log = Game(), []
    running = 0

    @game.rooms.on_empty
    async def empty(room: Room) -> None:
        await asyncio.sleep(1)

    @game.rooms.task
    async def play(room: Room) -> None:
        nonlocal running
        running += 1
        log.append(running)
        try:
            await asyncio.sleep(1000)
        finally:
            try:
                await asyncio.sleep(2)
            finally:
                running -= 1

    async with TestClient(game.app) as client:
        async with client.connect("/"):
            await client.settle()
        await client.settle()
        async with client.connect("/"):
            await client.clock.advance(0.5)
            await client.settle()
            assert log == [1]
            await client.clock.advance(3)
            await client.settle()
            assert log == [1, 1]
        await client.clock.advance(5)
        await client.settle()
    assert (log, running) == ([1, 1], 0)
