"""Members in a real Redis: several nodes, restarts, a clock that is ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from support.clients import until
from support.redisservers import RedisServer, redis_binary
from symphony.broker.attendance import LEASE, REFRESH, Diff, Renewal
from symphony.broker.base import Broker, History
from symphony.broker.engines import presence_beside
from symphony.broker.presence import PresenceStore
from symphony.testing.drafts import draft
from symphony.testing.presencechecks import NODE, OTHER, kinds_of, track_of

Connect = Callable[..., Awaitable[Broker]]


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server of its own, whose clock can be put forward, and which may be killed."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), redis_binary(), clock=True)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def store(own: RedisServer, connect: Connect) -> PresenceStore:
    return presence_beside(await connect(own))


async def test_each_node_hears_what_another_decides(own: RedisServer, connect: Connect) -> None:
    one, two = [presence_beside(await connect(own)) for _ in range(2)]
    heard: list[Diff] = []
    start = await two.subscribe("a", heard.append)
    await one.track(track_of("ann", "c1", info=bytes(range(256))))
    await one.untrack("a", "c1", NODE, left=True)
    await until(lambda: len(heard) == 2)
    assert [(diff.kind, diff.member, diff.info) for diff in heard] == [
        ("arrive", "ann", bytes(range(256))),
        ("depart", "ann", bytes(range(256))),
    ]
    assert [diff.version for diff in heard] == [start.version + 1, start.version + 2]


async def test_members_survive_a_restart_with_data_and_no_lease_ends_before_nodes_are_back(
    own: RedisServer, store: PresenceStore
) -> None:
    before = await store.track(track_of("ann", "c1"))
    await store.track(track_of("bob", "c2"))
    own.command("SAVE")
    own.kill()
    # As if another server had taken over, whose clock is ahead.
    own.advance(LEASE * 3)
    own.start()
    assert list(await store.reap(NODE)) == []
    touched = await store.touch(NODE, [Renewal("a", ["c1"])], [])
    (seen,) = touched.rooms
    assert seen.epoch != before.epoch
    assert list(seen.unknown) == []
    assert await kinds_of(store) == {"ann": False, "bob": False}
    for _ in range(4):
        own.advance(REFRESH)
        await store.touch(NODE, [Renewal("a", ["c1"])], [])
    assert [decision.member for decision in await store.reap(NODE)] == ["bob"]
    assert await kinds_of(store) == {"ann": False}


async def test_an_empty_server_takes_members_back_as_those_they_were(
    own: RedisServer, store: PresenceStore
) -> None:
    before = await store.track(track_of("ann", "c1"))
    own.kill()
    own.start()
    touched = await store.touch(NODE, [Renewal("a", ["c1"])], [])
    assert [list(seen.unknown) for seen in touched.rooms] == [["c1"]]
    assert before.arrival is not None
    again = await store.track(track_of("ann", "c1b", resume=(before.epoch, before.arrival)))
    assert (again.kind, again.arrival) == ("restored", before.arrival)


async def test_nodes_that_reap_at_the_same_time_share_the_decisions(
    own: RedisServer, connect: Connect
) -> None:
    stores = [presence_beside(await connect(own)) for _ in range(4)]
    for number in range(300):
        await stores[0].track(track_of(f"m{number}", f"c{number}")._replace(room=f"r{number % 7}"))
    for _ in range(4):
        own.advance(REFRESH)
        await stores[0].touch(OTHER, [], [])
    own.advance(4)
    departed: list[str] = []

    async def reap(store: PresenceStore, node: str) -> None:
        while decisions := await store.reap(node):
            departed.extend(decision.member for decision in decisions)
            await store.ack([decision.id for decision in decisions])

    await asyncio.gather(*(reap(store, f"node {index}") for index, store in enumerate(stores)))
    own.advance(4)
    await asyncio.gather(*(reap(store, f"node {index}") for index, store in enumerate(stores)))
    assert sorted(departed) == sorted(f"m{number}" for number in range(300))


async def test_every_key_ends_by_itself(own: RedisServer, connect: Connect) -> None:
    broker = await connect(own)
    store = presence_beside(broker)
    await broker.publish("a", draft(1), History(10))
    await broker.subscribe("b", lambda record: None)
    await broker.listen("nodes", lambda message: None, lambda: None)
    await broker.deliver("nodes", b"kept", keeps=True)
    await store.track(track_of("ann", "c1", grace=10.0, term="t1"))
    await store.untrack("a", "c1", NODE, left=False)
    await store.track(track_of("bob", "c2"))
    await store.untrack("a", "c2", NODE, left=True)
    await store.claim("/", "ann", "k1", NODE, most=1, replace=False)
    endless = own.command(
        "EVAL",
        "local r = {} for _, k in ipairs(redis.call('KEYS', '*')) do "
        "if redis.call('TTL', k) < 0 then r[#r + 1] = k end end return table.concat(r, ' ')",
        "0",
    )
    assert endless == "$0\r\n\r\n"
    assert not own.command("DBSIZE").startswith(":0")
