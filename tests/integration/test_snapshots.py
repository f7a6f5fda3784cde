"""`@rooms.snapshot`: what a member begins with, and the publications that follow it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import count
from typing import Annotated, Any

import pytest

from support.clients import connect, until
from support.members import member
from symphony import ConfigurationError, Depends, History, Limits, Position, Reject, Room, Socket, Symphony
from symphony.testing import TestClient


def at(position: Position) -> dict[str, Any]:
    return {"epoch": position.epoch, "offset": position.offset}


codecs = pytest.mark.parametrize("codec", ["json", "msgpack"])
MEMBERS: list[dict[str, Any]] = [{}, {"max_members": 10, "grace": 5}]


class Board:
    def __init__(self) -> None:
        self.marks: list[int] = []


def drawing(**options: Any) -> Symphony:
    """Return an app with boards, whose snapshot is a plain function."""
    app = Symphony()
    boards = app.rooms("board:{name}", state=Board, client_join=True, **options)

    @boards.snapshot
    def everything(room: Room[Board], name: str) -> dict[str, Any]:
        return {"name": name, "marks": room.state.marks}

    app.route("/", events=True)
    return app


def draw(app: Symphony, number: int) -> Any:
    room = app.room("board:a")
    room.state.marks.append(number)
    return room.emit("drawn", number)


@codecs
@pytest.mark.parametrize("options", MEMBERS, ids=str)
async def test_a_member_begins_with_the_snapshot(serve, codec: str, options: dict[str, Any]):
    app = drawing(**options)
    async with serve(app) as url, member(url, codec) as one, member(url, codec) as two:
        await one.say({"join": "board:a", "id": 1})
        await one.hears({"joined": "board:a", "snapshot": {"name": "a", "marks": []}}, {"reply": 1})
        for number in range(3):
            draw(app, number)
        await two.say({"join": "board:a", "id": 1})
        await two.hears({"joined": "board:a", "snapshot": {"name": "a", "marks": [0, 1, 2]}}, {"reply": 1})
        draw(app, 3)
        await two.hears({"event": "drawn", "data": 3, "room": "board:a"})
        assert [(await one.hear())["data"] for _ in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("history", [None, 100, History(3)], ids=str)
@pytest.mark.parametrize("options", MEMBERS, ids=str)
async def test_nothing_is_missing_or_double_after_a_plain_snapshot(
    serve, history: Any, options: dict[str, Any]
):
    app = drawing(history=history, **options)
    async with serve(app) as url, member(url) as first:
        await first.say({"join": "board:a", "id": 1})
        await first.hears({"joined": "board:a"}, {"reply": 1})
        numbers = count()

        async def draw_some(most: int) -> None:
            for _ in range(most):
                await draw(app, next(numbers))
                await asyncio.sleep(0)

        for _ in range(20):
            async with member(url) as one:
                drawing_on = asyncio.ensure_future(draw_some(20))
                await one.say({"join": "board:a", "id": 1})
                marks = (await one.hear())["snapshot"]["marks"]
                await drawing_on
                await draw(app, last := next(numbers))
                while marks[-1:] != [last]:
                    heard = await one.hear()
                    if "event" in heard:
                        marks.append(heard["data"])
                assert marks == list(range(last + 1))


@codecs
@pytest.mark.parametrize(
    "since", ["start", {"epoch": "e", "offset": 3}, {"epoch": "f", "offset": 0}], ids=str
)
@pytest.mark.parametrize("options", MEMBERS, ids=str)
async def test_who_asks_for_earlier_ones_where_none_are_kept_gets_the_snapshot(
    serve, codec: str, since: Any, options: dict[str, Any]
):
    """A client waits for the `joined` that says whether its join was recovered, and takes no other one."""
    app = drawing(**options)
    async with serve(app) as url, member(url, codec) as first, member(url, codec) as one:
        await first.say({"join": "board:a", "id": 1})
        await first.hears({"joined": "board:a"}, {"reply": 1})
        draw(app, 1)
        await one.say({"join": "board:a", "id": 1, "since": since})
        joined = {"joined": "board:a", "recovered": False, "snapshot": {"name": "a", "marks": [1]}}
        await one.hears(joined, {"reply": 1})
        await one.say({"join": "board:a", "id": 2, "since": since})
        await one.hears(joined, {"reply": 2})


async def test_who_recovers_everything_gets_no_snapshot(serve):
    app = drawing(history=100)
    async with serve(app) as url, member(url) as keeper, member(url) as one:
        for each in (keeper, one):
            await each.join("board:a")
        position = await draw(app, 1)
        await one.hears({"event": "drawn"})
        await one.client.close()
        await draw(app, 2)
        async with member(url) as again:
            await again.say({"join": "board:a", "id": 1, "since": at(position)})
            joined = await again.hear()
            assert joined["recovered"] is True
            assert "snapshot" not in joined
            heard = [await again.hear(), await again.hear()]
            assert [each["data"] for each in heard if "event" in each] == [2]


async def test_who_has_missed_too_much_gets_the_snapshot_and_what_follows(serve):
    app = drawing(history=History(2))
    async with serve(app) as url, member(url) as keeper, member(url) as one:
        await keeper.join("board:a")
        first = await draw(app, 0)
        for number in range(1, 8):
            last = await draw(app, number)
        await one.say({"join": "board:a", "id": 1, "since": at(first)})
        await one.hears(
            {
                "joined": "board:a",
                "recovered": False,
                "position": at(last),
                "snapshot": {"name": "a", "marks": list(range(8))},
            },
            {"reply": 1},
        )
        await draw(app, 8)
        await one.hears({"event": "drawn", "data": 8, "offset": last.offset + 1})


class Loads:
    """Snapshots that take their time, because they are read from a store."""

    def __init__(self, app: Symphony) -> None:
        self.app = app
        self.store: list[int] = []
        self.begun = 0
        self.going_on = asyncio.Event()
        self.error: Exception | None = None

    async def load(self) -> list[int]:
        self.begun += 1
        stored = list(self.store)
        await self.going_on.wait()
        if self.error is not None and self.begun > 1:
            raise self.error
        return stored

    async def add(self, number: int) -> Any:
        self.store.append(number)
        return await self.app.room("board:a").emit("drawn", number)


def loading(history: Any = 100, **options: Any) -> Loads:
    app = Symphony(limits=options.pop("limits", None))
    loads = Loads(app)
    boards = app.rooms("board:{name}", history=history, client_join=True, **options)

    @boards.snapshot
    async def everything(socket: Socket, room: Room, name: str) -> Any:
        return await loads.load()

    app.route("/", events=True)
    return loads


@codecs
@pytest.mark.parametrize("options", MEMBERS, ids=str)
async def test_an_async_snapshot_is_followed_by_what_was_published_meanwhile(
    serve, codec: str, options: dict[str, Any]
):
    loads = loading(**options)
    async with serve(loads.app) as url, member(url, codec) as one:
        for number in range(3):
            position = await loads.add(number)
        await one.say({"join": "board:a", "id": 1})
        await until(lambda: loads.begun == 1)
        await loads.add(3)
        loads.going_on.set()
        await one.hears({"joined": "board:a", "position": at(position), "snapshot": [0, 1, 2]})
        heard = [await one.hear(), await one.hear()]
        assert [each["data"] for each in heard if "event" in each] == [3]
        await loads.add(4)
        await one.hears({"event": "drawn", "data": 4})


async def test_a_snapshot_that_outlives_the_history_is_taken_again(serve):
    loads = loading(History(2))
    async with serve(loads.app) as url, member(url) as one:
        await loads.add(0)
        await one.say({"join": "board:a", "id": 1})
        await until(lambda: loads.begun == 1)
        for number in range(1, 8):
            last = await loads.add(number)
        loads.going_on.set()
        await one.hears({"joined": "board:a", "snapshot": [0]})
        heard = [await one.hear(), await one.hear()]
        lost = next(each for each in heard if "lost" in each)
        assert lost == {"lost": "board:a", "position": at(last), "snapshot": list(range(8))}
        await loads.add(8)
        await one.hears({"event": "drawn", "data": 8})
        assert loads.begun == 2


async def test_a_snapshot_that_fails_after_a_loss_is_tried_again(serve):
    loads = loading(History(2))
    errors: list[BaseException] = []

    @loads.app.on_error
    def failed(error: Exception) -> None:
        errors.append(error)
        if len(errors) == 2:
            loads.error = None

    async with serve(loads.app) as url, member(url) as one:
        await loads.add(0)
        await one.say({"join": "board:a", "id": 1})
        await until(lambda: loads.begun == 1)
        for number in range(1, 8):
            await loads.add(number)
        loads.error = RuntimeError("the store is down")
        loads.going_on.set()
        await one.hears({"joined": "board:a", "snapshot": [0]})
        heard = [await one.hear(), await one.hear()]
        assert next(each for each in heard if "lost" in each)["snapshot"] == list(range(8))
        assert [str(error) for error in errors] == ["the store is down"] * 2
        assert loads.begun == 4


@pytest.mark.parametrize("error", [Reject("forbidden", "not yet"), RuntimeError("broken")], ids=repr)
@pytest.mark.parametrize("options", MEMBERS, ids=str)
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_snapshot_that_raises_refuses_the_join(
    serve, error: Exception, options: dict[str, Any], is_async: bool
):
    app = Symphony()
    boards = app.rooms("board:{name}", history=100, client_join=True, **options)
    fails = True
    left: list[str] = []

    def result() -> str:
        if fails:
            raise error
        return "here"

    if is_async:

        @boards.snapshot
        async def later() -> str:
            return result()

    else:

        @boards.snapshot
        def now() -> str:
            return result()

    @boards.on_leave
    def leave(socket: Socket) -> None:
        left.append(socket.id)

    app.route("/", events=True)
    async with serve(app) as url, member(url) as one:
        await one.say({"join": "board:a", "id": 1})
        heard = [await one.hear()]
        while "error" not in heard[-1]:
            heard.append(await one.hear())
        code = "forbidden" if isinstance(error, Reject) else "internal"
        assert heard[-1]["data"]["code"] == code
        # What was told of the membership is taken back.
        assert sum("joined" in each for each in heard) == sum("left" in each for each in heard)
        assert app.room("board:a").sockets == ()
        fails = False
        await one.say({"join": "board:a", "id": 2})
        await one.hears({"joined": "board:a", "snapshot": "here"}, {"reply": 2})


@pytest.mark.parametrize("what", [object(), {1, object()}, [float]], ids=["object", "set", "class"])
async def test_a_snapshot_that_cannot_be_encoded_refuses_the_join(serve, what: Any, caplog):
    app = Symphony()
    boards = app.rooms("board:{name}", client_join=True)

    @boards.snapshot
    def nonsense() -> Any:
        return what

    app.route("/", events=True)
    async with serve(app) as url, member(url) as one:
        await one.say({"join": "board:a", "id": 1})
        await one.hears({"error": 1})
        assert app.room("board:a").sockets == ()


async def store() -> AsyncIterator[str]:
    await asyncio.sleep(0)
    yield "store"


async def starts(app: Symphony) -> None:
    async with TestClient(app):
        pass


async def test_a_plain_snapshot_has_no_dependencies():
    app = Symphony()

    @app.rooms("board:{name}").snapshot
    def loaded(store: Annotated[str, Depends(store)]) -> str:
        return store

    with pytest.raises(ConfigurationError, match=r"Write an `async def`"):
        await starts(app)


async def test_a_plain_snapshot_must_not_return_something_to_wait_for(serve):
    app = Symphony()
    errors: list[Exception] = []
    app.rooms("board:{name}", client_join=True).snapshot(lambda: asyncio.get_running_loop().create_future())

    @app.on_error
    def failed(error: Exception) -> None:
        errors.append(error)

    app.route("/", events=True)
    async with serve(app) as url, member(url) as one:
        await one.say({"join": "board:a", "id": 1})
        await one.hears({"error": 1})
        await until(lambda: errors)
        assert "something to wait for. Write it as `async def`" in str(errors[0])


async def test_an_async_snapshot_needs_a_history():
    app = Symphony()

    @app.rooms("board:{name}").snapshot
    async def later() -> None: ...

    with pytest.raises(ConfigurationError, match="needs a history"):
        await starts(app)


def test_a_family_has_one_snapshot():
    boards = Symphony().rooms("board:{name}")
    boards.snapshot(lambda: 1)
    with pytest.raises(ConfigurationError, match="have a snapshot already"):
        boards.snapshot(lambda: 2)


async def test_none_sends_nothing(serve):
    app = Symphony()
    app.rooms("board:{name}", client_join=True).snapshot(lambda: None)
    app.route("/", events=True)
    async with serve(app) as url, member(url) as one:
        await one.say({"join": "board:a", "id": 1})
        assert await one.hear() == {"joined": "board:a"}


@pytest.mark.parametrize("snapshot", ["text", b"\x00\xff", {"number": 1}], ids=repr)
async def test_on_a_raw_route_the_snapshot_is_a_message(serve, snapshot: Any):
    app = Symphony()
    boards = app.rooms("board:{name}")
    boards.snapshot(lambda: snapshot)
    raw = app.route("/raw")

    @raw.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("board:a")
        socket.send("after")

    async with serve(app) as url, connect(f"{url}/raw") as client:
        expected = json.dumps(snapshot, separators=(",", ":")) if isinstance(snapshot, dict) else snapshot
        assert await client.recv() == expected
        assert await client.recv() == "after"


async def test_after_a_resync_a_room_without_a_history_begins_anew(serve):
    app = Symphony(slow_consumer="resync", limits=Limits(max_outbox_bytes=100_000))
    boards = app.rooms("board:{name}", state=Board, client_join=True)
    resynced: list[str] = []
    sockets: list[Socket] = []

    @boards.snapshot
    def everything(room: Room[Board]) -> int:
        return len(room.state.marks)

    @boards.on_join
    def entered(socket: Socket) -> None:
        sockets.append(socket)

    @app.on_resync
    def resync(socket: Socket) -> None:
        resynced.append(socket.id)

    app.route("/", events=True)
    async with serve(app) as url, member(url) as one:
        await one.say({"join": "board:a", "id": 1})
        await one.hears({"joined": "board:a", "snapshot": 0}, {"reply": 1})
        room: Room[Board] = app.room("board:a")
        one.client.transport.pause_reading()
        while not resynced:
            room.state.marks.append(1)
            room.emit("drawn", [len(room.state.marks), "x" * 10_000])
            await asyncio.sleep(0)
        # There may be another resync, which has begun meanwhile.
        for _ in range(10):
            await asyncio.sleep(0)
        room.state.marks.append(1)
        room.emit("drawn", [len(room.state.marks), "last"])
        one.client.transport.resume_reading()
        marks, complete = 0, True
        while True:
            heard = await one.hear()
            if "dropped" in heard:
                complete = False
            elif "joined" in heard:
                complete, marks = True, heard["snapshot"]
            elif heard.get("event") == "drawn":
                marks += 1
                # Some may come between what was dropped and the snapshot, which has them.
                assert heard["data"][0] == marks or not complete
                if heard["data"][1] == "last":
                    break
        assert complete
        assert marks == len(room.state.marks)
