"""The link over a socket: what is on the wire, on asyncio and on uvloop."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trustme

from client.rawserver import RawPeer, RawServer, listen, server_frame
from support.clients import until
from support.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Reset
from symphony.client import Client, Close, connect
from symphony.client.address import parse_url
from symphony.client.dialing import WebSocketDial
from symphony.client.link import Link, Offer

pytestmark = pytest.mark.usefixtures("each_loop")

MIB = 1024 * 1024


class Ear:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[str | bytes] = []
        self.relief = 0
        self.close: Close | None = None

    def received(self, message: str | bytes) -> None:
        assert self.close is None
        self.heard.append(message)

    def relieved(self) -> None:
        self.relief += 1

    def closed(self, close: Close) -> None:
        assert self.close is None
        self.close = close


async def dialled(server: RawServer, *, behind: bytes = b"", **options: object) -> tuple[Link, RawPeer]:
    given = {"heartbeat": None, "max_message_bytes": MIB, "close_timeout": 1.0, **options}
    dial = WebSocketDial(parse_url(server.url), None, **given)
    accepting = asyncio.ensure_future(server.accept(behind=behind))
    link = await dial(Offer(["symphony.v1.json"], {}))
    return link, await accepting


@asynccontextmanager
async def linked(*, behind: bytes = b"", **options: object) -> AsyncIterator[tuple[Link, RawPeer, Ear]]:
    """Give an open link, its other end, and who listens."""
    async with listen() as server:
        link, peer = await dialled(server, behind=behind, **options)
        ear = Ear()
        link.start(ear)
        try:
            yield link, peer, ear
        finally:
            link.abort()
            async with asyncio.timeout(2):
                await link.wait_closed()
        assert ear.close is not None


async def test_an_upload_behind_a_server_that_does_not_read_arrives_whole() -> None:
    """picows' own sending broke such frames; ours must not."""
    messages = [hashlib.sha256(bytes((n,))).digest() * (MIB // 32) for n in range(20)]
    async with listen() as server:
        client = connect(server.url, protocol="msgpack", subprotocols=["mine"])
        accepting = asyncio.ensure_future(server.accept("mine"))
        async with client:
            peer = await accepting
            sent: list[int] = []

            async def upload() -> None:
                for n, message in enumerate(messages):
                    await client.send(message)
                    sent.append(n)

            uploading = asyncio.ensure_future(upload())
            # Nobody reads: the kernel's buffers fill, and then the client must wait.
            await until(lambda: client._outgoing._link.congested)
            for _ in range(100):
                await asyncio.sleep(0)
            assert len(sent) < 20
            for message in messages:
                frame = await peer.frame()
                assert frame.opcode == BINARY
                assert frame.payload == message
            await uploading
            client.send("behind it all")
            assert (await peer.frame()).payload == b"behind it all"
            peer.cut()


async def test_an_upload_that_is_not_awaited_is_in_order_too() -> None:
    async with listen() as server:
        client = connect(server.url, max_queue_bytes=50 * MIB)
        accepting = asyncio.ensure_future(server.accept("symphony.raw"))
        async with client:
            peer = await accepting
            for n in range(20):
                client.send(bytes((n,)) * MIB)
                client.send(f"after {n}")
            for n in range(20):
                assert (await peer.frame()).payload == bytes((n,)) * MIB
                assert (await peer.frame()).payload.decode() == f"after {n}"
            peer.cut()


async def test_small_messages_of_one_turn_are_in_order() -> None:
    async with linked() as (link, peer, _):
        for n in range(3000):
            link.send(f"{n}")
        for n in range(3000):
            assert (await peer.frame()).payload == b"%d" % n


async def test_frames_behind_the_answer_are_heard_once_it_starts() -> None:
    behind = server_frame(TEXT, "one") + server_frame(BINARY, b"two") + server_frame(TEXT, "three")
    async with listen() as server:
        link, peer = await dialled(server, behind=behind[:-2])
        ear = Ear()
        link.start(ear)
        peer.write(behind[-2:])
        await until(lambda: len(ear.heard) == 3)
        assert ear.heard == ["one", b"two", "three"]
        link.abort()
        await link.wait_closed()


async def test_a_close_frame_behind_the_answer_is_heard_at_the_start() -> None:
    async with linked(behind=server_frame(TEXT, "x") + server_frame(CLOSE, b"\x0f\xa0why")) as (_, peer, ear):
        assert ear.heard == ["x"]
        assert ear.close == Close(4000, "why", clean=True)
        assert await peer.close_frame() == (4000, "")
        assert await peer.at_end()


async def test_a_connection_lost_before_the_start_is_told_behind_it() -> None:
    async with listen() as server:
        link, peer = await dialled(server)
        link.abort()
        ear = Ear()
        link.start(ear)
        assert ear.close is None
        await until(lambda: ear.close is not None)
        await link.wait_closed()
        assert await peer.at_end()


async def test_messages_come_in_fragments_with_control_frames_between() -> None:
    text = "žluťoučký 🐎".encode()
    async with linked() as (_, peer, ear):
        peer.write(
            server_frame(TEXT, text[:1], fin=False),
            server_frame(PING, b"a"),
            server_frame(CONTINUATION, text[1:5], fin=False),
            server_frame(PONG, b"unasked"),
            server_frame(CONTINUATION, text[5:]),
            server_frame(BINARY, b"", fin=False),
            server_frame(CONTINUATION, b"z"),
            server_frame(TEXT, "whole"),
        )
        assert await peer.frame() == (PONG, b"a", True)
        await until(lambda: len(ear.heard) == 3)
        assert ear.heard == [text.decode(), b"z", "whole"]


async def test_large_messages_come_whole() -> None:
    payload = hashlib.sha256(b"x").digest() * (MIB // 32)
    async with linked() as (_, peer, ear):
        for _ in range(5):
            peer.write(server_frame(BINARY, payload))
            await peer.writer.drain()
        await until(lambda: len(ear.heard) == 5)
        assert all(message == payload for message in ear.heard)


@pytest.mark.beyond("client.max_message_bytes")
@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (server_frame(TEXT, b"\xff"), 1007),
        (server_frame(TEXT, b"\xed\xa0", fin=False), 1007),
        (server_frame(TEXT, "x", rsv=4), 1002),
        (server_frame(TEXT, "x", rsv=1), 1002),
        (server_frame(PING, "x", rsv=4), 1002),
        (server_frame(CONTINUATION, "x"), 1002),
        (server_frame(TEXT, "x", fin=False) + server_frame(TEXT, "y"), 1002),
        (server_frame(3, "x"), 1002),
        (server_frame(11, ""), 1002),
        (server_frame(PING, bytes(126)), 1002),
        (server_frame(PING, fin=False), 1002),
        (b"\x81\x81\x00\x00\x00\x00x", 1002),
        (server_frame(CLOSE, b"\x03"), 1002),
        (server_frame(CLOSE, b"\x03\xed"), 1002),
        (server_frame(CLOSE, b"\x03\xe8\xff"), 1007),
        (server_frame(BINARY, bytes(1001)), 1009),
        (server_frame(BINARY, bytes(600), fin=False) + server_frame(CONTINUATION, bytes(401)), 1009),
        (b"\x82\x7f\x80" + bytes(7), 1002),
    ],
)
async def test_a_server_that_breaks_the_protocol_is_told_so_and_left(frames: bytes, code: int) -> None:
    async with linked(max_message_bytes=1000) as (_, peer, ear):
        peer.write(server_frame(TEXT, "fine"), frames, server_frame(TEXT, "too late"))
        found, reason = await peer.close_frame()
        assert found == code
        assert reason
        assert await peer.at_end()
        assert ear.heard == ["fine"]
        assert ear.close == Close(code, reason, clean=False)


@pytest.mark.within("client.max_message_bytes")
async def test_a_message_of_just_the_limit_is_taken() -> None:
    async with linked(max_message_bytes=1000) as (_, peer, ear):
        peer.write(server_frame(BINARY, bytes(1000)))
        peer.write(server_frame(BINARY, bytes(600), fin=False), server_frame(CONTINUATION, bytes(400)))
        await until(lambda: len(ear.heard) == 2)


@pytest.mark.parametrize(("payload", "code", "reason"), [(b"", 1005, ""), (b"\x0f\xa1bye", 4001, "bye")])
async def test_the_servers_goodbye_is_answered(payload: bytes, code: int, reason: str) -> None:
    async with linked() as (link, peer, ear):
        link.send("last words")
        await until(lambda: not link._unwritten)
        peer.write(server_frame(CLOSE, payload))
        assert (await peer.frame()).payload == b"last words"
        assert await peer.close_frame() == (code, "")
        assert await peer.at_end()
        assert ear.close == Close(code, reason, clean=True)
        link.send("nobody hears this")
        link.close(1000, "")
        await link.wait_closed()


async def test_a_goodbye_goes_behind_what_was_sent_and_awaits_the_servers() -> None:
    async with linked() as (link, peer, ear):
        link.send("last words")
        link.close(4000, "ž" * 100)
        link.send("too late")
        link.close(1000, "")
        assert (await peer.frame()).payload == b"last words"
        assert await peer.close_frame() == (4000, "ž" * 61)
        link.heard_at = 0.0
        peer.write(server_frame(TEXT, "not heard"), server_frame(PING, "nor this"))
        await until(lambda: link.heard_at)
        assert ear.close is None
        peer.write(server_frame(CLOSE, b"\x0f\xa0"))
        assert await peer.at_end()
        await until(lambda: ear.close is not None)
        assert ear.close == Close(4000, "ž" * 100, clean=True)
        assert ear.heard == []


async def test_a_server_that_does_not_answer_a_goodbye_is_left_in_time() -> None:
    async with linked(close_timeout=0.1) as (link, peer, ear):
        link.close(1000, "")
        assert await peer.close_frame() == (1000, "")
        async with asyncio.timeout(2):
            await link.wait_closed()
        assert ear.close == Close(1000, "", clean=False)


async def test_a_server_that_says_goodbye_and_does_not_read_is_left_in_time() -> None:
    async with linked(close_timeout=0.1) as (link, peer, ear):
        for _ in range(20):
            link.send(bytes(MIB))
        await until(lambda: link.congested)
        peer.write(server_frame(CLOSE, b"\x03\xf4"))
        await until(lambda: ear.close is not None)
        assert ear.close == Close(1012, "", clean=True)
        async with asyncio.timeout(2):
            await link.wait_closed()


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_connection_that_breaks_is_1006(how: str) -> None:
    async with linked() as (link, peer, ear):
        if how == "fin":
            peer.writer.write_eof()
        else:
            peer.cut()
        await until(lambda: ear.close is not None)
        assert ear.close is not None
        assert (ear.close.code, ear.close.clean) == (1006, False)
        assert ear.close.reason
        await link.wait_closed()


async def test_pings_are_answered_in_order() -> None:
    async with linked() as (_, peer, _):
        peer.write(*(server_frame(PING, b"%d" % n) for n in range(50)))
        for n in range(50):
            assert await peer.frame() == (PONG, b"%d" % n, True)


async def test_a_server_that_pings_and_does_not_read_gets_one_pong() -> None:
    """Its pongs would pile up here; but one must come, or it takes us for dead."""
    async with linked() as (link, peer, ear):
        for _ in range(10):
            link.send(bytes(MIB))
        await until(lambda: link.congested)
        peer.write(*(server_frame(PING, b"%d" % n) for n in range(100)), server_frame(TEXT, "x"))
        await until(lambda: ear.heard)
        for _ in range(10):
            assert len((await peer.frame()).payload) == MIB
        assert await peer.frame() == (PONG, b"99", True)
        assert ear.relief >= 1


async def test_a_link_that_is_not_read_from_holds_the_server_up() -> None:
    async with linked() as (link, peer, ear):
        link.pause_reading()
        block = server_frame(BINARY, bytes(64 * 1024))
        peer.writer.transport.set_write_buffer_limits(high=0)

        async def pour() -> None:
            for _ in range(200):
                peer.write(block)
                await peer.writer.drain()

        pouring = asyncio.ensure_future(pour())
        # The buffers between the two are full.
        await until(peer.writer.transport.get_write_buffer_size)
        assert not pouring.done()
        assert len(ear.heard) <= 2
        link.resume_reading()
        await pouring
        await until(lambda: len(ear.heard) == 200)


async def test_a_listener_that_fails_is_logged_and_the_connection_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with listen() as server:
        link, peer = await dialled(server)
        ear = Ear()

        def fail(message: str | bytes) -> None:
            raise ZeroDivisionError

        ear.received = fail  # type: ignore[method-assign]
        link.start(ear)
        peer.write(server_frame(TEXT, "x"))
        assert (await peer.close_frame())[0] == 1011
        assert ear.close == Close(1011, "the client failed", clean=False)
        await link.wait_closed()
    assert "ZeroDivisionError" in caplog.text


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def accept_over_tls(server: RawServer, client: Client, *, behind: bytes = b"") -> RawPeer:
    accepting = asyncio.ensure_future(server.accept("symphony.raw", behind=behind))
    await client
    return await accepting


@pytest.mark.parametrize("check", ["trusted", "unchecked"])
async def test_tls(authority: trustme.CA, check: str) -> None:
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with listen(served) as server:
        client = connect(server.url, ssl=trusting if check == "trusted" else False)
        peer = await accept_over_tls(server, client, behind=server_frame(TEXT, "early"))
        assert await anext(client) == "early"
        payload = hashlib.sha256(b"y").digest() * (MIB // 32)
        for _ in range(5):
            client.send(payload)
        await until(lambda: client._outgoing._link is None or client._outgoing._link.congested)
        for _ in range(5):
            assert (await peer.frame()).payload == payload
        peer.write(server_frame(BINARY, payload))
        assert await anext(client) == payload
        closing = asyncio.ensure_future(client.close())
        assert await peer.close_frame() == (1000, "")
        peer.write(server_frame(CLOSE, b"\x03\xe8"))
        peer.writer.close()
        async with asyncio.timeout(2):
            await closing


@pytest.mark.parametrize("size", [100, 70_000, MIB])
async def test_a_server_that_vanishes_while_its_client_writes_is_lost_once(
    size: int, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio reported the connection as lost a second time, with a traceback: a write inside
    of its call that the transport has room again had failed.
    """
    if not isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
        pytest.skip("uvloop sends without a socket of Python")

    class Talker(Ear):
        def relieved(self) -> None:
            super().relieved()
            link.send(b"x" * size)

    async with listen() as server:
        link, peer = await dialled(server)
        ear = Talker()
        link.start(ear)
        while not link.congested:
            link.send(b"x" * 64 * 1024)
            await asyncio.sleep(0)
        transport: Any = cast("Any", link)._transport
        transport._sock = Reset(transport._sock)
        reading = asyncio.ensure_future(peer.reader.read())
        await until(lambda: ear.close is not None)
        async with asyncio.timeout(2):
            await link.wait_closed()
        reading.cancel()
    assert ear.relief == 1
    assert not [record for record in caplog.records if record.name == "asyncio"]
