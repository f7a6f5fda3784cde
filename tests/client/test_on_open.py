"""`on_open`: what it sends passes the queue, on every connection."""

import asyncio
from typing import Any

import pytest

from client.opened import fast, pair
from client.scripted import serve
from support.clients import until
from symphony.client import Client, connect
from symphony.errors import RemoteError


def joining(client: Client) -> None:
    @client.on_open
    async def join() -> None:
        await client.request("join", "lobby")
        client.emit("here")


async def joined(peer: Any) -> None:
    frame = await peer.receive()
    assert (frame["event"], frame["data"]) == ("join", "lobby")
    await peer.send(reply=frame["id"])
    assert (await peer.receive())["event"] == "here"


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_what_was_queued_is_sent_after_it_on_every_connection(codec: Any) -> None:
    async with serve() as server:
        client = connect(server.url, protocol=codec, **fast)
        joining(client)
        opening = asyncio.ensure_future(client._open())
        for round in range(3):
            peer = await server.accept()
            frame = await peer.receive()
            assert frame["event"] == "join"
            assert client.state == "connecting"
            # Neither what another task sends, nor a request of it, passes.
            client.emit("say", round)
            client.send("plain")
            asking = asyncio.ensure_future(client.request("ask", idempotent=True))
            await asyncio.sleep(0)
            assert await peer.nothing_came()
            await peer.send(reply=frame["id"])
            names = [(await peer.receive())["event"] for _ in range(4)]
            assert names == ["here", "say", "message", "ask"]
            await opening
            await until(lambda: client.state == "open")
            asking.cancel()
            assert (await peer.receive()).keys() == {"cancel"}
            await peer.drop()
        opening = asyncio.ensure_future(client.close())
        await opening


async def test_tasks_that_it_starts_pass_too_and_functions_run_in_order() -> None:
    def register(client: Client) -> None:
        @client.on_open
        def first() -> None:
            client.emit("first")

        @client.on_open
        async def second() -> None:
            await asyncio.gather(*(asyncio.create_task(send(n)) for n in range(3)))

        async def send(n: int) -> None:
            client.emit("second", n)

    async with serve() as server:
        client = connect(server.url, **fast)
        register(client)
        opening = asyncio.ensure_future(client._open())
        peer = await server.accept()
        await opening
        client.emit("after")
        names = [(await peer.receive())["event"] for _ in range(5)]
        assert names == ["first", "second", "second", "second", "after"]
        await client.close()


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("x"), RemoteError("full", retryable=True)])
async def test_a_failure_on_the_first_connection_is_raised(error: Exception) -> None:
    async with serve() as server:
        client = connect(server.url, **fast)

        @client.on_open
        async def fail() -> None:
            raise error

        opening = asyncio.ensure_future(client._open())
        peer = await server.accept()
        with pytest.raises(type(error)):
            await opening
        assert (await peer.closed())[0] == 1000
        assert client.state == "closed"


@pytest.mark.parametrize("error", [ValueError("a bug"), TimeoutError(), RemoteError("full", retryable=True)])
async def test_a_later_failure_is_told_and_tried_again(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[Exception] = []

    def register(client: Client) -> None:
        @client.on_open
        async def join() -> None:
            if failures:
                raise failures.pop()

    async with pair(register=register) as (client, peer, server):
        failures.append(error)
        await peer.drop()
        await until(lambda: client.state != "open")
        client.emit("kept")
        await server.accept()
        peer = await server.accept()
        assert (await peer.receive())["event"] == "kept"
    assert "on_open" in caplog.text


async def test_a_refusal_that_is_not_retryable_ends_the_client() -> None:
    async with pair(register=joining_later) as (client, peer, server):
        await peer.drop()
        peer = await server.accept()
        frame = await peer.receive()
        await peer.send(error=frame["id"], data={"code": "forbidden", "message": "banned"})
        end = await client.wait_closed()
        assert end.refusal is not None
        assert end.refusal.code == "forbidden"


def joining_later(client: Client) -> None:
    times: list[int] = []

    @client.on_open
    async def join() -> None:
        times.append(1)
        if len(times) > 1:
            await client.request("join")


async def test_it_runs_again_if_the_connection_is_lost_meanwhile() -> None:
    async with serve() as server:
        client = connect(server.url, **fast)
        joining(client)
        opening = asyncio.ensure_future(client._open())
        peer = await server.accept()
        await peer.receive()
        await peer.drop()
        peer = await server.accept()
        assert not opening.done()
        await joined(peer)
        await opening
        await until(lambda: client.state == "open")
        await client.close()


async def test_one_that_hangs_on_the_first_connection_is_too_late() -> None:
    async with serve() as server:
        client = connect(server.url, connect_timeout=0.2)
        client.on_open(asyncio.Event().wait)
        opening = asyncio.ensure_future(client._open())
        peer = await server.accept()
        with pytest.raises(Exception, match="on_open"):
            await opening
        await peer.closed()
