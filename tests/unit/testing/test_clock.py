"""The clock of the test client: what `advance` runs, and what real time runs."""

import asyncio
import time
from typing import Any

import pytest

from support.clients import connect, until
from support.servers import serve_natively
from symphony import Room, Socket, Symphony
from symphony.testing import TestClient


def be_slow(seconds: float) -> None:
    """Let real time pass while nothing runs, as on a busy machine."""
    time.sleep(seconds)


def ticking(seconds: float) -> tuple[Symphony, list[Any]]:
    """Return an app whose rooms tick, and the names of the rooms that have ticked."""
    app, log = Symphony(), list[Any]()

    @app.rooms("game:{id}").every(seconds)
    def tick(room: Room, dt: float) -> None:
        log.append(room.name)
        assert dt == seconds

    @app.route("/").on_message
    async def enter(socket: Socket, message: str) -> str:
        await socket.join(f"game:{message}")
        return message

    return app, log


@pytest.mark.parametrize("seconds", [0.01, 0.05, 1 / 3, 7.0])
async def test_real_time_makes_no_ticks(seconds: float) -> None:
    """On a slow machine, `advance(20 * seconds)` gave 21 ticks."""
    app, log = ticking(seconds)
    async with TestClient(app) as client:
        await app.room("game:1").open(ttl=100_000)
        for _ in range(5):
            # It would be due, and a timer of the loop would be run.
            be_slow(0.03)
            await asyncio.sleep(0.001)
            await client.clock.advance(20 * seconds)
            assert len(log) == 20
            log.clear()
    assert app.stats.missed_ticks == 0


async def test_a_tick_that_takes_real_time_misses_none() -> None:
    app, log = Symphony(), list[float]()

    @app.rooms("game:{id}").every(0.01)
    async def tick(dt: float) -> None:
        log.append(dt)
        be_slow(0.03)
        await asyncio.sleep(0)

    async with TestClient(app) as client:
        await app.room("game:1").open(ttl=100_000)
        await client.clock.advance(0.1)
    assert log == [0.01] * 10


@pytest.mark.parametrize("seconds", [0.1, 0.3, 1 / 3, 0.7])
async def test_the_times_of_many_small_steps_add_up(seconds: float) -> None:
    app, log = ticking(seconds)
    async with TestClient(app) as client:
        await app.room("game:1").open(ttl=100_000)
        for number in range(500):
            await client.clock.advance(seconds)
            assert len(log) == number + 1
        await client.clock.advance(seconds * 3)
        assert len(log) == 503


async def test_ticks_and_timers_run_in_the_order_of_their_times() -> None:
    app, log = ticking(0.1)

    async def wait(seconds: float) -> None:
        await asyncio.sleep(seconds)
        log.append(seconds)

    async with TestClient(app) as client:
        await app.room("game:1").open(ttl=100_000)
        waiting = [asyncio.ensure_future(wait(seconds)) for seconds in (0.15, 0.25)]
        await client.clock.advance(0.4)
        assert log == ["game:1", 0.15, "game:1", 0.25, "game:1", "game:1"]
        await asyncio.gather(*waiting)


async def test_who_waits_for_a_tick_in_real_time_is_told() -> None:
    app, _ = ticking(0.001)
    async with TestClient(app, timeout=0.05) as client, client.connect("/") as one:
        await one.send("1")
        assert await one.receive() == "1"
        with pytest.raises(TimeoutError, match=r"Rooms tick only in `await client\.clock\.advance"):
            await one.receive()
    app, _ = ticking(0.001)
    async with TestClient(app, timeout=0.05) as client, client.connect("/") as one:
        with pytest.raises(TimeoutError) as late:
            await one.receive()
        assert "tick" not in str(late.value)


async def test_timers_run_in_real_time_too() -> None:
    app, _ = ticking(1)
    async with TestClient(app) as client:
        begin = client.clock.time()
        await asyncio.sleep(0.02)
        assert client.clock.time() - begin >= 0.019


async def test_rooms_tick_in_real_time_when_the_last_test_client_is_left() -> None:
    app, log = ticking(0.005)
    first, second = TestClient(ticking(1)[0]), TestClient(ticking(1)[0])
    async with first:
        async with second:
            pass
        async with TestClient(app) as client:
            await app.room("game:1").open(ttl=100_000)
            be_slow(0.02)
            await asyncio.sleep(0.001)
            assert log == []
            await client.clock.advance(0.005)
            assert log == ["game:1"]
    app, log = ticking(0.005)
    async with serve_natively(app) as url, connect(f"{url}/") as one:
        await one.send("1")
        await until(lambda: len(log) >= 3)


async def test_an_app_that_does_not_start_changes_nothing() -> None:
    failing = Symphony()

    @failing.on_startup
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        async with TestClient(failing):
            pass
    app, log = ticking(0.005)
    async with serve_natively(app) as url, connect(f"{url}/") as one:
        await one.send("1")
        await until(lambda: len(log) >= 3)
