"""Servers that are not Symphony, and what tells them apart."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets

import symphony
from support.clients import until
from support.servers import serve_natively
from symphony.client import connect
from symphony.errors import DisconnectedError, WrongRouteError

Select = Callable[[Any, Sequence[str]], str | None]


class Echo:
    """A server that returns each message; made with `websockets`."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[str | bytes] = []
        self.offered: list[str | None] = []
        self.headers: list[websockets.Headers] = []

    async def handle(self, connection: websockets.ServerConnection) -> None:
        assert connection.request is not None
        self.headers.append(connection.request.headers)
        self.offered.append(connection.request.headers.get("Sec-WebSocket-Protocol"))
        async for message in connection:
            self.got.append(message)
            await connection.send(message)


@asynccontextmanager
async def echo(select: Select | None = None, **options: Any) -> AsyncIterator[Echo]:
    server = Echo()
    async with websockets.serve(
        server.handle, "127.0.0.1", 0, select_subprotocol=select or (lambda *_: None), **options
    ) as listening:
        server.url = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
        yield server


def first(_: Any, offered: Sequence[str]) -> str | None:
    """As Node's `ws` and Bun choose."""
    return offered[0] if offered else None


def last(_: Any, offered: Sequence[str]) -> str | None:
    return offered[-1] if offered else None


def token(_: Any, offered: Sequence[str]) -> str | None:
    return next(name for name in offered if name.startswith("symphony.token."))


@pytest.mark.parametrize("select", [first, last, None], ids=["first", "last", "none"])
@pytest.mark.parametrize("subprotocols", [(), ("chat",), ("chat", "chat.v2")], ids=str)
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "unsaid"])
async def test_messages_go_both_ways_whatever_a_server_chooses(
    select: Select | None, subprotocols: Sequence[str], raw: bool
) -> None:
    async with echo(select) as server, connect(server.url, raw=raw, subprotocols=subprotocols) as client:
        assert client.protocol == "raw"
        for message in ("hi", b"\xff", '{"event":"say","data":1}'):
            client.send(message)
            assert await anext(client) == message
        assert server.got == ["hi", b"\xff", '{"event":"say","data":1}']
        if select is first and subprotocols:
            assert client.subprotocol == "chat"


@pytest.mark.parametrize(("subprotocols", "header"), [((), None), (("chat",), "chat"), (("a", "b"), "a, b")])
async def test_a_raw_client_offers_nothing_of_symphony(
    subprotocols: Sequence[str], header: str | None
) -> None:
    async with echo() as server:
        async with connect(server.url, raw=True, subprotocols=subprotocols, token="sésame".encode().hex()):
            pass
        assert server.offered == [header]
        assert server.headers[0]["Authorization"] == f"Bearer {'sésame'.encode().hex()}"
        async with connect(server.url, raw=True, token="a", headers={"Authorization": "Basic b"}):
            pass
        assert server.headers[1].get_all("Authorization") == ["Basic b"]


@pytest.mark.parametrize("select", [first, token])
async def test_an_event_client_is_told_that_the_server_is_not_symphony(
    select: Select, caplog: pytest.LogCaptureFixture
) -> None:
    """Node's `ws` chooses the first subprotocol, and a client that believed it would speak events."""
    async with echo(select) as server:
        client = connect(server.url, token="sesame")
        client.on("said", print)
        async with client:
            words = "is not a Symphony server: .* Connect with raw=True"
            with pytest.raises(WrongRouteError, match=words):
                client.emit("say", 1)
            with pytest.raises(WrongRouteError, match=words):
                await client.request("say", 1)
            with pytest.raises(WrongRouteError, match=words):
                await anext(client.stream("count"))
            assert client.protocol == "raw"
        assert server.got == []
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert "c2VzYW1l" not in warnings[0].getMessage()


async def test_a_raw_client_has_no_events() -> None:
    client = connect("ws://127.0.0.1:9/", raw=True)
    for event in ("said", "error", "messages"):
        with pytest.raises(WrongRouteError, match="has no events, because of raw=True"):
            client.on(event, print)
    client.on("message", print)
    async with echo() as server, connect(server.url, raw=True) as client:
        with pytest.raises(WrongRouteError, match="raw=True"):
            client.emit("say", 1)
        with pytest.raises(WrongRouteError, match="raw=True"):
            await client.request("say")


@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", "\u20ac", "a\x00"])
async def test_a_token_that_a_header_cannot_carry_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="character that is not allowed"):
        connect("ws://127.0.0.1:9/", raw=True, token=token)
    async with echo() as server:
        with pytest.raises(DisconnectedError, match="character that is not allowed"):
            await connect(server.url, raw=True, token=lambda: token, reconnect=False)
        assert server.headers == []


@pytest.mark.parametrize("cookie", ["session=1", "a=1; b=2", 'x="quoted"'])
async def test_cookies_are_sent_as_a_header(cookie: str) -> None:
    async with echo() as server:
        async with connect(server.url, headers={"Cookie": cookie}):
            pass
        assert server.headers[0].get_all("Cookie") == [cookie]


async def test_symphony_is_recognised_with_subprotocols_of_the_app() -> None:
    app = symphony.Symphony()
    events = app.route("/events")
    raw = app.route("/raw", subprotocols=["chat"])
    tokens: list[str | None] = []

    @events.on("say")
    async def say(data: str) -> str:
        return data.upper()

    @raw.on_message
    async def shout(socket: symphony.Socket, message: str) -> str:
        tokens.append(socket.handshake.token)
        return message.upper()

    async with serve_natively(app) as url:
        async with connect(f"{url}/events", subprotocols=["chat"], token="t") as client:
            assert client.protocol == "symphony.v1.json"
            assert await client.request("say", "hi") == "HI"
        for options in ({}, {"raw": True}):
            async with connect(f"{url}/raw", subprotocols=["chat"], token="t", **options) as client:
                assert (client.protocol, client.subprotocol) == ("raw", "chat")
                client.send("hi")
                assert await anext(client) == "HI"
        async with connect(f"{url}/events", raw=True) as client:
            client.send({"event": "say", "data": "hi", "id": 1})
            assert json.loads(await anext(client)) == {"reply": 1, "data": "HI"}
        assert tokens == ["t", "t"]


async def test_a_handler_of_messages_takes_them() -> None:
    got: list[Any] = []
    async with echo(first) as server:
        client = connect(server.url, raw=True)
        client.on("message", got.append)
        async with client:
            client.send("a")
            client.send(b"b")
            await until(lambda: len(got) == 2)
    assert got == ["a", b"b"]


async def test_a_raw_client_reconnects() -> None:
    async with echo(first) as server:
        states: list[str] = []
        client = connect(server.url, raw=True, backoff=0.01)
        client.on_state(states.append)
        async with client:
            client._reconnector._link.abort()  # type: ignore[union-attr]
            await until(lambda: states.count("open") == 2)
            client.send("again")
            assert await asyncio.wait_for(anext(client), 5) == "again"
