"""A handler that loops over an awaitable ends, or lets others run, when its client has left.

Each handler here loops for as long as it is not cancelled, over something that has nothing to
wait for. Such a loop held the event loop for good: no client was served, and no signal was heard.
"""

import asyncio
import importlib
import inspect
import pkgutil
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

import symphony
from support.clients import connect, until
from symphony import DisconnectedError, Limits, Room, Socket, Symphony

LIMITS = Limits(finish_timeout=0.05, close_timeout=0.1)


async def nothing() -> None: ...


async def joins_and_leaves(app: Symphony, socket: Socket) -> None:
    await socket.join("somewhere")
    await socket.leave("somewhere")


async def sends_what_is_large(app: Symphony, socket: Socket) -> None:
    await socket.send("x" * 3_000_000)


async def listens(app: Symphony, socket: Socket) -> None:
    async with app.room("somewhere").listen():
        pass


CALLS: dict[str, Callable[[Symphony, Socket], Awaitable[Any]]] = {
    "send": lambda app, socket: socket.send("x" * 100),
    "send nothing": lambda app, socket: socket.send(""),
    "send what is large": sends_what_is_large,
    "emit": lambda app, socket: socket.emit("tick", 1),
    "close": lambda app, socket: socket.close(),
    "request": lambda app, socket: socket.request("ask", timeout=0.5),
    "background": lambda app, socket: socket.background(nothing()),
    "background of the app": lambda app, socket: app.background(nothing()),
    "join": lambda app, socket: socket.join("somewhere"),
    "join a room of a family": lambda app, socket: socket.join("hooked:1"),
    "leave": lambda app, socket: socket.leave("somewhere"),
    "join and leave": joins_and_leaves,
    "listen to a room": listens,
    "publish to an empty room": lambda app, socket: app.room("empty").send("x"),
    "publish to a room": lambda app, socket: app.room("other").emit("tick", 1),
    "publish to a room with a history": lambda app, socket: app.room("kept:1").emit("tick", 1),
    "send to a room with a history": lambda app, socket: app.room("kept:1").send("tick", transient=True),
    "read a history": lambda app, socket: app.room("kept:1").history(),
    "publish to everyone": lambda app, socket: app.everyone.send("x"),
    "count": lambda app, socket: app.room("other").count(),
    "count everyone": lambda app, socket: app.everyone.count(),
    "count a room": lambda app, socket: app.room("met:1").count(),
    "read a presence": lambda app, socket: app.room("met:1").presence(),
    "read a presence of the app": lambda app, socket: app.presence("ann"),
    "send by id": lambda app, socket: app.socket(socket.id).send("x" * 100),
    "emit by id": lambda app, socket: app.socket(socket.id).emit("tick", 1),
    "send to an unknown id": lambda app, socket: app.socket("unknown").send("x"),
    "close an unknown id": lambda app, socket: app.socket("unknown").close(),
    "send to a user": lambda app, socket: app.user("ann").send("x"),
    "emit to users": lambda app, socket: app.users("ann", "bob").emit("tick", 1),
    "count users": lambda app, socket: app.users("ann", "bob").count(),
    "close a user": lambda app, socket: app.user("ann").close(),
    "let a user join": lambda app, socket: app.user("ann").join("somewhere"),
    "let a user leave": lambda app, socket: app.user("ann").leave("somewhere"),
    "revoke the rights of a user": lambda app, socket: app.user("ann").revoke(),
    "open a room": lambda app, socket: app.room("other").open(),
    "close a room": lambda app, socket: app.room("empty").close(),
}


def app_with_a_loop(call: Callable[[Symphony, Socket], Awaitable[Any]], seen: list[str]) -> Symphony:
    app = Symphony(limits=LIMITS)
    rooms = app.rooms("hooked:{name}")
    app.rooms("kept:{name}", history=10)
    app.rooms("met:{name}", members=dict)

    @rooms.authorize
    async def may(room: Room) -> bool:
        return True

    @app.route("/echo").on_message
    async def echo(message: str) -> str:
        return message

    loop = app.route("/loop")

    @loop.on("go")
    async def run(socket: Socket) -> None:
        seen.append("began")
        try:
            while True:
                await call(app, socket)
        except DisconnectedError:
            seen.append("disconnected")
        finally:
            seen.append("ended")

    return app


async def answers(other: Any, text: str) -> None:
    """See that another client is answered, whatever else it hears."""
    await other.send(text)
    async with asyncio.timeout(10):
        while await other.recv() != text:
            pass


@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize("leaves", ["close", "abort"])
async def test_a_loop_whose_client_has_left_lets_others_run_and_ends(serve, what: str, leaves: str):
    seen: list[str] = []
    app = app_with_a_loop(CALLS[what], seen)
    async with serve(app) as url, connect(f"{url}/echo", max_size=None) as other:
        client = await connect(f"{url}/loop", max_size=None)
        await client.send('{"event":"go"}')
        await until(lambda: seen)
        await answers(other, "while it is there")
        if leaves == "abort":
            client.transport.abort()
        else:
            reading = asyncio.ensure_future(client.close())
            await answers(other, "while it leaves")
            client.transport.abort()
            reading.cancel()
        await answers(other, "after it has left")
        await until(lambda: "ended" in seen)
        await answers(other, "after the loop")
        await until(lambda: app.stats.closed == 1)


async def test_a_generator_whose_client_has_left_is_closed(serve):
    app = Symphony(limits=LIMITS)
    seen: list[str] = []

    @app.route("/raw").on_message
    async def count(message: str) -> AsyncIterator[str]:
        seen.append("began")
        try:
            while True:
                yield ""
        finally:
            seen.append("ended")

    @app.route("/events").on("count")
    async def stream() -> AsyncIterator[int]:
        seen.append("began")
        try:
            while True:
                yield 1
        finally:
            seen.append("ended")

    @app.route("/echo").on_message
    async def echo(message: str) -> str:
        return message

    async with serve(app) as url, connect(f"{url}/echo") as other:
        for path, message in (("/raw", "go"), ("/events", '{"event":"count","id":1}')):
            seen.clear()
            client = await connect(f"{url}{path}", max_size=None)
            await client.send(message)
            await until(lambda: seen)
            await answers(other, "while it is there")
            client.transport.abort()
            await answers(other, "after it has left")
            await until(lambda: "ended" in seen)
        await answers(other, "at the end")


@pytest.mark.parametrize("what", [name for name in CALLS if name not in ("close", "request")])
async def test_a_loop_of_a_background_task_lets_others_run(serve, what: str):
    """In a task of the app, which no client's leaving ends."""
    app = Symphony(limits=LIMITS)
    app.rooms("met:{name}", members=dict)
    ended: list[str] = []

    @app.route("/echo").on_message
    async def echo(message: str) -> str:
        return message

    @app.route("/loop").on("go")
    async def start(socket: Socket) -> None:
        async def run() -> None:
            try:
                while True:
                    await CALLS[what](app, socket)
            finally:
                ended.append(what)

        app.background(run())

    async with serve(app) as url, connect(f"{url}/echo", max_size=None) as other:
        client = await connect(f"{url}/loop", max_size=None)
        await client.send('{"event":"go"}')
        await answers(other, "while it is there")
        client.transport.abort()
        for number in range(3):
            await answers(other, f"after it has left {number}")
        # What the task has published to it may be more than it can read before its close.
        other.transport.abort()
    assert ended == [what]


async def test_what_each_verb_does_on_a_socket_that_has_gone(serve):
    app = Symphony()
    log: list[Any] = []

    @app.on("x")
    async def never() -> None: ...

    @app.on_disconnect
    async def gone(socket: Socket) -> None:
        for verb in (
            lambda: socket.request("ask"),
            lambda: socket.join("room"),
            lambda: socket.background(nothing()),
        ):
            with pytest.raises(DisconnectedError):
                await verb()
        turns = []
        for verb in (
            lambda: socket.send("x"),
            lambda: socket.emit("x"),
            lambda: socket.close(),
            lambda: socket.leave("room"),
        ):
            asyncio.get_running_loop().call_soon(turns.append, len(turns))
            await verb()
        log.append(turns)

    async with serve(app) as url:
        async with connect(f"{url}/"):
            pass
        await until(lambda: log)
    assert log == [[0, 1, 2, 3]]


# Each public awaitable that a handler can reach, and the entry of `CALLS` that loops over it, or why
# there is none. A new one must be added here.
REACHABLE = {
    "Socket.send": "send",
    "Socket.emit": "emit",
    "Socket.request": "request",
    "Socket.close": "close",
    "Socket.join": "join",
    "Socket.leave": "leave",
    "Socket.background": "background",
    "RoomTarget.send": "send to a room with a history",
    "RoomTarget.emit": "publish to a room with a history",
    "RoomTarget.history": "read a history",
    "Room.count": "count a room",
    "Room.presence": "read a presence",
    "Symphony.presence": "read a presence of the app",
    "SocketTarget.send": "send by id",
    "SocketTarget.emit": "emit by id",
    "SocketTarget.close": "close an unknown id",
    "SocketTarget.request": "it waits for a reply, or raises",
    "User.close": "close a user",
    "User.join": "let a user join",
    "User.leave": "let a user leave",
    "User.revoke": "revoke the rights of a user",
    "Room.open": "open a room",
    "Room.listen": "listen to a room",
    "Room.close": "close a room",
    "User.request": "it waits for a reply, or raises",
    "Users.send": "send to a user",
    "Users.emit": "emit to users",
    "Users.count": "count users",
    "Target.send": "publish to everyone",
    "Target.emit": "publish to a room",
    "Target.count": "count",
    "Publisher.__aenter__": "it connects to the broker of another process",
    "Symphony.background": "background of the app",
    "Symphony.__call__": "it serves an ASGI scope, and a server calls it",
    "Symphony.lifespan": "it runs the app, and a server enters it",
}
_AWAITABLE = re.compile(r"Awaitable|Coroutine|Async|Task|Future")
_SPECIAL = ("__aenter__", "__aiter__", "__anext__", "__await__", "__call__")
# A handler cannot get them from its socket or its app.
_ELSEWHERE = ("symphony.client", "symphony.testing", "symphony.cli")


def classes_of_symphony() -> dict[str, type]:
    found: dict[str, type] = {}
    for module in pkgutil.walk_packages(symphony.__path__, "symphony."):
        if module.name.endswith("__main__") or module.name.startswith(_ELSEWHERE):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(value) and value.__module__.startswith("symphony."):
                found[name] = value
    return found


def returned_by(member: Any) -> str:
    """Return the annotation of what a method or a property gives, as text."""
    function = member.fget if isinstance(member, property) else member
    if inspect.iscoroutinefunction(function):
        return "Coroutine"
    if inspect.isasyncgenfunction(function):
        return "AsyncGenerator"
    return str(getattr(inspect.unwrap(function), "__annotations__", {}).get("return", ""))


def public_members(kind: type) -> Iterator[tuple[str, Any]]:
    for owner in kind.__mro__:
        if not owner.__module__.startswith("symphony."):
            continue
        for name, member in vars(owner).items():
            is_callable = inspect.isfunction(member) or isinstance(member, property)
            if is_callable and (not name.startswith("_") or name in _SPECIAL):
                yield f"{owner.__name__}.{name}", member


def test_every_awaitable_that_a_handler_can_reach_is_looped_over():
    """Found by walking over the app, the socket, and whatever their public members return."""
    classes = classes_of_symphony()
    todo: list[type] = [Symphony, Socket, Room]
    seen: set[type] = set()
    awaitables: set[str] = set()
    while todo:
        kind = todo.pop()
        if kind in seen:
            continue
        seen.add(kind)
        for name, member in public_members(kind):
            returned = returned_by(member)
            if name.startswith("Threadsafe"):
                # Their futures are for other threads: on the event loop, the calls raise.
                continue
            if _AWAITABLE.search(returned):
                awaitables.add(name)
            else:
                todo += [classes[word] for word in re.findall(r"\w+", returned) if word in classes]
    assert {"Room", "Target", "Threadsafe"} <= {kind.__name__ for kind in seen}
    assert awaitables == set(REACHABLE)
    assert all(entry in CALLS or " " in entry for entry in REACHABLE.values())
