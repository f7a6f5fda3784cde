"""A real Redis that is killed, stopped, emptied or set back, and connections to it that fail."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest

from support.clients import until
from support.redisproxy import RedisProxy
from support.redisservers import RedisServer
from symphony import BrokerUnavailableError, ConfigurationError, Limits
from symphony.broker.base import Broker, Draft, History, Key, Record
from symphony.broker.engines import open_broker
from symphony.broker.redis import keptmessages
from symphony.broker.redis import probe as probe_module
from symphony.broker.redis.broker import RedisBroker
from symphony.broker.redis.shards import Shard
from symphony.broker.redis.subscriber import Subscriber
from symphony.errors import OutcomeUnknownError
from symphony.protocol.positions import Position
from symphony.testing.drafts import PAGE, data_of, draft, read_all

Connect = Callable[..., Awaitable[Broker]]

HISTORY = History(1000)


async def publish(broker: Broker, *data: object) -> list[Position]:
    return [await broker.publish("a", draft(each), HISTORY) for each in data]


async def follows(broker: Broker, position: Position) -> list[object] | None:
    """Return what follows a position; `None`: that is not known."""
    page = await broker.after("a", position, limit=100, max_bytes=PAGE)
    return [data_of(record) for record in page.records] if page.complete else None


async def test_a_server_that_was_killed_and_is_empty_begins_a_new_epoch(
    server: RedisServer, connect: Connect
) -> None:
    broker = await connect(server)
    heard: list[Record] = []
    tops: list[Position] = []
    await broker.subscribe("a", heard.append, tops.append)
    (before,) = await publish(broker, 1)
    server.kill()
    server.start()
    await until(lambda: tops)
    assert tops[0].epoch != before.epoch
    (after,) = await publish(broker, 2)
    assert (after.offset, after.epoch) == (1, tops[0].epoch)
    assert await follows(broker, before) is None
    await until(lambda: len(heard) == 2)


async def test_a_server_with_its_data_loses_nothing(server: RedisServer, connect: Connect) -> None:
    broker = await connect(server)
    positions = await publish(broker, 1, 2, 3)
    server.command("SAVE")
    server.kill()
    server.start()
    assert await follows(broker, positions[0]) == [2, 3]
    (later,) = await publish(broker, 4)
    assert later.offset == 4
    # The server may have lost something, so the epoch is another one. Positions of the old one hold.
    assert later.epoch != positions[0].epoch
    assert await follows(broker, positions[2]) == [4]


async def test_what_an_older_snapshot_has_lost_is_told_to_those_whom_it_concerns(
    server: RedisServer, connect: Connect
) -> None:
    broker = await connect(server)
    one, two = await publish(broker, 1, 2)
    server.command("SAVE")
    three, four = await publish(broker, 3, 4)
    server.kill()
    server.start()
    assert await follows(broker, two) == []
    assert await follows(broker, three) is None
    # Whoever has heard what is lost goes on where the two are the same, and gets nothing twice.
    for lost in (three, four):
        page = await broker.after("a", lost, limit=100, max_bytes=PAGE)
        assert (page.complete, page.end.offset) == (False, two.offset)
    (again,) = await publish(broker, "another 3")
    assert again.offset == three.offset
    assert again.epoch != three.epoch
    assert await follows(broker, one) == [2, "another 3"]
    assert await follows(broker, three) is None
    assert await follows(broker, four) is None
    assert await follows(broker, again) == []


async def test_two_lives_from_one_snapshot_have_different_positions(
    server: RedisServer, connect: Connect
) -> None:
    broker = await connect(server)
    (one,) = await publish(broker, 1)
    server.command("SAVE")
    server.kill()
    server.start()
    (first_life,) = await publish(broker, "in the first life")
    server.kill()
    server.start()
    (second_life,) = await publish(broker, "in the second life")
    assert (first_life.offset, second_life.offset) == (2, 2)
    assert first_life.epoch != second_life.epoch
    assert await follows(broker, first_life) is None
    assert await follows(broker, one) == ["in the second life"]


async def test_a_publication_waits_for_a_server_that_is_stopped_for_a_moment(
    server: RedisServer, connect: Connect
) -> None:
    broker = await connect(server, Limits(publish_timeout=10))
    heard: list[Record] = []
    await broker.subscribe("a", heard.append)
    server.signal(signal.SIGSTOP)
    calls = [broker.publish("a", draft(number), HISTORY) for number in range(20)]
    publications = [asyncio.ensure_future(call) for call in calls]
    try:
        done, _ = await asyncio.wait(publications, timeout=0.2)
        assert not done
    finally:
        server.signal(signal.SIGCONT)
    positions = await asyncio.gather(*publications)
    assert [position.offset for position in positions] == list(range(1, 21))
    assert await read_all(broker, "a") == list(range(20))
    assert [data_of(record) for record in heard] == list(range(20))


async def test_a_server_that_does_not_come_back_is_told(server: RedisServer, connect: Connect) -> None:
    broker = await connect(server, Limits(publish_timeout=0.5))
    server.signal(signal.SIGSTOP)
    with pytest.raises(OutcomeUnknownError):
        await publish(broker, 1)
    server.kill()
    await asyncio.sleep(0)
    with pytest.raises(BrokerUnavailableError):
        await publish(broker, 2)
    server.start()
    assert isinstance(broker, RedisBroker)
    # A call may take half a second, and the pause between attempts to connect is longer.
    await until(lambda: broker._commands.reaches("a"))
    await publish(broker, 3)
    assert await read_all(broker, "a") == [3]


async def test_a_publication_whose_answer_was_lost_is_published_once(server: RedisServer) -> None:
    async with RedisProxy(server.port) as proxy:
        broker = await open_broker(proxy.url, Limits())
        lost = 0

        def loses(part: bytes) -> bool:
            nonlocal lost
            # The answer to a publication.
            is_lost = lost < 3 and b"$2\r\nok\r\n" in part
            lost += is_lost
            return is_lost

        try:
            proxy.loses = loses
            for number in range(10):
                assert (await broker.publish("a", draft(number), HISTORY)).offset == number + 1
            assert lost == 3
            assert await read_all(broker, "a") == list(range(10))
            # With a key of its own, too, and in order.
            lost = 0
            calls = [
                broker.publish("a", Draft("said", b"\x01", key=Key("ann", str(number), b"")), HISTORY)
                for number in range(100)
            ]
            assert [(await call).offset for call in calls] == list(range(11, 111))
            assert lost > 0
        finally:
            broker.close()


async def test_scripts_that_are_gone_are_loaded_again_and_the_order_stays(
    server: RedisServer, connect: Connect
) -> None:
    broker = await connect(server)
    calls: list[Awaitable[Position]] = []
    for number in range(300):
        calls.append(broker.publish("a", draft(number), HISTORY))
        if number % 100 == 50:
            server.command("SCRIPT", "FLUSH")
            await asyncio.sleep(0)
    assert [(await call).offset for call in calls] == list(range(1, 301))
    assert await read_all(broker, "a") == list(range(300))


async def test_a_subscriber_that_was_cut_learns_what_it_has_missed(
    server: RedisServer, connect: Connect
) -> None:
    broker = await connect(server)
    heard: list[Record] = []
    tops: list[Position] = []
    await broker.subscribe("a", heard.append, tops.append)
    for number in range(5):
        server.command("CLIENT", "KILL", "TYPE", "pubsub")
        (position,) = await publish(broker, number)
        await until(lambda: tops)
        assert tops[-1].offset >= position.offset
        tops.clear()
    # What was not heard, its publisher's answer has told.
    assert [data_of(record) for record in heard] == list(range(5))


@pytest.mark.beyond("broker.redis.probe._PROBE_TIMEOUT")
async def test_a_connection_that_hears_nothing_is_noticed(server: RedisServer) -> None:
    async with RedisProxy(server.port) as proxy:
        broker = await open_broker(proxy.url, Limits())
        tops: list[Position] = []
        try:
            await broker.subscribe("a", lambda record: None, tops.append)
            # What is told to channels does not arrive, and nothing is cut.
            proxy.swallows = lambda part: b"message\r\n" in part
            await publish(broker, 1)
            await until(lambda: tops)
            assert tops[0].offset == 1
            assert broker.state == "deaf"
            proxy.swallows = lambda part: False
            await until(lambda: broker.state == "ok")
        finally:
            broker.close()


async def test_a_broker_that_all_nodes_lose_makes_none_of_them_deaf(
    server: RedisServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it did, all nodes would say at once that they are not ready."""
    monkeypatch.setattr(probe_module, "_PROBE", 0.01)
    monkeypatch.setattr(probe_module, "_PROBE_TIMEOUT", 0.1)
    broker = await connect(server)
    states: list[str] = []
    reconnect = Subscriber.reconnect

    def noted(subscriber: Subscriber, to: Shard) -> None:
        states.append(broker.state)
        reconnect(subscriber, to)

    monkeypatch.setattr(Subscriber, "reconnect", noted)
    server.signal(signal.SIGSTOP)
    await until(lambda: states)
    server.signal(signal.SIGCONT)
    server.kill()
    await until(lambda: broker.state == "away")
    server.start()
    await until(lambda: broker.state == "ok")
    assert "deaf" not in states


async def test_a_server_without_memory_refuses_and_keeps_what_it_has(
    server: RedisServer, connect: Connect
) -> None:
    broker = await connect(server)
    await publish(broker, 1)
    server.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(BrokerUnavailableError, match="no memory left"):
        await publish(broker, 2)
    server.command("CONFIG", "SET", "maxmemory", "0")
    assert [position.offset for position in await publish(broker, 3)] == [2]
    assert await read_all(broker, "a") == [1, 3]


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_evicts_is_refused(server: RedisServer, connect: Connect, policy: str) -> None:
    server.command("CONFIG", "SET", "maxmemory", "100mb")
    server.command("CONFIG", "SET", "maxmemory-policy", policy)
    with pytest.raises(ConfigurationError, match=f"may evict .*{policy}.*allow_eviction=1"):
        await connect(server)
    broker = await open_broker(f"{server.url}?allow_eviction=1", Limits())
    broker.close()


async def test_a_user_without_info_is_warned(
    server: RedisServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    server.command("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-info", "-config")
    broker = await open_broker(f"redis://app:secret@127.0.0.1:{server.port}", Limits())
    try:
        assert "does not permit INFO" in caplog.text
        await publish(broker, 1)
        assert await read_all(broker, "a") == [1]
    finally:
        broker.close()


async def test_a_wrong_password_is_an_error_without_the_password(server: RedisServer) -> None:
    server.command("CONFIG", "SET", "requirepass", "right")
    with pytest.raises(ConfigurationError) as raised:
        await open_broker(f"redis://:hidden@127.0.0.1:{server.port}", Limits())
    assert "refuses this user" in str(raised.value)
    assert "hidden" not in str(raised.value)
    (await open_broker(f"redis://:right@127.0.0.1:{server.port}", Limits())).close()


async def test_apps_with_different_prefixes_or_databases_share_nothing(server: RedisServer) -> None:
    urls = [server.url, f"{server.url}?prefix=other", f"{server.url}/1"]
    brokers = [await open_broker(url, Limits()) for url in urls]
    heard: list[tuple[int, object]] = []
    try:
        for index, broker in enumerate(brokers):
            await broker.subscribe("a", lambda record, index=index: heard.append((index, data_of(record))))
        for index, broker in enumerate(brokers):
            assert [position.offset for position in await publish(broker, index)] == [1]
        assert heard == [(0, 0), (1, 1), (2, 2)]
    finally:
        for broker in brokers:
            broker.close()


async def test_a_node_that_was_cut_off_gets_what_was_kept_for_it_first(server: RedisServer) -> None:
    async with RedisProxy(server.port) as proxy:
        one, two = await open_broker(server.url, Limits()), await open_broker(proxy.url, Limits())
        heard: list[bytes] = []
        try:
            await two.listen("nodes", heard.append, lambda: heard.append(b"missed"))
            assert await one.deliver("nodes", b"first", keeps=True) == 1
            await until(lambda: heard == [b"first"])
            proxy.cut()
            assert await one.deliver("nodes", b"kept 1", keeps=True) == 1
            assert await one.deliver("nodes", b"kept 2", keeps=True) == 1
            await until(lambda: len(heard) == 3)
            await one.relay("nodes", b"later")
            await until(lambda: len(heard) == 4)
            assert heard == [b"first", b"kept 1", b"kept 2", b"later"]
            two.close()
            await until(lambda: not server.command("ZCARD", "sym:{%t:nodes}:n").startswith(":1"))
            assert await one.deliver("nodes", b"to nobody", keeps=True) == 0
        finally:
            one.close()
            two.close()


async def test_a_node_that_was_cut_off_for_too_long_is_told(server: RedisServer) -> None:
    async with RedisProxy(server.port) as proxy:
        one, two = await open_broker(server.url, Limits()), await open_broker(proxy.url, Limits())
        heard: list[bytes] = []
        try:
            await two.listen("nodes", heard.append, lambda: heard.append(b"missed"))
            proxy.cut()
            await one.deliver("nodes", b"gone", keeps=True)
            server.command("DEL", "sym:{%t:nodes}:s")
            await until(lambda: heard)
            assert heard == [b"missed"]
        finally:
            one.close()
            two.close()


@pytest.mark.within("broker.redis.keptmessages._MAX_KEPT")
@pytest.mark.beyond("broker.redis.keptmessages._MAX_KEPT")
async def test_what_is_kept_for_a_node_is_bounded(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keptmessages, "_MAX_KEPT", 3)
    async with RedisProxy(server.port) as proxy:
        one, two = await open_broker(server.url, Limits()), await open_broker(proxy.url, Limits())
        heard: list[bytes] = []
        try:
            await two.listen("nodes", heard.append, lambda: heard.append(b"missed"))
            for count, expected in ((3, [b"0", b"1", b"2"]), (4, [b"missed"])):
                proxy.refuse()
                for number in range(count):
                    await one.deliver("nodes", b"%d" % number, keeps=True)
                proxy.accept()
                await until(lambda expected=expected: len(heard) == len(expected))
                assert heard == expected
                heard.clear()
        finally:
            one.close()
            two.close()


@pytest.mark.within("broker.redis.probe._PROBE_TIMEOUT")
async def test_a_connection_that_hears_is_left_alone(
    server: RedisServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "_PROBE", 0.01)
    broker = await connect(server)
    tops: list[Position] = []
    heard: list[Record] = []
    await broker.subscribe("a", heard.append, tops.append)
    for number in range(50):
        await publish(broker, number)
        await asyncio.sleep(0.01)
    assert tops == []
    assert len(heard) == 50
