"""Clients of two nodes publish and read while the master of Redis is replaced.

With `-s`, it prints rows of the table of docs/brokers.md.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from support.faultrun import CALM, READERS, Outcome, run, table
from support.redisnodes import nodes
from support.redissentinels import Replicated
from support.sizes import SOAK, size

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


async def master_killed_before_its_replicas_have_all(replicated: Replicated) -> None:
    master = replicated.master
    replicas = [server for server in replicated.servers if server is not master]
    for replica in replicas:
        replica.command("CONFIG", "SET", "masteruser", "nobody")
        replica.command("CONFIG", "SET", "masterauth", "wrong")
    # They cannot connect again.
    master.command("CLIENT", "KILL", "TYPE", "replica")
    await asyncio.sleep(CALM)
    master.kill()
    for replica in replicas:
        replica.command("CONFIG", "SET", "masteruser", "")
        replica.command("CONFIG", "SET", "masterauth", "")
    await asyncio.to_thread(replicated.wait_for_another, master)


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
UNPLANNED = (master_killed_before_its_replicas_have_all, master_killed, master_stopped_and_continued)


async def outcomes_of(faults: tuple[Fault, ...], replicated: Replicated, folder: Path) -> list[Outcome]:
    outcomes: list[Outcome] = []
    try:
        await asyncio.to_thread(replicated.start)
        async with nodes(folder, replicated.url) as pair:
            for fault in faults:

                async def whole(fault: Fault = fault) -> None:
                    await fault(replicated)
                    await asyncio.sleep(CALM)
                    await asyncio.to_thread(replicated.mend)

                if fault not in LOSSLESS:
                    await asyncio.to_thread(replicated.wait_until_whole)
                outcome, readers = await run(whole, fault.__name__, replicated.url, pair)
                outcomes.append(outcome)
                assert outcome.acknowledged > 0
                assert outcome.silent == 0, outcome
                if fault in LOSSLESS:
                    assert (outcome.told, outcome.dropped) == (0, 0), outcome
                if fault not in UNPLANNED:
                    # The sentinels have replaced the master once.
                    assert all(reader.lost <= 1 for reader in readers), outcome
    finally:
        replicated.kill()
        table(outcomes)
    return outcomes


async def test_each_client_has_everything_once_or_is_told_when_a_master_is_replaced(tmp_path: Path) -> None:
    faults = (planned_failover, *LOSSLESS, failover_to_a_clock_that_is_ahead)
    await outcomes_of(faults, Replicated(tmp_path, 2, clocks=True), tmp_path)


async def test_each_client_has_everything_once_or_is_told_when_a_master_fails(tmp_path: Path) -> None:
    faults = UNPLANNED if SOAK else (UNPLANNED[0], UNPLANNED[-1])
    lossy, *_ = await outcomes_of(faults, Replicated(tmp_path, 2, down_after=1000), tmp_path)
    assert lossy.dropped > 0
    assert lossy.told >= READERS


async def test_what_a_replica_has_acknowledged_outlives_its_master(tmp_path: Path) -> None:
    replicated = Replicated(tmp_path, 1, down_after=3000, options="?ack=replica")
    faults = (*UNPLANNED, planned_failover) if SOAK else UNPLANNED[:1]
    for outcome in await outcomes_of(faults, replicated, tmp_path):
        assert outcome.dropped == 0, outcome
