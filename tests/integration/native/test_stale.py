"""Messages that wait for a slow client: how old they get, and where they wait."""

import asyncio
import socket as sockets_of_python
import sys

import pytest

from support import raw
from support.clients import until
from support.raw import text
from symphony import Limits, Socket, Symphony

CHUNK = "x" * 20_000


def app_with(slow_consumer: str, **limits: float | None) -> tuple[Symphony, list[Socket]]:
    app = Symphony(slow_consumer=slow_consumer, limits=Limits(max_outbox_bytes=50_000_000, **limits))
    sockets: list[Socket] = []

    @app.on_message
    async def begin(message: str, socket: Socket) -> None:
        sockets.append(socket)

    return app, sockets


async def fill(client: raw.RawClient, sockets: list[Socket]) -> Socket:
    """Send until frames wait in the outbox, because nothing else takes them."""
    client.writer.transport.pause_reading()
    await client.send(text("begin"))
    await until(lambda: sockets)
    socket = sockets[0]
    while len(socket._connection.outbox.frames) < 5:
        socket.send(CHUNK)
        await asyncio.sleep(0)
    return socket


@pytest.mark.beyond("max_outbox_age")
@pytest.mark.parametrize("age", [0.05, 0.2])
async def test_a_client_that_lets_messages_grow_old_is_a_slow_consumer(native, age: float) -> None:
    app, sockets = app_with("disconnect", max_outbox_age=age, close_timeout=0.2)
    async with native(app) as url, raw.connect(f"{url}/x", buffer=65536) as client:
        socket = await fill(client, sockets)
        await until(lambda: not socket.connected)
        client.reset()
        await until(lambda: app.stats.closed == 1)
    assert app.stats.slow_consumers == 1


@pytest.mark.beyond("max_outbox_age")
async def test_old_messages_are_dropped_if_the_route_says_so(native) -> None:
    app, sockets = app_with("drop_oldest", max_outbox_age=0.1)
    async with native(app) as url, raw.connect(f"{url}/x", buffer=65536) as client:
        socket = await fill(client, sockets)
        await until(lambda: socket.dropped >= 4)
        socket.send("news")
        client.writer.transport.resume_reading()
        while await client.message() != "news":
            pass
        assert socket.connected
    assert app.stats.slow_consumers == 0


@pytest.mark.within("max_outbox_age")
@pytest.mark.parametrize("age", [60, None])
async def test_messages_that_are_not_old_stay(native, age: float | None) -> None:
    app, sockets = app_with("disconnect", max_outbox_age=age)
    async with native(app) as url, raw.connect(f"{url}/x", buffer=65536) as client:
        socket = await fill(client, sockets)
        socket.send("news")
        client.writer.transport.resume_reading()
        while await client.message() != "news":
            pass
        assert (socket.connected, socket.dropped) == (True, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="the size of the queue is read as Linux has it")
async def test_little_waits_in_the_kernel(native) -> None:
    app, sockets = app_with("disconnect")
    async with native(app) as url, raw.connect(f"{url}/x") as client:
        await client.send(text("begin"))
        await until(lambda: sockets)
        served = sockets[0]._connection._transport.get_extra_info("socket")
        option = getattr(sockets_of_python, "TCP_NOTSENT_LOWAT", 25)
        assert served.getsockopt(sockets_of_python.IPPROTO_TCP, option) == 128 * 1024


@pytest.mark.within("transport.native.listen._MAX_UNSENT_BYTES")
@pytest.mark.beyond("transport.native.listen._MAX_UNSENT_BYTES")
@pytest.mark.skipif(sys.platform != "linux", reason="the size of the queue is read as Linux has it")
async def test_what_the_kernel_does_not_take_waits_where_it_can_be_dropped(native) -> None:
    fcntl = pytest.importorskip("fcntl")
    app, sockets = app_with("disconnect")
    async with native(app) as url, raw.connect(f"{url}/x", buffer=65536) as client:
        client.writer.transport.pause_reading()
        await client.send(text("begin"))
        await until(lambda: sockets)
        socket = sockets[0]
        for _ in range(3):
            socket.send(CHUNK)
            await asyncio.sleep(0)
        assert socket._connection.outbox.size == 0
        while len(socket._connection.outbox.frames) < 50:
            socket.send(CHUNK)
            await asyncio.sleep(0)
        fd = socket._connection._transport.get_extra_info("socket").fileno()
        # A write that begins below the bound is taken whole. SIOCOUTQNSD: bytes that were not sent.
        unsent = int.from_bytes(fcntl.ioctl(fd, 0x894B, bytes(4)), sys.byteorder)
        assert 0 < unsent <= 2 * 128 * 1024
