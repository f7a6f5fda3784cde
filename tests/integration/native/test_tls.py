"""`wss://` with a certificate that the test makes."""

import asyncio
import random
import socket
import ssl
import struct
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from support import clients
from support.certificates import Certificate
from support.clients import until
from support.echo import echo_app
from support.process import start
from support.raw import BINARY, PONG, TEXT, Frame, close, dial, frame, handshake, text
from symphony import Close, Reject, Socket

KIB, MIB = 1024, 1024 * 1024


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def connected(url: str, certificate: Certificate, **options):
    async with await dial(url, ssl_context=certificate.trust, **options) as client:
        await client.open(handshake())
        yield client


async def test_another_librarys_client_talks_over_tls(native, certificate: Certificate):
    app = echo_app(max_message_bytes=8 * MIB, max_outbox_bytes=32 * MIB)
    schemes: list[str] = []

    @app.on_connect
    async def enter(socket: Socket) -> None:
        schemes.append(socket.handshake.url.scheme)

    async with native(app, **certificate.options) as url:
        assert url.startswith("wss://")
        async with clients.connect(url, ssl=certificate.trust, max_size=None) as client:
            for message in ("", "hello", "x" * 65536, random.Random(1).randbytes(5 * MIB)):
                await client.send(message)
                assert await client.recv() == message
    assert schemes == ["wss"]


async def test_large_messages_cross_each_other_with_a_slow_reader(native, certificate: Certificate):
    app = echo_app(max_message_bytes=8 * MIB, max_outbox_bytes=64 * MIB)
    messages = [random.Random(size).randbytes(size) for size in (64 * KIB, 1, 3 * MIB, 70_000, 5 * MIB, 0)]
    async with (
        native(app, **certificate.options) as url,
        connected(url, certificate, buffer=16 * KIB) as client,
    ):
        sending = client.in_background(client.send(*(frame(BINARY, message) for message in messages)))
        for message in messages:
            for _ in range(50):
                await asyncio.sleep(0)
            assert (await client.frame()).payload == message
        await sending


async def test_bytes_behind_the_handshake_survive_tls(native, certificate: Certificate):
    """Protocols are changed while the TLS layer hands over what it has decrypted."""
    async with (
        native(echo_app(), **certificate.options) as url,
        await dial(url, ssl_context=certificate.trust) as client,
    ):
        await client.send(handshake(), text("one"), frame(9, b"p"), frame(BINARY, b"x" * 100_000)[:70_000])
        assert (await client.response()).status == 101
        got = {await client.frame(), await client.frame()}
        assert got == {Frame(TEXT, b"one"), Frame(PONG, b"p")}
        await client.send(frame(BINARY, b"x" * 100_000)[70_000:])
        assert await client.frame() == Frame(BINARY, b"x" * 100_000)


async def test_a_refusal_is_a_whole_http_answer(native, certificate: Certificate):
    app = echo_app()

    @app.on_connect
    async def enter() -> None:
        raise Reject("forbidden", "not you")

    async with (
        native(app, **certificate.options) as url,
        await dial(url, ssl_context=certificate.trust) as client,
    ):
        await client.send(handshake(), text("early"))
        response = await client.response()
        assert response.status == 403
        assert b"not you" in response.body
        assert await client.at_end()


@pytest.mark.parametrize(
    ("said", "answer"), [(close(4321, "bye"), 4321), (b"\xff" * 10, 1002), (frame(TEXT, b"\xff"), 1007)]
)
async def test_closes_and_failures_end_the_connection_in_order(native, certificate, said: bytes, answer: int):
    """TLS has no half-close: the server ends the connection behind its close frame."""
    app = echo_app()
    closes: list[Close] = []

    @app.on_disconnect
    async def leave(close: Close) -> None:
        closes.append(close)

    async with native(app, **certificate.options) as url, connected(url, certificate) as client:
        await client.send(text("x"), said)
        assert await client.message() == "x"
        assert [got.code for got in await client.rest()] == [answer]
        await until(lambda: closes)
        assert (closes[0].code, closes[0].clean) == (answer, answer == 4321)


async def test_our_close_waits_for_the_answer(native, certificate: Certificate):
    app = echo_app(close_timeout=30)

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.send("hi")
        socket.close(4000)

    async with native(app, **certificate.options) as url, connected(url, certificate) as client:
        assert await client.message() == "hi"
        assert (await client.frame()).code == 4000
        await client.send(close(4000))
        assert await client.at_end()


async def test_a_client_that_vanishes_under_tls_leaves_nothing(native, certificate: Certificate):
    app = echo_app()
    async with native(app, **certificate.options) as url:
        async with connected(url, certificate) as client:
            await client.send(text("x"))
            await client.message()
            client.writer.transport.abort()
        await until(lambda: not app._core.node._sessions)


async def test_plain_text_on_a_tls_port_does_no_harm(native, certificate: Certificate):
    app = echo_app()
    async with native(app, **certificate.options) as url:
        async with await dial(url.replace("wss", "ws")) as plain:
            await plain.send(handshake())
            # A TLS alert at best, and the end.
            assert b"HTTP/1.1 101" not in await plain.reader.read()
        async with connected(url, certificate) as client:
            await client.send(text("alive"))
            assert await client.message() == "alive"


APP = """
import sys
from symphony import Symphony

app = Symphony()


@app.on_message
async def echo(message: str) -> str:
    return message


@app.on_disconnect
async def leave() -> None:
    print("left", flush=True)


app.run(port=0, ssl_certfile=sys.argv[1], ssl_keyfile=sys.argv[2], log_level="error")
"""


@pytest.mark.asyncio(loop_factories=["asyncio"])  # the client's; the server chooses its own
async def test_a_tls_server_stops_in_order(certificate: Certificate, tmp_path: Path):
    file = tmp_path / "app.py"
    file.write_text(APP)
    async with start(file, certificate.certfile, certificate.keyfile) as server:
        assert server.url.startswith("wss://")
        async with connected(server.url, certificate) as one, connected(server.url, certificate) as two:
            await one.send(text("hi"))
            assert await one.message() == "hi"
            server.signal()
            for client in (one, two):
                assert (await client.frame()).code == 1012
                await client.send(close(1012))
                assert await client.at_end()
        async with asyncio.timeout(10):
            assert await server.end() == (0, ["left", "left"])


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
async def test_a_tls_handshake_that_does_not_end_is_cut_off(native, certificate, said: bytes):
    """`handshake_timeout` did not hold for TLS: the 60 s of asyncio did."""
    app = echo_app(handshake_timeout=0.3, max_connections=2)
    async with native(app, **certificate.options) as url:
        plain = url.replace("wss", "ws")
        async with await dial(plain) as one, await dial(plain) as two:
            for client in (one, two):
                await client.send(said)
            for client in (one, two):
                with suppress(ConnectionError):
                    while await client.reader.read(1000):
                        pass
        assert app.stats.late_handshakes == 2
        async with connected(url, certificate) as client:
            await client.send(text("hi"))
            assert await client.message() == "hi"


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, b"SSH-2.0-x\r\n"])
async def test_what_is_no_tls_leaves_no_connection_behind(native, certificate, said: bytes):
    app = echo_app(max_connections=1)
    async with native(app, **certificate.options) as url:
        for _ in range(5):
            async with await dial(url.replace("wss", "ws")) as client:
                await client.send(said)
                with suppress(ConnectionError):
                    while await client.reader.read(1000):
                        pass
        async with connected(url, certificate) as client:
            await client.send(text("hi"))
            assert await client.message() == "hi"


async def test_tls_handshakes_that_have_not_ended_count_as_connections(native, certificate, complaints):
    app = echo_app(max_connections=2)
    async with native(app, **certificate.options) as url:
        plain = url.replace("wss", "ws")
        async with (
            await dial(plain),
            await dial(plain),
            await dial(url, ssl_context=certificate.trust) as late,
        ):
            await late.send(handshake())
            assert (await late.response()).status == 503


STAGES = (
    "at once",
    "in the head of a record",
    "in the hello",
    "after the hello",
    "in the answer",
    "before the last flight",
    "before the request",
    "in the request",
    "after the upgrade",
)


async def reset_at(stage: str, url: str, version: ssl.TLSVersion) -> None:
    """Open a connection over TLS, and reset it at a stage of its handshakes."""
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.socket() as raw:
        raw.setblocking(False)
        # What is closed so is reset.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await loop.sock_connect(raw, ("127.0.0.1", int(url.rpartition(":")[2])))
        with suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        said = {"at once": 0, "in the head of a record": 3, "in the hello": 100}.get(stage, len(hello))
        await loop.sock_sendall(raw, hello[:said])
        if stage in ("at once", "in the head of a record", "in the hello", "after the hello"):
            return
        while True:
            incoming.write(await loop.sock_recv(raw, 100 if stage == "in the answer" else 65536))
            if stage == "in the answer":
                return
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await loop.sock_sendall(raw, outgoing.read())
            else:
                break
        if stage == "before the last flight":
            return
        if stage != "before the request":
            request = handshake()
            tls.write(request[:20] if stage == "in the request" else request)
        await loop.sock_sendall(raw, outgoing.read())
        if stage == "after the upgrade":
            await loop.sock_recv(raw, 1)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("stage", STAGES)
async def test_a_connection_that_is_reset_leaves_nothing_behind(
    native, certificate: Certificate, stage: str, version: ssl.TLSVersion
):
    app = echo_app(max_connections=8)
    async with native(app, **certificate.options) as url:
        for _ in range(10):
            await reset_at(stage, url, version)
        # There is a place for each again, once the server has noticed.
        for _ in range(10):
            async with connected(url, certificate) as client:
                await client.send(text("hi"))
                assert await client.message() == "hi"
        await until(lambda: app.stats.closed == app.stats.opened)
