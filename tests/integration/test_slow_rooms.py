"""What happens to members that do not read, as their family of rooms says: `slow_consumer=`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from support.clients import connect, until
from symphony import ConfigurationError, Limits, Socket, Symphony

TEXT = "x" * 10_000
LIMITS = Limits(max_outbox_bytes=100_000, high_water_bytes=50_000, low_water_bytes=10_000, close_timeout=0.2)


def make(
    policy: Any, *, route: Any = "disconnect", limits: Limits = LIMITS, history: int | None = None
) -> tuple[Symphony, list[Socket]]:
    app = Symphony(slow_consumer=route, limits=limits)
    app.rooms("slow:{name}", slow_consumer=policy, history=history)
    app.rooms("told:{name}", slow_consumer=policy, client_join=True)
    sockets: list[Socket] = []

    async def enter(socket: Socket) -> None:
        for name in ("slow:a", "told:a", "usual:a"):
            await socket.join(name)
        sockets.append(socket)

    async def resync(socket: Socket) -> None:
        await socket.emit("state", app.state.number)

    usual = app.route("/", events=True)
    usual.on_connect(enter)
    usual.on_resync(resync)
    for path in ("/unable", "/raw"):
        app.route(path, events=path == "/unable", slow_consumer="disconnect").on_connect(enter)
    return app, sockets


async def hear(client: Any) -> dict[str, Any]:
    async with asyncio.timeout(20):
        return json.loads(await client.recv())


async def hear_until_end(client: Any) -> list[dict[str, Any]]:
    heard = [await hear(client)]
    while heard[-1].get("event") != "end":
        heard.append(await hear(client))
    return heard


@pytest.mark.parametrize("route", ["disconnect", "resync", "conflate"])
@pytest.mark.parametrize("name", ["slow:a", "told:a"])
async def test_the_oldest_of_the_room_are_dropped_and_told(serve, name: str, route: Any):
    app, sockets = make("drop_oldest", route=route)
    async with serve(app) as url, connect(f"{url}/", max_size=None) as client:
        await until(lambda: len(sockets) == 1)
        [socket] = sockets
        client.transport.pause_reading()
        number = 0
        while socket.dropped < 50:
            await app.room(name).emit("said", [number, TEXT])
            number += 1
            await asyncio.sleep(0)
        # What is not of this room stays.
        await app.room("usual:a").emit("kept", 1)
        socket.emit("direct")
        while socket.dropped < 100:
            await app.room(name).emit("said", [number, TEXT])
            number += 1
            await asyncio.sleep(0)
        client.transport.resume_reading()
        socket.emit("end")
        heard = [each for each in await hear_until_end(client) if "joined" not in each]
        assert [each["event"] for each in heard if each.get("event") in ("kept", "direct")] == [
            "kept",
            "direct",
        ]
        told = sum(each.get("dropped", 0) for each in heard)
        numbers = [each["data"][0] for each in heard if each.get("event") == "said"]
        assert told == socket.dropped == number - len(numbers)
        assert numbers == sorted(numbers)
        assert numbers[-1] == number - 1
        assert app.stats.slow_consumers == 0


@pytest.mark.parametrize("policy", ["disconnect", "conflate"])
async def test_a_family_may_disconnect_where_the_route_does_not(serve, policy: Any):
    app, sockets = make(policy, route="drop_oldest")
    async with serve(app) as url, connect(f"{url}/", max_size=None) as client:
        await until(lambda: len(sockets) == 1)
        client.transport.pause_reading()
        while not sockets[0].dropped:
            await app.room("usual:a").emit("said", TEXT)
            await asyncio.sleep(0)
        assert sockets[0].connected
        while sockets[0].connected:
            await app.room("slow:a").emit("said", TEXT)
            await asyncio.sleep(0)
        assert app.stats.slow_consumers == 1
        client.transport.resume_reading()
        with pytest.raises(ConnectionClosed):
            await hear_until_end(client)
        assert client.close_code in (1013, 1006)


async def test_resync_drops_what_is_of_the_room_and_calls_the_handler_of_the_route(serve):
    app, sockets = make("resync")
    async with serve(app) as url, connect(f"{url}/", max_size=None) as client:
        await until(lambda: len(sockets) == 1)
        client.transport.pause_reading()
        number = 0
        app.state.number = "all of it"
        while not sockets[0].dropped:
            await app.room("slow:a").emit("said", [number, TEXT])
            await app.room("usual:a").emit("kept", number)
            number += 1
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        client.transport.resume_reading()
        sockets[0].emit("end")
        heard = [each for each in await hear_until_end(client) if "joined" not in each]
        assert [each["data"] for each in heard if each.get("event") == "kept"] == list(range(number))
        assert [each["data"] for each in heard if each.get("event") == "state"] == ["all of it"]
        told = sum(each.get("dropped", 0) for each in heard)
        assert told == number - sum(each.get("event") == "said" for each in heard)


async def test_resync_disconnects_where_the_route_has_no_handler(serve):
    app, sockets = make("resync")
    async with serve(app) as url, connect(f"{url}/unable", max_size=None) as client:
        await until(lambda: len(sockets) == 1)
        client.transport.pause_reading()
        while sockets[0].connected:
            await app.room("slow:a").emit("said", TEXT)
            await asyncio.sleep(0)
        assert app.stats.slow_consumers == 1
        client.transport.abort()


async def test_of_one_key_the_newest_stays_and_is_not_too_old(serve):
    app, sockets = make("conflate", limits=Limits(max_outbox_age=0.1, close_timeout=0.2))
    async with (
        serve(app) as url,
        connect(f"{url}/", max_size=None) as client,
        connect(f"{url}/raw", max_size=None) as other,
    ):
        await until(lambda: len(sockets) == 2)
        client.transport.pause_reading()
        other.transport.pause_reading()
        slow, usual = sorted(sockets, key=lambda each: each.route == "/raw")
        await usual.leave("slow:a")
        number = 0
        # The other one has such prices from a room without a policy, and is closed.
        while usual.connected:
            number += 1
            await app.room("slow:a").emit("price", [number, TEXT], conflate="a")
            usual.send(TEXT)
            await asyncio.sleep(0)
        assert slow.connected
        client.transport.resume_reading()
        slow.emit("end")
        heard = [each["data"][0] for each in await hear_until_end(client) if each.get("event") == "price"]
        assert heard[-1] == number
        assert len(heard) < number
        other.transport.abort()


async def test_what_is_too_old_is_dropped_without_a_disconnect(serve):
    limits = Limits(max_outbox_age=0.1, close_timeout=0.2)
    app, sockets = make("drop_oldest", limits=limits)
    async with serve(app) as url, connect(f"{url}/", max_size=None) as client:
        await until(lambda: len(sockets) == 1)
        client.transport.pause_reading()
        number = 0
        outbox = sockets[0]._connection.outbox
        while not outbox.blocked or len(outbox.frames) < 3:
            await app.room("slow:a").emit("said", [number, TEXT])
            number += 1
            await asyncio.sleep(0)
        await until(lambda: sockets[0].dropped)
        client.transport.resume_reading()
        sockets[0].emit("end")
        heard = await hear_until_end(client)
        assert sum(each.get("dropped", 0) for each in heard) == sockets[0].dropped > 0
        assert sockets[0].connected
        assert app.stats.slow_consumers == 0


async def test_members_still_get_what_is_kept_from_the_history(serve):
    app, sockets = make("drop_oldest", history=1000)
    async with serve(app) as url, connect(f"{url}/", max_size=None) as client:
        await until(lambda: len(sockets) == 1)
        client.transport.pause_reading()
        for number in range(300):
            await app.room("slow:a").emit("said", [number, TEXT])
            await asyncio.sleep(0)
        client.transport.resume_reading()
        numbers: list[int] = []
        while len(numbers) < 90:
            each = await hear(client)
            if each.get("event") == "said":
                numbers.append(each["data"][0])
        # As far as the history goes: 1 MiB. It is told of the rest.
        assert numbers == sorted(set(numbers))
        assert sockets[0].connected
        assert not sockets[0].dropped


def test_a_policy_that_does_not_exist_is_refused():
    for wrong in ("drop", True, 5):
        with pytest.raises(ConfigurationError, match="slow_consumer must be 'disconnect'"):
            Symphony().rooms("a:{b}", slow_consumer=wrong)  # type: ignore[arg-type]
