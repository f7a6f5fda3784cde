"""Pings of ours, pongs of theirs, and what is too late."""

import asyncio

import pytest

from support.clients import Log, until
from support.raw import PING, PONG, TEXT, Frame, RawClient, close, connect, frame, text
from symphony import Close, Limits, Socket, Symphony


class Watched:
    """An app that answers, and writes down how its sockets ended."""

    def __init__(self, **limits) -> None:
        self.app = app = Symphony(limits=Limits(**limits))
        self.sockets: list[Socket] = []
        self.closes: Log = Log()
        self.handling = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

        @app.on_connect
        async def enter(socket: Socket) -> None:
            self.sockets.append(socket)

        @app.on_message
        async def echo(message: str | bytes) -> str | bytes:
            self.handling.set()
            await self.go.wait()
            return message

        @app.on_disconnect
        async def leave(close: Close) -> None:
            self.closes.append(close)


async def answer_pings(client: RawClient, count: int) -> None:
    for _ in range(count):
        got = await client.frame()
        assert got.opcode == PING
        await client.send(frame(PONG, got.payload))


@pytest.mark.beyond("pong_timeout", "ping_interval")
async def test_a_client_that_never_pongs_is_closed_and_counted(native):
    watched = Watched(ping_interval=0.1, pong_timeout=0.1)
    async with native(watched.app) as url, connect(url) as client:
        assert (await client.frame()).opcode == PING
        await watched.closes.reaches(1)
        assert watched.closes == [Close(1006, "no pong in time", clean=False)]
        assert watched.app.stats.late_pongs == 1


@pytest.mark.within("pong_timeout", "ping_interval")
async def test_a_client_that_pongs_lives_and_its_latency_is_known(native):
    watched = Watched(ping_interval=0.05, pong_timeout=0.3)
    async with native(watched.app) as url, connect(url) as client:
        await until(lambda: watched.sockets)
        (socket,) = watched.sockets
        assert socket.latency is None
        await answer_pings(client, 6)
        await client.send(text("alive"))
        while (got := await client.frame()).opcode == PING:
            await client.send(frame(PONG, got.payload))
        assert got == Frame(TEXT, b"alive")
        assert socket.latency is not None
        assert 0 < socket.latency < 0.3


async def test_pongs_that_answer_no_ping_do_not_keep_a_dead_client(native):
    """Unsolicited pongs are lawful, and prove nothing."""
    watched = Watched(ping_interval=0.1, pong_timeout=0.1)
    async with native(watched.app) as url, connect(url) as client:
        got = await client.frame()
        await client.send(frame(PONG), frame(PONG, b"x" * 125), frame(PONG, bytes(reversed(got.payload))))
        await watched.closes.reaches(1)
        assert watched.closes[0].reason == "no pong in time"
        assert watched.sockets[0].latency is None


async def test_messages_do_not_stand_in_for_pongs(native):
    watched = Watched(ping_interval=0.05, pong_timeout=0.1)
    async with native(watched.app) as url, connect(url) as client:

        async def talk() -> None:
            while True:
                await client.send(text("x"))
                await asyncio.sleep(0.01)

        talking = asyncio.ensure_future(talk())
        await watched.closes.reaches(1)
        talking.cancel()
        await asyncio.wait((talking,))
        assert watched.app.stats.late_pongs == 1


async def test_a_client_that_is_not_read_from_is_not_blamed_for_missing_pongs(native):
    """Its pong waits in our own kernel's buffer behind messages we do not take."""
    watched = Watched(ping_interval=0.05, pong_timeout=0.3, max_queue=2)
    watched.go.clear()
    async with native(watched.app) as url, connect(url) as client:
        await client.send(*(text(str(n)) for n in range(200)))
        await watched.handling.wait()
        await until(lambda: watched.sockets[0]._connection.held)
        await asyncio.sleep(1)
        assert watched.sockets[0].connected
        watched.go.set()
        echoes: list[bytes] = []
        while len(echoes) < 200:
            got = await client.frame()
            if got.opcode == PING:
                await client.send(frame(PONG, got.payload))
            else:
                echoes.append(got.payload)
        assert echoes == [str(n).encode() for n in range(200)]
        assert watched.app.stats.late_pongs == 0


async def test_a_client_that_is_not_read_from_because_it_does_not_read_is_let_go(native):
    """It asked, did not read the answers, was not read from for that, and so was excused
    from every pong: it could be dead for a year.
    """
    watched = Watched(ping_interval=0.1, pong_timeout=0.2)
    async with native(watched.app) as url, connect(url, buffer=4096) as client:
        sending = client.in_background(client.send(frame(TEXT, b"x" * 100_000) * 300))
        await watched.closes.reaches(1)
        assert watched.closes == [Close(1006, "no pong in time", clean=False)]
        await asyncio.wait((sending,))


async def test_a_busy_socket_is_not_idle(native):
    """What it sends waits unread until its handler ends: that is our silence."""
    watched = Watched(ping_interval=None, idle_timeout=0.15, max_queue=2)
    watched.go.clear()
    async with native(watched.app) as url, connect(url) as client:
        await client.send(*(text(str(n)) for n in range(200)))
        await until(lambda: watched.sockets and watched.sockets[0]._connection.held)
        await asyncio.sleep(0.5)
        assert watched.sockets[0].connected
        watched.go.set()
        for number in range(200):
            assert await client.message() == str(number)


async def test_an_idle_client_is_closed_and_counted_whatever_it_pongs(native):
    watched = Watched(ping_interval=0.05, pong_timeout=5, idle_timeout=0.3)
    async with native(watched.app) as url, connect(url) as client:
        while (got := await client.frame()).opcode == PING:
            await client.send(frame(PONG, got.payload))
        assert got.code == 4408
        await client.send(close(4408))
        assert await client.at_end()
        await watched.closes.reaches(1)
        assert watched.closes == [Close(4408, "idle for too long", clean=True)]
        assert watched.app.stats.idle == 1


async def test_a_missing_pong_does_not_cut_a_close_that_is_under_way(native):
    """After a close frame it is `close_timeout` that counts; the heartbeat ran on, cut the
    connection before, and wrote 1006 over the code.
    """
    watched = Watched(ping_interval=0.05, pong_timeout=0.05, close_timeout=0.5)
    async with native(watched.app) as url, connect(url) as client:
        await until(lambda: watched.sockets)
        watched.sockets[0].close(4000)
        while (got := await client.frame()).opcode == PING:
            pass
        assert got.code == 4000
        await asyncio.sleep(0.3)
        await client.send(close(4000))
        assert await client.at_end()
        await watched.closes.reaches(1)
        assert watched.closes == [Close(4000, "", clean=True)]
        assert watched.app.stats.late_pongs == 0
