"""Writes that fail, because the client has gone while the server writes."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.certificates import Certificate
from support.clients import until
from support.raw import BINARY, Frame, Reset, connect, frame, handshake, text
from symphony import Limits, Socket, Symphony

KIB, MIB = 1024, 1024 * 1024


@pytest.mark.parametrize("size", [1, 100 * KIB, 900 * KIB])
@pytest.mark.parametrize("half_closed", [False, True])
async def test_a_client_that_vanishes_while_its_outbox_is_written_is_lost_once(
    native, size: int, half_closed: bool
):
    """asyncio reported the connection as lost a second time, with a traceback: the write of
    the outbox, inside of its call that the transport has room again, had failed.
    """
    if not isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
        pytest.skip("uvloop sends without a socket of Python")
    app = Symphony(limits=Limits(max_outbox_bytes=8 * MIB))
    sockets: list[Socket] = []
    ended: list[Socket] = []

    @app.on_connect
    async def enter(socket: Socket) -> None:
        sockets.append(socket)

    @app.on_disconnect
    async def leave(socket: Socket) -> None:
        ended.append(socket)

    async with native(app) as url, connect(url, buffer=4 * KIB) as client:
        await until(lambda: sockets)
        connection: Any = sockets[0]._connection
        while not connection.outbox.blocked:
            await asyncio.sleep(0)
            await sockets[0].send(b"x" * 64 * KIB)
        sending = asyncio.ensure_future(sockets[0].send(b"x" * size))
        await asyncio.sleep(0)
        transport: Any = connection._transport
        if half_closed:
            client.finish()
            await until(lambda: connection.outbox.sealed)
        transport._sock = lost = Reset(transport._sock)
        client.reader._limit = 64 * MIB  # type: ignore[attr-defined]
        reading = asyncio.ensure_future(client.reader.read())
        await until(lambda: ended)
        assert lost.sent > 1
        reading.cancel()
        with suppress(ConnectionError, asyncio.CancelledError):
            await sending


async def test_a_half_closed_client_gets_everything_that_is_queued(native):
    app = Symphony(limits=Limits(max_outbox_bytes=8 * MIB, max_message_bytes=2 * MIB))

    @app.on_message
    async def echo(message: bytes) -> bytes:
        return message

    async with native(app) as url, connect(url, buffer=4 * KIB) as client:
        messages = [bytes((number,)) * MIB for number in range(4)]
        for message in messages:
            await client.send(frame(BINARY, message))
        client.finish()
        assert await client.rest() == [Frame(BINARY, message) for message in messages]


@pytest.mark.parametrize("messages", [60, 500])
async def test_answers_to_a_tls_client_that_has_gone_do_not_flood_the_log(
    native, tmp_path: Path, messages: int, caplog: pytest.LogCaptureFixture
):
    """For each answer, asyncio wrote a line."""
    if not isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
        pytest.skip("uvloop has no such line")
    # The server does not read while messages wait, so that it does not see the end of file.
    app = Symphony(limits=Limits(max_queue=8))
    sockets, handled, go_on = list[Socket](), list[str](), asyncio.Event()
    certificate = Certificate(tmp_path)

    @app.on_message
    async def answer(socket: Socket, message: str) -> str:
        sockets.append(socket)
        await go_on.wait()
        await asyncio.sleep(0)
        handled.append(message)
        return message

    async with native(app, **certificate.options) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = certificate.trust.wrap_bio(incoming, outgoing, server_hostname="localhost")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(64 * KIB))
        tls.write(handshake() + text("x") * messages)
        writer.write(outgoing.read())
        writer.write_eof()
        await until(lambda: sockets)
        transport: Any = sockets[0]._connection
        await until(lambda: transport._transport._ssl_protocol._eof_received)
        go_on.set()
        await reader.read()
        writer.close()
    assert len(handled) > 8
    lines = [record.getMessage() for record in caplog.records if record.name == "asyncio"]
    # None at all, if another test had its line within this second.
    assert len(lines) <= 1, len(lines)
