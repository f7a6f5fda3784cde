"""Plain HTTP on the port of the sockets: `Symphony(http=app)`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from support.clients import Log, connect, get
from support.servers import serve_natively
from symphony import Symphony


async def test_without_an_http_app_the_root_says_hello_and_other_paths_are_404(serve):
    async with serve(Symphony()) as url:
        response = await get(f"{url}/")
        assert response.status_code == 200
        assert response.text == "This is a Symphony server: connect to it with a WebSocket.\n"
        assert (await get(f"{url}/other")).status_code == 404


@pytest.mark.asyncio(loop_factories=["native-uvloop", "native-asyncio", "asgi"])
async def test_an_http_app_is_served_on_the_same_port_with_its_lifespan(serve):
    log = Log()

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
        log.append("http up")
        yield {"database": "connected"}
        log.append("http down")

    async def page(request: Any) -> JSONResponse:
        return JSONResponse({"database": request.state.database, "path": request.url.path})

    http = Starlette(routes=[Route("/page", page)], lifespan=lifespan)
    app = Symphony(http=http)

    @app.on_startup
    def start() -> None:
        log.append("sockets up")

    @app.on_shutdown
    def stop() -> None:
        log.append("sockets down")

    @app.on_message
    async def echo(message: str) -> str:
        return message

    async with serve(app) as url:
        assert log == ["sockets up", "http up"]
        assert (await get(f"{url}/page")).json() == {"database": "connected", "path": "/page"}
        assert (await get(f"{url}/nothing")).status_code == 404
        async with connect(f"{url}/page") as client:
            await client.send("x")
            assert await client.recv() == "x"
    assert log == ["sockets up", "http up", "http down", "sockets down"]


async def test_an_http_app_without_a_lifespan_is_served_as_well():
    async def http(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await JSONResponse({"bare": True})(scope, receive, send)

    async with serve_natively(Symphony(http=http)) as url:
        assert (await get(f"{url}/")).json() == {"bare": True}


async def test_an_http_app_that_fails_to_start_stops_the_app():
    log = Log()

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        raise RuntimeError("no templates")
        yield

    app = Symphony(http=Starlette(lifespan=lifespan))

    @app.on_shutdown
    def stop() -> None:
        log.append("shutdown")

    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(event: Any) -> None:
        sent.append(event)

    with pytest.raises(RuntimeError, match=r"(?s)^The http app failed to start: .*no templates"):
        await app({"type": "lifespan", "state": {}}, receive, send)
    assert [event["type"] for event in sent] == ["lifespan.startup.failed"]
    assert log == ["shutdown"]


async def test_an_http_app_that_fails_to_stop_is_named_in_the_log(caplog):
    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        yield
        raise RuntimeError("no goodbye")

    async with serve_natively(Symphony(http=Starlette(lifespan=lifespan))):
        pass
    assert "The http app failed to stop" in caplog.text
    assert "no goodbye" in caplog.text
