"""A real cluster whose slots move, and a map of it that is wrong."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from support.clients import until
from support.redisclusters import RedisCluster
from support.redisproxy import RedisProxy
from support.redisservers import RedisServer
from symphony import ConfigurationError, Limits
from symphony.broker.attendance import Diff, Renewal
from symphony.broker.base import History, Record
from symphony.broker.engines import open_broker, presence_beside
from symphony.broker.redis import probe
from symphony.broker.redis.broker import RedisBroker
from symphony.broker.redis.cluster import Slots, slot_of
from symphony.broker.redis.scripts import Names
from symphony.testing.drafts import data_of, draft, read_all
from symphony.testing.presencechecks import NODE, track_of

Connect = Callable[..., Awaitable[RedisBroker]]

HISTORY = History(1000)
DOCS = Path(__file__).parents[2] / "docs" / "brokers.md"
NAMES = Names("sym")


@pytest.fixture(params=["redis", "valkey"])
def cluster(request: pytest.FixtureRequest, clusters: Callable[[str], RedisCluster]) -> RedisCluster:
    return clusters(request.param)


def ends_of(cluster: RedisCluster, name: str) -> tuple[int, RedisServer, RedisServer]:
    """Return the slot of a name, its server, and another one."""
    slot = slot_of(name)
    source = cluster.master_of(slot)
    return slot, source, next(server for server in cluster.servers if server is not source)


async def test_what_is_published_while_a_slot_moves_waits_and_keeps_its_order(
    cluster: RedisCluster, connect: Connect
) -> None:
    one, two = await connect(cluster), await connect(cluster)
    heard: list[Record] = []
    tops: list[int] = []
    await one.subscribe("a", lambda record: None)
    await two.subscribe("a", heard.append, lambda top: tops.append(top.offset))
    for number in range(3):
        await one.publish("a", draft(number), HISTORY)
    slot, source, target = ends_of(cluster, NAMES.channel("a"))
    cluster.begin_move(slot, target)
    calls = [one.publish("a", draft(number), HISTORY) for number in range(3, 103)]
    await until(lambda: slot in one._commands._held)
    calls += [one.publish("a", draft(number), HISTORY) for number in range(103, 203)]
    cluster.move_keys(slot, source, target)
    # Another slot does not wait.
    other = next(name for name in map(str, range(100)) if slot_of(NAMES.channel(name)) != slot)
    await one.publish(other, draft(1), HISTORY)
    assert slot in one._commands._held
    cluster.end_move(slot, source, target)
    assert [(await call).offset for call in calls] == list(range(4, 204))
    assert await read_all(two, "a") == list(range(203))
    # It has compared, even if nothing is missing.
    await until(lambda: tops)
    await one.publish("a", draft("last"), HISTORY)
    await until(lambda: heard[-1:] and data_of(heard[-1]) == "last")
    offsets = [record.position.offset for record in heard]
    assert offsets == sorted(set(offsets))
    # Whoever has compared knows how far it has missed something.
    missed = set(range(1, 205)) - set(offsets)
    assert not missed or max(missed) <= max(tops)


async def test_messages_wait_for_a_slot_that_moves(cluster: RedisCluster, connect: Connect) -> None:
    one, two = await connect(cluster), await connect(cluster)
    heard: list[bytes] = []
    missed: list[None] = []
    await two.listen("nodes", heard.append, lambda: missed.append(None))
    slot, source, target = ends_of(cluster, NAMES.topic("nodes"))
    for server, other in ((source, target), (target, source)):
        cluster.begin_move(slot, other)
        kept = one.deliver("nodes", b"kept", keeps=True)
        plain = one.deliver("nodes", b"plain")
        listeners = asyncio.ensure_future(one.listeners("nodes"))
        await until(lambda: slot in one._commands._held)
        cluster.move_keys(slot, server, other)
        cluster.end_move(slot, server, other)
        assert await asyncio.wait_for(kept, 5) == 1
        await plain
        await listeners
        await until(lambda: heard.count(b"kept") == 1)
        # When the channel is heard again, all is as before.
        await until(lambda: NAMES.topic("nodes") in hears(two))
        assert await one.deliver("nodes", b"last") == 1
        await until(lambda: heard[-1] == b"last")
        assert await one.listeners("nodes") == 1
        heard.clear()
    assert not missed


def has(cluster: RedisCluster, key: str) -> bool:
    """Return whether a key exists."""
    return cluster.master_of(slot_of(key)).command("EXISTS", key).startswith(":1")


def hears(broker: RedisBroker) -> list[str]:
    """Return which channels a broker hears at this moment."""
    channels = broker._subscriber._channels
    return [name.decode() for name, channel in channels.items() if channel.is_heard]


async def test_members_wait_for_a_slot_that_moves(cluster: RedisCluster, connect: Connect) -> None:
    """A script that ends in the middle, because a key has moved, would leave half a member."""
    one, two = [presence_beside(await connect(cluster)) for _ in range(2)]
    first = await one.track(track_of("ann", "c1"))
    heard: list[Diff] = []
    await two.subscribe("a", heard.append)
    name = next(name for name in map(NAMES.presence, map(str, range(16))) if has(cluster, f"{name}r:a"))
    slot, source, target = ends_of(cluster, name)
    cluster.begin_move(slot, target)
    joins = [
        asyncio.ensure_future(one.track(track_of(f"m{number}", f"c{number}"))) for number in range(2, 30)
    ]
    done, _ = await asyncio.wait(joins, timeout=0.05)
    # One key after the other, as they are: nothing of a call is carried out meanwhile.
    cluster.move_keys(slot, source, target)
    assert not done
    cluster.end_move(slot, source, target)
    assert {(await join).kind for join in joins} == {"arrived"}
    roster = await two.read("a")
    assert [member.member for member in roster.members] == ["ann", *(f"m{number}" for number in range(2, 30))]
    assert roster.version == first.version + 28
    # The store has another life, so that nobody takes its versions for the ones before.
    assert roster.epoch != first.epoch
    assert (await one.untrack("a", "c1", NODE, left=True)).kind == "departed"


async def test_members_elsewhere_do_not_wait_for_a_server_that_does_not_answer(
    cluster: RedisCluster, connect: Connect
) -> None:
    store = presence_beside(await connect(cluster))
    rooms = [f"r{number}" for number in range(40)]
    for room in rooms:
        await store.track(track_of("ann", f"c {room}")._replace(room=room))
    renewals = [Renewal(room, [f"c {room}"]) for room in rooms]
    assert [seen.room for seen in (await store.touch(NODE, renewals, [])).rooms] == rooms
    cluster.servers[0].signal(signal.SIGSTOP)
    try:
        seen = (await store.touch(NODE, renewals, [])).rooms
        assert 0 < len(seen) < len(rooms)
        assert all(not each.unknown for each in seen)
        assert list(await store.reap(NODE)) == []
    finally:
        cluster.servers[0].signal(signal.SIGCONT)


async def test_a_map_that_is_out_of_date_at_the_start_is_put_right(
    cluster: RedisCluster, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = Slots.of
    looks = 0

    def late(answer: Any, host: str, *, tls: bool) -> Slots:
        nonlocal looks
        looks += 1
        slots = of(answer, host, tls=tls)
        if looks > 1:
            return slots
        masters = list(dict.fromkeys(slots.masters))
        others = dict(zip(masters, masters[1:] + masters[:1], strict=True))
        return Slots([others[master] for master in slots.masters], slots.nodes)

    monkeypatch.setattr(Slots, "of", late)
    broker = await connect(cluster)
    rooms = [f"r{number}" for number in range(20)]
    heard: list[tuple[str, object]] = []
    calls = [broker.publish(room, draft(number), HISTORY) for number in range(10) for room in rooms]
    for room in rooms:
        await broker.subscribe(room, lambda record, room=room: heard.append((room, data_of(record))))
    assert [(await call).offset for call in calls] == [number for number in range(1, 11) for _ in rooms]
    for room in rooms:
        await broker.publish(room, draft("last"), HISTORY)
        assert await read_all(broker, room) == [*range(10), "last"]
    await until(lambda: {room for room, data in heard if data == "last"} == set(rooms))
    assert looks > 1


async def test_a_connection_to_one_server_that_hears_nothing_is_noticed(
    cluster: RedisCluster, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_PROBE", 0.05)
    monkeypatch.setattr(probe, "_PROBE_TIMEOUT", 0.5)
    rooms = [
        next(f"r{n}" for n in range(99) if cluster.master_of(slot_of(NAMES.channel(f"r{n}"))) is server)
        for server in cluster.servers
    ]
    deaf = cluster.servers[0].port
    async with RedisProxy(deaf) as proxy:
        of = Slots.of

        def through(answer: Any, host: str, *, tls: bool) -> Slots:
            slots = of(answer, host, tls=tls)
            there = ("127.0.0.1", proxy.port)
            return Slots([there if each == (host, deaf) else each for each in slots.masters], slots.nodes)

        monkeypatch.setattr(Slots, "of", through)
        broker = await connect(cluster)
        tops: list[str] = []
        for room in rooms:
            await broker.subscribe(room, lambda record: None, lambda top, room=room: tops.append(room))
        proxy.swallows = lambda part: b"smessage\r\n" in part
        await until(lambda: broker.state == "deaf")
        proxy.swallows = lambda part: False
        await until(lambda: broker.state == "ok" and tops)
        # Those of other servers were heard all the time.
        assert set(tops) == {rooms[0]}
        broker.close()


async def test_scripts_that_are_gone_are_loaded_again_and_the_order_stays(
    cluster: RedisCluster, connect: Connect
) -> None:
    broker = await connect(cluster)
    calls: list[Awaitable[Any]] = []
    for number in range(300):
        calls.append(broker.publish("a", draft(number), HISTORY))
        if number % 100 == 50:
            cluster.command("SCRIPT", "FLUSH")
            await asyncio.sleep(0)
    assert [(await call).offset for call in calls] == list(range(1, 301))
    assert await read_all(broker, "a") == list(range(300))


async def test_the_url_of_one_server_and_that_of_a_cluster_are_told_apart(
    cluster: RedisCluster, server: RedisServer
) -> None:
    port = cluster.servers[0].port
    with pytest.raises(
        ConfigurationError, match=rf"is a server of a cluster. Write redis\+cluster://127.0.0.1:{port}"
    ):
        await open_broker(f"redis://127.0.0.1:{port}", Limits())
    with pytest.raises(
        ConfigurationError, match=rf"not a server of a cluster. Write redis://127.0.0.1:{server.port}"
    ):
        await open_broker(f"redis+cluster://127.0.0.1:{server.port}", Limits())


async def test_slots_are_those_of_the_servers(cluster: RedisCluster) -> None:
    for name in ("a", "sym:{é}:m", "a{}{b}", "a{b", "a}b{", "{}", "{{a}}", "a{b}{c}", NAMES.channel("x{y}")):
        assert cluster.servers[0].command("CLUSTER", "KEYSLOT", name) == f":{slot_of(name)}\r\n"


async def test_the_first_server_may_be_away_at_the_start(cluster: RedisCluster) -> None:
    broker = await open_broker(cluster.url.replace("://", "://127.0.0.1:1,"), Limits())
    try:
        assert (await broker.publish("a", draft(1), HISTORY)).offset == 1
    finally:
        broker.close()


async def test_a_wrong_password_is_an_error_without_the_password(cluster: RedisCluster) -> None:
    with pytest.raises(ConfigurationError, match="refuses this user") as raised:
        await open_broker(cluster.url.replace("://", "://ann:hidden@"), Limits())
    assert "hidden" not in str(raised.value)


async def test_the_access_list_of_the_documentation_is_enough(cluster: RedisCluster) -> None:
    permitted = " ".join(re.findall(r"^[~+].*$", DOCS.read_text(), re.MULTILINE))
    assert "+cluster|shards" in permitted
    cluster.command("ACL", "SETUSER", "app", "reset", "on", ">secret", *permitted.split())
    broker = await open_broker(cluster.url.replace("://", "://app:secret@"), Limits())
    try:
        heard: list[Record] = []
        await broker.subscribe("a", heard.append)
        assert isinstance(broker, RedisBroker)
        slot, source, target = ends_of(cluster, NAMES.channel("a"))
        for _ in range(3):
            await broker.publish("a", draft(1), History(1))
        cluster.begin_move(slot, target)
        call = broker.publish("a", draft(2), History(1))
        await until(lambda: slot in broker._commands._held)
        cluster.move_keys(slot, source, target)
        cluster.end_move(slot, source, target)
        assert (await call).offset == 4
        await until(lambda: NAMES.channel("a") in hears(broker))
        await broker.listen("nodes", lambda message: None, lambda: None)
        assert await broker.deliver("nodes", b"hi", keeps=True) == 0
        assert await broker.deliver("nodes", b"hi") == 0
        assert await broker.listeners("nodes") == 0
        broker.unlisten("nodes")
        broker.unsubscribe("a")
        store = presence_beside(broker)
        await store.subscribe("a", lambda diff: None)
        await store.track(track_of("ann", "c1", grace=1.0, term="t", most=2))
        left = await store.untrack("a", "c1", NODE, left=True)
        await store.claim("/", "ann", "k", NODE, most=1, replace=True)
        await store.touch(NODE, [], ["k"])
        assert list(await store.reap(NODE)) == []
        assert left.decision is not None
        await store.ack([left.decision])
        assert list(await store.rooms("ann")) == []
    finally:
        broker.close()
        cluster.command("ACL", "DELUSER", "app")
