"""`/_symphony/live` and `/_symphony/ready`."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse

from support.clients import connect, get
from support.servers import serve_natively, transport
from symphony import Limits, Symphony

READY = {"ready": True, "broker": "ok", "stopping": False}


async def everything(scope: Any, receive: Any, send: Any) -> None:
    """Answer each request, as an app for the rest of a site does."""
    if scope["type"] == "http":
        await PlainTextResponse("mine")(scope, receive, send)


async def test_a_server_says_that_it_works_and_takes_clients(serve) -> None:
    async with serve(Symphony()) as url:
        live, ready = await get(f"{url}/_symphony/live"), await get(f"{url}/_symphony/ready")
        assert (live.status_code, live.json()) == (200, {"live": True})
        assert (ready.status_code, ready.json()) == (200, READY)
        assert live.headers["cache-control"] == ready.headers["cache-control"] == "no-store"


async def test_probes_may_name_any_host_and_come_before_the_http_app(serve) -> None:
    """HAProxy asks with the host `localhost`, or with none of the site's."""
    async with serve(Symphony(hosts=["shop.example"], http=everything)) as url:
        for path in ("live", "ready"):
            answer = await get(f"{url}/_symphony/{path}?from=proxy", headers={"Host": "localhost"})
            assert answer.status_code == 200
        assert (await get(f"{url}/page", headers={"Host": "localhost"})).status_code == 403
        assert (await get(f"{url}/page", headers={"Host": "shop.example"})).text == "mine"


async def test_without_probes_the_http_app_answers(serve) -> None:
    async with serve(Symphony(probes=False, client_script=False, http=everything)) as url:
        if transport() != "mounted":
            assert (await get(f"{url}/_symphony/ready")).text == "mine"
    async with serve(Symphony(probes=False)) as url:
        assert (await get(f"{url}/_symphony/ready")).status_code == 404


@pytest.mark.asyncio(loop_factories=["native-uvloop"])
async def test_the_server_answers_before_an_app_of_another_framework() -> None:
    ws = Symphony(hosts=["shop.example"])
    site = FastAPI(lifespan=ws.lifespan)
    site.mount("/ws", ws)
    async with serve_natively(site) as url:
        for path in ("/_symphony/ready", "/ws/_symphony/ready"):
            assert (await get(f"{url}{path}")).json() == READY
        ws._core.node.retire()
        assert (await get(f"{url}/_symphony/ready")).status_code == 503
        assert (await get(f"{url}/_symphony/live")).status_code == 200


@pytest.mark.asyncio(loop_factories=["native-uvloop"])
async def test_a_server_that_is_full_lives(caplog: pytest.LogCaptureFixture) -> None:
    """An orchestrator would end it, with all of its clients."""
    caplog.set_level(logging.INFO)
    app = Symphony(limits=Limits(max_connections=1))

    @app.on_message
    async def echo(message: str) -> str:
        return message

    async with serve_natively(app) as url, connect(url) as client:
        assert (await get(f"{url}/_symphony/live")).status_code == 200
        assert (await get(f"{url}/_symphony/ready?full")).status_code == 200
        assert (await get(f"{url}/")).status_code == 503
        await client.send("x")
        assert await client.recv() == "x"
    assert "GET /_symphony" not in caplog.text
