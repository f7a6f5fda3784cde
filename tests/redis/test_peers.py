"""A Redis that lies, does not read, or permits little; and callers that give up."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from support.clients import until
from support.redisservers import RedisServer
from symphony import BrokerUnavailableError, Limits
from symphony.broker.base import Broker, History, Record
from symphony.broker.engines import open_broker, presence_beside
from symphony.broker.redis import subscriber as subscriber_module
from symphony.broker.redis.broker import RedisBroker
from symphony.errors import MessageTooLargeError, QueueFullError
from symphony.testing.drafts import data_of, draft, read_all
from symphony.testing.presencechecks import NODE, track_of

Connect = Callable[..., Awaitable[Broker]]

HISTORY = History(1000)
DOCS = Path(__file__).parents[2] / "docs" / "brokers.md"


async def test_callers_that_are_cancelled_lose_and_repeat_nothing(
    server: RedisServer, connect: Connect
) -> None:
    broker = await connect(server)
    assert isinstance(broker, RedisBroker)
    heard: list[Record] = []
    await broker.subscribe("a", heard.append)
    calls = [asyncio.ensure_future(broker.publish("a", draft(number), HISTORY)) for number in range(100)]
    for call in calls[::2]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    await until(lambda: len(heard) == 100)
    assert await read_all(broker, "a") == [data_of(record) for record in heard] == list(range(100))
    # Nothing is left of them.
    await until(lambda: not broker._own)
    assert not broker._commands._waiting.all()


async def test_what_other_programs_say_on_a_channel_is_left_out(
    server: RedisServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    broker = await connect(server)
    heard: list[Record] = []
    tops: list[object] = []
    await broker.subscribe("a", heard.append, tops.append)
    for nonsense in ("", "nonsense", "a b c d\n", "a 1 b \nx", "a 1 b c d e\n\x00\x00\x00\x09"):
        server.command("PUBLISH", "sym:{a}:c", nonsense)
    await broker.publish("a", draft(1), HISTORY)
    assert [data_of(record) for record in heard][-1:] == [1]
    assert tops == []
    assert "cannot be read" in caplog.text


async def test_a_server_that_has_become_a_replica_is_not_flooded(
    server: RedisServer, connect: Connect
) -> None:
    broker = await connect(server, Limits(publish_timeout=1.0))

    def connections() -> int:
        found = re.search(r"total_connections_received:(\d+)", server.command("INFO", "stats"))
        assert found is not None
        return int(found[1])

    server.command("REPLICAOF", "127.0.0.1", "1")
    before = connections()
    with pytest.raises(BrokerUnavailableError):
        await broker.publish("a", draft(1), HISTORY)
    assert connections() - before < 20
    server.command("REPLICAOF", "NO", "ONE")
    assert (await broker.publish("a", draft(2), HISTORY)).offset == 1


@pytest.mark.within("broker.redis.subscriber._MAX_UNSENT_BYTES")
@pytest.mark.beyond("broker.redis.subscriber._MAX_UNSENT_BYTES")
async def test_what_a_server_that_does_not_read_is_asked_for_is_bounded(
    server: RedisServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await connect(server, Limits(publish_timeout=2.0))
    assert isinstance(broker, RedisBroker)
    subscriber = broker._subscriber
    (line,) = subscriber._lines.values()
    link = line.link
    await subscriber.subscribe("wanted", lambda message: None)
    assert line.link is link
    monkeypatch.setattr(subscriber_module, "_MAX_UNSENT_BYTES", 10_000)
    server.signal(signal.SIGSTOP)
    try:
        # More than the buffers of the system take.
        names = [f"{number}{'x' * 10_000}" for number in range(2000)]
        joins = [asyncio.ensure_future(subscriber.subscribe(name, print)) for name in names]
        await until(lambda: line.link is not link)
        for join in joins:
            join.cancel()
        await asyncio.gather(*joins, return_exceptions=True)
    finally:
        server.signal(signal.SIGCONT)
    assert len(subscriber._channels) == 2
    heard: list[bytes] = []
    await subscriber.subscribe("wanted", heard.append)
    server.command("PUBLISH", "wanted", "hi")
    await until(lambda: heard == [b"hi"])


async def test_too_much_is_refused_before_it_is_sent(server: RedisServer, connect: Connect) -> None:
    broker = await connect(server, Limits(max_broker_calls=10))
    calls = [broker.publish("a", draft(number), HISTORY) for number in range(20)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, QueueFullError) for result in results) == 10
    assert await read_all(broker, "a") == list(range(10))
    with pytest.raises(MessageTooLargeError):
        await broker.publish("a", draft("x" * 65 * 1024 * 1024), HISTORY)
    assert await read_all(broker, "a") == list(range(10))


async def test_the_access_list_of_the_documentation_is_enough(server: RedisServer) -> None:
    found = re.search(r"~sym:\* &sym:\*[^`]*", DOCS.read_text())
    assert found is not None
    server.command("ACL", "SETUSER", "app", "reset", "on", ">secret", *found[0].split())
    broker = await open_broker(f"redis://app:secret@127.0.0.1:{server.port}", Limits())
    try:
        heard: list[Record] = []
        await broker.subscribe("a", heard.append)
        first = await broker.publish("a", draft(1), History(1))
        await broker.publish("a", draft(2), History(1))
        await broker.publish("a", draft(3), History(1))
        assert await read_all(broker, "a") == [3]
        await broker.before("a", first, limit=1)
        await broker.listen("nodes", lambda message: None, lambda: None)
        assert await broker.deliver("nodes", b"hi", keeps=True) == 0
        assert await broker.listeners("nodes") == 0
        broker.unlisten("nodes")
        store = presence_beside(broker)
        await store.track(track_of("ann", "c1", grace=1.0, term="t", most=2))
        left = await store.untrack("a", "c1", NODE, left=True)
        assert left.kind == "departed"
        await store.claim("/", "ann", "k", NODE, most=1, replace=True)
        await store.touch(NODE, [], ["k"])
        assert list(await store.reap(NODE)) == []
        assert left.decision is not None
        await store.ack([left.decision])
        await store.release("k")
        await store.vacate("a", "t")
        assert list(await store.rooms("ann")) == []
    finally:
        broker.close()
