"""What one HTTP connection may cost: bytes, header fields, time."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from support.raw import RawClient, dial, handshake, text
from symphony import Limits, Symphony

HOST = b"host: localhost\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"


async def size(request: Request) -> PlainTextResponse:
    try:
        return PlainTextResponse(str(len(await request.body())))
    except ClientDisconnect:
        # Otherwise uvicorn logs it as an error of the app.
        return PlainTextResponse("gone")


def served(*more: Route, **limits: Any) -> Symphony:
    site = Starlette(routes=[Route("/size", size, methods=["POST"]), *more])
    app = Symphony(http=site, limits=Limits(**limits))

    @app.on_message
    async def echo(message: str) -> str:
        return message

    return app


def post(*lines: bytes) -> bytes:
    return b"POST /size HTTP/1.1\r\n" + HOST + b"".join(lines)


def get(path: str = "/") -> bytes:
    return f"GET {path} HTTP/1.1\r\n".encode() + HOST + b"\r\n"


async def flooded(client: RawClient, data: bytes) -> int:
    """Send *data* again and again until the server answers; return the status of the answer."""
    answer = asyncio.ensure_future(client.response())
    sent = 0
    with suppress(OSError):
        while not answer.done() and sent < 20_000_000:
            await client.send(data)
            sent += len(data)
            await asyncio.sleep(0)
    assert sent < 20_000_000
    return (await answer).status


FLOODS = {
    "trailers": (post(CHUNKED) + b"0\r\n", b"a:b\r\n" * 1000),
    "one long trailer": (post(CHUNKED) + b"0\r\na: ", b"x" * 10_000),
    "long trailer names": (post(CHUNKED) + b"0\r\n", b"x" * 10_000),
    "a chunk extension": (post(CHUNKED) + b"1;", b"x" * 10_000),
    "chunk extensions": (post(CHUNKED), b"1;" + b"x" * 1000 + b"\r\nx\r\n"),
    "zeros before a size": (post(CHUNKED), b"0" * 10_000),
    "fields": (b"GET / HTTP/1.1\r\n", b"a:b\r\n" * 1000),
    "one long field": (b"GET / HTTP/1.1\r\na: ", b"x" * 10_000),
    "folded lines": (b"GET / HTTP/1.1\r\na: b\r\n", b" b\r\n" * 1000),
    "a target": (b"GET /", b"x" * 10_000),
    "a query": (b"GET /?", b"x=1&" * 2500),
    "a method": (b"G", b"E" * 10_000),
    "line breaks": (b"\r\n", b"\r\n" * 5000),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n", b"a:b\r\n" * 1000),
}


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.beyond("max_header_fields")
async def test_what_surrounds_a_body_is_bounded(native, flood: str):
    """40 MB of trailers became 920 MiB in the server: they were header fields of a
    request that had been answered long ago.
    """
    begin, repeated = FLOODS[flood]
    async with native(served()) as url, await dial(url) as client:
        await client.send(begin)
        assert await flooded(client, repeated) in (400, 431)
        async with await dial(url) as other:
            await other.open(handshake())


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n" + HOST + b"a:b\r\n" * 127 + b"\r\n",
        b"GET / HTTP/1.0\r\n" + b"a:b\r\n" * 128 + b"\r\n",
        post(b"a:b\r\n" * 120, CHUNKED) + b"1\r\nx\r\n0\r\n" + b"t:v\r\n" * 6 + b"\r\n",
        post(CHUNKED) + b"1;a=b\r\nx\r\n" * 2000 + b"0\r\n\r\n",
        post(CHUNKED) + b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n",
    ],
)
@pytest.mark.within("max_header_fields")
async def test_what_is_within_the_bounds_is_answered(native, request_bytes: bytes):
    async with native(served()) as url, await dial(url) as client:
        sending = client.in_background(client.send(request_bytes))
        assert (await client.response()).status in (200, 404)
        await sending


@pytest.mark.parametrize("fields", [128, 200])
async def test_a_request_with_too_many_fields_is_431(native, fields: int):
    async with native(served()) as url:
        for head in (b"GET / HTTP/1.1\r\n" + HOST, handshake()[:-2]):
            async with await dial(url) as client:
                await client.send(head, b"a:b\r\n" * fields, b"\r\n")
                assert (await client.response()).status == 431
                assert await client.at_end()


async def test_the_app_does_not_see_trailers(native):
    """They were appended to the headers that the app reads."""
    seen: list[str] = []

    async def look(request: Request) -> PlainTextResponse:
        await request.body()
        seen.extend(request.headers.keys())
        return PlainTextResponse("")

    app = served(Route("/look", look, methods=["POST"]))
    async with native(app) as url, await dial(url) as client:
        head = b"POST /look HTTP/1.1\r\n" + HOST + CHUNKED
        await client.send(head, b"1\r\nx\r\n0\r\nauthorization: Bearer me\r\n\r\n")
        assert (await client.response()).status == 200
    assert seen == ["host", "transfer-encoding"]


@pytest.mark.parametrize("body", ["length", "chunks", "one chunk"])
@pytest.mark.within("max_body_bytes")
async def test_a_body_at_the_limit_is_read(native, body: str):
    framed = {
        "length": b"content-length: 100000\r\n\r\n" + b"x" * 100_000,
        "chunks": CHUNKED + b"64\r\n" + (b"x" * 100 + b"\r\n64\r\n") * 999 + b"x" * 100 + b"\r\n0\r\n\r\n",
        "one chunk": CHUNKED + b"186a0\r\n" + b"x" * 100_000 + b"\r\n0\r\n\r\n",
    }
    async with native(served(max_body_bytes=100_000)) as url, await dial(url) as client:
        await client.send(post(), framed[body])
        assert (await client.response()).body == b"100000"


@pytest.mark.parametrize(
    "framed",
    [
        b"content-length: 100001\r\n\r\n",
        b"expect: 100-continue\r\ncontent-length: 100001\r\n\r\n",
        CHUNKED + b"186a1\r\n" + b"x" * 100_001,
        CHUNKED + (b"64\r\n" + b"x" * 100 + b"\r\n") * 1001,
    ],
)
@pytest.mark.beyond("max_body_bytes")
async def test_a_body_above_the_limit_is_413(native, framed: bytes):
    async with native(served(max_body_bytes=100_000)) as url, await dial(url) as client:
        sending = client.in_background(client.send(post(), framed))
        assert (await client.response()).status == 413
        await asyncio.wait((sending,))
        assert await client.at_end()


async def test_a_body_that_nobody_reads_ends_at_the_limit(native):
    async with native(served(max_body_bytes=100_000)) as url, await dial(url) as client:
        await client.send(b"POST / HTTP/1.1\r\n" + HOST + CHUNKED)
        assert (await client.response()).status == 404
        sent = 0
        with suppress(OSError):
            while sent < 20_000_000:
                await client.send(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
                sent += 10_000
        assert sent < 20_000_000


DAWDLERS = {
    "octets": (post(b"content-length: 1000000\r\n\r\n"), b"x"),
    "chunks": (post(CHUNKED), b"1\r\nx\r\n"),
    "nothing": (post(b"content-length: 5\r\n\r\n"), b""),
    "an extension": (post(CHUNKED) + b"1;", b"x"),
    "trailers": (post(CHUNKED) + b"0\r\n", b"a:"),
}


@pytest.mark.parametrize("dawdler", DAWDLERS)
@pytest.mark.beyond("min_body_rate")
async def test_a_body_that_dawdles_is_408(native, dawdler: str):
    """A byte every 2.5 s kept a connection for as long as its client wanted."""
    begin, more = DAWDLERS[dawdler]
    app = served(handshake_timeout=0.3)
    async with native(app) as url, await dial(url) as client:
        await client.send(begin)
        answer = asyncio.ensure_future(client.response())
        with suppress(OSError):
            while not answer.done():
                await client.send(more)
                await asyncio.wait((answer,), timeout=0.02)
        assert (await answer).status == 408
        assert app.stats.late_handshakes == 1


@pytest.mark.parametrize("path", ["/", "/never"])
async def test_a_body_that_dawdles_behind_its_answer_ends_the_connection(native, path: str):
    async with native(served(handshake_timeout=0.3)) as url, await dial(url) as client:
        await client.send(f"POST {path} HTTP/1.1\r\n".encode(), HOST, b"content-length: 1000000\r\n\r\n")
        await client.response()
        ended = asyncio.ensure_future(client.at_end())
        with suppress(OSError):
            while not ended.done():
                await client.send(b"x")
                await asyncio.wait((ended,), timeout=0.02)
        with suppress(OSError):
            assert await ended


@pytest.mark.parametrize("rate", [1000, None])
@pytest.mark.within("min_body_rate")
async def test_a_slow_body_that_is_fast_enough_is_read(native, rate: int | None):
    limits = Limits(handshake_timeout=0.3, min_body_rate=rate)
    pause, part = (0.05, b"x" * 200) if rate else (0.4, b"x")
    app = served()
    app.limits = limits
    async with native(app) as url, await dial(url) as client:
        await client.send(post(b"content-length: %d\r\n\r\n" % (len(part) * 20 if rate else 2)))
        for _ in range(20 if rate else 2):
            await asyncio.sleep(pause)
            await client.send(part)
        assert (await client.response()).body == (b"4000" if rate else b"2")


async def test_an_app_that_takes_its_time_is_no_fault_of_the_client(native):
    """The clock of a body runs while the app waits for the client, not while the
    client waits for the app: it has sent what it may, or waits for a 100.
    """

    async def lazily(request: Request) -> PlainTextResponse:
        await asyncio.sleep(0.5)
        return await size(request)

    app = served(Route("/lazy", lazily, methods=["POST"]), handshake_timeout=0.2)
    lazy = b"POST /lazy HTTP/1.1\r\n" + HOST
    async with native(app) as url:
        async with await dial(url) as client:
            sending = client.in_background(
                client.send(lazy, b"content-length: 3000000\r\n\r\n", b"x" * 3_000_000)
            )
            assert (await client.response()).body == b"3000000"
            await sending
        async with await dial(url) as client:
            await client.send(lazy, b"expect: 100-continue\r\ncontent-length: 3\r\n\r\n")
            assert (await client.response()).status == 100
            await client.send(b"abc")
            assert (await client.response()).body == b"3"


@pytest.mark.parametrize("path", ["/slow", "/stream"])
async def test_pipelined_requests_wait_unparsed(native, path: str):
    """Every request of a segment was made ready at once: 5,700 of them, 40 MiB."""
    go = asyncio.Event()
    begun: list[str] = []

    async def slow(request: Request) -> PlainTextResponse:
        begun.append(request.url.path)
        await go.wait()
        return PlainTextResponse("slow")

    async def stream(request: Request) -> StreamingResponse:
        async def parts() -> Any:
            begun.append(request.url.path)
            yield b"begun"
            await go.wait()

        return StreamingResponse(parts())

    app = served(Route("/slow", slow), Route("/stream", stream))
    async with native(app) as url, await dial(url) as client:
        sending = client.in_background(client.send(get(path) * 20_000))
        async with await dial(url) as other:
            await other.open(handshake())
            await other.send(text("hi"))
            assert await other.message() == "hi"
        assert begun == [path]
        go.set()
        for _ in range(1000):
            assert (await client.response()).status == 200
        client.reset()
        await asyncio.wait((sending,))


@pytest.mark.parametrize("cut", [1, 7, 40, 16_384, 1_000_000])
async def test_pipelined_requests_of_all_kinds_are_answered_in_order(native, cut: int):
    kinds: list[tuple[bytes, Callable[[], bytes]]] = [
        (get("/nowhere"), lambda: b"Not Found"),
        (post(b"content-length: 5\r\n\r\n") + b"a\r\n\r\n", lambda: b"5"),
        (post(CHUNKED) + b"6\r\n\r\n\r\nab\r\n0\r\n\r\n", lambda: b"6"),
        (post(CHUNKED) + b"1\r\nx\r\n0\r\nt: v\r\n\r\n", lambda: b"1"),
        (post(b"content-length: 0\r\n\r\n") + b"\r\n\r\n", lambda: b"0"),
    ]
    data = b"".join(request for request, _ in kinds) * 5
    async with native(served()) as url, await dial(url) as client:
        sending = client.in_background(client.send_slowly(data, cut))
        for _ in range(5):
            for _, body in kinds:
                assert (await client.response()).body == body()
        await sending
        await client.open(handshake())


@pytest.mark.within("keep_alive_timeout")
async def test_a_connection_serves_one_request_after_the_other(native):
    async with native(served(keep_alive_timeout=1.0)) as url, await dial(url) as client:
        for _ in range(3):
            await client.send(get("/size"))
            assert (await client.response()).status == 405


@pytest.mark.parametrize("trickle", [b"", b"\r", b"\n", b"\r\n\r\n"])
@pytest.mark.beyond("keep_alive_timeout")
async def test_a_connection_without_requests_is_closed(native, trickle: bytes):
    async with native(served(keep_alive_timeout=0.2)) as url, await dial(url) as client:
        await client.send(get("/size"))
        assert (await client.response()).status == 405
        ended = asyncio.ensure_future(client.at_end())
        with suppress(OSError):
            while not ended.done():
                await client.send(trickle)
                await asyncio.wait((ended,), timeout=0.02)
        assert await ended


async def large(request: Request) -> StreamingResponse:
    async def parts() -> Any:
        for _ in range(100):
            yield b"x" * 200_000

    return StreamingResponse(parts())


@pytest.mark.beyond("response_timeout")
async def test_a_client_that_does_not_read_its_answer_is_cut_off(native):
    app = served(Route("/large", large), response_timeout=0.3)
    async with native(app) as url, await dial(url, buffer=4096) as client:
        await client.send(get("/large"))
        # Reading begins when the kernel has been full for too long.
        await asyncio.sleep(1)
        with suppress(OSError):
            received = 0
            while got := await client.reader.read(100_000):
                received += len(got)
            assert received < 20_000_000


@pytest.mark.within("response_timeout")
async def test_a_client_that_reads_slowly_gets_all_of_its_answer(native):
    app = served(Route("/large", large), response_timeout=2.0)
    async with native(app) as url, await dial(url, buffer=1_000_000) as client:
        await client.send(get("/large"))
        received = 0
        last = b""
        while not last.endswith(b"\r\n0\r\n\r\n"):
            got = await client.reader.read(1_000_000)
            assert got
            received, last = received + len(got), (last + got)[-7:]
            if received < 5_000_000:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("version", [b"0.9", b"1.2", b"2.0", b"9.9"])
async def test_other_versions_of_http_are_refused(native, version: bytes):
    async with native(served()) as url, await dial(url) as client:
        await client.send(b"GET / HTTP/" + version + b"\r\n" + HOST + b"\r\n")
        assert (await client.response()).status in (400, 505)


@pytest.mark.parametrize("protocol", [b"h2c", b"h2c, TLS/1.2", b"irc"])
async def test_a_body_is_not_taken_for_a_request(native, protocol: bytes):
    """The parser ends a request that asks for another protocol at its head. What
    followed, its body, was served as the next request.
    """
    smuggled = get("/size")
    head = post(
        b"connection: upgrade\r\nupgrade: ", protocol, b"\r\ncontent-length: %d\r\n\r\n" % len(smuggled)
    )
    async with native(served()) as url, await dial(url) as client:
        await client.send(head, smuggled)
        assert (await client.response()).status == 400
        assert await client.at_end()
        async with await dial(url) as other:
            await other.send(
                get("/size").replace(b"\r\n\r\n", b"\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
            )
            assert (await other.response()).status == 405
            await other.send(get("/size"))
            assert (await other.response()).status == 405
