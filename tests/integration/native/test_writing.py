"""What leaves a connection: whole, in one order, and never behind a close frame."""

import asyncio
import hashlib
import random

import pytest

from support.clients import until
from support.raw import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frame,
    RawClient,
    close,
    connect,
    dial,
    frame,
    handshake,
    text,
)
from symphony import Limits, Socket, Symphony

KIB, MIB = 1024, 1024 * 1024


def blob(size: int, seed: int = 0) -> bytes:
    """Return bytes in which any shift, swap or repetition shows."""
    return random.Random(seed * 1_000_003 + size).randbytes(size)


async def read_slowly(client: RawClient, count: int) -> list[Frame]:
    """Read frames, with turns of the loop in between for the server to fill all buffers."""
    frames: list[Frame] = []
    for _ in range(count):
        for _ in range(20):
            await asyncio.sleep(0)
        frames.append(await client.frame())
    return frames


SIZES = [64 * KIB, 64 * KIB + 1, 128 * KIB, 1 * MIB, 3 * MIB + 17, 8 * MIB]


@pytest.mark.parametrize("size", SIZES)
async def test_a_large_frame_to_a_slow_reader_arrives_byte_for_byte(native, size: int):
    """The frames that picows sends came out corrupt above 8 KiB behind a slow reader
    on uvloop: it writes to the descriptor past what the transport has buffered.
    """
    app = Symphony(limits=Limits(max_message_bytes=9 * MIB, max_outbox_bytes=64 * MIB))

    @app.on_message
    async def echo(message: str | bytes) -> str | bytes:
        return message

    async with native(app) as url, connect(url, buffer=8 * KIB) as client:
        said = [blob(size, seed) for seed in range(2)]
        between = [blob(seed * 37, seed) for seed in range(1, 4)]
        messages = [said[0], *between, said[1]]
        sending = asyncio.ensure_future(
            client.send(*(frame(BINARY, message) for message in messages), frame(PING, b"end"))
        )
        got = await read_slowly(client, len(messages))
        assert [hashlib.sha1(each.payload).digest() for each in got] == [
            hashlib.sha1(message).digest() for message in messages
        ]
        await sending
        assert await client.frame() == Frame(PONG, b"end")


async def test_room_frames_of_all_sizes_reach_slow_and_fast_members_alike(native):
    app = Symphony(limits=Limits(max_outbox_bytes=64 * MIB))
    rng = random.Random(7)
    messages = [blob(rng.choice((0, 1, 125, 126, 5000, 65536, 300_000)), seed) for seed in range(100)]

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("room")

    @app.on_message
    async def go(message: str) -> None:
        for index, each in enumerate(messages):
            app.room("room").send(each)
            if index % 7 == 0:
                await asyncio.sleep(0)

    async with native(app) as url, connect(url, buffer=4 * KIB) as slow, connect(url) as fast:
        await fast.send(text("go"))
        reading = asyncio.ensure_future(read_slowly(slow, len(messages)))
        for each in messages:
            assert await fast.frame() == Frame(BINARY, each)
        assert [each.payload for each in await reading] == messages


async def test_pongs_sends_publications_and_close_leave_in_one_order(native):
    """Everything a socket gets goes through one outbox. A pong that went around it,
    or a room that wrote past it, would stand elsewhere.
    """
    app = Symphony(limits=Limits(close_timeout=0.2))

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("a")
        await socket.join("b")

    @app.on_message
    async def go(socket: Socket, message: str) -> str:
        app.room("a").send(f"a{message}")
        socket.send(f"d{message}")
        app.room("b").send(f"b{message}")
        if message == "2":
            socket.close(4000)
            app.room("a").send("never")
            socket.send("never")
        return f"r{message}"

    async with native(app) as url, connect(url) as client:
        await client.send(
            text("0"), frame(PING, b"0"), text("1"), frame(PING, b"1"), text("2"), frame(PING, b"2")
        )
        said = [each.payload for each in await client.rest() if each.opcode != CLOSE]
        assert said == [
            b"a0",
            b"d0",
            b"b0",
            b"r0",
            b"0",
            b"a1",
            b"d1",
            b"b1",
            b"r1",
            b"1",
            b"a2",
            b"d2",
            b"b2",
        ]


@pytest.mark.parametrize("size", [10, 200_000])
async def test_nothing_leaves_behind_a_close_frame(native, size: int):
    """A room wrote its batch straight to the transport of every member that was not
    congested, its close frame having left already or not.
    """
    app = Symphony(limits=Limits(max_outbox_bytes=64 * MIB))
    sockets: list[Socket] = []

    @app.on_connect
    async def enter(socket: Socket) -> None:
        sockets.append(socket)
        await socket.join("a")
        await socket.join("b")

    @app.on_message
    async def leave(socket: Socket, message: str) -> None:
        app.room("a").send(b"last" * size)
        socket.close(4000)

    async with native(app) as url, connect(url, buffer=8 * KIB) as client:
        await client.send(text("go"))
        await until(lambda: not sockets[0].connected)
        for _ in range(5):
            app.room("a").send("never")
            app.everyone.send("never")
            await asyncio.sleep(0)
            app.room("a").send("never")
            app.room("b").send("never")
            sockets[0].send("never")
            await asyncio.sleep(0)
        assert await client.frame() == Frame(BINARY, b"last" * size)
        assert (await client.frame()).code == 4000
        for _ in range(5):
            app.room("a").send("never")
            await asyncio.sleep(0)
        await client.send(close(4000))
        assert await client.at_end()


async def test_nothing_leaves_behind_the_answer_to_the_clients_close(native):
    app = Symphony()
    go, done = asyncio.Event(), asyncio.Event()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("a")

    @app.on_message
    async def late(socket: Socket, message: str) -> str:
        await go.wait()
        socket.send("never")
        app.room("a").send("never")
        done.set()
        return "never"

    @app.on_disconnect
    async def leave(socket: Socket) -> None:
        socket.send("never")
        app.room("a").send("never")

    async with native(app) as url, connect(url) as client:
        await client.send(text("x"), close(1000))
        assert await client.frame() == Frame(CLOSE, b"\x03\xe8")
        go.set()
        await done.wait()
        assert await client.at_end()


async def test_nothing_leaves_behind_the_close_of_a_failed_connection(native):
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("a")

    @app.on_message
    async def echo(message: str) -> str:
        return message

    async with native(app) as url, connect(url) as client:
        await client.send(text("x"), b"\xff\xff", text("y"))
        assert await client.message() == "x"
        assert (await client.frame()).code == 1002
        for _ in range(3):
            app.room("a").send("never")
            await asyncio.sleep(0)
        assert await client.at_end()


async def test_a_ping_is_answered_with_its_payload_while_a_handler_is_busy(native):
    app = Symphony()
    go = asyncio.Event()

    @app.on_message
    async def slow(message: str) -> str:
        await go.wait()
        return message

    async with native(app) as url, connect(url) as client:
        await client.send(text("slow"), frame(PING, b"one"), text("next"), frame(PING, bytes(125)))
        assert await client.frame() == Frame(PONG, b"one")
        assert await client.frame() == Frame(PONG, bytes(125))
        go.set()
        assert await client.message() == "slow"
        assert await client.message() == "next"


async def test_a_client_that_asks_faster_than_it_reads_is_not_read_from(native):
    """Its answers would pile up to the limit, and it would be closed for its questions."""
    app = Symphony()
    sockets: list[Socket] = []
    asked = 0

    @app.on_connect
    async def enter(socket: Socket) -> None:
        sockets.append(socket)

    @app.on_message
    async def answer(message: str) -> bytes:
        nonlocal asked
        asked += 1
        return blob(10_000, int(message))

    async with native(app) as url, connect(url, buffer=4 * KIB) as client:
        sending = client.in_background(client.send(*(text(str(number)) for number in range(3000))))
        await until(lambda: sockets and sockets[0]._connection.held)
        assert sockets[0]._outbox.size < MIB
        for number in range(3000):
            assert await client.frame() == Frame(BINARY, blob(10_000, number))
        await sending
        assert asked == 3000
        assert sockets[0].connected


@pytest.mark.within("max_outbox_bytes")
@pytest.mark.beyond("max_outbox_bytes")
async def test_a_slow_member_is_closed_with_1013_and_the_others_go_on(native):
    app = Symphony(limits=Limits(max_outbox_bytes=300_000))

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("room")

    @app.on_message
    async def go(message: str) -> None:
        for number in range(2000):
            app.room("room").send(blob(10_000, number))
            await asyncio.sleep(0)

    async with native(app) as url, connect(url, buffer=4 * KIB) as slow, connect(url) as fast:
        await fast.send(text("go"))
        for number in range(2000):
            assert await fast.frame() == Frame(BINARY, blob(10_000, number))
        got = await slow.rest()
        assert got[-1].code == 1013
        assert [each.payload for each in got[:-1]] == [blob(10_000, number) for number in range(len(got) - 1)]
        assert len(got) < 2000
    assert app.stats.slow_consumers == 1


async def test_a_slow_member_may_lose_the_oldest_and_is_told_how_many(native):
    app = Symphony(limits=Limits(max_outbox_bytes=300_000), slow_consumer="drop_oldest")
    sockets: list[Socket] = []

    @app.on_connect
    async def enter(socket: Socket) -> None:
        sockets.append(socket)
        await socket.join("room")

    async with native(app) as url, connect(url, buffer=4 * KIB) as slow:
        for number in range(2000):
            app.room("room").send(blob(10_000, number))
            await asyncio.sleep(0)
        sockets[0].send("last")
        got: list[bytes] = []
        while (each := await slow.frame()).opcode == BINARY:
            got.append(each.payload)
        assert each == Frame(TEXT, b"last")
        kept = [number for number in range(2000) if blob(10_000, number) in set(got)]
        assert got == [blob(10_000, number) for number in kept]
        assert kept[0] == 0
        assert kept[-1] == 1999
        assert sockets[0].dropped == 2000 - len(kept) > 0


async def test_an_outbox_that_overflows_before_the_handshake_is_answered_ends_in_order(native):
    """A slow connect handler in a busy room: the close frame waits for the 101, and
    messages behind it must not be handled.
    """
    app = Symphony(limits=Limits(max_outbox_bytes=100_000, close_timeout=60))
    entered, go = asyncio.Event(), asyncio.Event()
    got: list[str] = []

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("busy")
        entered.set()
        await go.wait()

    @app.on_message
    async def take(message: str) -> None:
        got.append(message)

    async with native(app) as url:
        async with asyncio.timeout(5):
            async with await dial(url) as client:
                await client.send(handshake(), text("x"))
                await entered.wait()
                for _ in range(20):
                    app.room("busy").send(bytes(10_000))
                    await asyncio.sleep(0)
                go.set()
                assert (await client.response()).status == 101
                assert [each.code for each in await client.rest()] == [1013]
    assert got == []


async def test_sends_without_await_wait_at_the_high_water_mark_when_awaited(native):
    app = Symphony(limits=Limits(max_outbox_bytes=64 * MIB))
    sizes: list[int] = []

    @app.on_message
    async def flood(socket: Socket, message: str) -> None:
        for number in range(500):
            await socket.send(blob(20_000, number))
            sizes.append(socket._outbox.size)

    async with native(app) as url, connect(url, buffer=4 * KIB) as client:
        await client.send(text("go"))
        for number in range(500):
            assert await client.frame() == Frame(BINARY, blob(20_000, number))
    assert max(sizes) < 100_000
