"""`?ack=replica`: a publication is acknowledged when a replica has it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.clients import until
from support.falsesentinel import FalseSentinel
from support.redissentinels import wait_until
from support.redisservers import RedisServer, redis_binary, valkey_binary
from symphony import Limits, OutcomeUnknownError, QueueFullError
from symphony.broker.base import Broker, Draft, History, Key, Record
from symphony.broker.engines import open_broker
from symphony.testing.drafts import data_of, draft, read_all

pytestmark = pytest.mark.timeout(60)

HISTORY = History(100_000)
KEY = Key("ann", "one", b"")


@pytest.fixture(params=["redis", "valkey"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[RedisServer]]:
    """A master and its replica."""
    binary = redis_binary() if request.param == "redis" else valkey_binary()
    servers: list[RedisServer] = []
    try:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            servers.append(RedisServer(tmp_path / name, binary))
            servers[-1].start()
        servers[1].command("REPLICAOF", "127.0.0.1", str(servers[0].port))
        wait_until(lambda: "master_link_status:up" in servers[1].command("INFO", "replication"))
        yield servers
    finally:
        for server in servers:
            server.kill()


@asynccontextmanager
async def opened(url: str, limits: Limits | None = None) -> AsyncIterator[Broker]:
    broker = await open_broker(f"{url}?ack=replica", limits or Limits())
    try:
        yield broker
    finally:
        broker.close()


def top_of(server: RedisServer) -> int:
    answer = server.command("HGET", "sym:{a}:m", "top").split("\r\n")
    return int(answer[1]) if len(answer) > 2 else 0


async def test_what_is_acknowledged_is_on_the_replica(pair: list[RedisServer]) -> None:
    async with opened(pair[0].url) as broker:
        heard: list[Record] = []
        await broker.subscribe("a", heard.append)
        for number in range(1, 101):
            position = await broker.publish("a", draft(number), HISTORY)
            assert top_of(pair[1]) >= number == position.offset
        calls = [broker.publish("a", draft(number), HISTORY) for number in range(101, 1001)]
        assert [(await call).offset for call in calls] == list(range(101, 1001))
        assert top_of(pair[1]) == 1000
        assert [data_of(record) for record in heard] == list(range(1, 1001))


async def test_a_publication_that_no_replica_gets_is_not_acknowledged(pair: list[RedisServer]) -> None:
    async with opened(pair[0].url, Limits(publish_timeout=1)) as broker:
        heard: list[Record] = []
        await broker.subscribe("a", heard.append)
        keyed = Draft("said", b"\x01", key=KEY)
        await broker.publish("a", draft(1), HISTORY)
        pair[1].signal(signal.SIGSTOP)
        try:
            with pytest.raises(OutcomeUnknownError, match="It was published, but no replica"):
                await broker.publish("a", keyed, HISTORY)
            # Members have it all the same, and a repeat has its position, but not before a replica has it.
            assert len(heard) == 2
            with pytest.raises(OutcomeUnknownError, match="It was published, but no replica"):
                await broker.publish("a", keyed, HISTORY)
            repeat = broker.publish("a", keyed, HISTORY)
        finally:
            pair[1].signal(signal.SIGCONT)
        assert (await repeat).offset == 2
        assert top_of(pair[1]) == 2
        assert len(await read_all(broker, "a")) == 2


async def test_a_repeat_on_another_connection_is_not_acknowledged_without_a_replica(
    pair: list[RedisServer],
) -> None:
    """WAIT is about what its own connection has written: without this, it would be true at once."""
    async with opened(pair[0].url, Limits(publish_timeout=1)) as one:
        await one.publish("a", draft(1), HISTORY)
        pair[1].signal(signal.SIGSTOP)
        try:
            keyed = Draft("said", b"\x01", key=KEY)
            with pytest.raises(OutcomeUnknownError):
                await one.publish("a", keyed, HISTORY)
            async with opened(pair[0].url, Limits(publish_timeout=1)) as two:
                with pytest.raises(OutcomeUnknownError, match="It was published, but no replica"):
                    await two.publish("a", keyed, HISTORY)
        finally:
            pair[1].signal(signal.SIGCONT)


async def test_a_publication_that_is_lost_with_its_server_is_not_acknowledged(
    pair: list[RedisServer],
) -> None:
    says = (pair[0].port, 1)
    async with FalseSentinel(lambda: says) as sentinel:
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster"
        async with opened(url, Limits(publish_timeout=20)) as broker:
            await broker.publish("a", draft(1), HISTORY)
            # From now on, the replica gets nothing, and is the next master.
            pair[1].command("REPLICAOF", "NO", "ONE")
            lost = asyncio.ensure_future(broker.publish("a", draft("lost"), HISTORY))
            await until(lambda: top_of(pair[0]) == 2)
            # It must have been answered before the failover; otherwise it is repeated.
            await until(lambda: not broker._commands._waiting.all())  # pyright: ignore[reportAttributeAccessIssue]
            says = (pair[1].port, 2)
            sentinel.tell("+switch-master", f"mymaster 127.0.0.1 1 127.0.0.1 {pair[1].port}")
            with pytest.raises(OutcomeUnknownError, match="replaced by one without it"):
                await lost
            assert await read_all(broker, "a") == [1]


async def test_publications_that_wait_for_a_replica_are_bounded(pair: list[RedisServer]) -> None:
    async with opened(pair[0].url, Limits(publish_timeout=4, max_broker_calls=3)) as broker:
        await broker.publish("a", draft(0), HISTORY)
        pair[1].signal(signal.SIGSTOP)
        try:
            calls: list[asyncio.Future[object]] = []
            for number in range(3):
                calls.append(broker.publish("a", draft(number), HISTORY))  # pyright: ignore[reportArgumentType]
                await until(lambda number=number: top_of(pair[0]) == number + 2)
            replicas = broker._replicas  # pyright: ignore[reportAttributeAccessIssue]
            # A publication that was just answered waits from the next turn on.
            await until(lambda: len(replicas._waiting) + len(replicas._asked) == 3)
            with pytest.raises(QueueFullError, match="wait for a replica"):
                await broker.publish("a", draft("too much"), HISTORY)
            for call in calls:
                with pytest.raises(OutcomeUnknownError):
                    await call
        finally:
            pair[1].signal(signal.SIGCONT)


async def test_a_user_who_may_not_wait_is_told(
    pair: list[RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    pair[0].command("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-wait")
    async with opened(f"redis://app:secret@127.0.0.1:{pair[0].port}") as broker:
        with pytest.raises(OutcomeUnknownError, match="refuses to ask its replicas"):
            await broker.publish("a", draft(1), HISTORY)
    assert "refuses to ask its replicas" in caplog.text
