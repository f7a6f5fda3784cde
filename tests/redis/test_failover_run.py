"""Clients of two nodes publish and read while the master of Redis is replaced.

With `-s`, it prints rows of the table of docs/brokers.md.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from support.faultrun import CALM, Outcome, run, table
from support.redisnodes import nodes
from support.redissentinels import Replicated
from support.sizes import size

pytestmark = pytest.mark.timeout(size(240, full=900))

Fault = Callable[[Replicated], Awaitable[None]]


async def planned_failover(replicated: Replicated) -> None:
    await asyncio.to_thread(replicated.failover)


async def failover_to_a_clock_that_is_ahead(replicated: Replicated) -> None:
    master = replicated.master
    for server in replicated.servers:
        if server is not master:
            server.advance(5)
    await asyncio.to_thread(replicated.failover)


async def sentinel_killed(replicated: Replicated) -> None:
    replicated.sentinels[2].kill()
    await asyncio.sleep(CALM)
    await asyncio.to_thread(replicated.sentinels[2].start)


async def replica_promoted_beside_its_master(replicated: Replicated) -> None:
    replicated.replica.command("REPLICAOF", "NO", "ONE")
    await asyncio.sleep(CALM)


async def replica_killed(replicated: Replicated) -> None:
    replica = replicated.replica
    replica.kill()
    await asyncio.sleep(CALM)
    await asyncio.to_thread(replica.start)


async def master_killed(replicated: Replicated) -> None:
    master = replicated.master
    master.kill()
    await asyncio.to_thread(replicated.wait_for_another, master)
    await asyncio.sleep(CALM)
    await asyncio.to_thread(master.start)


async def master_stopped_and_continued(replicated: Replicated) -> None:
    master = replicated.master
    master.signal(signal.SIGSTOP)
    try:
        await asyncio.to_thread(replicated.wait_for_another, master)
        await asyncio.sleep(CALM)
    finally:
        # It still is a master, by its own word.
        master.signal(signal.SIGCONT)
    await asyncio.sleep(CALM)


# Nothing of these is a reason for another master.
LOSSLESS = (sentinel_killed, replica_promoted_beside_its_master, replica_killed)
PLANNED = (planned_failover, failover_to_a_clock_that_is_ahead)
UNPLANNED = (master_killed, master_stopped_and_continued)


async def outcomes_of(faults: tuple[Fault, ...], replicated: Replicated, folder: Path) -> list[Outcome]:
    outcomes: list[Outcome] = []
    try:
        await asyncio.to_thread(replicated.start)
        async with nodes(folder, replicated.url) as pair:
            for fault in faults:
                outcome, readers = await run(
                    lambda fault=fault: fault(replicated), fault.__name__, replicated.url, pair
                )
                outcomes.append(outcome)
                assert outcome.acknowledged > 0
                assert outcome.silent == 0, outcome
                if fault in LOSSLESS:
                    assert (outcome.told, outcome.dropped) == (0, 0), outcome
                if fault not in UNPLANNED:
                    # The sentinels have replaced the master once.
                    assert all(reader.lost <= 1 for reader in readers), outcome
                await asyncio.to_thread(replicated.mend)
    finally:
        replicated.kill()
        table(outcomes)
    return outcomes


async def test_each_client_has_everything_once_or_is_told_when_a_master_is_replaced(tmp_path: Path) -> None:
    await outcomes_of(LOSSLESS + PLANNED, Replicated(tmp_path, 2, clocks=True), tmp_path)


async def test_each_client_has_everything_once_or_is_told_when_a_master_fails(tmp_path: Path) -> None:
    await outcomes_of(UNPLANNED, Replicated(tmp_path, 2, down_after=1000), tmp_path)
