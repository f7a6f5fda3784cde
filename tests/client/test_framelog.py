"""The debug log of the client."""

import asyncio
import logging
import subprocess
import sys
from typing import Any

import pytest

from client.opened import pair
from client.rawserver import listen, server_frame
from client.scripted import serve
from support import raw
from support.clients import until
from symphony.client import connect
from symphony.client.framelog import LoggedLink, shown, shown_head, shown_headers
from symphony.errors import RefusedError


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "symphony.client"]


async def test_each_frame_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "symphony.client")
    async with pair(heartbeat=None) as (client, peer, _):
        client.emit("say", "hi")
        await peer.receive()
        await peer.say('{"event":"said","data":"hé\\u0007"}')
        await (await peer.connection.ping(b"now"))
        await peer.close(1000, "bye")
        await until(lambda: client.closed is not None)
    said = lines(caplog)
    for line in (
        'sent text (27): {"event":"say","data":"hi"}',
        'received text (34): {"event":"said","data":"hé\\u0007"}',
        "received ping: now",
        "received close: 1000 bye",
    ):
        assert line in said, said


async def test_nothing_is_logged_without_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "symphony.client")
    async with pair() as (client, peer, _):
        client.emit("say", "hi")
        await peer.receive()
        assert not isinstance(client._reconnector._link, LoggedLink)
    assert lines(caplog) == []


async def test_control_frames_of_the_client_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "symphony.client")
    async with listen() as server:
        client = connect(server.url, raw=True, heartbeat=0.05)
        opening = asyncio.ensure_future(client._open())
        peer = await server.accept(None)
        await opening
        assert (await peer.frame()).opcode == raw.PING
        peer.write(server_frame(raw.PONG))
        peer.write(server_frame(raw.BINARY, b"\x00\x01abc"))
        assert await anext(client) == b"\x00\x01abc"
        closing = asyncio.ensure_future(client.close(3000, "done"))
        while (await peer.frame()).opcode != raw.CLOSE:
            pass
        peer.cut()
        await closing
    said = lines(caplog)
    for line in (
        "sent ping",
        "received pong: ",
        "received binary (5): \\x00\\x01abc",
        "sent close: 3000 done",
    ):
        assert line in said, said


SECRET = "s3cret-t0ken"


@pytest.mark.parametrize(
    "options",
    [
        {"token": SECRET},
        {"token": SECRET, "raw": True},
        {"headers": {"Authorization": f"Bearer {SECRET}"}},
        {"headers": {"Cookie": f"session={SECRET}", "authorization": SECRET}},
        {"headers": {"X-Api-Key": SECRET, "X-Auth-Token": SECRET, "apikey": SECRET}},
        {"headers": {"X-Session-Id": SECRET, "X-Password": SECRET, "Client-Secret": SECRET}},
    ],
    ids=str,
)
async def test_no_secret_is_logged(options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "symphony.client")
    from symphony.protocol.subprotocols import token_subprotocol

    async with serve() as server:
        client = connect(f"{server.url}?key={SECRET}", **options)
        opening = asyncio.ensure_future(client._open())
        handshake = await server.handshake()
        peer = await handshake.accept(None if options.get("raw") else "$spoken")
        await opening
        client.send(f"offer {token_subprotocol(SECRET)}, and more")
        await peer.receive_message()
        await client.close()
    said = "\n".join(lines(caplog))
    assert "sent GET /chat?***" in said
    assert "received 101" in said
    assert "***" in said
    assert SECRET not in said
    assert token_subprotocol(SECRET) not in said


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("a" * 200, "a" * 200),
        ("a" * 201, "a" * 200 + "…"),
        ("a\nb\r\x1b[31m\x85\u2028", "a\\nb\\r\\x1b[31m\\x85\\u2028"),
        (b"\xff\x00" * 200, ("ÿ\\x00" * 200)[:200] + "…"),
        ("é".encode() * 3, "ééé"),
        (f"x symphony.token.{'A' * 5000}", "x symphony.token.***…"),
        ('["symphony.token.YQ","b"]', '["symphony.token.***","b"]'),
        ("", ""),
        (b"", ""),
    ],
)
def test_a_message_is_one_short_line(message: str | bytes, text: str) -> None:
    assert shown(message) == text


def test_heads() -> None:
    offered = b"Sec-WebSocket-Protocol: b, symphony.token.YQ"
    head = b"GET /a?token=x HTTP/1.1\r\nHost: h\r\nCookie: a=b\r\n" + offered + b"\r\n\r\n"
    assert shown_head(head) == (
        "GET /a?*** HTTP/1.1; Host: h; Cookie: ***; Sec-WebSocket-Protocol: b, symphony.token.***"
    )
    assert shown_headers({"Set-Cookie": "a", "Proxy-Authorization": "b", "X": "c"}) == (
        "Set-Cookie: ***; Proxy-Authorization: ***; X: c"
    )


@pytest.mark.parametrize(("value", "logged"), [("1", True), ("true", True), ("0", False), ("", False)])
async def test_the_environment_turns_it_on(value: str, logged: bool) -> None:
    program = (
        "import symphony.client.sync as sync, sys\n"
        "with sync.connect(sys.argv[1], raw=True) as client:\n"
        "    client.send('hello')\n"
    )
    async with serve() as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, server.url, env={"SYMPHONY_DEBUG": value}, stderr=subprocess.PIPE
        )
        peer = await server.accept(None)
        assert await peer.receive_message() == "hello"
        _, errors = await process.communicate()
    assert (b"symphony.client sent text (5): hello" in errors) is logged
    assert bool(errors) is logged


@pytest.mark.parametrize(
    "header",
    [
        f"Location: http://other.test/?token={SECRET}",
        f"Location: http://me:{SECRET}@other.test/",
        f"Content-Location: /?{SECRET}",
        f"X-Access-Token: {SECRET}",
        f"Set-Cookie: a={SECRET}",
    ],
)
async def test_no_secret_of_a_response_is_logged_or_raised(
    header: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A redirect repeats the query, and the query may have a token."""
    caplog.set_level(logging.DEBUG, "symphony.client")
    async with listen() as server:
        opening = asyncio.ensure_future(connect(server.url)._open())
        peer = await server.peer()
        await peer.read_request()
        peer.write(f"HTTP/1.1 302 Found\r\n{header}\r\nContent-Length: 0\r\n\r\n".encode())
        with pytest.raises(RefusedError) as caught:
            await opening
    assert "***" in "\n".join(lines(caplog))
    assert SECRET not in "\n".join(lines(caplog))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("value", ["\x9b31m", "a\x85forged", "x" * 50_000, "\xad\xa0"])
def test_a_header_of_the_server_is_one_short_line(value: str) -> None:
    shown = shown_headers({"x-a": value, "sec-websocket-accept": value, "server": value})
    assert shown.isprintable()
    assert len(shown) < 3 * 450
