"""The first connection: how it opens, and what a user reads if it does not."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from client.rawserver import listen
from client.scripted import Server, serve
from support.clients import until
from symphony.client import Client, Close, connect
from symphony.errors import DisconnectedError, RefusedError


async def opened(server: Server, client: Client, **how: Any) -> Any:
    """Open a client at a scripted server, and return the server's end."""
    accepting = asyncio.ensure_future(server.accept(**how))
    await client
    return await accepting


async def failure(url: str, **options: Any) -> DisconnectedError:
    """Open a connection that must fail; return how it did."""
    client = connect(url, **{"connect_timeout": 0.3, "backoff": 0.02, **options})
    with pytest.raises(DisconnectedError) as caught:
        await client
    error = caught.value
    assert client.state == "closed"
    assert client.closed is not None
    assert (client.closed.code, client.closed.reason) == (error.code, error.reason)
    with pytest.raises(type(error)):
        client.emit("say", 1)
    await client.close()
    assert client.closed.code == error.code
    return error


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """Serve something that gives the same answer to any request."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def page(status: int, body: bytes = b"<html>", kind: str = "text/html", **headers: str) -> bytes:
    fields = {"Content-Type": kind, "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Phrase\r\n{lines}\r\n".encode() + body


async def test_it_opens_in_async_with_and_closes_at_the_end() -> None:
    async with serve() as server:
        client = connect(server.url)
        states: list[str] = []
        client.on_state(states.append)
        assert (client.state, client.protocol, client.closed) == ("new", None, None)
        accepting = asyncio.ensure_future(server.accept())
        async with client as entered:
            assert entered is client
            assert client.state == "open"
            assert client.protocol == client.subprotocol == "symphony.v1.json"
            assert repr(client) == f"<Client {server.url} open>"
        assert await (await accepting).closed() == (1000, "")
        assert states == ["connecting", "open", "closed"]
        assert client.closed == Close(1000, "", clean=True)


async def test_it_opens_when_awaited_too_and_again_does_nothing() -> None:
    async with serve() as server:
        accepting = asyncio.ensure_future(server.accept())
        client = await connect(server.url)
        assert await client is client
        await accepting
        assert server.no_handshake_waits()
        await client.close()


async def test_a_client_is_made_without_a_loop_and_used_once() -> None:
    client = await asyncio.to_thread(connect, "ws://127.0.0.1:9/")
    await client.close()
    with pytest.raises(DisconnectedError, match=r"The client of ws://127.0.0.1:9/ is closed\."):
        await client


async def test_what_it_says_of_itself() -> None:
    async with serve() as server:
        client = connect(
            f"{server.url}?room=a%20b",
            headers={"X-Mine": "1", "Authorization": "Basic abc"},
            origin="https://example.com",
            subprotocols=["chat.v1"],
            token="sesame",
            protocol="msgpack",
        )
        opening = asyncio.ensure_future(client._open())
        handshake = await server.handshake()
        assert handshake.path == "/chat?room=a%20b"
        assert handshake.offers == [
            "chat.v1",
            "symphony.limits",
            "symphony.v1.msgpack",
            "symphony.token.c2VzYW1l",
            "symphony.refuse",
            "symphony.raw",
        ]
        assert handshake.headers["X-Mine"] == "1"
        assert handshake.headers["Authorization"] == "Basic abc"
        assert handshake.headers["Origin"] == "https://example.com"
        assert handshake.headers["Host"] in server.url
        assert "Sec-WebSocket-Extensions" not in handshake.headers
        await handshake.accept("chat.v1")
        await opening
        assert (client.protocol, client.subprotocol) == ("raw", "chat.v1")
        await client.close()


@pytest.mark.within("client.connect_timeout")
async def test_it_keeps_trying_until_the_server_is_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    client = connect(f"ws://127.0.0.1:{port}/", backoff=0.01, max_backoff=0.02)
    opening = asyncio.ensure_future(client._open())
    await until(lambda: client._reconnector._attempts > 2)
    async with serve(port=port) as server:
        await server.accept()
        await opening
        await client.close()


async def test_it_tries_every_address_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve() as server:
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")

        async def resolve(host: str, *_: Any, **__: Any) -> list[Any]:
            assert host == "many.example"
            return [(*kind, ("127.0.0.2", 9)), (*kind, ("127.0.0.1", port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        client = connect(f"ws://many.example:{port}/")
        await opened(server, client)
        await client.close()


async def test_a_host_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    error = await failure("ws://nowhere.example/chat")
    assert not isinstance(error, RefusedError)
    assert (error.code, error.reason) == (1006, "unknown host")
    assert isinstance(error.__cause__, socket.gaierror)
    text = str(error)
    assert text.startswith("ws://nowhere.example/chat could not be reached within 0.3 s, in ")
    assert text.endswith(
        " attempts: the host 'nowhere.example' is not known (Name or service not known). "
        "Is it spelled right, and is this machine online?"
    )


async def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        error = await failure(f"ws://127.0.0.1:{port}/chat?secret=1")
        assert (type(error), error.code, error.reason) == (DisconnectedError, 1006, "connection refused")
        assert isinstance(error.__cause__, ConnectionRefusedError)
        assert f"nothing listens at 127.0.0.1:{port} (connection refused). Is the server running" in str(
            error
        )
        assert "secret" not in str(error)
        once = await failure(f"ws://127.0.0.1:{port}/chat", reconnect=False)
        assert str(once).startswith(f"ws://127.0.0.1:{port}/chat could not be reached: nothing listens at")


FORBIDDEN = " May this client connect? Check the token and the `Origin`, and the path if the app is mounted."


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (page(404), 4404, "HTTP 404 Phrase. The server has no such path."),
        (page(200), 4200, "HTTP 200 Phrase. Is there a WebSocket at this path?"),
        (page(426, b"use ws", "text/plain"), 4426, "Is there a WebSocket at this path? It says: 'use ws'."),
        (page(403), 4403, f"HTTP 403 Phrase.{FORBIDDEN}"),
        (
            page(403, b'{"code":"forbidden","message":"ask her"}'),
            4403,
            "forbidden: ask her (HTTP 403 Phrase).",
        ),
        (page(401, b'{"code":"unauthorized"}'), 4401, "unauthorized (HTTP 401 Phrase)."),
        (
            page(301, Location="https://b.example/"),
            4301,
            "a redirect: connect to https://b.example/ instead.",
        ),
        (b"HTTP/1.1 403 \r\n\r\n", 4403, f"HTTP 403 Forbidden.{FORBIDDEN}"),
        (b"HTTP/1.1 799 \r\n\r\n", 4799, "HTTP 799."),
    ],
)
@pytest.mark.within("client.dialing._BODY_TIMEOUT")
async def test_a_web_server_that_opens_no_websocket(answer: bytes, code: int, says: str) -> None:
    async with answering(answer) as place:
        error = await failure(f"ws://{place}/chat")
        assert isinstance(error, RefusedError)
        assert error.code == code
        assert str(error).startswith(f"ws://{place}/chat refused the connection: ")
        assert str(error).endswith(says)


async def test_the_reason_is_what_the_server_said() -> None:
    async with answering(page(403, b'{"code":"forbidden","message":"ask her"}')) as place:
        assert (await failure(f"ws://{place}/chat")).reason == "ask her"
    async with answering(page(403)) as place:
        assert (await failure(f"ws://{place}/chat")).reason == "HTTP 403 Phrase"


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408, 425])
async def test_a_server_that_may_be_better_soon_is_tried_again(status: int) -> None:
    async with answering(page(status)) as place:
        error = await failure(f"ws://{place}/chat")
        assert (type(error), error.code, error.reason) == (DisconnectedError, 1006, f"HTTP {status} Phrase")
        assert f"attempts: HTTP {status} Phrase." in str(error)


async def test_a_server_that_says_when_is_not_asked_before() -> None:
    async with answering(page(503, Retry_After="60")) as place:
        error = await failure(f"ws://{place}/chat")
        assert str(error) == (
            f"ws://{place}/chat refused the connection for 0.3 s: HTTP 503 Phrase. "
            "It asks clients to wait 60 s."
        )


async def test_a_refusal_by_close_code() -> None:
    async with serve() as server:
        refusing = asyncio.ensure_future(server.refuse_by_code(4403, "ask her"))
        error = await failure(server.url)
        await refusing
        assert isinstance(error, RefusedError)
        assert (error.code, error.reason) == (4403, "ask her")
        assert str(error) == f"{server.url} refused the connection: ask her (4403)."


async def test_a_connection_that_is_closed_at_once_was_open_for_a_moment() -> None:
    """Whether both come in one segment or in two is chance, and must make no difference."""
    async with listen() as server:
        client = connect(server.url)
        states: list[str] = []
        client.on_state(states.append)
        said: list[str] = []
        client.on("said")(lambda data: said.append(data))
        text = b'{"event":"said","data":"hi"}'
        behind = b"\x81" + bytes((len(text),)) + text + b"\x88\x05\x11\x33his"
        accepting = asyncio.ensure_future(server.accept(behind=behind))
        await client
        await accepting
        assert states == ["connecting", "open", "closed"]
        assert client.closed == Close(4403, "his", clean=True)
        await until(lambda: said == ["hi"])
        with pytest.raises(DisconnectedError, match=r"The connection to ws://.* has ended \(4403: his\)\."):
            client.emit("say", 1)


async def test_what_waits_is_not_lost_in_a_connection_that_is_closed_at_once() -> None:
    async with listen() as server:
        client = connect(server.url, backoff=0.01, max_backoff=0.01)
        asking: list[asyncio.Future[Any]] = []

        @client.on_state
        def use(state: str) -> None:
            if state == "connecting" and not asking:
                client.emit("say", 1)
                asking.append(asyncio.ensure_future(client.request("ask")))

        accepting = asyncio.ensure_future(server.accept(behind=b"\x88\x02\x03\xf4"))
        await client
        await accepting
        client.emit("say", 2)
        peer = await server.accept()
        events = [json.loads((await peer.frame()).payload)["event"] for _ in range(3)]
        assert events == ["say", "ask", "say"]
        asking[0].cancel()
        peer.cut()
        await client.close()


@pytest.mark.parametrize("secure", [False, True])
async def test_a_server_that_accepts_and_keeps_silent(secure: bool) -> None:
    async with listen() as server:
        error = await failure(server.url.replace("ws:", "wss:") if secure else server.url)
        assert (type(error), error.code, error.reason) == (DisconnectedError, 1006, "no answer")
        if secure:
            assert str(error).endswith(
                "does not answer in the TLS handshake. If it has no certificate, write ws://."
            )
        else:
            assert str(error).endswith(
                "does not answer the handshake. Is that a WebSocket server? If it expects TLS, write wss://."
            )


@pytest.mark.beyond("client.dialing._BODY_TIMEOUT")
async def test_a_refusal_whose_body_does_not_end_is_heard_all_the_same() -> None:
    async with listen() as server:
        client = connect(server.url)
        opening = asyncio.ensure_future(client._open())
        peer = await server.peer()
        await peer.read_request()
        peer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\nhalf")
        with pytest.raises(RefusedError, match="HTTP 404 Not Found"):
            await opening


async def test_a_server_that_hangs_up() -> None:
    async with listen() as server:
        client = connect(server.url, connect_timeout=0.3, backoff=0.01)
        opening = asyncio.ensure_future(client._open())
        peer = await server.peer()
        await peer.read_request()
        peer.writer.close()
        with pytest.raises(
            DisconnectedError, match=r"ended the connection instead of answering the handshake\. If it"
        ):
            await opening


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "the response is not HTTP: 'SSH-2.0"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "the response is TLS, not HTTP"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            "the response belongs to another request",
        ),
    ],
)
async def test_a_server_of_another_kind(said: bytes, says: str) -> None:
    async with answering(said) as place:
        error = await failure(f"ws://{place}/")
        assert isinstance(error, RefusedError)
        assert error.code == 1002
        assert str(error).startswith(f"ws://{place}/ could not be reached: {says}".replace(r"\\", "\\"))


async def test_tls_at_a_plain_port() -> None:
    async with answering(page(400)) as place:

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(page(400))
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        error = await failure(f"wss://{place}/")
        server.close()
        assert isinstance(error, RefusedError)
        assert (error.code, error.reason) == (1015, "TLS failed")
        assert "WRONG_VERSION_NUMBER). If it has no certificate, write ws://." in str(error)


def certified(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


async def test_a_certificate_that_is_not_trusted() -> None:
    async with serve(ssl=certified(trustme.CA(), "127.0.0.1")) as server:
        with QuietLoop():
            error = await failure(server.url)
        assert isinstance(error, RefusedError)
        assert error.code == 1015
        assert "the certificate of 127.0.0.1 is not accepted: " in str(error)
        assert str(error).endswith("Trust its issuer with ssl=ssl.create_default_context(cafile=...).")


async def test_a_certificate_of_somebody_else() -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with serve(ssl=certified(authority, "other.example")) as server:
        with QuietLoop():
            error = await failure(server.url, ssl=trusting)
        assert error.code == 1015
        assert "IP address mismatch" in str(error)
        assert "Trust its issuer" not in str(error)


async def test_plain_at_a_tls_port() -> None:
    async with serve(ssl=certified(trustme.CA(), "127.0.0.1")) as server:
        with QuietLoop():
            error = await failure(server.url.replace("wss:", "ws:"))
        assert error.code == 1006
        assert "If it expects TLS, write wss://." in str(error)


@pytest.mark.parametrize("ends", ["by cancelling", "by a timeout"])
async def test_opening_can_be_given_up(ends: str) -> None:
    async with listen() as server:
        client = connect(server.url)
        opening = asyncio.ensure_future(
            asyncio.wait_for(client._open(), 0.05 if ends == "by a timeout" else 9)
        )
        peer = await server.peer()
        await peer.read_request()
        if ends == "by cancelling":
            opening.cancel()
        with pytest.raises((asyncio.CancelledError, TimeoutError)):
            await opening
        assert client.state == "closed"
        assert await peer.at_end()
        with pytest.raises(DisconnectedError, match=r"connecting to .* was cancelled"):
            client.emit("say")


async def test_leaving_the_block_with_an_error_closes_too() -> None:
    async with serve() as server:
        client = connect(server.url)
        accepting = asyncio.ensure_future(server.accept())
        with pytest.raises(ZeroDivisionError):
            async with client:
                raise ZeroDivisionError
        assert await (await accepting).closed() == (1000, "")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"protocol": "xml"}, ValueError, "protocol must be 'json' or 'msgpack', not 'xml'"),
        ({"connect_timeout": 0}, ValueError, "connect_timeout must be above 0"),
        ({"request_timeout": -1}, ValueError, "request_timeout must be above 0"),
        ({"max_queue": 0}, ValueError, "max_queue must be above 0"),
        ({"backoff": -1}, ValueError, "backoff must be 0 or more"),
        ({"heartbeat": 0}, ValueError, "heartbeat must be above 0, or None"),
        ({"max_message_bytes": 0}, ValueError, "max_message_bytes must be above 0"),
        ({"subprotocols": "chat"}, ValueError, r"subprotocols must be a list: write \['chat'\]"),
        ({"subprotocols": ["a b"]}, ValueError, "'a b' cannot be a subprotocol"),
        ({"headers": {"Upgrade": "x"}}, ValueError, "set by the handshake itself"),
        ({"connect_timeout": "5"}, TypeError, "connect_timeout must be a number above 0, not '5'"),
        ({"max_queue": None}, TypeError, "max_queue must be a number above 0, not None"),
        ({"backoff": [1]}, TypeError, r"backoff must be a number 0 or more, not \[1\]"),
        ({"give_up_after": "x"}, TypeError, "give_up_after must be a number 0 or more, or None, not 'x'"),
        ({"heartbeat": True}, TypeError, "heartbeat must be a number above 0, or None, not True"),
        ({"compression": "0"}, TypeError, "compression must be a number 0 or more, or None, not '0'"),
        ({"max_message_bytes": "1MB"}, TypeError, "max_message_bytes must be a number above 0"),
        ({"headers": ["a: b"]}, TypeError, r"headers must be a mapping of names to values, not \['a: b'\]"),
        ({"token": 5}, TypeError, "token must be a string or a function that returns one, not int"),
        ({"ssl": True}, ValueError, "ssl= is for TLS, but the URL is ws://: write wss://"),
    ],
)
def test_options_that_are_none(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        connect("ws://127.0.0.1:9/", **options)


def test_without_a_context_certificates_are_checked_and_the_context_is_shared() -> None:
    contexts = [
        connect("wss://a.example", ssl=given)._reconnector._dial._context for given in (None, True, None)
    ]
    assert contexts[0] is contexts[1] is contexts[2]
    assert contexts[0].verify_mode is ssl.CERT_REQUIRED
    assert contexts[0].check_hostname
    unchecked = connect("wss://a.example", ssl=False)._reconnector._dial._context
    assert unchecked.verify_mode is ssl.CERT_NONE
    assert connect("ws://a.example")._reconnector._dial._context is None


class QuietLoop:
    """The servers' loop complains about handshakes that fail; that is what these tests are about."""

    def __enter__(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().set_exception_handler(None)
