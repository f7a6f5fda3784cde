"""Members of rooms with a history that read slowly: they get everything, at their own speed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest
from websockets.exceptions import ConnectionClosed

from support.clients import connect, until
from symphony import History, Limits, Room, Socket, Symphony
from symphony.broker.memory import MemoryBroker
from symphony.testing import TestClient

TEXT = "x" * 10_000
LIMITS = Limits(max_outbox_bytes=200_000, high_water_bytes=20_000, low_water_bytes=10_000, close_timeout=0.2)


def make(
    limits: Limits = LIMITS, history: History | None = None, **options: Any
) -> tuple[Symphony, list[Socket]]:
    app = Symphony(limits=limits)
    app.rooms("chat:{name}", history=history or History(1000, bytes=100_000_000), client_join=True)
    sockets: list[Socket] = []

    async def enter(socket: Socket) -> None:
        sockets.append(socket)
        await socket.join("chat:a")

    app.route("/", events=True, **options).on_connect(enter)
    app.route("/raw").on_connect(enter)
    return app, sockets


async def publish(app: Symphony, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await app.room("chat:a").emit("said", [number, TEXT])


async def hear(client: Any) -> dict[str, Any]:
    async with asyncio.timeout(10):
        return json.loads(await client.recv())


async def rest(client: Any) -> list[dict[str, Any]]:
    """Return all envelopes up to the close."""
    heard: list[dict[str, Any]] = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            heard.append(await hear(client))
    return heard


def is_behind(app: Symphony) -> bool:
    live: Any = app._core.node.rooms.batch("chat:a")  # pyright: ignore[reportPrivateUsage]
    return bool(live.behind)


@pytest.mark.parametrize("policy", ["disconnect", "drop_oldest"])
async def test_a_member_that_stops_to_read_misses_nothing(serve, policy: str):
    """Fifty times the high-water mark is published meanwhile; another member is not delayed."""
    app, sockets = make(slow_consumer=policy)
    async with serve(app) as url, connect(f"{url}/") as slow, connect(f"{url}/") as quick:
        assert "joined" in await hear(slow)
        assert "joined" in await hear(quick)
        slow.transport.pause_reading()
        for number in range(1, 801):
            await publish(app, number, number)
            assert (await hear(quick))["offset"] == number
        assert is_behind(app)
        # What is sent directly does not wait for what comes from the history.
        sockets[0].emit("direct")
        slow.transport.resume_reading()
        heard = [await hear(slow) for _ in range(801)]
        assert [each["offset"] for each in heard if "offset" in each] == list(range(1, 801))
        assert [each["event"] for each in heard].count("direct") == 1
        assert not sockets[0].dropped
        assert app.stats.slow_consumers == 0
        # It is live again.
        await until(lambda: not is_behind(app))
        await publish(app, 801, 801)
        assert (await hear(slow))["offset"] == 801


async def test_publishing_does_not_wait_for_a_slow_member(serve):
    """The publications come faster than it reads, in one turn and in many."""
    app, _ = make()
    async with serve(app) as url, connect(f"{url}/") as slow:
        await hear(slow)
        slow.transport.pause_reading()
        for first in (1, 301):
            for number in range(first, first + 300):
                app.room("chat:a").emit("said", [number, TEXT])
            await asyncio.sleep(0)
        slow.transport.resume_reading()
        assert [(await hear(slow))["offset"] for _ in range(600)] == list(range(1, 601))


async def test_what_is_trimmed_meanwhile_is_told_once(serve):
    app, _ = make(history=History(50, bytes=100_000_000))
    async with serve(app) as url, connect(f"{url}/") as slow:
        await hear(slow)
        slow.transport.pause_reading()
        await publish(app, 1, 800)
        slow.transport.resume_reading()
        offsets, lost = [0], list[int]()
        while offsets[-1] < 800:
            heard = await hear(slow)
            if "lost" in heard:
                lost.append(heard["position"]["offset"])
            else:
                assert heard["offset"] in (offsets[-1] + 1, lost[-1] + 1 if lost else 0)
                offsets.append(heard["offset"])
        gaps = [after for before, after in pairwise(offsets) if after != before + 1]
        assert gaps == [end + 1 for end in lost]
        assert lost


async def test_a_raw_member_catches_up_and_is_closed_if_something_is_gone(serve):
    app, _ = make()
    async with serve(app) as url, connect(f"{url}/raw") as slow:
        await until(lambda: len(app.room("chat:a").sockets) == 1)
        slow.transport.pause_reading()
        await publish(app, 1, 800)
        slow.transport.resume_reading()
        assert [(await hear(slow))["data"][0] for _ in range(800)] == list(range(1, 801))
    app, _ = make(history=History(5, bytes=100_000_000))
    async with serve(app) as url, connect(f"{url}/raw") as slow:
        await until(lambda: len(app.room("chat:a").sockets) == 1)
        slow.transport.pause_reading()
        await publish(app, 1, 800)
        slow.transport.resume_reading()
        numbers = [each["data"][0] for each in await rest(slow)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert slow.close_code == 1013
        assert slow.close_reason == "publications were lost"


@pytest.mark.beyond("page_timeout")
async def test_a_member_that_reads_nothing_for_too_long_is_closed(serve):
    app, sockets = make(Limits(page_timeout=0.2, close_timeout=0.2))
    async with serve(app) as url, connect(f"{url}/") as slow:
        await hear(slow)
        slow.transport.pause_reading()
        await publish(app, 1, 800)
        await until(lambda: not sockets[0].connected)
        slow.transport.resume_reading()
        numbers = [each["offset"] for each in await rest(slow)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) < 800


@pytest.mark.within("page_timeout")
async def test_a_member_that_reads_on_stays(serve):
    app, sockets = make(Limits(page_timeout=0.2, close_timeout=0.2))
    async with serve(app) as url, connect(f"{url}/") as slow:
        await hear(slow)
        slow.transport.pause_reading()
        await publish(app, 1, 800)
        slow.transport.resume_reading()
        assert [(await hear(slow))["offset"] for _ in range(800)] == list(range(1, 801))
        assert sockets[0].connected


async def test_a_member_that_leaves_while_it_is_behind_gets_nothing_more(serve):
    app, sockets = make()
    async with serve(app) as url, connect(f"{url}/") as slow:
        await hear(slow)
        slow.transport.pause_reading()
        await publish(app, 1, 800)
        assert is_behind(app)
        await sockets[0].leave("chat:a")
        slow.transport.resume_reading()
        offsets: list[int] = []
        while "left" not in (heard := await hear(slow)):
            offsets.append(heard["offset"])
        assert offsets == list(range(1, len(offsets) + 1))
        assert len(offsets) < 800
        await sockets[0].join("chat:a")
        assert (await hear(slow))["position"]["offset"] == 800
        await publish(app, 801, 801)
        assert (await hear(slow))["offset"] == 801


async def test_many_members_that_return_cost_a_few_reads():
    app = Symphony()
    app.rooms("chat:{name}", history=1000, client_join=True)
    app.route("/", events=True)
    reads = 0
    read_after = MemoryBroker.after

    async def after(self: MemoryBroker, *arguments: Any, **options: Any) -> Any:
        nonlocal reads
        reads += 1
        # As a broker on another machine.
        await asyncio.sleep(0)
        return await read_after(self, *arguments, **options)

    async with TestClient(app) as client:
        for number in range(1, 301):
            top = await app.room("chat:a").emit("said", number)
        assert top is not None
        with patch.object(MemoryBroker, "after", after):
            members = [await client.connect("/", protocol="raw") for _ in range(300)]
            for index, member in enumerate(members):
                since = {"epoch": top.epoch, "offset": index % 250}
                await member.send(json.dumps({"join": "chat:a", "id": 1, "since": since}))
            for index, member in enumerate(members):
                heard = list[int]()
                while not heard or heard[-1] < 300:
                    message = await member.receive(timeout=10)
                    assert isinstance(message, str)
                    envelope = json.loads(message)
                    if "offset" in envelope:
                        heard.append(envelope["offset"])
                assert heard == list(range(index % 250 + 1, 301))
        assert reads <= 20
        await client.settle()


async def test_a_member_that_asks_again_is_authorized_again():
    app = Symphony()
    rooms = app.rooms("chat:{name}", history=100)
    route = app.route("/", events=True)
    asked: list[str] = []
    allowed = True

    @rooms.authorize
    def may(room: Room) -> bool:
        asked.append(room.name)
        return allowed

    async with TestClient(app) as client, client.connect("/", protocol="raw") as member:
        for number in range(1, 4):
            await app.room("chat:a").emit("said", number)
        for id in (1, 2):
            await member.send(json.dumps({"join": "chat:a", "id": id, "since": "start"}))
            await client.settle()
        assert asked == ["chat:a"] * 2
        heard = [json.loads(str(await member.receive())) for _ in range(10)]
        assert [each["offset"] for each in heard if "offset" in each] == [1, 2, 3, 1, 2, 3]
        allowed = False
        await member.send(json.dumps({"join": "chat:a", "id": 3, "since": "start"}))
        refused = json.loads(str(await member.receive()))
        assert refused["error"]["code"] == "forbidden" if isinstance(refused["error"], dict) else refused
        # It stays a member, and gets nothing of the history.
        await app.room("chat:a").emit("said", 4)
        assert json.loads(str(await member.receive()))["offset"] == 4
        await member.nothing_more()
        assert route
