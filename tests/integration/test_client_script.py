"""A page gets the JavaScript client from the server that it speaks to."""

import httpx
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from support.pages import ROOT
from symphony import Symphony

SCRIPT = (ROOT / "clients" / "javascript" / "symphony.js").read_text()


async def get(url: str, path: str = "/_symphony/client.js", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(url.replace("ws", "http", 1) + path, headers=headers)


async def test_the_script_is_served_as_a_module(serve) -> None:
    async with serve(Symphony()) as url:
        answer = await get(url)
        assert answer.text == SCRIPT
        assert answer.headers["content-type"].startswith("text/javascript")


async def test_a_browser_that_has_it_is_told_so(serve) -> None:
    async with serve(Symphony()) as url:
        tag = (await get(url)).headers["etag"]
        answer = await get(url, **{"If-None-Match": tag})
        assert (answer.status_code, answer.content) == (304, b"")


async def test_it_goes_before_the_apps_own_pages_and_takes_nothing_else_from_them(serve) -> None:
    async def page(request) -> PlainTextResponse:
        return PlainTextResponse(request.url.path)

    app = Symphony(http=Starlette(routes=[Route("/{path:path}", page)]))
    async with serve(app) as url:
        assert (await get(url)).text == SCRIPT
        assert "_symphony/other.js" in (await get(url, "/_symphony/other.js")).text


async def test_it_can_be_switched_off(serve) -> None:
    async with serve(Symphony(client_script=False)) as url:
        assert (await get(url)).status_code == 404
