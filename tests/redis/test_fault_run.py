"""Clients of two nodes publish and read while Redis fails: each has everything once, or is told.

With `-s`, it prints the table of docs/brokers.md.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import symphony
from support.process import Running
from support.redisnodes import client, nodes
from support.redisservers import RedisServer
from support.sizes import size
from symphony.errors import SymphonyError

READERS = size(20, full=200)
PUBLISHERS = 2
# Seconds between publications of one publisher, and before and after a fault.
PACE = size(10, full=50) / 1000
CALM = size(500, full=3000) / 1000

pytestmark = pytest.mark.timeout(size(240, full=900))


class Reader:
    """A client that keeps what it hears, until a negative number."""

    def __init__(self, one: symphony.Client, name: str) -> None:
        self.client = one
        self.name = name
        self.heard: list[int] = []
        self.lost = 0

    async def join(self) -> symphony.client.Room:
        room = await self.client.join(self.name)

        @room.on_lost
        def lost(position: symphony.Position) -> None:
            self.lost += 1

        return room

    async def read(self, room: symphony.client.Room) -> None:
        async for publication in room:
            if publication.data < 0:
                return
            self.heard.append(publication.data)


class Outcome(NamedTuple):
    """What came of a fault: a row of the table.

    Attributes:
        fault: The fault.
        sent: How many publications were tried.
        acknowledged: How many of them their publishers know to be published.
        delivered: How often members have got one.
        told: How often a member was told that something is lost.
        silent: How many acknowledged ones members have not got who were not told.
    """

    fault: str
    sent: int
    acknowledged: int
    delivered: int
    told: int
    silent: int


# The faults. Each returns when it is over.


async def killed_and_empty(server: RedisServer) -> None:
    server.kill()
    await asyncio.to_thread(server.start)


async def restarted_with_its_data(server: RedisServer) -> None:
    # Nothing is acknowledged between the two.
    server.command("CLIENT", "PAUSE", "10000", "WRITE")
    server.command("SAVE")
    server.kill()
    await asyncio.to_thread(server.start)


async def restarted_with_older_data(server: RedisServer) -> None:
    server.command("SAVE")
    await asyncio.sleep(CALM)
    server.kill()
    await asyncio.to_thread(server.start)


async def restarted_twice_with_older_data(server: RedisServer) -> None:
    await restarted_with_older_data(server)
    await asyncio.sleep(CALM)
    server.kill()
    await asyncio.to_thread(server.start)


async def stopped_for_three_seconds(server: RedisServer) -> None:
    server.signal(signal.SIGSTOP)
    await asyncio.sleep(3)
    server.signal(signal.SIGCONT)


async def subscribers_cut(server: RedisServer) -> None:
    for _ in range(5):
        server.command("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.sleep(CALM / 5)


async def all_connections_cut(server: RedisServer) -> None:
    for _ in range(5):
        server.command("CLIENT", "KILL", "TYPE", "normal")
        server.command("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.sleep(CALM / 5)


async def scripts_forgotten(server: RedisServer) -> None:
    for _ in range(5):
        server.command("SCRIPT", "FLUSH")
        await asyncio.sleep(CALM / 5)


async def output_buffers_limited(server: RedisServer) -> None:
    before = "pubsub 33554432 8388608 60"
    server.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1 1 1")
    await asyncio.sleep(CALM)
    server.command("CONFIG", "SET", "client-output-buffer-limit", before)


async def memory_full(server: RedisServer) -> None:
    server.command("CONFIG", "SET", "maxmemory", "1")
    await asyncio.sleep(CALM)
    server.command("CONFIG", "SET", "maxmemory", "0")


LOSSLESS = (
    restarted_with_its_data,
    stopped_for_three_seconds,
    subscribers_cut,
    all_connections_cut,
    scripts_forgotten,
    output_buffers_limited,
    memory_full,
)
LOSSY = (killed_and_empty, restarted_with_older_data, restarted_twice_with_older_data)


async def run(
    fault: Callable[[RedisServer], Awaitable[None]], server: RedisServer, pair: list[Running]
) -> tuple[Outcome, list[Reader]]:
    name = f"kept:{fault.__name__}"
    readers = [Reader(client(pair[number % 2]), name) for number in range(READERS)]
    for reader in readers:
        await reader.client
    rooms = [await reader.join() for reader in readers]
    reading = [asyncio.ensure_future(reader.read(room)) for reader, room in zip(readers, rooms, strict=True)]
    sent: list[int] = []
    acknowledged: list[int] = []
    over = asyncio.Event()

    async def publish(first: int) -> None:
        async with client(pair[first % 2]) as publisher:
            room = await publisher.join(name)
            number = first
            while not over.is_set():
                number += PUBLISHERS
                sent.append(number)
                try:
                    await room.emit("posted", number)
                except SymphonyError:
                    # It may or may not have been published.
                    continue
                acknowledged.append(number)
                await asyncio.sleep(PACE)

    publishing = [asyncio.ensure_future(publish(first)) for first in range(PUBLISHERS)]
    await asyncio.sleep(CALM)
    await fault(server)
    await asyncio.sleep(CALM)
    over.set()
    await asyncio.wait_for(asyncio.gather(*publishing), 60)
    async with client(pair[0]) as last:
        room = await last.join(name)
        await room.emit("posted", -1)
    await asyncio.wait_for(asyncio.gather(*reading), 30)
    told = silent = 0
    for reader in readers:
        told += reader.lost
        if not reader.lost:
            silent += len(set(acknowledged) - set(reader.heard))
        await reader.client.close()
    delivered = sum(len(reader.heard) for reader in readers)
    outcome = Outcome(fault.__name__.replace("_", " "), len(sent), len(acknowledged), delivered, told, silent)
    return outcome, readers


@pytest.fixture
async def pair(server: RedisServer, tmp_path: Path) -> AsyncIterator[list[Running]]:
    async with nodes(tmp_path, server.url) as running:
        yield running


async def test_each_client_has_everything_once_or_is_told(server: RedisServer, pair: list[Running]) -> None:
    outcomes: list[Outcome] = []
    for fault in LOSSLESS + LOSSY:
        outcome, readers = await run(fault, server, pair)
        outcomes.append(outcome)
        for reader in readers:
            twice = [number for number, times in Counter(reader.heard).items() if times > 1]
            assert not twice, f"{outcome.fault}: {twice} came twice"
            for first in range(PUBLISHERS):
                of_one = [number for number in reader.heard if number % PUBLISHERS == first]
                assert of_one == sorted(of_one), f"{outcome.fault}: out of order"
            # Each fault makes one gap at most; the last one makes two.
            assert reader.lost <= (2 if fault is restarted_twice_with_older_data else 1), outcome
        assert outcome.acknowledged > 0
        assert outcome.silent == 0, outcome
        if fault in LOSSLESS:
            assert outcome.told == 0, outcome
            assert outcome.delivered >= outcome.acknowledged * READERS, outcome
        else:
            assert all(reader.lost for reader in readers), outcome
    print()
    print("| fault | sent | acknowledged | delivered | members told that something is lost | lost silently |")
    print("|---|---|---|---|---|---|")
    for outcome in outcomes:
        print("| " + " | ".join(str(field) for field in outcome) + " |")
