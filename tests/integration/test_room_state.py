"""`app.rooms(pattern, state=...)`: what creates the state of a room, and when."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, Protocol, TypedDict

import msgspec
import pytest

from support.clients import Log, connect, error_in, until
from symphony import ConfigurationError, Depends, Identity, Reject, RemoteError, Room, Socket, Symphony
from symphony.testing import TestClient


class Board:
    def __init__(self, id: int, size: int = 3) -> None:
        self.id = id
        self.size = size


@dataclass
class Notes:
    name: str
    lines: list[str] = field(default_factory=list)


class Struct(msgspec.Struct):
    name: str = "none"
    lines: list[str] = msgspec.field(default_factory=list)


class Everything:
    def __init__(self, *args: Any, name: str, **more: Any) -> None:
        self.given = args, name, more


class Callable:
    async def __call__(self, name: str) -> str:
        return name.upper()


def joining(app: Symphony) -> None:
    """Let sockets join with `+name` and leave with `-name`."""

    @app.on_message
    async def handle(socket: Socket, message: str) -> str:
        name = message[1:]
        if message.startswith("+"):
            await socket.join(name)
        else:
            await socket.leave(name)
        return message


async def say(client: Any, message: str) -> None:
    await client.send(message)
    assert await client.recv() == message


async def load(id: int) -> Board:
    await asyncio.sleep(0)
    return Board(id, 8)


async def state_of(make: Any, pattern: str, name: str) -> Any:
    """Return the state of a room that a socket has joined."""
    app = Symphony()
    app.rooms(pattern, state=make)

    @app.on_connect
    async def connect(socket: Socket) -> None:
        await socket.join(name)

    app.on_message(lambda message: message)
    async with TestClient(app) as client, client.connect("/"):
        return app.room(name).state


@pytest.mark.parametrize("make", [Board, load, lambda id: Board(id), partial(Board, size=9), partial(load)])
async def test_a_state_is_created_with_the_parameters_of_the_room(make: Any):
    assert (await state_of(make, "game:{id:int}", "game:7")).id == 7


async def test_parameters_that_nothing_fills_keep_their_defaults():
    """A default factory is not shown in the signature, so nothing may be passed in its place."""
    notes = await state_of(Notes, "notes:{name}", "notes:a")
    assert (notes.name, notes.lines) == ("a", [])
    struct = await state_of(Struct, "notes:{name}", "notes:b")
    assert (struct.name, struct.lines) == ("b", [])
    assert (await state_of(Struct, "notes:{other}", "notes:c")) == Struct()
    everything = await state_of(Everything, "notes:{name}", "notes:d")
    assert everything.given == ((), "d", {})


@pytest.mark.parametrize("make", [dict, list, set, SimpleNamespace, bytearray, asyncio.Event])
async def test_a_state_may_be_a_class_of_python_itself(make: Any):
    assert type(await state_of(make, "notes:{name}", "notes:a")) is make


@pytest.mark.parametrize("make", [Callable(), Callable().__call__, staticmethod(lambda name: name.upper())])
async def test_what_creates_a_state_may_be_any_callable(make: Any):
    assert await state_of(make, "notes:{name}", "notes:a") == "A"


async def test_a_factory_has_dependencies_and_the_room_and_they_are_closed_before_the_join(serve):
    app, log = Symphony(), Log()
    joining(app)

    async def session() -> AsyncIterator[str]:
        log.append("opened")
        yield "db"
        log.append("closed")

    async def make(room: Room, name: str, db: Annotated[str, Depends(session)]) -> list[str]:
        assert room.state is None
        assert room.sockets == ()
        log.append((room.name, name, db))
        return [db]

    rooms = app.rooms("chat:{name}", state=make)

    @rooms.on_join
    def joined(room: Room) -> None:
        log.append(("joined", room.state))

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, "+chat:a")
        assert log == ["opened", ("chat:a", "a", "db"), "closed", ("joined", ["db"])]


async def test_a_state_is_created_after_authorize_and_before_the_join_returns(serve):
    app, log = Symphony(), Log()
    joining(app)

    async def make(name: str) -> str:
        log.append("making")
        await asyncio.sleep(0.01)
        log.append("made")
        return name

    rooms = app.rooms("chat:{name}", state=make)

    @rooms.authorize
    def may_join(room: Room) -> bool:
        log.append(f"asked {room.state}")
        return room.name != "chat:secret"

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("+chat:secret")
        assert error_in(await client.recv())["code"] == "forbidden"
        assert log == ["asked None"]
        await say(client, "+chat:a")
        log.append(app.room("chat:a").state)
    assert log == ["asked None", "asked None", "making", "made", "a"]


async def test_joins_meanwhile_share_one_state(serve):
    app, log = Symphony(), Log()
    joining(app)
    gate = asyncio.Event()

    async def make(name: str) -> object:
        log.append(name)
        await gate.wait()
        return object()

    app.rooms("chat:{name}", state=make)
    async with serve(app) as url, connect(f"{url}/") as one, connect(f"{url}/") as two:
        await one.send("+chat:a")
        await log.reaches(1)
        await two.send("+chat:a")
        async with connect(f"{url}/") as three:
            await three.send("+chat:b")
            await log.reaches(2)
            assert not app.room("chat:a").sockets
        gate.set()
        assert await one.recv() == await two.recv() == "+chat:a"
        assert len(app.room("chat:a").sockets) == 2
    assert log == ["a", "b"]


async def test_a_factory_that_raises_refuses_its_joins_and_the_next_join_tries_again(serve):
    app, log = Symphony(), Log()
    joining(app)
    gate = asyncio.Event()

    async def make(name: str) -> str:
        log.append(name)
        await gate.wait()
        if len(log) == 1:
            raise Reject("not_found", "there is no such game", details={"game": name})
        return "here"

    rooms = app.rooms("game:{name}", state=make)
    rooms.on_join(lambda: log.append("joined"))
    rooms.on_leave(lambda: log.append("left"))
    rooms.on_empty(lambda: log.append("empty"))
    async with serve(app) as url, connect(f"{url}/") as one, connect(f"{url}/") as two:
        for client in (one, two):
            await client.send("+game:x")
        await log.reaches(1)
        gate.set()
        for client in (one, two):
            error = error_in(await client.recv())
            assert (error["code"], error["details"]) == ("not_found", {"game": "x"})
        assert app.room("game:x").state is None
        assert log == ["x"]
        await say(one, "+game:x")
        assert app.room("game:x").state == "here"
    assert log == ["x", "x", "joined", "left", "empty"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyError(1), asyncio.CancelledError(), StopIteration()])
async def test_any_exception_of_a_factory_refuses_the_join(error: BaseException):
    app = Symphony()
    failing = True

    def make() -> str:
        if failing:
            raise error
        return "here"

    app.rooms("game:{name}", state=make)

    @app.on_message
    async def handle(socket: Socket, message: str) -> str:
        await socket.join(message)
        return app.room(message).state

    async with TestClient(app, raise_errors=False) as client, client.connect("/") as one:
        await one.send("game:x")
        assert error_in(await one.receive())["code"] in ("internal", "unavailable")
        failing = False
        await one.send("game:x")
        assert await one.receive() == "here"
        client.errors.clear()


async def test_a_state_that_was_created_for_joins_that_are_gone_is_cleaned_up(serve):
    app, log = Symphony(), Log()
    joining(app)
    gate = asyncio.Event()

    async def make(name: str) -> str:
        log.append("making")
        await gate.wait()
        return name

    @app.rooms("game:{name}", state=make).on_empty
    def empty(room: Room) -> None:
        log.append(f"empty {room.state}")

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.send("+game:x")
            await log.reaches(1)
        await until(lambda: not app.everyone.sockets)
        gate.set()
        await log.reaches(2)
        await until(lambda: app.room("game:x").state is None)
    assert log == ["making", "empty x"]


async def test_a_failure_that_no_join_waits_for_is_reported_with_the_rooms_name(caplog):
    app, log = Symphony(), Log()
    gate = asyncio.Event()

    async def make() -> str:
        log.append("making")
        await gate.wait()
        raise ValueError("no such game")

    app.rooms("game:{name}", state=make)

    @app.on_message
    async def handle(socket: Socket, message: str) -> str:
        join = asyncio.create_task(socket.join(message))
        await log.reaches(1)
        join.cancel()
        await asyncio.wait((join,))
        return "cancelled"

    async with TestClient(app, raise_errors=False) as client, client.connect("/") as one:
        await one.send("game:x")
        assert await one.receive() == "cancelled"
        gate.set()
        await client.settle()
        assert "state= of room 'game:x' failed" in caplog.text
        [error] = client.errors
        assert str(error) == "no such game"
        client.errors.clear()


async def test_a_leave_while_the_state_is_created_undoes_the_join():
    app, gate, log = Symphony(), asyncio.Event(), Log()

    async def make() -> str:
        log.append("making")
        await gate.wait()
        return "here"

    app.rooms("game:{name}", state=make)

    @app.route("/", concurrency=2).on("join")
    async def join(socket: Socket) -> None:
        await socket.join("game:x")

    @app.on("leave")
    async def leave(socket: Socket) -> bool:
        return await socket.leave("game:x")

    async with TestClient(app) as client, client.connect("/") as one:
        joined = asyncio.create_task(one.request("join"))
        await log.reaches(1)
        left = asyncio.create_task(one.request("leave"))
        await client.settle()
        gate.set()
        assert await left is False
        with pytest.raises(RemoteError, match="left 'game:x' before it had joined"):
            await joined
        assert app.room("game:x").state is None


async def test_a_stopping_app_does_not_wait_for_a_factory(serve):
    app, log = Symphony(), Log()
    joining(app)

    @asynccontextmanager
    async def watched(app: Symphony) -> AsyncIterator[None]:
        yield
        log.append("stopped")

    app._user_lifespan = watched

    async def make() -> str:
        log.append("making")
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cancelled")
        return "never"

    @app.rooms("game:{name}", state=make).on_empty
    def empty() -> None:
        log.append("empty")

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("+game:x")
        await log.reaches(1)
    assert sorted(log) == ["cancelled", "making", "stopped"]


class Wanted(TypedDict):
    name: str


class Drawn(Protocol):
    name: str


def makes_board(id: int) -> Board:
    return Board(id)


async def makes_board_later(id: int) -> Board:
    return Board(id)


def hands_on(id: int) -> Awaitable[Board]:
    return makes_board_later(id)


def unknown(id: int) -> "Nowhere":  # noqa: F821 # pyright: ignore
    return Board(id)


@pytest.mark.parametrize("make", [Board, makes_board, makes_board_later, hands_on, partial(makes_board)])
async def test_the_annotated_state_is_compared_with_what_a_function_returns(make: Any):
    def app_with(annotation: Any) -> Symphony:
        app = Symphony()
        app.on_message(lambda message: message)

        async def hook(room: annotation) -> None: ...

        hook.__annotations__["room"] = annotation
        app.rooms("game:{id:int}", state=make).on_join(hook)
        return app

    for right in (Room[Board], Room[Any], Room, Room[Board, Any]):
        async with app_with(right).lifespan():
            pass
    with pytest.raises(
        ConfigurationError, match=r"wants Room\[Notes\], but the state of the family is Board"
    ):
        async with app_with(Room[Notes]).lifespan():
            pass


@pytest.mark.parametrize(
    ("make", "annotation"),
    [(unknown, Room[Notes]), (dict, Room[Wanted]), (Board, Room[Drawn]), (lambda id: Board(id), Room[Notes])],
)
async def test_a_state_whose_type_cannot_be_known_is_not_checked(make: Any, annotation: Any):
    app = Symphony()
    app.on_message(lambda message: message)

    def hook(room: annotation) -> None: ...

    hook.__annotations__["room"] = annotation
    app.rooms("game:{id:int}", state=make).on_join(hook)
    async with app.lifespan():
        pass


def takes_socket(socket: Socket) -> Board: ...
def takes_user(user: Identity) -> Board: ...
def takes_unknown(size: int) -> Board: ...
def takes_text(id: str) -> Board: ...
def generates(id: int) -> Any:
    yield id


async def generates_later(id: int) -> Any:
    yield id


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (takes_socket, "this hook is not called for one socket"),
        (takes_user, "this hook is not called for one socket"),
        (takes_unknown, "parameter 'size': nothing fills it"),
        (takes_text, "gives int, and its annotation is str"),
        (generates, "plain generator"),
        (generates_later, "is a generator"),
        (3, "a handler is a function, not 3"),
    ],
)
async def test_a_factory_that_cannot_be_called_is_found_at_start(make: Any, problem: str):
    app = Symphony()
    app.on_message(lambda message: message)
    app.rooms("game:{id:int}", state=make)
    with pytest.raises(ConfigurationError) as caught:
        async with app.lifespan():
            pass
    assert "state= of rooms 'game:{id:int}'" in str(caught.value)
    assert problem in str(caught.value)
