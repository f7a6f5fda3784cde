"""Queues have a limit in bytes: memory of a real server process, and who is told what."""

import asyncio
import contextlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from support import raw
from support.clients import until
from support.process import start
from support.raw import BINARY, CONTINUATION, PING, PONG, TEXT, frame, resident_bytes, text
from symphony import Limits, Socket, Symphony

MIB = 1024 * 1024
OFFER = {"sec_websocket_extensions": "permessage-deflate"}
APP = """
import asyncio
from symphony import Limits, Socket, Symphony

app = Symphony(limits=Limits(finish_timeout=0.5))
slow, packed = app.route("/slow"), app.route("/packed", compression=100)
events, parallel = app.route("/events"), app.route("/parallel", concurrency=2)

async def wait(message: str | bytes) -> None:
    await asyncio.sleep(60)

slow.on_message(wait)
packed.on_message(wait)

@events.on("ask")
async def ask(socket: Socket) -> str:
    return await socket.request("name", timeout=60)

@events.on("slow")
async def slow_event() -> None:
    await asyncio.sleep(60)

@events.on("note")
async def note(data: str) -> int:
    return 1

@parallel.on("slow")
async def slow_one(data: str) -> None:
    await asyncio.sleep(60)

@app.route("/echo").on_message
async def echo(message: str) -> str:
    return message

app.run(port=0)
"""


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return frame(TEXT, (packer.compress(b"x" * size) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4], rsv=4)


def note(number: int, text_of: str) -> bytes:
    return text(f'{{"event":"note","id":{number},"data":"{text_of}"}}')


LARGE = "x" * (MIB - 200)
# Made when they are sent: together they are hundreds of megabytes.
FLOODS: dict[str, tuple[str, Callable[[], list[bytes]]]] = {
    "large messages of a slow handler": ("/slow", lambda: [text(LARGE)] * 60),
    "large binary messages": ("/slow", lambda: [frame(BINARY, bytes(MIB - 200))] * 60),
    "compressed messages": ("/packed", lambda: [bomb(MIB - 200)] * 700),
    "smaller compressed ones": ("/packed", lambda: [bomb(100_000)] * 3000),
    "an honest message and then compressed ones": (
        "/packed",
        lambda: [text("x" * 500_000), bomb(MIB - 200) * 500],
    ),
    "events behind a slow one": (
        "/events",
        lambda: [text('{"event":"slow"}'), *(note(1, LARGE) for _ in range(60))],
    ),
    "events while their client is asked": (
        "/events",
        lambda: [text('{"event":"ask","id":1}'), *(note(number, LARGE) for number in range(2, 80))],
    ),
    "smaller events while their client is asked": (
        "/events",
        lambda: [text('{"event":"ask","id":1}'), *(note(number, "y" * 100_000) for number in range(2, 800))],
    ),
    "events of a route with concurrency": (
        "/parallel",
        lambda: [text('{"event":"slow","data":"' + LARGE + '"}')] * 60,
    ),
}


# The event loop here is the client's; the server chooses its own.
@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize("flood", FLOODS)
async def test_what_waits_of_one_client_takes_little_memory(tmp_path: Path, flood: str) -> None:
    path, chunks = FLOODS[flood]
    sent = chunks()
    file = tmp_path / "app.py"
    file.write_text(APP)
    async with start(file) as server, raw.connect(f"{server.url}{path}", **OFFER) as client:
        before = resident_bytes(server.process.pid)
        reading = asyncio.ensure_future(_discard(client))
        sending = client.in_background(client.send(*sent))
        await asyncio.wait((sending,), timeout=1)
        # Another client's echoes: the server has handled what it has read.
        async with raw.connect(f"{server.url}/echo") as other:
            for _ in range(20):
                await other.send(text("x"))
                await other.message()
        grown = resident_bytes(server.process.pid) - before
        for task in (sending, reading):
            task.cancel()
        await asyncio.wait((sending, reading))
        # It would wait until the server reads the rest.
        client.reset()
        assert grown < 40 * MIB, f"{grown / MIB:.0f} MiB"


async def _discard(client: raw.RawClient) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        while True:
            await client.frame()


@pytest.mark.within("max_queue_bytes")
@pytest.mark.beyond("max_queue_bytes")
@pytest.mark.parametrize(("size", "reads"), [(10, True), (600, False), (5000, False)])
async def test_a_queue_with_many_bytes_is_full(native, size: int, reads: bool) -> None:
    app = Symphony(limits=Limits(max_queue_bytes=1000, max_queue=100))
    go_on, handled, sockets = asyncio.Event(), list[str](), list[Socket]()

    @app.on_message
    async def message(message: str, socket: Socket) -> None:
        sockets.append(socket)
        await go_on.wait()
        handled.append(message)

    sent = ["first", "a" * size, "b" * size, "c" * size, "d" * size]
    async with native(app) as url, raw.connect(f"{url}/x") as client:
        await client.send(*map(text, sent), frame(PING, b"?"))
        if reads:
            assert (await client.frame()).opcode == PONG
            assert not sockets[0]._connection.held
            go_on.set()
        else:
            await until(lambda: sockets and sockets[0]._connection.held)
            go_on.set()
            assert (await client.frame()).opcode == PONG
        await until(lambda: handled == sent)


@pytest.mark.within("max_queued_bytes")
@pytest.mark.beyond("max_queued_bytes")
async def test_all_queues_together_have_a_bound(native) -> None:
    app = Symphony(limits=Limits(max_queued_bytes=5000))
    go_on, handled = asyncio.Event(), list[str]()
    sockets: dict[str, Socket] = {}

    @app.on_message
    async def message(message: str, socket: Socket) -> None:
        sockets[message[0]] = socket
        await go_on.wait()
        handled.append(message)

    async with native(app) as url, raw.connect(f"{url}/x") as first, raw.connect(f"{url}/x") as second:
        await first.send(text("a"), text("a" * 2000), text("a" * 2000), frame(PING, b"?"))
        # Within the bound, it is still read from.
        assert (await first.frame()).opcode == PONG
        await second.send(text("b"), text("b" * 2000), text("b"))
        await until(lambda: "b" in sockets and sockets["b"]._connection.held)
        await first.send(text("a"))
        await until(lambda: sockets["a"]._connection.held)
        go_on.set()
        await until(lambda: len(handled) == 7)
        await until(lambda: not any(socket._connection.held for socket in sockets.values()))
        await first.send(frame(PING, b"!"))
        assert (await first.frame()).payload == b"!"


@pytest.mark.within("max_awaiting_bytes")
@pytest.mark.beyond("max_awaiting_bytes")
@pytest.mark.parametrize(("size", "accepted"), [(10, 5), (900, 2), (3000, 1)])
async def test_bytes_that_wait_while_a_client_is_asked_have_a_bound(native, size: int, accepted: int) -> None:
    app = Symphony(limits=Limits(max_awaiting_bytes=1500, max_queue=2))
    noted: list[str] = []

    @app.on("ask")
    async def ask(socket: Socket) -> str:
        return await socket.request("name", response_type=str)

    @app.on("note")
    async def take(data: str) -> int:
        noted.append(data)
        return len(data)

    async with native(app) as url, raw.connect(f"{url}/x") as client:
        await client.send(text('{"event":"ask","id":1}'))
        asked = json.loads(str(await client.message()))
        for number in range(2, 7):
            await client.send(note(number, "x" * size))
        for number in range(2 + accepted, 7):
            refused = json.loads(str(await client.message()))
            assert (refused["error"], refused["data"]["code"]) == (number, "too_many")
        await client.send(text(json.dumps({"reply": asked["id"], "data": "me"})))
        assert json.loads(str(await client.message())) == {"reply": 1, "data": "me"}
        for number in range(2, 2 + accepted):
            assert json.loads(str(await client.message())) == {"reply": number, "data": size}
    assert len(noted) == accepted


@pytest.mark.within("message_timeout")
async def test_fragments_may_take_their_time(native) -> None:
    app = Symphony(limits=Limits(message_timeout=60))

    @app.on_message
    async def echo(message: str) -> str:
        return message

    async with native(app) as url, raw.connect(f"{url}/x") as client:
        for first in ("a", ""):
            await client.send(frame(TEXT, first.encode(), fin=False))
            await client.send(frame(PING, b"?"))
            assert (await client.frame()).opcode == PONG
            await client.send(frame(CONTINUATION, b"b"))
            assert await client.message() == first + "b"
    assert app.stats.late_messages == 0


@pytest.mark.beyond("message_timeout")
@pytest.mark.parametrize("compression", [None, 100])
@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_fragmented_message_that_never_ends_is_closed(
    native, pieces: int, compression: int | None
) -> None:
    app = Symphony(limits=Limits(message_timeout=0.05), compression=compression)

    @app.on_message
    async def echo(message: str) -> str:
        return message

    async with native(app) as url, raw.connect(f"{url}/x", **OFFER) as client:
        # One that is complete in time does no harm.
        await client.send(frame(TEXT, b"a", fin=False), frame(CONTINUATION, b"b"))
        assert await client.message() == "ab"
        await client.send(frame(BINARY, b"x", fin=False))
        for _ in range(pieces):
            await client.send(frame(CONTINUATION, b"x", fin=False), frame(PING, b"alive"))
        # On a slow machine the time is up before some of the pieces.
        while (end := await client.frame()).opcode == PONG:
            pass
        assert (end.code, end.payload[2:]) == (4408, b"a message took too long")
    assert app.stats.late_messages == 1


def part(kind: str, size: int) -> bytes:
    """Return the beginning of a message of 1 MiB, without its end."""
    match kind:
        case "a frame":
            return frame(BINARY, b"x" * MIB)[:size]
        case "text":
            return frame(TEXT, b"x" * size, fin=False)
        case _:
            piece = b"x" * (size // 10)
            rest = b"".join(frame(CONTINUATION, piece, fin=False) for _ in range(9))
            return frame(BINARY, piece, fin=False) + rest


@pytest.mark.within("max_queued_bytes")
@pytest.mark.beyond("max_queued_bytes")
@pytest.mark.parametrize("kind", ["a frame", "text", "fragments"])
async def test_parts_of_messages_have_a_bound_together(native, kind: str) -> None:
    """500 connections that each sent all but the end of a message held 630 MiB."""
    app = Symphony(limits=Limits(max_queued_bytes=2 * MIB, close_timeout=0.2))
    sizes: list[int] = []

    @app.on_message
    async def message(message: str | bytes) -> None:
        sizes.append(len(message))

    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(native(app))
        clients = [await stack.enter_async_context(raw.connect(f"{url}/x")) for _ in range(12)]
        closed: list[raw.RawClient] = []
        for client in clients:
            await client.send(part(kind, 900_000), frame(PING, b"?") if kind != "a frame" else b"")

        async def watch(client: raw.RawClient) -> None:
            while (answer := await client.frame()).opcode == PONG:
                pass
            assert answer.code == 1013
            closed.append(client)

        watching = [asyncio.ensure_future(watch(client)) for client in clients]
        await until(lambda: len(closed) >= 8)
        for task in watching:
            task.cancel()
        await asyncio.wait(watching)
        left = [client for client in clients if client not in closed]
        assert 1 <= len(left) <= 4
        for client in clients:
            client.reset()
        await until(lambda: app.stats.closed == 12)
        # All is free again, and a message alone always fits.
        async with raw.connect(f"{url}/x") as client:
            await client.send(frame(BINARY, b"x" * MIB))
            await until(lambda: sizes == [MIB])


@pytest.mark.parametrize("limit", [256 * MIB, 3 * MIB])
async def test_a_large_buffer_is_given_back(native, limit: int) -> None:
    """Idle connections held a buffer of up to twice the size of the largest message."""
    app = Symphony(limits=Limits(max_queued_bytes=limit, ping_interval=0.05))
    sockets: list[Socket] = []

    @app.on_message
    async def message(message: str | bytes, socket: Socket) -> str:
        sockets.append(socket)
        return f"{len(message)}"

    async with native(app) as url, raw.connect(f"{url}/x") as client, raw.connect(f"{url}/x") as other:
        for size in (MIB, 500_000, MIB):
            for each in (client, other):
                sockets.clear()
                await each.send(frame(BINARY, b"x" * size))
                await until(lambda: sockets)
                reading = sockets[0]._connection._reading
                while reading._buffer_bytes:
                    answer = await each.frame()
                    if answer.opcode == PING:
                        await each.send(frame(PONG, answer.payload))
                        await asyncio.sleep(0)
        queued = reading._queued
        assert queued.size == 0
        await client.send(text("small"))
        while (await client.frame()).payload != b"5":
            pass
