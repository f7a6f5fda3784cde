"""Clients of two nodes publish and read while Redis fails: each has everything once, or is told.

With `-s`, it prints the table of docs/brokers.md.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.faultrun import CALM, READERS, Outcome, run, table
from support.process import Running
from support.redisnodes import nodes
from support.redisservers import RedisServer
from support.sizes import size

pytestmark = pytest.mark.timeout(size(240, full=900))


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


@pytest.fixture
async def pair(server: RedisServer, tmp_path: Path) -> AsyncIterator[list[Running]]:
    async with nodes(tmp_path, server.url) as running:
        yield running


async def test_each_client_has_everything_once_or_is_told(server: RedisServer, pair: list[Running]) -> None:
    outcomes: list[Outcome] = []
    for fault in LOSSLESS + LOSSY:
        outcome, readers = await run(lambda fault=fault: fault(server), fault.__name__, server.url, pair)
        outcomes.append(outcome)
        # Each fault makes one gap at most; the last one makes two.
        most = 2 if fault is restarted_twice_with_older_data else 1
        assert all(reader.lost <= most for reader in readers), outcome
        assert outcome.acknowledged > 0
        assert outcome.silent == 0, outcome
        if fault in LOSSLESS:
            assert (outcome.told, outcome.dropped) == (0, 0), outcome
            assert outcome.delivered >= outcome.acknowledged * READERS, outcome
        else:
            assert all(reader.lost for reader in readers), outcome
    table(outcomes)
