"""What a socket must not leave behind, however oddly it begins or ends. The test plays the ASGI server."""

import asyncio
from typing import Any

import pytest

from support.clients import until
from symphony import Event, Limits, Reject, Socket, Symphony
from symphony.protocol.envelopes import Error
from symphony.protocol.v1 import JSON

SCOPE: dict[str, Any] = {
    "type": "websocket",
    "path": "/",
    "headers": [],
    "query_string": b"",
    "client": ("203.0.113.9", 5),
    "subprotocols": [],
    "scheme": "ws",
    "raw_path": b"/",
}
CONNECT, DISCONNECT = {"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1006}


class Server:
    """Serves one WebSocket scope with the events that it is given."""

    def __init__(self, app: Symphony, *events: dict[str, Any]) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for event in events:
            self.events.put_nowait(event)
        self.task = asyncio.ensure_future(app(dict(SCOPE), self.events.get, self.sent.put))


def assert_nothing_is_left(app: Symphony) -> None:
    node = app._core.node
    assert not node._sessions
    assert not node.sockets
    assert not node._admission._per_address


async def test_a_client_that_leaves_before_its_connect_handler_starts_leaves_nothing_behind():
    """Its task was cancelled before its first step, so nothing was cleaned up: each such client
    took a place of `max_connections` for good."""
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None: ...

    async with app.lifespan():
        await Server(app, CONNECT, DISCONNECT).task
        assert_nothing_is_left(app)


async def test_a_protocol_that_cannot_be_created_refuses_the_client_and_leaves_nothing_behind():
    broken = False

    def create() -> Any:
        if broken:
            raise RuntimeError("no connection to the schema registry")
        return JSON

    app = Symphony()
    app.route("/", protocol=create).on("x")(lambda: None)
    async with app.lifespan():
        broken = True
        server = Server(app, CONNECT)
        await server.task
        assert (await server.sent.get())["type"] == "websocket.close"
        assert_nothing_is_left(app)


class Speechless:
    """A protocol that can write anything but errors."""

    subprotocol = None
    payload = "plain"

    def decode(self, message: str) -> Event:
        return Event("x", message, 1)

    def encode(self, envelope: Any) -> str:
        if isinstance(envelope, Error):
            raise ValueError("there is no way to say that")
        return str(envelope)


async def test_a_protocol_that_cannot_write_an_error_is_closed_with_1011():
    """It was tried again until the recursion limit, with a report each time."""
    app = Symphony()
    errors: list[BaseException] = []
    app.on_exception = errors.append

    @app.route("/", protocol=Speechless).on("x")
    async def refuse() -> None:
        raise Reject("forbidden")

    async with app.lifespan():
        server = Server(app, CONNECT)
        assert (await server.sent.get())["type"] == "websocket.accept"
        server.events.put_nowait({"type": "websocket.receive", "text": "hi"})
        close = await server.sent.get()
        assert (close["type"], close["code"]) == ("websocket.close", 1011)
        server.events.put_nowait(DISCONNECT)
        await server.task
        assert_nothing_is_left(app)
    assert [str(error) for error in errors] == ["there is no way to say that"] * 2


@pytest.mark.parametrize("opens", [False, True])
async def test_a_connect_handler_ends_with_the_server_whether_or_not_it_has_sent(opens: bool):
    """The first send took back the timer of the stop: the drain then waited out all of its patience."""
    limits = Limits(drain_time=0.01, finish_timeout=0.1, close_timeout=30, connect_timeout=30)
    app = Symphony(limits=limits)
    stops, ended = asyncio.Event(), asyncio.Event()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        try:
            await stops.wait()
            if opens:
                await socket.send("hello")
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with app.lifespan():
        server = Server(app, CONNECT)
        await until(lambda: app._core.node._sessions)
        draining = asyncio.ensure_future(app._core.node.drain(asyncio.Event()))
        session = next(iter(app._core.node._sessions))
        await until(lambda: session._draining)
        stops.set()
        await ended.wait()
        server.events.put_nowait(DISCONNECT)
        await server.task
        await draining
        assert_nothing_is_left(app)


async def test_the_state_of_an_earlier_run_does_not_reach_the_requests_of_a_later_one():
    run, seen = "first", []

    async def pages(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["run"] = run
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            seen.append(scope["state"]["run"])

    app = Symphony(http=pages)
    request: dict[str, Any] = {"type": "http", "path": "/", "headers": [(b"host", b"localhost")]}
    async with app.lifespan():
        await app({**request, "state": {}}, None, None)
    run = "second"
    asked: asyncio.Queue[Any] = asyncio.Queue()
    answered: asyncio.Queue[Any] = asyncio.Queue()
    scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.ensure_future(app(scope, asked.get, answered.put))
    asked.put_nowait({"type": "lifespan.startup"})
    await answered.get()
    await app({**request, "state": dict(scope["state"])}, None, None)
    asked.put_nowait({"type": "lifespan.shutdown"})
    await task
    assert seen == ["first", "second"]
