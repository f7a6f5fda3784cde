"""Clients of two nodes publish and read while slots move and masters fail, in a real cluster.

With `-s`, it prints the table of docs/brokers.md.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from support.faultrun import CALM, Outcome, run, table
from support.process import Running
from support.redisclusters import RedisCluster
from support.redisnodes import nodes
from support.redisservers import redis_binary, valkey_binary
from support.sizes import size
from symphony.broker.redis.cluster import slot_of

# In each of three rooms.
READERS = size(6, full=60)

pytestmark = pytest.mark.timeout(size(240, full=900))


@pytest.fixture(params=["redis", "valkey"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisCluster]:
    binary = redis_binary() if request.param == "redis" else valkey_binary()
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster"), binary)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


async def wait_for(condition: Callable[[], bool]) -> None:
    # Not an event: no program is told what servers agree on.
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.02)


# The faults. Each returns when it is over. The slot is that of one of the rooms.


async def slot_moved_key_by_key(cluster: RedisCluster, slot: int) -> None:
    source = cluster.master_of(slot)
    target = next(server for server in cluster.masters() if server is not source)
    for one, other in ((source, target), (target, source)):
        cluster.begin_move(slot, other)
        await asyncio.sleep(CALM / 4)
        cluster.move_keys(slot, one, other)
        await asyncio.sleep(CALM / 4)
        cluster.end_move(slot, one, other)
        await asyncio.sleep(CALM / 2)


async def many_slots_moved_key_by_key(cluster: RedisCluster, slot: int) -> None:
    source = cluster.master_of(slot)
    target = next(server for server in cluster.masters() if server is not source)
    first = slot - slot % 10
    for each in range(first, first + 10):
        if cluster.master_of(each) is source:
            await asyncio.to_thread(cluster.move, each, target)


async def slot_moved_at_once(cluster: RedisCluster, slot: int) -> None:
    source = cluster.master_of(slot)
    target = next(server for server in cluster.masters() if server is not source)
    for one, other in ((source, target), (target, source)):
        answer = one.command(
            "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", str(slot), str(slot), "NODE", cluster.id_of(other)
        )
        assert answer.startswith("+OK"), answer
        await wait_for(lambda other=other: cluster.master_of(slot) is other)
        await asyncio.sleep(CALM / 2)


async def planned_failover(cluster: RedisCluster, slot: int) -> None:
    replica = cluster.replica_of(cluster.master_of(slot))
    assert replica.command("CLUSTER", "FAILOVER").startswith("+OK")
    await wait_for(lambda: cluster.master_of(slot) is replica)
    await asyncio.to_thread(cluster.settle)


async def scripts_forgotten(cluster: RedisCluster, slot: int) -> None:
    for _ in range(5):
        for server in cluster.masters():
            server.command("SCRIPT", "FLUSH")
        await asyncio.sleep(CALM / 5)


async def subscribers_cut(cluster: RedisCluster, slot: int) -> None:
    for _ in range(5):
        for server in cluster.masters():
            server.command("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.sleep(CALM / 5)


async def master_killed(cluster: RedisCluster, slot: int) -> None:
    master = cluster.master_of(slot)
    replica = cluster.replica_of(master)
    master.kill()
    await wait_for(lambda: replica in cluster.masters())
    await asyncio.to_thread(master.start)
    await asyncio.to_thread(cluster.settle)


async def master_killed_whose_replica_was_behind(cluster: RedisCluster, slot: int) -> None:
    master = cluster.master_of(slot)
    replica = cluster.replica_of(master)
    replica.signal(signal.SIGSTOP)
    master.command("CLIENT", "KILL", "TYPE", "replica")
    await asyncio.sleep(CALM)
    master.kill()
    replica.signal(signal.SIGCONT)
    await wait_for(lambda: replica in cluster.masters())
    await asyncio.to_thread(master.start)
    await asyncio.to_thread(cluster.settle)


async def master_stopped(cluster: RedisCluster, slot: int) -> None:
    master = cluster.master_of(slot)
    replica = cluster.replica_of(master)
    master.signal(signal.SIGSTOP)
    await wait_for(lambda: "role:master" in replica.command("INFO", "replication"))
    # Clients go on meanwhile.
    await asyncio.sleep(CALM)
    master.signal(signal.SIGCONT)
    await asyncio.to_thread(cluster.settle)


LOSSLESS: tuple[Callable[[RedisCluster, int], Awaitable[None]], ...] = (
    slot_moved_key_by_key,
    many_slots_moved_key_by_key,
    planned_failover,
    scripts_forgotten,
    subscribers_cut,
)
# The replica may not have got the last ones. In the third case, it has not.
LOSSY = (master_killed, master_stopped, master_killed_whose_replica_was_behind)


def one_room_a_master(cluster: RedisCluster, name: str) -> list[str]:
    """Return three names that make rooms on three masters."""
    found: dict[object, str] = {}
    number = 0
    while len(found) < 3:
        of_one = f"{name}_{number}"
        found.setdefault(cluster.master_of(slot_of(f"{{kept:{of_one}}}")), of_one)
        number += 1
    return list(found.values())


async def run_in_three_rooms(
    fault: Callable[[RedisCluster, int], Awaitable[None]], cluster: RedisCluster, pair: list[Running]
) -> Outcome:
    """Publish and read in a room of each master. The slot of the first one is concerned."""
    names = one_room_a_master(cluster, fault.__name__)
    over = asyncio.Event()

    async def of_first() -> None:
        try:
            await fault(cluster, slot_of(f"{{kept:{names[0]}}}"))
        finally:
            over.set()

    async def of_others() -> None:
        await over.wait()

    faults = (of_first, of_others, of_others)
    runs = [
        run(each, name, cluster.url, pair, readers=READERS) for each, name in zip(faults, names, strict=True)
    ]
    results = await asyncio.gather(*runs)
    for _, readers in results:
        assert all(reader.lost <= 1 for reader in readers)
    outcomes = [outcome for outcome, _ in results]
    assert all(outcome.acknowledged > 0 for outcome in outcomes)
    _, sent, acknowledged, dropped, gap, delivered, told, silent = zip(*outcomes, strict=True)
    return Outcome(
        fault.__name__.replace("_", " "),
        sum(sent),
        sum(acknowledged),
        sum(dropped),
        max(gap),
        sum(delivered),
        sum(told),
        sum(silent),
    )


async def test_each_client_has_everything_once_or_is_told(
    cluster: RedisCluster, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lossless = LOSSLESS
    if "valkey" in request.node.name:
        lossless += (slot_moved_at_once,)
    outcomes: list[Outcome] = []
    async with nodes(tmp_path, cluster.url) as pair:
        for fault in lossless + LOSSY:
            outcome = await run_in_three_rooms(fault, cluster, pair)
            outcomes.append(outcome)
            assert outcome.silent == 0, outcome
            if fault in lossless:
                assert (outcome.told, outcome.dropped) == (0, 0), outcome
                assert outcome.delivered >= outcome.acknowledged * READERS, outcome
            elif fault is master_killed_whose_replica_was_behind:
                # Each member of the one room, and no other one.
                assert outcome.dropped > 0, outcome
                assert outcome.told == READERS, outcome
    table(outcomes)
