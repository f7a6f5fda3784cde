"""The bounds of a client's queues in bytes, and what passes them."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from client.opened import fast, pair
from client.rawserver import listen, server_frame
from client.scripted import serve
from support.clients import until
from symphony.client import Client, connect, core
from symphony.errors import MessageTooLargeError, QueueFullError, RequestTimeoutError
from symphony.protocol.envelopes import Event

KIB = 1024
RAW = "symphony.raw"


async def say(client: Client, verb: str, data: str) -> None:
    match verb:
        case "send":
            await client.send(data)
        case "stream":
            await anext(client.stream("x", data))
        case _:
            await getattr(client, verb)("x", data)


@pytest.mark.beyond("client.max_queue_bytes")
@pytest.mark.parametrize("verb", ["emit", "send", "request", "stream"])
async def test_what_waits_offline_is_bounded_in_bytes(verb: str) -> None:
    async with serve() as server:
        client = connect(server.url, max_queue_bytes=100 * KIB, backoff=100.0)
        opening = asyncio.ensure_future(client._open())
        await server.handshake()
        for _ in range(9):
            client.emit("x", "y" * (10 * KIB))
        with pytest.raises(QueueFullError, match="bytes of messages are queued"):
            await say(client, verb, "y" * (10 * KIB))
        client.emit("x", "small")
        await client.close()
        with pytest.raises(Exception, match="closed"):
            await opening


@pytest.mark.within("client.max_queue_bytes")
async def test_what_leaves_the_queue_makes_room() -> None:
    async with pair(max_queue_bytes=50 * KIB) as (client, peer, server):
        await peer.drop()
        await until(lambda: client.state != "open")
        asking = [asyncio.ensure_future(client.request("x", "y" * (10 * KIB))) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            client.emit("x", "y" * (10 * KIB))
        asking[0].cancel()
        await asyncio.wait(asking[:1])
        client.emit("x", "y" * (8 * KIB))
        assert 0 < client._outgoing._waiting.bytes <= 50 * KIB
        peer = await server.accept()
        for _ in range(4):
            await peer.receive()
        await until(lambda: client._outgoing._waiting.bytes == 0)
        for one in asking[1:]:
            one.cancel()


@pytest.mark.parametrize("kind", ["events", "raw, handled", "raw, taken"])
async def test_received_messages_that_wait_are_bounded_in_bytes(kind: str) -> None:
    subprotocol = "$spoken" if kind == "events" else RAW
    async with pair(subprotocol, max_queue_bytes=100 * KIB) as (client, peer, _):
        go = asyncio.Event()
        taken: list[Any] = []

        async def slow(data: Any) -> None:
            await go.wait()
            taken.append(data)

        if kind != "raw, taken":
            client.on("tick" if kind == "events" else "message", slow)
        text = "x" * (10 * KIB)
        peer.connection.transport.set_write_buffer_limits(high=0)

        async def pour() -> None:
            for _ in range(1000):
                await (peer.send(event="tick", data=text) if kind == "events" else peer.say(text))

        pouring = asyncio.ensure_future(pour())
        await until(lambda: client._core.gate._holding)
        await until(lambda: not peer.connection.transport.is_closing() and _stuck(peer))
        assert not pouring.done()
        held = client._core.dispatch.queued[1] + client._core.messages.bytes
        # What the last read has brought may come on top.
        assert 90 * KIB < held < 100 * KIB + 600 * KIB
        go.set()
        if kind == "raw, taken":
            for _ in range(1000):
                taken.append(await anext(client))
        await pouring
        await until(lambda: len(taken) == 1000)


def _stuck(peer: Any) -> bool:
    return peer.connection.transport.get_write_buffer_size() > 0


@pytest.mark.parametrize("what", ["reply", "error", "stream"])
async def test_an_answer_passes_slow_handlers(what: str) -> None:
    async with pair(max_queue=20) as (client, peer, _):
        client.on("tick", asyncio.Event().wait)
        for n in range(200):
            await peer.send(event="tick", data=n)
        await until(lambda: client._core.gate._holding)
        stream = client.stream("ask")
        asking: Any = anext(stream) if what == "stream" else client.request("ask")
        waiting = asyncio.ensure_future(asking)
        id = (await peer.receive())["id"]
        for n in range(200):
            await peer.send(event="tick", data=n)
        if what == "error":
            await peer.send(error=id, data={"code": "test.no", "message": "no"})
            with pytest.raises(Exception, match="no"):
                await waiting
        else:
            await peer.send(**{"item" if what == "stream" else "reply": id, "data": 7})
            assert await waiting == 7
        await stream.aclose()
        assert client.state == "open"
        # It holds the server up again.
        assert client._core.gate._paused


async def test_a_cancel_of_the_server_passes_slow_handlers_while_the_program_waits() -> None:
    async with pair(max_queue=20) as (client, peer, _):
        cancelled = asyncio.Event()
        client.on("tick", asyncio.Event().wait)

        @client.on("work")
        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        await peer.send(event="work", id=1)
        asking = asyncio.ensure_future(client.request("ask"))
        await peer.receive()
        for n in range(200):
            await peer.send(event="tick", data=n)
        await peer.send(cancel=1)
        async with asyncio.timeout(5):
            await cancelled.wait()
        asking.cancel()


@pytest.mark.parametrize("bound", [{"max_queue": 5}, {"max_queue_bytes": 20 * KIB}])
async def test_beyond_the_bound_the_connection_is_dropped_and_it_is_told(
    bound: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    async with pair(**bound) as (client, peer, server):
        client.on("tick", asyncio.Event().wait)
        asking = asyncio.ensure_future(client.request("ask"))
        await peer.receive()
        for _ in range(200):
            await peer.send(event="tick", data="x" * KIB)
        with pytest.raises(Exception, match="1013"):
            await asking
        await server.accept()
    assert "sends faster than the program handles" in caplog.text


async def test_the_items_of_a_stream_are_bounded_in_bytes() -> None:
    async with pair(max_queue_bytes=50 * KIB) as (client, peer, _):
        stream = client.stream("items", credit=1000)
        first = asyncio.ensure_future(anext(stream))
        id = (await peer.receive())["id"]
        peer.connection.transport.set_write_buffer_limits(high=0)

        async def pour() -> None:
            for _ in range(1000):
                await peer.send(item=id, data="x" * (10 * KIB))
            await peer.send(end=id)

        pouring = asyncio.ensure_future(pour())
        await first
        await until(lambda: client._core.gate._paused and _stuck(peer))
        assert stream._flow is not None
        assert 40 * KIB < stream._flow._items.bytes < 650 * KIB
        count = 1
        async for _ in stream:
            count += 1
        assert count == 1000
        await pouring


async def test_a_stream_that_is_not_taken_while_the_program_waits_is_cancelled() -> None:
    async with pair(max_queue_bytes=10 * KIB) as (client, peer, _):
        stream = client.stream("items", credit=1000)
        first = asyncio.ensure_future(anext(stream))
        id = (await peer.receive())["id"]
        await peer.send(item=id, data=1)
        await first
        asking = asyncio.ensure_future(client.request("ask"))
        other = (await peer.receive())["id"]
        for _ in range(50):
            await peer.send(item=id, data="x" * KIB)
        assert await peer.receive() == {"cancel": id}
        with pytest.raises(QueueFullError, match="raise max_queue_bytes"):
            async for _ in stream:
                pass
        await peer.send(reply=other, data=1)
        assert await asking == 1


@pytest.mark.parametrize(
    ("size", "fits"), [(1, True), (1973, True), (1974, False), (2000, False), (100_000, False)]
)
@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_the_limit_of_the_server_is_held_exactly(size: int, fits: bool, codec: Any) -> None:
    async with pair(protocol=codec) as (client, peer, _):
        await peer.send(limits={"max_message_bytes": 2000})
        await until(lambda: client._outgoing.max_message_bytes == 2000)
        overhead = len(client._outgoing.codec.encode_payload(Event("say", "x"))) - 1  # type: ignore[union-attr]
        most = 2000 - overhead - (2 if codec == "msgpack" else 0)
        data = "x" * (most if fits and size > 1 else size if size < 1974 else most + 1 + size - 1974)
        if fits:
            client.emit("say", data)
            message = await peer.receive_message()
            assert len(message) <= 2000
        else:
            with pytest.raises(MessageTooLargeError) as caught:
                client.emit("say", data)
            assert caught.value.limit == 2000
            assert caught.value.size > 2000
            assert "'say'" in str(caught.value)
            assert await peer.nothing_came()


async def test_an_answer_that_is_too_large_is_an_error_of_the_handler() -> None:
    async with pair() as (client, peer, _):
        client.on("give", lambda: "x" * 5000)
        await peer.send(limits={"max_message_bytes": 2000})
        await peer.send(event="give", id=1)
        answer = await peer.receive()
        assert (answer["error"], answer["data"]["code"]) == (1, "internal")


async def test_the_limit_of_one_connection_does_not_hold_for_the_next() -> None:
    async with pair(**fast) as (client, peer, server):
        await peer.send(limits={"max_message_bytes": 2000})
        await until(lambda: client._outgoing.max_message_bytes == 2000)
        await peer.drop()
        peer = await server.accept()
        await until(lambda: client.state == "open")
        await peer.send(limits={"max_message_bytes": 50_000})
        client.emit("say", "x" * 20_000)
        assert len(await peer.receive_message()) > 20_000


@pytest.mark.parametrize("most", [1, 2, 30])
async def test_a_limit_of_a_few_bytes_stops_no_answer_and_no_cancel(most: int) -> None:
    """The error about the size took the place of the timeout, and a refusal was not sent."""

    def register(client: Client) -> None:
        client.on("big", lambda: "x" * 10_000)

    async with pair(register=register) as (client, peer, _):
        waiting = asyncio.ensure_future(client.request("wait", timeout=0.2))
        late = (await peer.receive())["id"]
        await peer.send(limits={"max_message_bytes": most})
        with pytest.raises(RequestTimeoutError):
            await waiting
        assert (await peer.receive())["cancel"] == late
        for number, event in enumerate(("big", "absent")):
            await peer.send(event=event, id=number)
            answer = await peer.receive()
            assert answer["error"] == number
            assert answer["data"]["code"] == ("internal" if event == "big" else "not_found")
        with pytest.raises(MessageTooLargeError):
            await client.request("sum", "x" * 40)
        assert client.state == "open"


@pytest.mark.beyond("client.core._STOP_TIMEOUT")
async def test_a_server_that_says_that_it_stops_and_does_not_close_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core, "_STOP_TIMEOUT", 0.05)
    async with pair() as (client, peer, server):
        await peer.send(retry=0)
        await peer.send(retry=0)
        again = await server.accept()
        await client.emit("say", 1)
        assert (await again.receive())["data"] == 1
        # The timer belonged to that connection.
        assert client._core._stop is None


@pytest.mark.within("client.core._STOP_TIMEOUT")
async def test_a_server_that_says_that_it_stops_may_take_some_time_to_close() -> None:
    async with pair() as (client, peer, server):
        client.on("said", lambda data: client.emit("heard", data))
        await peer.send(retry=0)
        await peer.send(event="said", data=1)
        await peer.close(1012)
        again = await server.accept()
        assert (await again.receive())["data"] == 1


@pytest.mark.within("client.core._LIMITS_TIMEOUT")
@pytest.mark.beyond("client.core._LIMITS_TIMEOUT")
@pytest.mark.parametrize("tells", [True, False])
async def test_a_large_message_waits_a_bounded_time_for_the_limits(
    tells: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "_LIMITS_TIMEOUT", 100.0 if tells else 0.05)
    async with pair() as (client, peer, _):
        client.emit("say", "x" * 20_000)
        if tells:
            await peer.send(limits={"max_message_bytes": 50_000})
        assert len(await peer.receive_message()) > 20_000


@pytest.mark.within("client.dispatch._MAX_REQUESTS")
@pytest.mark.beyond("client.dispatch._MAX_REQUESTS")
async def test_the_requests_of_a_server_are_bounded() -> None:
    go_on = asyncio.Event()

    async with pair() as (client, peer, _):
        client.on("wait", go_on.wait)
        for id in range(1001):
            await peer.send(event="wait", id=id)
        answer = await peer.receive()
        assert (answer["error"], answer["data"]["code"]) == (1000, "too_many")
        go_on.set()
        assert sorted([(await peer.receive())["reply"] for _ in range(1000)]) == [*range(1000)]
        await peer.send(event="wait", id=1001)
        assert (await peer.receive())["reply"] == 1001


@pytest.mark.beyond("client.max_queue_bytes")
@pytest.mark.parametrize(
    "request_of",
    [
        lambda id: f'{{"event":"{"x" * 256}","id":{id}}}',
        lambda id: f'{{"event":"x","id":{id},"timeout":-1}}',
        lambda id: f'{{"event":"waits","id":{id}}}',
    ],
    ids=["unknown", "malformed", "too many"],
)
async def test_answers_that_a_server_does_not_read_are_bounded(
    request_of: Callable[[int], str], caplog: pytest.LogCaptureFixture
) -> None:
    """A server that sends requests and reads nothing filled the memory with refusals."""
    async with listen() as server:
        client = connect(server.url, max_queue_bytes=50 * KIB, **fast)
        client.on("waits", asyncio.Event().wait)
        opening = asyncio.ensure_future(client._open())
        peer = await server.accept()
        await opening
        most = number = 0
        with suppress(ConnectionError):
            while client.state == "open":
                for _ in range(100):
                    peer.write(server_frame(1, request_of(number := number + 1)))
                await peer.writer.drain()
                await asyncio.sleep(0)
                most = max(most, client._outgoing.unread_bytes)
        assert most > 40 * KIB
        assert most < 51 * KIB
        # It comes back, and nothing of the old connection is sent.
        peer = await server.accept()
        await until(lambda: client.state == "open")
        assert client._outgoing.unread_bytes == 0
        await client.emit("hello")
        assert b"hello" in (await peer.frame()).payload
        peer.cut()
        await client.close()
    said = [
        record.getMessage()
        for record in caplog.records
        if "does not read the answers:" in record.getMessage()
    ]
    assert len(said) == 1
