"""The life of an app: start, stop, and what it is mounted in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from support.clients import Log, closed, connect, get, refused, until
from support.servers import serve_asgi, transport
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
        await app._core._unmanaged.aclose()


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
