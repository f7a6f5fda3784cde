"""What stands before, in and behind a handshake, byte by byte."""

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from support.clients import until
from support.raw import (
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    close,
    connect,
    dial,
    frame,
    handshake,
    text,
)
from symphony import Limits, Reject, Socket, Symphony


def echo_app(**options) -> Symphony:
    app = Symphony(**options)

    @app.on_message
    async def echo(message: str | bytes) -> str | bytes:
        return message

    return app


async def test_frames_behind_the_handshake_in_the_same_segment_are_answered(native):
    """uvicorn throws away what its parser has not read when a request upgrades:
    a client that does not wait for the 101 lost its first messages.
    """
    early = text("one") + frame(TEXT, b"tw", fin=False) + frame(PING, b"p") + frame(CONTINUATION, b"o")
    async with native(echo_app()) as url, await dial(url) as client:
        await client.send(handshake(), early, text("three"))
        assert (await client.response()).status == 101
        # A pong need not wait for handlers.
        answers = [await client.frame() for _ in range(4)]
        assert Frame(PONG, b"p") in answers
        answers.remove(Frame(PONG, b"p"))
        assert answers == [Frame(TEXT, b"one"), Frame(TEXT, b"two"), Frame(TEXT, b"three")]
        await client.send(close(1000))
        assert await client.rest() == [Frame(CLOSE, b"\x03\xe8")]


async def test_messages_between_a_handshake_and_a_close_in_one_segment_are_all_handled(native):
    app = Symphony()
    got: list[str] = []

    @app.on_message
    async def take(message: str) -> None:
        got.append(message)

    async with native(app) as url, await dial(url) as client:
        await client.send(handshake(), text("one"), text("two"), close(1000))
        assert (await client.response()).status == 101
        assert await client.rest() == [Frame(CLOSE, b"\x03\xe8")]
    assert got == ["one", "two"]


@pytest.mark.parametrize("kept", [0, 1, 2, 5, 6, 7, 10])
async def test_a_frame_split_behind_the_handshake_is_put_together(native, kept: int):
    """The first bytes of the frame come with the handshake, the rest later."""
    message = text("hello")
    async with native(echo_app()) as url, await dial(url) as client:
        await client.send(handshake(), message[:kept])
        assert (await client.response()).status == 101
        await client.send(message[kept:])
        assert await client.message() == "hello"


async def test_what_comes_while_the_connect_handler_works_is_kept_in_order(native):
    """Between the handshake and its answer another protocol is in place; what it
    takes must come before what the parser reads later.
    """
    app = echo_app()
    entered, go = asyncio.Event(), asyncio.Event()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        entered.set()
        await go.wait()
        await socket.send("welcome")

    async with native(app) as url, await dial(url) as client:
        await client.send(handshake(), text("0")[:3])
        await entered.wait()
        await client.send(text("0")[3:], *(text(str(n)) for n in range(1, 50)))
        go.set()
        assert (await client.response()).status == 101
        assert await client.message() == "welcome"
        assert [await client.message() for _ in range(50)] == [str(n) for n in range(50)]


@pytest.mark.parametrize("segments", [1, 200])
@pytest.mark.within("max_early_bytes")
async def test_more_than_may_be_early_is_held_back_and_not_lost(native, segments: int):
    """Reading pauses above `max_early_bytes`; it must go on once the socket is open."""
    app = echo_app(
        limits=Limits(max_early_bytes=1000, max_message_bytes=10_000_000, max_outbox_bytes=10_000_000)
    )
    entered, go = asyncio.Event(), asyncio.Event()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        entered.set()
        await go.wait()

    payload = b"x" * 500_000
    early = frame(TEXT, payload) + text("last")
    async with native(app) as url, await dial(url) as client:
        sending = asyncio.ensure_future(
            client.send(handshake(), early)
            if segments == 1
            else client.send_slowly(handshake() + early, len(early) // segments)
        )
        await entered.wait()
        go.set()
        assert (await client.response()).status == 101
        assert await client.frame() == Frame(TEXT, payload)
        assert await client.message() == "last"
        await sending


@pytest.mark.beyond("max_early_bytes")
async def test_early_bytes_are_bounded_while_the_handshake_is_not_answered(native):
    app = echo_app(limits=Limits(max_early_bytes=1000))
    found: list[Socket] = []
    go = asyncio.Event()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        found.append(socket)
        await go.wait()

    async with native(app) as url, await dial(url) as client:
        sending = client.in_background(client.send(handshake(), frame(TEXT, b"x" * 1_000_000) * 30))
        await until(lambda: found)
        opening = found[0]._connection._opening
        await until(lambda: opening.paused)
        before = len(opening.early)
        for _ in range(50):
            await asyncio.sleep(0)
        # One read of the event loop above the limit, at most.
        assert len(opening.early) == before < 300_000
        assert not sending.done()
        client.reset()
        go.set()
        await asyncio.wait((sending,))


async def test_early_frames_of_a_refused_client_go_nowhere(native):
    app = echo_app()

    @app.on_connect
    async def enter() -> None:
        raise Reject("forbidden")

    async with native(app) as url, await dial(url) as client:
        await client.send(handshake(), text("x"), frame(TEXT, b"y" * 200_000), b"\xff" * 10_000)
        response = await client.response()
        assert response.status == 403
        assert response.headers["connection"] == "close"
        assert await client.at_end()


async def test_a_hostile_frame_behind_the_handshake_fails_the_connection(native):
    async with native(echo_app()) as url, await dial(url) as client:
        await client.send(handshake(), text("fine"), b"\xff" * 5000)
        assert (await client.response()).status == 101
        first, last = await client.rest()
        assert first == Frame(TEXT, b"fine")
        assert last.code == 1002


@pytest.mark.parametrize(
    "connection", ["Upgrade", "keep-alive, Upgrade", "upgrade,keep-alive", " , UPGRADE , "]
)
async def test_connection_headers_of_all_browsers_open_a_socket(native, connection: str):
    """Firefox sends `keep-alive, Upgrade`, which picows refuses by itself."""
    async with native(echo_app()) as url, connect(url, connection=connection) as client:
        await client.send(text("hi"))
        assert await client.message() == "hi"


async def test_an_upgrade_named_in_the_first_of_two_connection_headers_counts(native):
    """A list header may stand on several lines (RFC 9110 §5.3); uvicorn looks at the last."""
    request = handshake().replace(b"connection: Upgrade", b"Connection: Upgrade\r\nConnection: keep-alive")
    async with native(echo_app()) as url, await dial(url) as client:
        await client.open(request)
        await client.send(text("hi"))
        assert await client.message() == "hi"


async def test_websocket_beside_another_protocol_in_the_upgrade_header_counts(native):
    async with native(echo_app()) as url, connect(url, upgrade="h2c, WebSocket") as client:
        await client.send(text("hi"))
        assert await client.message() == "hi"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (handshake(method="POST"), 405),
        (handshake(method="HEAD"), 405),
        (handshake(method="POST", content_length="5") + b"hello", 405),
        (handshake(content_length="5") + b"hello", 400),
        (handshake(transfer_encoding="chunked") + b"0\r\n\r\n", 400),
        (handshake().replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
        (handshake(sec_websocket_version="8"), 426),
        (handshake(sec_websocket_version=None), 426),
        (handshake(sec_websocket_key=None), 400),
        (handshake(sec_websocket_key="c2hvcnQ="), 400),
        (handshake(host=None), 400),
        (handshake(sec_websocket_protocol="a b"), 400),
        (handshake(origin="https://evil.example"), 403),
    ],
)
async def test_what_is_no_handshake_gets_a_real_http_answer(
    native, complaints, request_bytes: bytes, status: int
):
    """An upgrade by another method than GET reaches the WebSocket side too."""
    async with native(echo_app()) as url:
        async with await dial(url) as client:
            await client.send(request_bytes)
            response = await client.response()
            assert response.status == status
            assert response.headers["connection"].startswith("close")
            assert await client.at_end()
        complaints.clear()
        async with connect(url) as client:
            await client.send(text("alive"))
            assert await client.message() == "alive"


GARBAGE = {
    "TLS hello": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "zeros": bytes(1000),
    "ones": b"\xff" * 1000,
    "frames": text("hi") * 10,
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(50),
    "bad version": b"GET / HTTP/9.9\r\n\r\n",
    "header without colon": b"GET / HTTP/1.1\r\nnonsense\r\n\r\n",
    "NUL in a header": handshake(x_y="a\x00b"),
    "bare line feeds": handshake().replace(b"\r\n", b"\n"),
    "space before the colon": handshake().replace(b"upgrade:", b"upgrade :"),
    "two lengths": b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
    "length and chunks": (
        b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\nx"
    ),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_instead_of_http_ends_with_400_and_does_no_harm(native, garbage: bytes):
    async with native(echo_app()) as url:
        async with await dial(url) as client:
            await client.send(garbage)
            client.finish()
            answer = await client.reader.read()
            assert b"101 Switching" not in answer
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
        async with connect(url) as client:
            await client.send(text("alive"))
            assert await client.message() == "alive"


@pytest.mark.within("handshake_timeout")
async def test_a_handshake_in_octets_opens_a_socket(native):
    async with native(echo_app()) as url, await dial(url) as client:
        await client.send_slowly(handshake() + text("hi"))
        assert (await client.response()).status == 101
        assert await client.message() == "hi"


@pytest.mark.parametrize("said", [b"", b"G", handshake()[:-2], handshake()[:-1]])
@pytest.mark.beyond("handshake_timeout")
async def test_a_handshake_that_takes_too_long_is_408_and_counted(native, said: bytes):
    """Slow loris: a connection that never finishes its request."""
    app = echo_app(limits=Limits(handshake_timeout=0.1))
    async with native(app) as url, await dial(url) as client:
        await client.send(said)
        assert (await client.response()).status == 408
        assert await client.at_end()
    assert app.stats.late_handshakes == 1


async def test_dribbling_bytes_does_not_stretch_the_handshake_timeout(native):
    app = echo_app(limits=Limits(handshake_timeout=0.15))
    async with native(app) as url, await dial(url) as client:

        async def dribble() -> None:
            while True:
                await client.send(b"x-more: x\r\n")
                await asyncio.sleep(0.01)

        await client.send(b"GET / HTTP/1.1\r\n")
        dribbling = asyncio.ensure_future(dribble())
        assert (await client.response()).status == 408
        dribbling.cancel()
        await asyncio.wait((dribbling,))


async def test_a_second_request_that_never_ends_is_408(native):
    app = echo_app(limits=Limits(handshake_timeout=0.1))
    async with native(app) as url, await dial(url) as client:
        await client.send(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await client.response()).status == 200
        await client.send(b"G")
        assert (await client.response()).status == 408
        assert await client.at_end()
    assert app.stats.late_handshakes == 1


@pytest.mark.parametrize(
    ("request_bytes", "trickle"),
    [
        (b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", b"\r\n"),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n", b"x"),
    ],
)
async def test_bytes_that_begin_no_request_do_not_keep_a_connection_for_ever(
    native, request_bytes: bytes, trickle: bytes
):
    """Any byte stopped uvicorn's keep-alive clock, and only the next answer started
    it again: after an empty line the connection stayed until the client went.
    """
    limits = Limits(keep_alive_timeout=0.2, handshake_timeout=0.2)
    async with native(echo_app(limits=limits)) as url, await dial(url) as client:
        await client.send(request_bytes)
        assert (await client.response()).status == 200
        await client.send(trickle)
        assert await client.at_end()


async def test_a_late_second_request_does_not_break_into_the_answer_of_the_first(native):
    """The 408 for a pipelined request that stalls was written into the body that was
    being streamed. Its time begins when it is its turn.
    """
    go = asyncio.Event()

    async def slow(request: Request) -> PlainTextResponse:
        await go.wait()
        return PlainTextResponse("slow")

    app = echo_app(http=Starlette(routes=[Route("/slow", slow)]), limits=Limits(handshake_timeout=0.1))
    async with native(app) as url, await dial(url) as client:
        await client.send(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\nGET /sl")
        asyncio.get_running_loop().call_later(0.2, go.set)
        response = await client.response()
        assert (response.status, response.body) == (200, b"slow")
        assert (await client.response()).status == 408
        assert app.stats.late_handshakes == 1
        assert await client.at_end()


async def test_a_body_that_nobody_reads_does_not_count_as_headers(native):
    async with native(echo_app(limits=Limits(max_header_bytes=1000))) as url, await dial(url) as client:
        await client.send(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n")
        assert (await client.response()).status == 200
        await client.send_slowly(b"x" * 1_000_000, 100_000)
        await client.send(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await client.response()).status == 200


@pytest.mark.parametrize("segment", [1000, 10_000_000])
async def test_headers_above_the_limit_are_431(native, segment: int):
    app = echo_app(limits=Limits(max_header_bytes=10_000))
    request = handshake(x_big="x" * 300_000)
    async with native(app) as url, await dial(url) as client:
        sending = client.in_background(client.send_slowly(request, segment))
        assert (await client.response()).status == 431
        await asyncio.wait((sending,))


@pytest.mark.beyond("max_header_bytes")
async def test_a_whole_head_above_the_limit_in_one_segment_is_431(native):
    app = echo_app(limits=Limits(max_header_bytes=1000))
    async with native(app) as url, await dial(url) as client:
        await client.send(handshake(x_big="x" * 2000))
        assert (await client.response()).status == 431


async def test_a_head_that_never_ends_is_431_and_not_buffered(native):
    app = echo_app(limits=Limits(max_header_bytes=10_000))
    async with native(app) as url, await dial(url) as client:
        sending = client.in_background(client.send(b"GET / HTTP/1.1\r\nx: " + b"x" * 20_000_000))
        assert (await client.response()).status == 431
        client.reset()
        await asyncio.wait((sending,))


async def uploads(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


def upload_app(**options) -> Symphony:
    return echo_app(http=Starlette(routes=[Route("/upload", uploads, methods=["POST"])]), **options)


@pytest.mark.parametrize("size", [0, 100_000, 1_000_000])
@pytest.mark.within("max_header_bytes")
async def test_a_body_behind_the_head_does_not_count_as_headers(native, size: int):
    """The limit of the head was held against whole segments: a POST whose body came
    in its head's segment was refused with 431.
    """
    app = upload_app(limits=Limits(max_header_bytes=1000))
    async with native(app) as url, await dial(url) as client:
        for _ in range(2):
            head = f"POST /upload HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\n\r\n".encode()
            await client.send(head, b"x" * size)
            response = await client.response()
            assert (response.status, response.body) == (200, str(size).encode())


async def test_early_frames_do_not_count_as_headers(native):
    app = echo_app(limits=Limits(max_header_bytes=1000))
    async with native(app) as url, await dial(url) as client:
        await client.send(handshake(), frame(TEXT, b"x" * 50_000))
        assert (await client.response()).status == 101
        assert await client.frame() == Frame(TEXT, b"x" * 50_000)


async def test_a_socket_opens_on_a_connection_that_served_http_before(native):
    app = upload_app()
    async with native(app) as url, await dial(url) as client:
        for _ in range(3):
            await client.send(b"POST /upload HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\nabc")
            assert (await client.response()).body == b"3"
        await client.open(handshake())
        await client.send(text("hi"))
        assert await client.message() == "hi"


async def test_the_keep_alive_clock_of_http_does_not_end_a_socket(native):
    """uvicorn's clock runs behind every answer; a handshake must stop it."""
    app = upload_app(limits=Limits(keep_alive_timeout=0.1))
    async with native(app) as url, await dial(url) as client:
        await client.send(b"POST /upload HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\nabc")
        await client.response()
        await client.open(handshake())
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        loop.call_later(0.3, over.set_result, None)
        await over
        await client.send(text("hi"))
        assert await client.message() == "hi"


async def test_a_handshake_pipelined_behind_a_request_waits_for_its_answer(native):
    """Once it was refused at once, ahead of the answer that was still being made, and
    the client took the refusal for that answer.
    """
    go = asyncio.Event()

    async def slow(request: Request) -> PlainTextResponse:
        await go.wait()
        return PlainTextResponse("slow")

    app = echo_app(http=Starlette(routes=[Route("/slow", slow)]))
    async with native(app) as url, await dial(url) as client:
        await client.send(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n", handshake(), text("hi"))
        asyncio.get_running_loop().call_later(0.05, go.set)
        response = await client.response()
        assert (response.status, response.body) == (200, b"slow")
        assert (await client.response()).status == 101
        assert await client.message() == "hi"


async def test_requests_pipelined_before_a_handshake_are_all_answered_in_order(native):
    async def name(request: Request) -> PlainTextResponse:
        await asyncio.sleep(0)
        return PlainTextResponse(request.path_params["name"])

    app = echo_app(http=Starlette(routes=[Route("/{name}", name)]))
    async with native(app) as url, await dial(url) as client:
        requests = (f"GET /{n} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode() for n in range(5))
        await client.send(*requests, handshake(), text("hi"))
        assert [(await client.response()).body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
        assert (await client.response()).status == 101
        assert await client.message() == "hi"


async def test_a_socket_opens_over_a_unix_socket(native, tmp_path):
    """picows sets TCP_NODELAY by itself, which fails on Unix sockets."""
    app = echo_app()
    clients: list[object] = []

    @app.on_connect
    async def enter(socket: Socket) -> None:
        clients.append(socket.client)

    path = str(tmp_path / "s")
    async with native(app, uds=path), connect(f"unix:{path}") as client:
        await client.send(text("hi"), frame(TEXT, b"x" * 300_000))
        assert await client.message() == "hi"
        assert await client.frame() == Frame(TEXT, b"x" * 300_000)
        await client.send(close(1000))
        assert [got.code for got in await client.rest()] == [1000]
    assert clients == [None]


@pytest.mark.parametrize(
    "path", ["/%00", "/%ff%fe", "//", "/../../etc/passwd", "/a%2Fb", "/%zz", "/x?" + "q=1&" * 5000]
)
async def test_strange_paths_are_answered(native, path: str):
    app = Symphony()

    @app.route("/known")
    async def known() -> None:
        pass

    async with native(app) as url, await dial(url) as client:
        await client.send(handshake(path))
        assert (await client.response()).status in (400, 404)


async def test_the_absolute_form_of_the_target_finds_the_route(native):
    """RFC 9112 §3.2.2: a server must accept it."""
    app = Symphony()
    chat = app.route("/chat/{name}")

    @chat.on_connect
    async def enter(socket: Socket, name: str) -> None:
        await socket.send(name)

    async with native(app) as url, await dial(url) as client:
        await client.open(handshake("http://localhost/chat/bach?x=1"))
        assert await client.message() == "bach"


async def test_a_handshake_in_segments_is_the_same_as_a_whole_one(native):
    """Two parts of the server read them."""
    app = Symphony()

    @app.on_message
    async def described(socket: Socket, message: str) -> str:
        scope = dict(socket.handshake.scope)
        assert scope.pop("client") == socket.client
        return repr(scope)

    request = handshake("/?a=b%20c", x_same="ä", cookie="a=b", origin="http://localhost")
    found: list[bytes] = []
    async with native(app) as url:
        for size in (len(request), len(request) - 1, 7):
            async with await dial(url) as client:
                await client.send_slowly(request, size)
                await client.send(text("?"))
                assert (await client.response()).status == 101
                found.append((await client.frame()).payload)
        address = url.removeprefix("ws://").partition(":")
    assert found[0] == found[1] == found[2]
    assert f"'server': ('{address[0]}', {address[2]})".encode() in found[0]
