"""What happens when one side is slower than the other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from support.clients import Client, Log, connect, error_in, settled, until
from symphony import Close, Limits, Reject, Socket, Symphony

CHUNK = "x" * 10_000


async def test_a_consumer_that_is_too_slow_is_closed_with_1013(serve):
    app = Symphony(limits=Limits(max_outbox_bytes=100_000, close_timeout=0.5))
    log = Log()
    sockets = Log()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        sockets.append(socket)

    @app.on_disconnect
    async def leave(close: Close) -> None:
        log.append((close.code, close.reason))

    async with serve(app) as url, connect(f"{url}/", max_size=None) as client:
        await sockets.reaches(1)
        client.transport.pause_reading()
        while sockets[0].connected:
            sockets[0].send(CHUNK)
            await asyncio.sleep(0)
        assert app.stats.slow_consumers == 1
        sockets[0].send("too late")
        client.transport.resume_reading()
        received = [message async for message in _messages(client)]
        assert set(received) == {CHUNK}
        assert client.close_code == 1013
        assert client.close_reason == "slow consumer"
        await log.reaches(1)
    assert log == [(1013, "slow consumer")]
    assert app.stats.dropped_frames > 0


async def test_a_consumer_that_never_reads_again_is_cut_off(serve):
    app = Symphony(limits=Limits(max_outbox_bytes=100_000, close_timeout=0.1))
    sockets = Log()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        sockets.append(socket)

    async with serve(app) as url:
        client = await connect(f"{url}/", max_size=None)
        await sockets.reaches(1)
        client.transport.pause_reading()
        while sockets[0].connected:
            sockets[0].send(CHUNK)
            await asyncio.sleep(0)
        await until(lambda: app.stats.closed == 1)
        client.transport.abort()


async def test_drop_oldest_keeps_the_newest_in_order_and_counts_what_it_drops(serve):
    app = Symphony(slow_consumer="drop_oldest", limits=Limits(max_outbox_bytes=100_000))
    sockets = Log()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        sockets.append(socket)

    async with serve(app) as url, connect(f"{url}/", max_size=None) as client:
        await sockets.reaches(1)
        [socket] = sockets
        client.transport.pause_reading()
        sent = 0
        while not socket.dropped:
            for _ in range(10):
                socket.send(f"{sent:06}{CHUNK}")
                sent += 1
            await asyncio.sleep(0)
        client.transport.resume_reading()
        socket.send("last")
        received = []
        while (message := await client.recv()) != "last":
            received.append(int(message[:6]))
        assert received == sorted(received)
        assert received[-1] == sent - 1
        assert sent - len(received) == socket.dropped
        assert socket.connected
    assert app.stats.dropped_frames == socket.dropped
    assert app.stats.slow_consumers == 0


async def test_a_route_may_have_a_policy_of_its_own(serve):
    app = Symphony(limits=Limits(max_outbox_bytes=100_000, close_timeout=0.1))
    sockets = Log()
    app.route("/drop", slow_consumer="drop_oldest")
    app.route("/usual")

    @app.on_connect
    async def enter(socket: Socket) -> None:
        sockets.append(socket)

    async with (
        serve(app) as url,
        connect(f"{url}/drop", max_size=None) as keeps,
        connect(f"{url}/usual", max_size=None) as goes,
    ):
        await sockets.reaches(2)
        for client in (keeps, goes):
            client.transport.pause_reading()
        while not (sockets[0].dropped and sockets[1].dropped):
            app.everyone.send(CHUNK)
            await asyncio.sleep(0)
        assert [socket.connected for socket in sockets] == [True, False]
        for client in (keeps, goes):
            client.transport.abort()


async def test_a_slow_member_does_not_hold_up_its_room(serve):
    app = Symphony(slow_consumer="drop_oldest", limits=Limits(max_outbox_bytes=100_000))

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("a")

    async with (
        serve(app) as url,
        connect(f"{url}/", max_size=None) as slow,
        connect(f"{url}/", max_size=None) as fast,
    ):
        await until(lambda: len(app.room("a").sockets) == 2)
        slow.transport.pause_reading()
        for number in range(600):
            app.room("a").send(f"{number:06}{CHUNK}")
            assert int((await fast.recv())[:6]) == number
        assert app.room("a").sockets[0].dropped > 0
        slow.transport.resume_reading()
        heard = [int((await slow.recv())[:6])]
        while heard[-1] != 599:
            heard.append(int((await slow.recv())[:6]))
        assert heard == sorted(heard)


@pytest.mark.within("high_water_bytes", "low_water_bytes")
@pytest.mark.beyond("high_water_bytes", "low_water_bytes")
async def test_await_send_waits_above_the_high_water_mark_and_not_below(serve):
    app = Symphony(limits=Limits(high_water_bytes=50_000, low_water_bytes=20_000))
    sockets = Log()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        sockets.append(socket)

    async with serve(app) as url, connect(f"{url}/", max_size=None) as client:
        await sockets.reaches(1)
        [socket] = sockets
        await asyncio.wait_for(socket.send("below"), timeout=5)
        assert await client.recv() == "below"
        client.transport.pause_reading()
        sent = 0
        while socket._outbox.size <= 50_000:
            sending = socket.send(CHUNK)
            sent += 1
            await asyncio.sleep(0)
        waiting = asyncio.ensure_future(sending)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        client.transport.resume_reading()
        for _ in range(sent):
            assert await client.recv() == CHUNK
        await waiting
        assert socket._outbox.size <= 20_000


async def test_await_send_ends_when_the_socket_goes(serve):
    app = Symphony(limits=Limits(high_water_bytes=50_000, low_water_bytes=20_000))
    log = Log()

    @app.on_message
    async def flood(socket: Socket, message: str) -> None:
        while socket.connected:
            await socket.send(CHUNK)
        log.append("ended")

    async with serve(app) as url:
        client = await connect(f"{url}/", max_size=None)
        client.transport.pause_reading()
        await client.send("go")
        await until(lambda: app.everyone.sockets and app.everyone.sockets[0]._outbox.size > 50_000)
        client.transport.abort()
        await log.reaches(1)


async def test_a_handler_that_sends_for_ever_to_a_socket_that_has_gone_is_cancelled(serve):
    """Each `await socket.send()` was done at once, and so the loop never got another turn."""
    app = Symphony(limits=Limits(finish_timeout=0.05))
    log = Log()

    @app.on_message
    async def flood(socket: Socket, message: str) -> None:
        try:
            while True:
                await socket.send("tick")
                if socket.connected:
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.send("go")
            assert await client.recv() == "tick"
            client.transport.abort()
        await log.reaches(1)


@pytest.mark.within("max_queue")
@pytest.mark.beyond("max_queue")
async def test_a_full_queue_stops_reading_from_the_client(serve):
    app = Symphony(limits=Limits(max_queue=4))
    gate = asyncio.Event()
    handled = Log()

    @app.on_message
    async def handle(message: bytes) -> None:
        await gate.wait()
        handled.append(message[:4])

    async with serve(app) as url, connect(f"{url}/") as client:
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while sent < 2000:
                await client.send(sent.to_bytes(4) + b"x" * 20_000)
                sent += 1

        flooding = asyncio.ensure_future(flood())
        # The client gets stuck once all buffers between the two are full.
        assert await settled(lambda: sent) < 2000
        assert handled == []
        gate.set()
        await flooding
        await handled.reaches(2000)
    assert handled == [number.to_bytes(4) for number in range(2000)]


async def test_a_client_that_asks_and_does_not_read_the_answers_is_not_read_from(serve):
    app = Symphony()
    handled = Log()

    @app.on_message
    async def answer(message: str) -> str:
        handled.append(message)
        return CHUNK

    async with serve(app) as url, connect(f"{url}/", max_size=None) as client:
        client.transport.pause_reading()
        for _ in range(2000):
            await client.send("x")
        assert await settled(lambda: len(handled)) < 2000
        client.transport.resume_reading()
        for _ in range(2000):
            assert await client.recv() == CHUNK
    assert len(handled) == 2000


@pytest.mark.parametrize("question", ["good", "bad"])
async def test_a_client_that_asks_much_at_once_gets_every_answer(serve, question):
    """2,000 questions in one segment had their asker cut off as a slow consumer, though it read."""
    app = Symphony(limits=Limits(max_outbox_bytes=100_000))

    @app.on_message
    async def answer(message: str) -> str:
        if message == "bad":
            raise Reject("invalid", CHUNK)
        return CHUNK

    async with serve(app) as url, connect(f"{url}/", max_size=None) as client:
        frame = Frame(Opcode.TEXT, question.encode())
        client.transport.write(b"".join(frame.serialize(mask=True) for _ in range(2000)))
        for _ in range(2000):
            assert CHUNK in await client.recv()
    assert app.stats.slow_consumers == 0
    assert app.stats.dropped_frames == 0


async def test_a_failed_handler_does_not_upset_the_order_of_answers(serve):
    app = Symphony()

    @app.on_message
    async def handle(message: int) -> int:
        if message % 3 == 0:
            await asyncio.sleep(0)
        if message % 5 == 0:
            raise RuntimeError
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        for number in range(1, 31):
            await client.send(str(number))
        for number in range(1, 31):
            message = await client.recv()
            if number % 5 == 0:
                assert error_in(message)["code"] == "internal"
            else:
                assert message == str(number)


async def _messages(client: Client) -> AsyncIterator[str | bytes]:
    with contextlib.suppress(ConnectionClosed):
        while True:
            yield await client.recv()
