"""A handler that loops over an awaitable ends, or lets others run, when its client has left.

Each handler here loops for as long as it is not cancelled, over something that has nothing to
wait for. Such a loop held the event loop for good: no client was served, and no signal was heard.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from support.clients import connect, until
from symphony import DisconnectedError, Limits, Room, Socket, Symphony

LIMITS = Limits(finish_timeout=0.05, close_timeout=0.1)


async def nothing() -> None: ...


async def joins_and_leaves(app: Symphony, socket: Socket) -> None:
    await socket.join("somewhere")
    await socket.leave("somewhere")


async def sends_what_is_large(app: Symphony, socket: Socket) -> None:
    await socket.send("x" * 3_000_000)


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
    "publish to an empty room": lambda app, socket: app.room("empty").send("x"),
    "publish to a room": lambda app, socket: app.room("other").emit("tick", 1),
    "publish to everyone": lambda app, socket: app.everyone.send("x"),
    "count": lambda app, socket: app.room("other").count(),
    "count everyone": lambda app, socket: app.everyone.count(),
}


def app_with_a_loop(call: Callable[[Symphony, Socket], Awaitable[Any]], seen: list[str]) -> Symphony:
    app = Symphony(limits=LIMITS)
    rooms = app.rooms("hooked:{name}")

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
