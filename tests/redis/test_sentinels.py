"""A Redis whose master is another server at times, and sentinels that fail, lie, or know nothing."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.clients import until
from support.falsesentinel import FalseSentinel
from support.redissentinels import Replicated, wait_until
from support.redisservers import RedisServer, redis_binary
from symphony import BrokerUnavailableError, ConfigurationError, Limits
from symphony.broker.base import Broker, History, Record
from symphony.broker.engines import open_broker
from symphony.broker.redis import sentinel as sentinel_module
from symphony.broker.redis import sentinels as sentinels_module
from symphony.testing.drafts import data_of, draft, read_all

pytestmark = pytest.mark.timeout(60)

HISTORY = History(100_000)

Connect = Callable[..., Awaitable[Any]]


@pytest.fixture
def replicated(tmp_path: Path) -> Iterator[Replicated]:
    replicated = Replicated(tmp_path)
    try:
        replicated.start()
        yield replicated
    finally:
        replicated.kill()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[RedisServer]]:
    """A master and its replica."""
    servers: list[RedisServer] = []
    try:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            servers.append(RedisServer(tmp_path / name, redis_binary()))
            servers[-1].start()
        servers[1].command("REPLICAOF", "127.0.0.1", str(servers[0].port))
        wait_until(lambda: "master_link_status:up" in servers[1].command("INFO", "replication"))
        yield servers
    finally:
        for server in servers:
            server.kill()


async def is_replicated(pair: list[RedisServer], top: int) -> None:
    """Return when the replica has a publication."""
    await until(lambda: f"\r\n{top}\r\n" in pair[1].command("HGET", "sym:{a}:m", "top"))


@asynccontextmanager
async def opened(*sentinels: FalseSentinel) -> AsyncIterator[Broker]:
    broker = await open_broker(url_of(*sentinels), Limits())
    try:
        yield broker
    finally:
        broker.close()


def url_of(*sentinels: FalseSentinel) -> str:
    return f"redis+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in sentinels)}/mymaster"


async def test_nodes_follow_a_failover_and_hear_each_other(replicated: Replicated, connect: Connect) -> None:
    """A node that stays on the server before hears nothing, and gets answers to what is lost."""
    one, two = await connect(replicated), await connect(replicated)
    heard: list[Record] = []
    tops: list[object] = []
    await two.subscribe("a", heard.append, tops.append)
    before = await one.publish("a", draft("before"), HISTORY)
    await asyncio.to_thread(replicated.failover)
    await until(lambda: tops)
    after = await one.publish("a", draft("after"), HISTORY)
    assert after.epoch != before.epoch
    await until(lambda: any(data_of(record) == "after" for record in heard))
    # What was acknowledged before the failover had reached the replica, which was idle.
    assert await read_all(two, "a") == ["before", "after"]


async def test_a_server_that_is_the_same_under_two_addresses_is_not_left(pair: list[RedisServer]) -> None:
    """Sentinels may name one server by its address and by its host."""
    master = pair[0].port
    async with FalseSentinel(lambda: (master, 1)) as one, opened(one) as broker:
        tops: list[object] = []
        await broker.subscribe("a", lambda record: None, tops.append)
        source = broker._shards._source  # pyright: ignore[reportAttributeAccessIssue]
        source._told(sentinel_module.Said(("localhost", master), 2, "another"))
        await until(lambda: ("localhost", master) in source._addresses)
        await broker.publish("a", draft(1), HISTORY)
        assert tops == []


async def test_an_event_moves_both_connections_to_the_new_master(pair: list[RedisServer]) -> None:
    says = (pair[0].port, 1)
    async with FalseSentinel(lambda: says) as one, opened(one) as broker:
        heard: list[Record] = []
        tops: list[object] = []
        await broker.subscribe("a", heard.append, tops.append)
        await broker.publish("a", draft(1), HISTORY)
        pair[1].command("REPLICAOF", "NO", "ONE")
        says = (pair[1].port, 2)
        # It is about another master.
        one.tell("+switch-master", f"other 127.0.0.1 1 127.0.0.1 {pair[1].port}")
        one.tell("+switch-master", f"mymaster 127.0.0.1 1 127.0.0.1 {pair[1].port}")
        await until(lambda: tops)
        await broker.publish("a", draft(2), HISTORY)
        await until(lambda: len(heard) == 2)
        # The server before does not have it.
        assert int(pair[0].command("HGET", "sym:{a}:m", "top").split("\r\n")[1]) == 1


async def test_a_sentinel_that_names_a_replica_is_not_believed(
    pair: list[RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        FalseSentinel(lambda: (pair[0].port, 1)) as right,
        FalseSentinel(lambda: (pair[1].port, 7)) as wrong,
        opened(right, wrong) as broker,
    ):
        tops: list[object] = []
        await broker.subscribe("a", lambda record: None, tops.append)
        for _ in range(5):
            wrong.tell("+switch-master", "mymaster 127.0.0.1 1 127.0.0.1 2")
            await broker.publish("a", draft(1), HISTORY)
        assert tops == []
    told = [record.message for record in caplog.records if "says that it is a replica" in record.message]
    assert told == [
        f"The sentinel 127.0.0.1:{wrong.port} says that 127.0.0.1:{pair[1].port} is the master, "
        "which says that it is a replica."
    ]


async def test_a_sentinel_that_has_not_heard_of_a_failover_is_not_followed(pair: list[RedisServer]) -> None:
    """The server before still says that it is a master."""
    pair[1].command("REPLICAOF", "NO", "ONE")
    async with (
        FalseSentinel(lambda: (pair[0].port, 1)) as late,
        FalseSentinel(lambda: (pair[1].port, 2)) as right,
        opened(late, right) as broker,
    ):
        late.tell("+switch-master", "mymaster 127.0.0.1 1 127.0.0.1 2")
        await broker.publish("a", draft(1), HISTORY)
        pair[1].command("CLIENT", "KILL", "TYPE", "normal")
        await broker.publish("a", draft(2), HISTORY)
        assert "2" in pair[1].command("HGET", "sym:{a}:m", "top")
        assert pair[0].command("EXISTS", "sym:{a}:m") == ":0\r\n"


@pytest.mark.within("broker.redis.sentinel._SENTINEL_TIMEOUT")
@pytest.mark.beyond("broker.redis.sentinel._SENTINEL_TIMEOUT")
async def test_one_sentinel_that_answers_is_enough(
    pair: list[RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "symphony.app")
    async with (
        FalseSentinel(lambda: (pair[0].port, 1)) as right,
        FalseSentinel(lambda: (pair[0].port, 1)) as silent,
        FalseSentinel(lambda: None) as ignorant,
        FalseSentinel(lambda: None) as gone,
    ):
        silent.answers = False
        await gone.__aexit__()
        async with opened(gone, silent, ignorant, right) as broker:
            await broker.publish("a", draft(1), HISTORY)
            await until(lambda: f":{silent.port} does not say" in caplog.text)
            silent.answers = True
            await until(lambda: f":{silent.port} says which server is the master again" in caplog.text)
    assert (
        f"The sentinel 127.0.0.1:{silent.port} does not say which server is the master: it does not"
        in caplog.text
    )
    assert (
        f"The sentinel 127.0.0.1:{gone.port} does not say which server is the master: it cannot be"
        in caplog.text
    )
    assert (
        f"127.0.0.1:{ignorant.port} does not say which server is the master: it knows no master"
        in caplog.text
    )
    assert len([record for record in caplog.records if f":{gone.port} does not" in record.message]) == 1


async def test_sentinels_that_do_not_know_the_name_are_an_error_at_start(pair: list[RedisServer]) -> None:
    async with FalseSentinel(lambda: None) as one, FalseSentinel(lambda: None) as two:
        with pytest.raises(ConfigurationError, match=r"know no master 'mymaster'.*sentinel monitor"):
            await open_broker(url_of(one, two), Limits())


async def test_sentinels_that_are_away_are_named_at_start_without_passwords() -> None:
    async with FalseSentinel(lambda: None) as one:
        pass
    url = url_of(one).replace("://", "://ann:hidden@") + "?sentinel_password=hidden"
    with pytest.raises(BrokerUnavailableError) as raised:
        await open_broker(url, Limits(publish_timeout=1))
    assert f"127.0.0.1:{one.port}: it cannot be reached" in str(raised.value)
    assert "hidden" not in str(raised.value)


async def test_a_server_that_is_a_replica_is_named_at_start(pair: list[RedisServer]) -> None:
    with pytest.raises(BrokerUnavailableError, match="is a replica"):
        await open_broker(pair[1].url, Limits(publish_timeout=0.5))


async def test_nothing_is_published_while_a_sentinel_replaces_the_master(pair: list[RedisServer]) -> None:
    """The new one would not have it."""
    async with FalseSentinel(lambda: (pair[0].port, 1)) as one, opened(one) as broker:
        await broker.publish("a", draft(1), HISTORY)
        await is_replicated(pair, 1)
        one.flags = "master,failover_in_progress"
        one.tell("+failover-state-select-slave", f"master mymaster 127.0.0.1 {pair[0].port}")
        await until(lambda: not broker._commands.is_connected)  # pyright: ignore[reportAttributeAccessIssue]
        publication = asyncio.ensure_future(broker.publish("a", draft(2), HISTORY))
        pair[1].command("REPLICAOF", "NO", "ONE")
        one.says = lambda: (pair[1].port, 2)
        one.tell("+promoted-slave", f"slave x 127.0.0.1 1 @ mymaster 127.0.0.1 {pair[0].port}")
        one.flags = "master"
        await publication
        assert await read_all(broker, "a") == [1, 2]
        assert int(pair[0].command("HGET", "sym:{a}:m", "top").split("\r\n")[1]) == 1


async def test_a_failover_that_does_not_end_is_not_waited_for(
    pair: list[RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentinels_module, "_HOLD", 0.2)
    async with FalseSentinel(lambda: (pair[0].port, 1)) as one:
        one.flags = "master,failover_in_progress"
        async with opened(one) as broker:
            await broker.publish("a", draft(1), HISTORY)


async def test_a_server_that_answers_after_it_was_replaced_is_not_used(
    pair: list[RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    """It was stopped while nodes connected to it, and still says that it is a master."""
    says = (pair[0].port, 1)
    async with FalseSentinel(lambda: says) as one, opened(one) as broker:
        await broker.publish("a", draft(1), HISTORY)
        await is_replicated(pair, 1)
        pair[0].command("CLIENT", "KILL", "TYPE", "normal")
        pair[0].signal(signal.SIGSTOP)
        try:
            source = broker._shards._source  # pyright: ignore[reportAttributeAccessIssue]
            await until(lambda: source._dialing)
            pair[1].command("REPLICAOF", "NO", "ONE")
            says = (pair[1].port, 2)
            one.tell("+switch-master", f"mymaster 127.0.0.1 1 127.0.0.1 {pair[1].port}")
            await broker.publish("a", draft(2), HISTORY)
        finally:
            pair[0].signal(signal.SIGCONT)
        await broker.publish("a", draft(3), HISTORY)
        assert await read_all(broker, "a") == [1, 2, 3]
    assert caplog.text.count("The master of the broker of the rooms is") == 1


async def test_servers_that_hide_what_they_are_are_followed_all_the_same(
    pair: list[RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    """Only the sentinels say then which one is the master. The app is warned at the start."""
    for server in pair:
        server.command("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-info")
    says = (pair[0].port, 1)
    async with FalseSentinel(lambda: says) as one:
        broker = await open_broker(url_of(one).replace("://", "://app:secret@"), Limits())
        try:
            assert "It will not be noticed if the server loses its last publications" in caplog.text
            await broker.publish("a", draft(1), HISTORY)
            await is_replicated(pair, 1)
            pair[1].command("REPLICAOF", "NO", "ONE")
            says = (pair[1].port, 2)
            one.tell("+switch-master", f"mymaster 127.0.0.1 1 127.0.0.1 {pair[1].port}")
            await until(lambda: f"is 127.0.0.1:{pair[1].port} now" in caplog.text)
            assert (await broker.publish("a", draft(2), HISTORY)).offset == 2
            await is_replicated(pair, 2)
        finally:
            broker.close()


async def test_many_events_are_asked_about_one_at_a_time(pair: list[RedisServer]) -> None:
    async with FalseSentinel(lambda: (pair[0].port, 1)) as one, opened(one) as broker:
        before = one.asked
        for _ in range(10_000):
            one.tell("+switch-master", "mymaster 127.0.0.1 1 127.0.0.1 2")
        await broker.publish("a", draft(1), HISTORY)
        pair[0].command("CLIENT", "KILL", "TYPE", "normal")
        # It asks for its connection, after all events.
        await broker.publish("a", draft(2), HISTORY)
        assert 2 <= one.asked - before < 1000
