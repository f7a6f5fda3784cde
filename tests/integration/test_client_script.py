"""A page gets the JavaScript client from the server that it speaks to."""

import gzip

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from support.clients import http_client
from support.pages import ROOT
from symphony import Symphony

FOLDER = ROOT / "clients" / "javascript"
MODULES = {
    "/_symphony/client.js": (FOLDER / "symphony.js").read_bytes(),
    "/_symphony/msgpack.js": (FOLDER / "msgpack.js").read_bytes(),
}
SCRIPT = MODULES["/_symphony/client.js"].decode()
ALLOWED = "https://shop.example"


def address(url: str, path: str = "/_symphony/client.js") -> str:
    return url.replace("ws", "http", 1) + path


async def get(
    url: str, path: str = "/_symphony/client.js", method: str = "GET", **headers: str
) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http_client() as client:
        return await client.request(method, address(url, path), headers=named)


async def raw(url: str, path: str, **headers: str) -> tuple[httpx.Response, bytes]:
    """Return an answer, and its body as it came over the network."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        http_client() as client,
        client.stream("GET", address(url, path), headers=named) as answer,
    ):
        return answer, b"".join([part async for part in answer.aiter_raw()])


@pytest.mark.parametrize("path", MODULES)
async def test_the_client_is_served_as_modules(serve, path: str) -> None:
    async with serve(Symphony()) as url:
        answer = await get(url, path)
        assert answer.content == MODULES[path]
        assert answer.headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize("path", MODULES)
async def test_it_is_compressed_for_who_takes_gzip(serve, path: str) -> None:
    async with serve(Symphony()) as url:
        answer, body = await raw(url, path, Accept_Encoding="br, gzip;q=0.8")
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["content-length"] == str(len(body))
        assert len(body) < len(MODULES[path]) / 2
        assert gzip.decompress(body) == MODULES[path]
        assert "Accept-Encoding" in answer.headers["vary"]


@pytest.mark.parametrize(
    ("accepts", "encoding"),
    [
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("*", "gzip"),
        ("deflate, gzip; q=0.001", "gzip"),
        ("gzip;q=1.0, identity;q=0.5", "gzip"),
        ("gzip;q=0.5, identity", None),
        ("gzip;q=0", None),
        ("gzip;q=0.000, *", None),
        ("*;q=0", None),
        ("identity", None),
        ("br", None),
        ("", None),
    ],
)
async def test_the_client_says_whether_it_takes_gzip(serve, accepts: str, encoding: str | None) -> None:
    async with serve(Symphony()) as url:
        answer, _ = await raw(url, "/_symphony/client.js", Accept_Encoding=accepts)
        assert answer.headers.get("content-encoding") == encoding
        assert "Accept-Encoding" in answer.headers["vary"]


async def test_each_encoding_has_a_tag_of_its_own(serve) -> None:
    async with serve(Symphony()) as url:
        plain = (await get(url, Accept_Encoding="identity")).headers["etag"]
        packed = (await get(url, Accept_Encoding="gzip")).headers["etag"]
        assert plain != packed
        for accepts, tag in (("identity", plain), ("gzip", packed)):
            for named in (tag, f"W/{tag}", f'"other", {tag}', "*"):
                answer = await get(url, Accept_Encoding=accepts, If_None_Match=named)
                assert (answer.status_code, answer.content) == (304, b"")
                assert answer.headers["etag"] == tag
                assert "content-encoding" not in answer.headers
        answer = await get(url, Accept_Encoding="gzip", If_None_Match=plain)
        assert (answer.status_code, answer.text) == (200, SCRIPT)


async def test_head_gives_the_headers_alone(serve) -> None:
    async with serve(Symphony()) as url:
        full, body = await raw(url, "/_symphony/client.js", Accept_Encoding="gzip")
        head = await get(url, method="HEAD", Accept_Encoding="gzip")
        assert (head.status_code, head.content) == (200, b"")
        for name in ("etag", "content-length", "content-encoding", "content-type", "vary"):
            assert head.headers[name] == full.headers[name]
        assert head.headers["content-length"] == str(len(body))


async def test_other_methods_are_refused(serve) -> None:
    async with serve(Symphony()) as url:
        answer = await get(url, method="POST")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("allowed", "origin", "may"),
    [
        ([ALLOWED], ALLOWED, True),
        ([ALLOWED], "https://evil.example", False),
        ([ALLOWED], "http://shop.example", False),
        ([ALLOWED], "null", False),
        (["https://*.example"], ALLOWED, True),
        (["*"], "https://evil.example", True),
        (["*"], "null", True),
        ([], ALLOWED, False),
    ],
)
async def test_a_page_that_may_connect_may_import(serve, allowed: list[str], origin: str, may: bool) -> None:
    async with serve(Symphony(origins=allowed)) as url:
        for path in MODULES:
            tag = (await get(url, path)).headers["etag"]
            for answer in (
                await get(url, path, Origin=origin),
                await get(url, path, Origin=origin, If_None_Match=tag),
                await get(url, path, method="HEAD", Origin=origin),
            ):
                assert answer.headers.get("access-control-allow-origin") == (origin if may else None)
                assert "Origin" in answer.headers["vary"]


async def test_an_answer_to_no_page_varies_too(serve) -> None:
    async with serve(Symphony(origins=[ALLOWED])) as url:
        answer = await get(url)
        assert "access-control-allow-origin" not in answer.headers
        assert "Origin" in answer.headers["vary"]


async def test_it_goes_before_the_apps_own_pages_with_all_below_its_mount(serve) -> None:
    async def page(request) -> PlainTextResponse:
        return PlainTextResponse(request.url.path)

    app = Symphony(http=Starlette(routes=[Route("/{path:path}", page)]))
    async with serve(app) as url:
        assert (await get(url)).text == SCRIPT
        assert (await get(url, "/_symphony/other.js")).status_code == 404
        assert "_symphonyother.js" in (await get(url, "/_symphonyother.js")).text


async def test_it_can_be_switched_off(serve) -> None:
    async with serve(Symphony(client_script=False)) as url:
        for path in MODULES:
            assert (await get(url, path)).status_code == 404
