"""The life of an app: start, stop, and what it is mounted in."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from support.clients import Log, closed, connect, get, refused, until
from support.process import outcome
from support.servers import end_unmanaged, serve_asgi, transport
from symphony import Close, Plugin, Socket, Symphony
from symphony.transport.native.server import Server, make_config

MISSING = "The native transport is not in use"


async def test_everything_starts_in_order_and_stops_in_reverse(serve):
    log = Log()

    class Recorder(Plugin):
        name = "recorder"

        async def startup(self, app: Symphony) -> None:
            log.append("plugin up")

        async def shutdown(self, app: Symphony) -> None:
            log.append("plugin down")

    @asynccontextmanager
    async def lifespan(app: Symphony) -> AsyncIterator[None]:
        log.append("lifespan up")
        yield
        log.append("lifespan down")

    app = Symphony(lifespan=lifespan)
    app.plugin(Recorder())

    @app.on_startup
    async def first() -> None:
        log.append("startup 1")

    @app.on_startup
    def second() -> None:
        log.append("startup 2")

    @app.on_shutdown
    async def third() -> None:
        log.append("shutdown 1")

    @app.on_shutdown
    def fourth() -> None:
        log.append("shutdown 2")

    @app.on_connect
    async def enter() -> None:
        log.append("connect")

    @app.on_disconnect
    async def leave() -> None:
        log.append("disconnect")

    async with serve(app) as url:
        assert log == ["plugin up", "lifespan up", "startup 1", "startup 2"]
        client = await connect(f"{url}/")
        await log.reaches(5)
    assert await closed(client)
    assert log[4:] == [
        "connect",
        "disconnect",
        "shutdown 2",
        "shutdown 1",
        "lifespan down",
        "plugin down",
    ]


async def test_what_a_lifespan_yields_is_in_the_apps_state(serve):
    @asynccontextmanager
    async def lifespan(app: Symphony) -> AsyncIterator[dict[str, Any]]:
        yield {"database": "connected"}

    app = Symphony(lifespan=lifespan)

    @app.on_message
    async def handle(message: str) -> str:
        return app.state.database

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await client.recv() == "connected"


async def test_startup_handlers_may_use_rooms(serve):
    app = Symphony()

    @app.on_startup
    async def start() -> None:
        await app.room("a").send("nobody hears this")
        app.state.count = await app.room("a").count()

    async with serve(app):
        assert app.state.count == 0


async def test_a_startup_that_fails_stops_what_had_started():
    log = Log()

    @asynccontextmanager
    async def lifespan(app: Symphony) -> AsyncIterator[None]:
        try:
            yield
        finally:
            log.append("lifespan down")

    app = Symphony(lifespan=lifespan)

    @app.on_startup
    async def fail() -> None:
        raise RuntimeError("no database")

    @app.on_shutdown
    async def stop() -> None:
        log.append("shutdown")

    with pytest.raises(RuntimeError, match="no database"):
        async with app.lifespan():
            log.append("running")
    assert log == ["lifespan down"]
    assert not app._core.started


async def test_a_shutdown_handler_that_fails_does_not_keep_the_others_from_running():
    log = Log()
    app = Symphony()

    @app.on_shutdown
    async def first() -> None:
        log.append("first")

    @app.on_shutdown
    async def second() -> None:
        raise RuntimeError("second failed")

    with pytest.raises(RuntimeError, match="second failed"):
        async with app.lifespan():
            pass
    assert log == ["first"]


async def test_an_app_can_be_served_again(serve):
    app = Symphony()

    @app.on_message
    async def echo(message: str) -> str:
        return message

    for _ in range(2):
        async with serve(app) as url, connect(f"{url}/") as client:
            await client.send("x")
            assert await client.recv() == "x"


async def test_the_real_shutdown_of_the_server_drains_and_stops():
    app = Symphony()
    log = Log()

    @app.on_disconnect
    async def leave() -> None:
        log.append("disconnect")

    @app.on_shutdown
    async def stop() -> None:
        log.append("shutdown")

    addresses: list[str] = []
    server = Server(make_config(app, host="127.0.0.1", port=0), addresses.extend)
    serving = asyncio.ensure_future(server._serve())
    await until(lambda: addresses)
    client = await connect(addresses[0].replace("http", "ws"))
    server.should_exit = True
    assert await closed(client) == (1012, "the server restarts")
    await serving
    assert log == ["disconnect", "shutdown"]
    assert not app._core.started


async def test_a_handshake_while_the_app_stops_is_a_503(serve):
    app = Symphony()
    async with serve(app) as url:
        await app._core.node.drain(asyncio.Event())
        refusal = await refused(f"{url}/")
    assert (refusal.status, refusal.message) == (503, "the server restarts")
    assert refusal.headers["retry-after"] == "1"


async def test_draining_closes_sockets_with_1012_once_their_handlers_have_finished(serve):
    app = Symphony()
    began, gate = asyncio.Event(), asyncio.Event()

    @app.on_message
    async def handle(message: str) -> str:
        began.set()
        await gate.wait()
        return message

    async with serve(app) as url, connect(f"{url}/") as busy, connect(f"{url}/") as idle:
        await busy.send("x")
        await began.wait()
        draining = asyncio.ensure_future(app._core.node.drain(asyncio.Event()))
        assert await closed(idle) == (1012, "the server restarts")
        assert busy.close_code is None
        gate.set()
        assert await busy.recv() == "x"
        assert await closed(busy) == (1012, "the server restarts")
        await draining


async def test_draining_by_force_cuts_off_what_is_left(serve, caplog):
    app = Symphony()
    log = Log()
    began = asyncio.Event()

    @app.on_message
    async def handle(message: str) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    @app.on_disconnect
    async def leave(close: Close) -> None:
        log.append(close.code)

    force = asyncio.Event()
    force.set()
    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        await began.wait()
        await app._core.node.drain(force)
        assert log == ["cancelled", 1006]
        assert (await closed(client))[0] in (1005, 1006)
    assert "1 sockets did not close in time and are cut off." in caplog.text


async def test_the_log_says_where_the_native_transport_is_not_in_use(serve, caplog):
    async with serve(Symphony()):
        assert (MISSING in caplog.text) is (transport() != "native")


# Mounted


async def test_a_mounted_app_that_nobody_starts_starts_at_its_first_connection(caplog):
    app = Symphony()

    @app.on_startup
    async def start() -> None:
        app.state.started = True

    @app.on_message
    async def handle(message: str) -> bool:
        return app.state.started

    outer = FastAPI()
    outer.mount("/ws", app)
    async with serve_asgi(outer) as url:
        assert not app._core.started
        async with connect(f"{url}/ws/") as one, connect(f"{url}/ws/") as two:
            for client in (one, two):
                await client.send("x")
                assert await client.recv() == "true"
        assert caplog.text.count("FastAPI(lifespan=ws.lifespan)") == 1
        assert caplog.text.count(MISSING) == 1
        await end_unmanaged(app)


async def test_clients_wait_until_an_app_without_a_lifespan_has_started():
    """The second one was served before the start had ended, and a first one that left stopped it."""
    app = Symphony()
    begun, may_go_on = asyncio.Event(), asyncio.Event()

    @app.on_startup
    async def start() -> None:
        begun.set()
        await may_go_on.wait()
        app.state.started = True

    @app.on_message
    async def handle(message: str) -> bool:
        return app.state.started

    outer = FastAPI()
    outer.mount("/ws", app)
    async with serve_asgi(outer) as url:
        first, *others = [asyncio.ensure_future(_ask(f"{url}/ws/")) for _ in range(4)]
        await begun.wait()
        first.cancel()
        await asyncio.wait((first,))
        may_go_on.set()
        assert await asyncio.gather(*others) == ["true"] * 3
        await end_unmanaged(app)


async def _ask(url: str) -> str | bytes:
    async with connect(url) as client:
        await client.send("x")
        return await client.recv()


@pytest.mark.parametrize("what", ["startup", "plugin", "lifespan"])
async def test_an_app_without_a_lifespan_that_fails_to_start_is_started_again(what: str):
    app = Symphony(lifespan=lambda app: failing("lifespan"))
    fails = {what}

    @asynccontextmanager
    async def failing(name: str) -> AsyncIterator[None]:
        if name in fails:
            raise RuntimeError("not yet")
        yield

    @app.on_startup
    async def start() -> None:
        async with failing("startup"):
            pass

    class Failing(Plugin):
        name = "failing"

        async def startup(self, app: Symphony) -> None:
            async with failing("plugin"):
                pass

    app.plugin(Failing())

    @app.on_message
    async def handle(message: str) -> bool:
        return True

    scope = {"type": "websocket", "path": "/", "headers": [], "subprotocols": [], "query_string": b""}
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not yet"):
            await app(scope, asyncio.Event().wait, print)
    fails.clear()
    outer = FastAPI()
    outer.mount("/ws", app)
    async with serve_asgi(outer) as url:
        assert await _ask(f"{url}/ws/") == "true"
        await end_unmanaged(app)


_NO_LIFESPAN = """
import asyncio
import sys
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient
from symphony import Room, Socket, Symphony, connect

ws = Symphony(http=FastAPI())
ws.on_shutdown(lambda: print("shut down"))

@ws.on_connect
async def enter(socket: Socket) -> None:
    await socket.join("room")
    socket.background(asyncio.sleep(3600))

@ws.on("ping")
async def ping() -> int:
    return 1

@ws.rooms("room").task
async def tick(room: Room) -> None:
    await asyncio.sleep(3600)

app = FastAPI()
app.mount("/ws", ws)
STOP = {}

async def main():
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with connect(f"ws://127.0.0.1:{port}/ws/") as client:
        print(await client.request("ping"))
        if STOP["open"]:
            return
    server.should_exit = True
    await serving

if STOP["open"] is None:
    with TestClient(app) as client, client.websocket_connect("/ws/", subprotocols=["symphony.v1"]) as socket:
        socket.send_json({"event": "ping", "id": 1})
        print(socket.receive_json()["data"])
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("is_open", [False, True, None], ids=["stopped", "abandoned", "test client"])
async def test_an_app_without_a_lifespan_stops_with_its_event_loop(is_open: bool | None):
    """Its lifespan was closed by `shutdown_asyncgens`, one generator at a time, and printed tracebacks."""
    program = _NO_LIFESPAN.replace("STOP = {}", f"STOP = {{'open': {is_open}}}")
    code, output, errors = await outcome(sys.executable, "-c", program)
    assert (code, output.splitlines()) == (0, ["1", "shut down"])
    # uvicorn logs that its own tasks were cancelled, if the program does not wait for it.
    assert is_open or "Traceback" not in errors
    assert "athrow" not in errors
    assert "asynchronous generator" not in errors


async def test_an_app_in_starlette_is_routed_below_its_prefix():
    app = Symphony()

    @app.route("/rooms/{name}").on_connect
    async def enter(socket: Socket, name: str) -> None:
        await socket.send(f"{name} {socket.handshake.url.path}")

    async def hello(request: Any) -> JSONResponse:
        return JSONResponse({"hello": "world"})

    outer = Starlette(
        routes=[Route("/hello", hello), Mount("/deep/ws", app)], lifespan=lambda outer: app.lifespan(outer)
    )
    async with serve_asgi(outer) as url:
        async with connect(f"{url}/deep/ws/rooms/a") as client:
            assert await client.recv() == "a /deep/ws/rooms/a"
        assert (await refused(f"{url}/deep/ws/other")).status == 404
        assert (await get(f"{url}/hello")).json() == {"hello": "world"}
