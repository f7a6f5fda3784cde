"""What one connection may take of a turn of the event loop, whatever it sends.

Turns are counted, not timed: a flood must take as many turns as the limits say.
"""

import asyncio
import random
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Struct

import symphony
from support import raw
from support.certificates import Certificate
from support.clients import until
from support.raw import BINARY, CONTINUATION, PING, PONG, TEXT, frame, text
from support.sizes import size
from symphony import Depends, Limits, Socket, Symphony


class Move(Struct):
    dx: int
    tags: list[str] = []


class Turns:
    """Counts the turns of the loop, and what was handled in each."""

    def __init__(self) -> None:
        self.count = 0
        self.handled: list[int] = []
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._turn)
        self._over = False

    def _turn(self) -> None:
        self.count += 1
        if not self._over:
            self._loop.call_soon(self._turn)

    def handle(self) -> None:
        self.handled.append(self.count)

    def most(self) -> int:
        return max(self.handled.count(turn) for turn in set(self.handled))

    def stop(self) -> None:
        self._over = True


@pytest.fixture
async def turns() -> AsyncIterator[Turns]:
    turns = Turns()
    yield turns
    turns.stop()


def app_with(turns: Turns, **limits: float) -> Symphony:
    app = Symphony(limits=Limits(max_turn_time=60, **limits))
    raw_route, events, waits = app.route("/raw"), app.route("/events"), app.route("/waits")

    @raw_route.on_message
    async def message(message: str | bytes) -> str | None:
        turns.handle()
        return "end" if message in ("end", b"end") else None

    @events.on("move")
    async def move(data: Move) -> int:
        turns.handle()
        return data.dx

    @events.on("end")
    async def end() -> str:
        return "end"

    async def opened() -> AsyncIterator[int]:
        await asyncio.sleep(0)
        yield 1

    @waits.on("move")
    async def wait(data: Move, x: Annotated[int, Depends(opened)]) -> int:
        turns.handle()
        return data.dx

    @waits.on("end")
    async def end_of_waits() -> str:
        return "end"

    return app


RAW_END, END = text("end"), text('{"event":"end","id":1000000}')
MANY = size(4096, full=12_000)
# A turn, and the reads that one more turn may begin with.
MOST = 1024
FLOODS = {
    "raw messages": ("/raw", text("hello"), RAW_END),
    "empty messages": ("/raw", text(""), RAW_END),
    "binary messages": ("/raw", frame(BINARY, bytes(9)), frame(BINARY, b"end")),
    "not ASCII": ("/raw", text("naïve ✓"), RAW_END),
    "pings": ("/raw", frame(PING), RAW_END),
    "pings with payload": ("/events", frame(PING, bytes(125)), END),
    "unasked pongs": ("/raw", frame(PONG, b"x"), RAW_END),
    "events": ("/events", text('{"event":"move","data":{"dx":1,"tags":["a","b"]}}'), END),
    "requests": ("/events", text('{"event":"move","data":{"dx":1},"id":7}'), END),
    "data of another type": ("/events", text('{"event":"move","data":{"dx":"x"}}'), END),
    "unknown events": ("/events", text('{"event":"none"}'), END),
    "malformed envelopes": ("/events", text('{"x":1}'), END),
    "no JSON": ("/events", text("{"), END),
    "binary on a text protocol": ("/events", frame(BINARY, b"\x80"), END),
    "cancels of nothing": ("/events", text('{"cancel":9}'), END),
    "replies to nothing": ("/events", text('{"reply":9,"data":1}'), END),
    "checks of life": ("/events", text('{"ping":1}'), END),
    "handlers that suspend": ("/waits", text('{"event":"move","data":{"dx":1}}'), END),
    "two frames a message": ("/raw", frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b"), RAW_END),
}


async def read_to_the_end(client: raw.RawClient) -> None:
    while b"end" not in (await client.frame()).payload:
        pass


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.beyond("max_turn_messages")
async def test_a_flood_takes_the_turns_it_should(native, turns: Turns, flood: str) -> None:
    path, each, end = FLOODS[flood]
    async with native(app_with(turns)) as url, raw.connect(url + path) as client:
        before = turns.count
        reading = asyncio.ensure_future(read_to_the_end(client))
        await client.send(each * MANY, end)
        await reading
        assert turns.count - before >= MANY // 512
        if turns.handled:
            assert turns.most() <= MOST


@pytest.mark.parametrize("flood", ["raw messages", "pings", "malformed envelopes", "two frames a message"])
async def test_a_flood_through_tls_takes_the_turns_it_should(
    native, turns: Turns, flood: str, tmp_path: Path
) -> None:
    path, each, end = FLOODS[flood]
    certificate = Certificate(tmp_path)
    async with (
        native(app_with(turns), **certificate.options) as url,
        await raw.dial(url, ssl_context=certificate.trust) as client,
    ):
        await client.open(raw.handshake(path))
        before = turns.count
        reading = asyncio.ensure_future(read_to_the_end(client))
        await client.send(each * MANY, end)
        await reading
        assert turns.count - before >= MANY // 512


async def test_tiny_fragments_take_the_turns_they_should(native, turns: Turns) -> None:
    async with native(app_with(turns)) as url, raw.connect(url + "/raw") as client:
        before = turns.count
        middle = frame(CONTINUATION, b"", fin=False) * MANY
        await client.send(frame(TEXT, b"en", fin=False), middle, frame(CONTINUATION, b"d"))
        await read_to_the_end(client)
        assert turns.count - before >= MANY // 512
        assert len(turns.handled) == 1


async def test_compressed_messages_take_the_turns_they_should(native, turns: Turns) -> None:
    app = app_with(turns)
    deflater = zlib.compressobj(wbits=-15)
    packed = (deflater.compress(b"x" * 10_000) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]

    @app.route("/packed", compression=100).on_message
    async def message(message: str) -> str | None:
        turns.handle()
        return message if message == "end" else None

    async with (
        native(app) as url,
        raw.connect(f"{url}/packed", sec_websocket_extensions="permessage-deflate") as client,
    ):
        await client.send(frame(TEXT, packed, rsv=4) * 3000, RAW_END)
        await read_to_the_end(client)
        assert len(turns.handled) == 3001
        assert turns.most() <= MOST


@pytest.mark.within("max_turn_messages")
async def test_messages_of_one_turn_are_handled_in_it(native, turns: Turns) -> None:
    async with native(app_with(turns)) as url, raw.connect(url + "/raw") as client:
        await client.send(text("x") * 254, RAW_END)
        await read_to_the_end(client)
        # They come in one segment, but the kernel may split it.
        assert len(set(turns.handled)) <= 2


@pytest.mark.parametrize(("seconds", "most"), [(1e-9, 16), (60.0, 250)])
@pytest.mark.within("max_turn_time")
@pytest.mark.beyond("max_turn_time")
async def test_a_turn_ends_when_its_time_is_over(native, turns: Turns, seconds: float, most: int) -> None:
    app = Symphony(limits=Limits(max_turn_time=seconds))

    @app.on_message
    async def message(message: str) -> str | None:
        turns.handle()
        return message if message == "end" else None

    async with native(app) as url, raw.connect(url + "/x") as client:
        await client.send(text("x") * 249, RAW_END)
        await read_to_the_end(client)
        assert len(turns.handled) == 250
        assert turns.most() <= most
        if seconds == 60:
            assert len(set(turns.handled)) <= 2


@pytest.mark.within("max_read_bytes")
@pytest.mark.beyond("max_read_bytes")
async def test_one_read_takes_no_more_than_its_limit(native) -> None:
    app = Symphony(limits=Limits(max_read_bytes=4096))
    sockets: list[Socket] = []

    @app.on_message
    async def message(message: str, socket: Socket) -> int:
        sockets.append(socket)
        return len(message)

    async with native(app) as url, raw.connect(url + "/x") as client:
        for size in (10, 4000, 500_000, 4, 1_000_000):
            await client.send(text("x" * size))
            assert await client.message() == str(size)
        offered = sockets[0]._connection.get_buffer(-1)
        assert len(offered) == 4096


@pytest.mark.parametrize("seed", range(12))
async def test_everything_is_handled_once_and_in_order(native, seed: int) -> None:
    """Whatever the limits: messages, fragments and pings in any mixture, fast and slow handlers."""
    chance = random.Random(seed)
    app = Symphony(
        limits=Limits(
            max_turn_messages=chance.randint(1, 20),
            max_turn_time=chance.choice((1e-6, 60.0)),
            max_read_bytes=chance.choice((100, 2000, 65536)),
            max_queue=chance.randint(1, 8),
        )
    )

    @app.on_message
    async def message(message: str) -> str:
        if message.endswith("wait"):
            await asyncio.sleep(0)
        elif message.endswith("sleep"):
            await asyncio.sleep(0.001)
        return message

    sent: list[str] = []
    pings: list[bytes] = []
    wire = bytearray()
    for number in range(400):
        kind = chance.choice(("plain", "plain", "wait", "sleep", "ping", "split", "large"))
        if kind == "ping":
            pings.append(str(number).encode())
            wire += frame(PING, pings[-1])
            continue
        body = f"{number}{'x' * 5000 if kind == 'large' else ''}{kind}"
        sent.append(body)
        data = body.encode()
        if kind == "split":
            wire += frame(TEXT, data[:1], fin=False)
            for byte in data[1:-1]:
                wire += frame(CONTINUATION, bytes((byte,)), fin=False)
            wire += frame(CONTINUATION, data[-1:])
        else:
            wire += frame(TEXT, data)
    async with native(app) as url, raw.connect(url + "/x") as client:
        sending = client.in_background(client.send(bytes(wire)))
        got: list[str] = []
        ponged: list[bytes] = []
        while len(got) < len(sent) or len(ponged) < len(pings):
            received = await client.frame()
            if received.opcode == PONG:
                ponged.append(received.payload)
            else:
                got.append(received.payload.decode())
        await sending
        assert got == sent
        assert ponged == pings


@pytest.mark.parametrize("broken", [frame(3, b"x"), frame(TEXT, b"x", rsv=2), frame(PING, fin=False)])
async def test_what_came_before_an_invalid_frame_is_handled(native, complaints, broken: bytes) -> None:
    app = Symphony(limits=Limits(max_turn_messages=7))
    handled: list[str] = []

    @app.on_message
    async def message(message: str) -> None:
        handled.append(message)

    async with native(app) as url, raw.connect(url + "/x") as client:
        await client.send(*(text(str(number)) for number in range(100)), broken, text("after"))
        (end,) = await client.rest()
        assert end.code == 1002
    assert handled == [str(number) for number in range(100)]


async def test_a_close_behind_many_messages_is_answered_after_them(native) -> None:
    app = Symphony(limits=Limits(max_turn_messages=5, max_queue=2))
    handled: list[str] = []

    @app.on_message
    async def message(message: str) -> None:
        await asyncio.sleep(0)
        handled.append(message)

    async with native(app) as url, raw.connect(url + "/x") as client:
        await client.send(*(text(str(number)) for number in range(100)), raw.close(1000))
        (end,) = await client.rest()
        assert end.code == 1000
        await until(lambda: len(handled) == 100)
    assert handled == [str(number) for number in range(100)]


async def test_a_client_that_vanishes_with_messages_waiting_leaves_nothing(native) -> None:
    app = Symphony(limits=Limits(max_turn_messages=1, max_queue=1))
    begun = asyncio.Event()

    @app.on_message
    async def message(message: str) -> None:
        begun.set()
        await asyncio.sleep(0.01)

    async with native(app) as url:
        async with raw.connect(url + "/x") as client:
            await client.send(text("x") * 50)
            await begun.wait()
            client.reset()
        await until(lambda: app.stats.closed == 1)


async def test_the_python_client_has_turns_too(native, turns: Turns) -> None:
    app = Symphony()

    @app.on("flood")
    async def flood(socket: Socket) -> None:
        for number in range(MANY):
            socket.emit("tick", number)
        await socket.emit("end", None)

    ended = asyncio.Event()
    ticks: list[int] = []
    async with native(app) as url, symphony.connect(f"{url}/x") as client:

        @client.on("tick")
        async def tick(data: int) -> None:
            ticks.append(data)
            turns.handle()

        @client.on("end")
        async def end() -> None:
            ended.set()

        before = turns.count
        await client.emit("flood")
        await ended.wait()
        assert ticks == list(range(MANY))
        assert turns.count - before >= MANY // 512
