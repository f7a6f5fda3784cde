"""An app of another framework on our own server, with Symphony apps mounted in it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from fastapi import FastAPI, WebSocket
from starlette.responses import PlainTextResponse
from websockets.exceptions import InvalidStatus

from support.clients import Log, closed, connect, get, refused, until
from support.raw import TEXT, Frame, dial, handshake, text
from support.servers import end_unmanaged, serve_natively
from symphony import Limits, Socket, Symphony
from symphony.transport.base import NATIVE
from symphony.transport.native.guest import Guest


def chat(**options: Any) -> Symphony:
    app = Symphony(**options)

    @app.route("/chat/{room}").on_message
    async def answer(message: str, room: str) -> str:
        return f"{room}: {message}"

    return app


def mounted(*apps: Symphony) -> FastAPI:
    @asynccontextmanager
    async def lifespan(outer: FastAPI) -> AsyncIterator[dict[str, str]]:
        async with apps[0].lifespan(outer):
            yield {"database": "connected"}

    outer = FastAPI(lifespan=lifespan)
    for number, app in enumerate(apps):
        outer.mount(f"/ws{number}", app)
    outer.get("/page")(lambda: "page")
    return outer


async def status(url: str) -> int:
    with pytest.raises(InvalidStatus) as caught:
        await connect(url)
    return caught.value.response.status_code


async def test_a_mounted_app_is_served_natively_beside_the_pages_of_the_outer_one(complaints):
    app = chat()
    async with serve_natively(mounted(app)) as url:
        assert (await get(f"{url}/page")).json() == "page"
        async with connect(f"{url}/ws0/chat/lobby") as client:
            await client.send("hello")
            assert await client.recv() == "lobby: hello"
            assert app._core.native
        assert (await refused(f"{url}/ws0/nothing")).status == 404
        assert await status(f"{url}/nothing") == 403
        await until(lambda: app.stats.closed == 1)
    assert complaints == []


async def test_the_limits_of_a_mounted_app_hold_on_the_wire(complaints):
    """Behind a plain ASGI server a message is buffered before it is refused, and pings are the server's."""
    app = chat(limits=Limits(max_message_bytes=100, max_header_bytes=2000))
    async with serve_natively(mounted(app)) as url:
        async with connect(f"{url}/ws0/chat/lobby") as client:
            await client.send("x" * 101)
            assert (await closed(client))[0] == 1009
        assert await status(f"{url}/ws0/chat/{'x' * 2000}") == 431
    assert complaints == []


async def test_what_a_client_sends_with_its_handshake_waits_for_the_outer_app(complaints):
    app = chat()
    async with serve_natively(mounted(app)) as url, await dial(url) as client:
        await client.send(handshake("/ws0/chat/lobby") + text("early"))
        assert (await client.response()).status == 101
        assert await client.frame() == Frame(TEXT, b"lobby: early")
    assert complaints == []


async def test_a_client_that_goes_before_the_outer_app_has_routed_it_is_no_connection(complaints):
    app = chat()
    outer = mounted(app)
    log = Log()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            assert (await receive())["type"] == "websocket.connect"
            log.append("asked")
            assert (await receive())["type"] == "websocket.disconnect"
        await outer(scope, receive, send)
        log.append("done")

    async with serve_natively(slow) as url:
        client = await dial(url)
        await client.send(handshake("/ws0/chat/lobby"))
        await log.reaches(1)
        client.reset()
        await log.reaches(2)
        assert (app.stats.opened, app.stats.refused) == (0, 0)
    assert complaints == []


async def test_a_middleware_of_the_outer_app_sees_handshakes_and_their_ends(complaints):
    log = Log()
    outer = mounted(chat())

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        log.append(scope["type"])
        await outer(scope, receive, send)
        log.append(f"end of {scope['type']}")

    async with serve_natively(watched) as url:
        async with connect(f"{url}/ws0/chat/lobby"):
            assert log == ["lifespan", "websocket"]
        await log.reaches(3)
    assert log == ["lifespan", "websocket", "end of websocket", "end of lifespan"]
    assert complaints == []


async def test_two_mounted_apps_count_for_themselves_and_one_without_lifespan_starts_late(complaints):
    first, second = chat(), chat()
    async with serve_natively(mounted(first, second)) as url:
        async with connect(f"{url}/ws0/chat/a"), connect(f"{url}/ws1/chat/b") as client:
            await client.send("hello")
            assert await client.recv() == "b: hello"
            assert (first.stats.opened, second.stats.opened) == (1, 1)
        await until(lambda: second.stats.closed == first.stats.closed == 1)
        await end_unmanaged(second)
    [line] = complaints
    assert "The app was not started by its server" in line


async def test_a_stop_closes_the_sockets_of_all_and_of_the_outer_app_itself(complaints):
    app = chat()
    outer = mounted(app)
    left = Log()

    @app.on_disconnect
    async def leave(socket: Socket) -> None:
        left.append("mounted")

    @outer.websocket("/own")
    async def own(socket: WebSocket) -> None:
        await socket.accept()
        async for _ in socket.iter_text():
            pass
        left.append("own")

    async with serve_natively(outer) as url:
        mine = await connect(f"{url}/ws0/chat/lobby")
        own_client = await connect(f"{url}/own")
        ends = asyncio.gather(closed(mine), closed(own_client))
    assert await ends == [(1012, "the server restarts"), (1012, "the server restarts")]
    assert sorted(left) == ["mounted", "own"]
    assert complaints == []


async def test_a_handshake_during_a_stop_is_refused_with_503(complaints):
    app = chat()
    outer = mounted(app)
    answers = Log()

    @app.on_disconnect
    async def leave(socket: Socket) -> None:
        # The connection was open before the server stopped listening.
        await late.send(handshake("/ws0/chat/lobby"))
        answers.append(await late.response())

    async with serve_natively(outer) as url:
        late = await dial(url)
        client = await connect(f"{url}/ws0/chat/lobby")
        ends = asyncio.ensure_future(closed(client))
    assert (await ends)[0] == 1012
    [answer] = answers
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["symphony-refusal"] == json.loads(answer.body)["code"] == "unavailable"
    await late.aclose()
    assert complaints == []


async def test_an_app_that_accepts_before_it_routes_is_told(complaints):
    outer = mounted(chat())

    async def accepting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        await outer(scope, receive, send)

    async with serve_natively(accepting) as url, connect(f"{url}/ws0/chat/lobby") as client:
        assert (await closed(client))[0] == 1011
    assert complaints == ["symphony.transport: The app failed on the WebSocket /ws0/chat/lobby."]


# WebSockets that the outer app serves itself


async def test_a_websocket_of_the_outer_app_itself_is_served(complaints):
    outer = mounted(chat())

    @outer.websocket("/own")
    async def own(socket: WebSocket) -> None:
        assert socket.state.database == "connected"
        await socket.accept("b", headers=[(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")])
        await socket.send_text((await socket.receive_text()).upper())
        await socket.send_bytes(await socket.receive_bytes())
        await socket.close(4001, "enough")

    async with serve_natively(outer) as url:
        offered = [websockets.Subprotocol("a"), websockets.Subprotocol("b")]
        async with connect(f"{url}/own", subprotocols=offered) as client:
            assert client.subprotocol == "b"
            assert client.response.headers.get_all("set-cookie") == ["a=1", "b=2"]
            await client.send("hello")
            assert await client.recv() == "HELLO"
            await client.send(b"\x00")
            assert await client.recv() == b"\x00"
            assert await closed(client) == (4001, "enough")
    assert complaints == []


async def test_the_outer_app_hears_how_a_client_has_gone(complaints):
    outer = mounted(chat())
    heard = Log()

    @outer.websocket("/own")
    async def own(socket: WebSocket) -> None:
        await socket.accept()
        heard.append(await socket.receive())
        heard.append(await socket.receive())

    async with serve_natively(outer) as url:
        async with connect(f"{url}/own") as client:
            await client.send("hello")
            await heard.reaches(1)
            await client.close(4002, "bye")
        await heard.reaches(2)
    assert heard[0] == {"type": "websocket.receive", "text": "hello"}
    assert heard[1] == {"type": "websocket.disconnect", "code": 4002, "reason": "bye"}
    assert complaints == []


async def test_an_app_that_reads_slowly_gets_everything_and_holds_its_client_back(complaints):
    outer = mounted(chat())
    count, go_on = 2000, asyncio.Event()

    @outer.websocket("/own")
    async def own(socket: WebSocket) -> None:
        await socket.accept()
        await go_on.wait()
        for _ in range(count):
            await socket.send_text(await socket.receive_text())

    async with serve_natively(outer) as url, connect(f"{url}/own", max_queue=None) as client:
        for number in range(count):
            await client.send(f"{number} " + "x" * 100)
        go_on.set()
        for number in range(count):
            assert (await client.recv()).startswith(f"{number} ")
    assert complaints == []


@pytest.mark.parametrize("kind", ["denial", "close", "nothing", "failure"])
async def test_a_refusal_of_the_outer_app_is_the_http_answer_it_gave(complaints, kind):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        assert await receive() == {"type": "websocket.connect"}
        if kind == "denial":
            response = PlainTextResponse("pay first", 402, {"x-price": "7"})
            await response(scope, receive, send)
        elif kind == "close":
            await send({"type": "websocket.close"})
        elif kind == "failure":
            raise ValueError("no")

    async with serve_natively(app) as url:
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"{url}/own")
    response = caught.value.response
    if kind == "denial":
        assert (response.status_code, response.body) == (402, b"pay first")
        assert response.headers["x-price"] == "7"
    assert response.status_code == {"denial": 402, "close": 403}.get(kind, 500)
    assert len(complaints) == (kind in ("nothing", "failure"))
    assert all(line.startswith("symphony.transport: The app ") for line in complaints)


async def test_an_outer_app_that_fails_on_an_open_websocket_closes_it_with_1011(complaints):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        raise ValueError("no")

    async with serve_natively(app) as url, connect(f"{url}/own") as client:
        assert (await closed(client))[0] == 1011
    assert complaints == ["symphony.transport: The app failed on the WebSocket /own."]


async def test_unread_messages_of_all_websockets_of_the_outer_app_have_a_limit_together(complaints):
    guests: list[Guest] = []
    counts = Log()
    read = asyncio.Event()
    outer = mounted(chat(limits=Limits(max_queued_bytes=100_000)))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await outer(scope, receive, send)
            return
        guests.append(scope["extensions"][NATIVE].__self__)
        await receive()
        await send({"type": "websocket.accept"})
        await read.wait()
        count = 0
        # One client has gone before the app reads.
        while scope["path"] != "/gone" and (await receive())["type"] == "websocket.receive":
            count += 1
        counts.append(count)

    # 2 bytes for each character in memory.
    message = "€" + "x" * 14_999
    async with serve_natively(app) as url, connect(f"{url}/gone") as gone:
        clients = [gone, *[await connect(f"{url}/{number}") for number in range(4)]]
        for client in clients:
            for _ in range(6):
                await client.send(message)
        await until(lambda: all(guest._connection.held for guest in guests))
        queued = guests[0]._queued
        assert all(guest._queued is queued for guest in guests)
        assert queued.limit == 100_000
        assert 100_000 < queued.size < 100_000 + 31_000 * len(clients) + 65_536 * len(clients)
        assert sum(guest._unread_bytes for guest in guests) <= 100_000 + 31_000 * len(clients)
        read.set()
        closings = [asyncio.ensure_future(client.close()) for client in clients]
        await counts.reaches(5)
        await asyncio.gather(*closings)
        await until(lambda: queued.size == 0)
    assert sorted(counts) == [0, 6, 6, 6, 6]
    assert complaints == []


@pytest.mark.parametrize("offer", [",", "a b", "chat, ?", "a;b", " "])
@pytest.mark.parametrize("path", ["/ws0/chat/lobby", "/page", "/nothing"])
async def test_a_malformed_offer_of_subprotocols_is_answered_with_400(offer, path, complaints):
    """It was an exception in the event loop: the client got no answer, and each wrote a traceback."""
    async with serve_natively(mounted(chat())) as url, await dial(url) as client:
        await client.send(handshake(path, sec_websocket_protocol=offer))
        response = await client.response()
        assert response.status == 400
        assert response.body == b"Sec-WebSocket-Protocol is not a list of tokens."
        assert await client.at_end()
    assert complaints == []


@pytest.mark.parametrize("path", ["/nothing/" + "x" * 50_000, "/nothing/" + "%ff" * 15_000, "/%0a" * 3000])
async def test_a_long_path_of_an_outer_app_is_a_short_log_line(path, caplog):
    """A client could write 180 KiB into the log with each request."""
    caplog.set_level("INFO", logger="symphony")
    async with serve_natively(mounted(chat())) as url, await dial(url) as client:
        await client.send(handshake(path))
        assert (await client.response()).status == 403
    lines = [
        record.getMessage()
        for record in caplog.records
        if "/nothing" in record.getMessage() or "%0A" in record.getMessage()
    ]
    assert lines
    assert all(len(line) < 300 and line.isprintable() for line in lines)
