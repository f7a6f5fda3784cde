"""What happens to clients that do not read: the policies of a route, and what the client is told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from integration.test_registration import refuses
from support.clients import connect, until
from symphony import Limits, Socket, Symphony

TEXT = "x" * 10_000
LIMITS = Limits(max_outbox_bytes=100_000, high_water_bytes=50_000, low_water_bytes=10_000, close_timeout=0.2)


def make(policy: Any, limits: Limits = LIMITS) -> tuple[Symphony, list[Socket]]:
    app = Symphony(slow_consumer=policy, limits=limits)
    sockets: list[Socket] = []

    @app.on_connect
    async def enter(socket: Socket) -> None:
        sockets.append(socket)

    @app.on_resync
    async def resync(socket: Socket) -> None:
        await socket.emit("state", app.state.number)

    app.route("/", events=True)
    app.route("/raw")
    return app, sockets


async def hear(client: Any) -> dict[str, Any]:
    async with asyncio.timeout(10):
        return json.loads(await client.recv())


@pytest.mark.parametrize("times", [1, 3])
async def test_drop_oldest_tells_how_many_it_has_dropped_and_where(serve, times: int):
    app, sockets = make("drop_oldest")
    async with serve(app) as url, connect(f"{url}/", max_size=None) as client:
        await until(lambda: len(sockets) == 1)
        [socket] = sockets
        number = told = 0
        for _ in range(times):
            client.transport.pause_reading()
            dropped = socket.dropped
            while socket.dropped < dropped + 50:
                socket.emit("said", [number, TEXT])
                number += 1
                await asyncio.sleep(0)
            client.transport.resume_reading()
            socket.emit("end")
            expected = None
            while (heard := await hear(client)).get("event") != "end":
                if "dropped" in heard:
                    told += heard["dropped"]
                    assert expected is not None
                    expected += heard["dropped"]
                else:
                    assert expected in (None, heard["data"][0])
                    expected = heard["data"][0] + 1
            assert expected == number
            assert told == socket.dropped
        assert app.stats.slow_consumers == 0


async def test_resync_drops_everything_and_calls_its_handler(serve):
    app, sockets = make("resync")
    async with serve(app) as url, connect(f"{url}/", max_size=None) as client:
        await until(lambda: len(sockets) == 1)
        [socket] = sockets
        client.transport.pause_reading()
        number = 0
        while not socket.dropped:
            app.state.number = number
            socket.emit("said", [number, TEXT])
            number += 1
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        socket.emit("said", [number, TEXT])
        client.transport.resume_reading()
        heard = [await hear(client)]
        while heard[-1].get("data") != [number, TEXT]:
            heard.append(await hear(client))
        *before, dropped, state, last = heard
        assert [each["data"][0] for each in before] == list(range(len(before)))
        assert dropped == {"dropped": number - len(before)}
        assert state == {"event": "state", "data": number - 1}
        assert last["data"][0] == number
        assert socket.dropped == dropped["dropped"]
        assert app.stats.slow_consumers == 0


async def test_a_raw_client_gets_its_resync_too(serve):
    app, sockets = make("resync")
    async with serve(app) as url, connect(f"{url}/raw", max_size=None) as client:
        await until(lambda: len(sockets) == 1)
        client.transport.pause_reading()
        while not sockets[0].dropped:
            app.state.number = 7
            sockets[0].send(TEXT)
            await asyncio.sleep(0)
        client.transport.resume_reading()
        while (message := await client.recv()) == TEXT:
            pass
        assert json.loads(message) == {"event": "state", "data": 7}


async def test_a_resync_during_a_resync_runs_once_more(serve):
    app = Symphony(slow_consumer="resync", limits=LIMITS)
    sockets: list[Socket] = []
    calls: list[int] = []
    going_on = asyncio.Event()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        sockets.append(socket)

    @app.on_resync
    async def resync(socket: Socket) -> None:
        calls.append(socket.dropped)
        await going_on.wait()

    app.route("/", events=True)
    async with serve(app) as url, connect(f"{url}/", max_size=None) as client:
        await until(lambda: len(sockets) == 1)
        client.transport.pause_reading()
        for _ in range(3):
            dropped = sockets[0].dropped
            while sockets[0].dropped == dropped:
                sockets[0].emit("said", TEXT)
                await asyncio.sleep(0)
        await until(lambda: len(calls) == 1)
        going_on.set()
        await until(lambda: len(calls) == 2)
        client.transport.resume_reading()
        told = 0
        sockets[0].emit("end")
        while (heard := await hear(client)).get("event") != "end":
            told += heard.get("dropped", 0)
        assert told == sockets[0].dropped
        assert len(calls) == 2


async def test_with_conflate_a_newer_message_keeps_its_place_fresh(serve):
    """`max_outbox_age` closes a client that does not read, but not if it gets the newest later."""
    limits = Limits(max_outbox_age=0.1, close_timeout=0.2)
    app, sockets = make("conflate", limits)
    app.route("/usual", events=True, slow_consumer="disconnect")
    async with (
        serve(app) as url,
        connect(f"{url}/", max_size=None) as client,
        connect(f"{url}/usual", max_size=None) as usual,
    ):
        await until(lambda: len(sockets) == 2)
        client.transport.pause_reading()
        usual.transport.pause_reading()
        number = 0
        while all(socket.connected for socket in sockets):
            number += 1
            await app.everyone.emit("price", [number, TEXT], conflate="a")
            await asyncio.sleep(0)
        [left] = [socket for socket in sockets if socket.connected]
        assert left.route == "/"
        client.transport.resume_reading()
        await left.emit("end")
        heard = [await hear(client)]
        while heard[-1]["event"] != "end":
            heard.append(await hear(client))
        assert heard[-2]["data"][0] == number
        assert len(heard) < number
        # Its close frame stands behind what it has not read.
        usual.transport.abort()


async def test_resync_needs_a_handler():
    app = Symphony(slow_consumer="resync")
    app.route("/", events=True)
    await refuses(app, "on_resync")
