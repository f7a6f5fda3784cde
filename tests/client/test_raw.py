"""Raw connections, and what is the same on them."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from client.opened import fast, opened, pair
from client.scripted import serve
from support.clients import until
from symphony.client import Client, connect
from symphony.errors import DisconnectedError, WrongRouteError

RAW = "symphony.raw"


class Said(msgspec.Struct):
    text: str


async def test_messages_are_iterated_over_as_they_came() -> None:
    async with pair(RAW) as (client, peer, _):
        assert (client.protocol, client.subprotocol) == ("raw", RAW)
        for message in ("text", b"bytes", "", b"", '{"event":"x"}'):
            await peer.say(message)
        await peer.close(1000)
        assert [message async for message in client] == ["text", b"bytes", "", b"", '{"event":"x"}']


@pytest.mark.parametrize("choice", [RAW, None, "mine"])
async def test_what_a_server_chooses_that_speaks_no_events_is_raw(choice: str | None) -> None:
    async with pair(choice, subprotocols=["mine"]) as (client, _, _):
        assert (client.protocol, client.subprotocol) == ("raw", choice)


async def test_what_is_sent_is_text_bytes_or_json() -> None:
    async with pair(RAW) as (client, peer, _):
        for message in ("hi", b"\xff", bytearray(b"a"), memoryview(b"b"), {"a": [1]}, Said("x"), None):
            client.send(message)
        client.emit("say", {"a": b"\xff"})
        received = [await peer.receive_message() for _ in range(8)]
        assert received == [
            *("hi", b"\xff", b"a", b"b", '{"a":[1]}', '{"text":"x"}', "null"),
            '{"event":"say","data":{"a":"/w=="}}',
        ]


@pytest.mark.parametrize("protocol", ["json", "msgpack"])
async def test_what_waited_before_the_protocol_was_known_is_sent_in_it(protocol: str) -> None:
    messages: list[Any] = ["hi", b"\xff", bytearray(b"a"), {"a": [1]}, Said("x")]
    for choice in ("$spoken", RAW):
        async with serve() as server:
            client = connect(server.url, protocol=protocol, **fast)

            def use(state: str, client: Client = client) -> None:
                if state == "connecting":
                    for message in messages:
                        client.send(message)
                    client.emit("say", {"b": 1})

            client.on_state(use)
            peer = await opened(server, client, choice)
            if choice == RAW:
                received = [await peer.receive_message() for _ in range(6)]
                assert received[:5] == ["hi", b"\xff", b"a", '{"a":[1]}', '{"text":"x"}']
                assert json.loads(received[5]) == {"event": "say", "data": {"b": 1}}
            else:
                frames = [await peer.receive() for _ in range(6)]
                assert [frame["event"] for frame in frames] == ["message"] * 5 + ["say"]
                sent = [frame["data"] for frame in frames]
                text = protocol == "json"
                assert sent[:3] == ["hi", "/w==" if text else b"\xff", "YQ==" if text else b"a"]
                assert sent[3:] == [{"a": [1]}, {"text": "x"}, {"b": 1}]
            await client.close()


async def test_a_handler_of_messages_takes_each() -> None:
    async with pair(RAW) as (client, peer, _):
        heard: list[Any] = []
        client.on("message", heard.append)

        @client.on("message")
        def typed(message: Said) -> None:
            heard.append(message)

        await peer.say('{"text":"x"}')
        await peer.say("no JSON")
        await peer.say("last")
        await until(lambda: len(heard) == 4)
        assert heard == ['{"text":"x"}', Said("x"), "no JSON", "last"]


async def test_iterating_goes_on_over_a_lost_connection() -> None:
    async with pair(RAW) as (client, peer, server):
        reading = asyncio.ensure_future(anext(client))
        await peer.drop()
        peer = await server.accept(RAW)
        await peer.say("back")
        assert await reading == "back"


@pytest.mark.parametrize("code", [1000, 1001])
async def test_iterating_ends_with_a_normal_end_behind_what_came(code: int) -> None:
    async with pair(RAW, reconnect=False) as (client, peer, _):
        await peer.say("one")
        await peer.close(code)
        assert [message async for message in client] == ["one"]


async def test_iterating_raises_any_other_end_behind_what_came() -> None:
    async with pair(RAW) as (client, peer, _):
        await peer.say("one")
        await peer.close(4403, "go")
        assert await anext(client) == "one"
        with pytest.raises(DisconnectedError, match="4403: go"):
            await anext(client)


async def test_closing_ends_the_iteration() -> None:
    async with pair(RAW) as (client, _, _):
        reading = asyncio.ensure_future(anext(client))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(StopAsyncIteration):
            await reading


async def test_several_may_read_and_each_message_goes_to_one() -> None:
    async with pair(RAW) as (client, peer, _):
        reading = [asyncio.ensure_future(anext(client)) for _ in range(3)]
        for n in range(3):
            await peer.say(str(n))
        assert sorted(await asyncio.gather(*reading)) == ["0", "1", "2"]


async def test_only_raw_connections_are_iterated_over() -> None:
    client = connect("ws://127.0.0.1:9/")
    with pytest.raises(RuntimeError, match="was never opened: write `async with client:`"):
        await anext(client)
    async with pair() as (client, _, server):
        with pytest.raises(WrongRouteError, match=rf"^{server.url} speaks events: register @client.on"):
            await anext(client)


async def test_a_raw_connection_has_no_requests() -> None:
    async with pair(RAW) as (client, peer, server):
        for asking in (client.request("x"), anext(client.stream("x"))):
            with pytest.raises(WrongRouteError, match=rf"^{server.url} is a raw connection, without events"):
                await asking
        await peer.drop()
        await until(lambda: client.state == "connecting")
        later = [asyncio.ensure_future(one) for one in (client.request("x"), anext(client.stream("x")))]
        await server.accept(RAW)
        for asking in later:
            with pytest.raises(WrongRouteError, match="raw connection"):
                await asking


async def test_who_does_not_read_holds_the_server_up_and_loses_nothing() -> None:
    async with pair(RAW, max_queue=10) as (client, peer, _):
        peer.connection.transport.set_write_buffer_limits(high=0)

        async def pour() -> None:
            for n in range(2000):
                await peer.say(f"{n:010000}")

        pouring = asyncio.ensure_future(pour())
        # Once the buffers between the two are full, the server cannot send until the client reads.
        await until(lambda: client._core.gate._holding)
        await until(peer.connection.transport.get_write_buffer_size)
        assert not pouring.done()
        assert len(client._core.messages) < 200
        for n in range(2000):
            assert (await anext(client)).lstrip("0") == (str(n) if n else "")
        await pouring


async def test_who_does_not_read_holds_up_the_next_connection_too() -> None:
    async with pair(RAW, max_queue=2) as (client, peer, server):
        await peer.say("1")
        await peer.say("2")
        await until(lambda: len(client._core.messages) == 2)
        await peer.drop()

        # Not read from, it learns that the connection is lost when it writes.
        def notices() -> bool:
            client.send("x")
            return client.state != "open"

        await until(notices)
        peer = await server.accept(RAW)
        await until(lambda: client.state == "open")
        await peer.say("3")
        assert client._outgoing._link.held
        assert not client._outgoing._link._transport.is_reading()
        assert len(client._core.messages) == 2
        assert [await anext(client) for _ in range(3)] == ["1", "2", "3"]


async def test_a_message_above_the_limit_ends_the_connection_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pair(RAW, max_message_bytes=1000) as (client, peer, server):
        await peer.say("x" * 1001)
        assert (await peer.closed())[0] == 1009
        peer = await server.accept(RAW)
        await peer.say("y" * 1000)
        assert await anext(client) == "y" * 1000
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "1001 > 1000" in warning
    assert "Raise max_message_bytes of symphony.connect()" in warning


@pytest.mark.parametrize("choice", [RAW, None])
async def test_handlers_of_events_on_a_raw_route_are_reported_once(
    choice: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """They were never called, and nothing said so."""

    def register(client: Client) -> None:
        for event in ("message", "error", "*", "said", "left"):
            client.on(event, lambda *data: None)

    async with pair(choice, register=register) as (_, peer, server):
        await peer.close(1012)
        await server.accept(choice)
    warnings = [text for text in caplog.messages if "without events" in text]
    assert warnings == [
        f"{server.url} is a raw connection, without events: the handler of 'said' is never called. Is the "
        "path right? A route that only sends events needs app.route(..., events=True)."
    ]


async def test_handlers_of_what_a_raw_route_has_are_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    def register(client: Client) -> None:
        for event in ("message", "error", "*"):
            client.on(event, lambda *data: None)

    async with pair(RAW, register=register), pair(RAW):
        pass
    async with pair(register=lambda client: client.on("said", lambda: None)):
        pass
    assert not [text for text in caplog.messages if "without events" in text]
