"""Streams; what the vectors don't say."""

import asyncio
import gc
from typing import Any

import msgspec
import pytest

from client.opened import fast, pair
from client.scripted import Peer, serve
from support.clients import until
from symphony.client import Client, connect
from symphony.errors import DisconnectedError, QueueFullError, RemoteError, RequestTimeoutError


class Tick(msgspec.Struct):
    n: int


async def first(client: Client, peer: Peer, **options: Any) -> tuple[Any, asyncio.Future[Any], int]:
    """Ask for the first item of a stream; return it, what asks, and its id."""
    stream = client.stream("count", **options)
    asking = asyncio.ensure_future(anext(stream))
    frame = await peer.receive()
    return stream, asking, frame["id"]


async def test_nothing_is_sent_before_the_first_item_is_asked_for() -> None:
    async with pair() as (client, peer, _):
        stream = client.stream("count", 3)
        assert await peer.nothing_came()
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert await peer.nothing_came()


@pytest.mark.parametrize("protocol", ["json", "msgpack"])
async def test_items_become_what_response_type_says(protocol: str) -> None:
    async with pair(protocol=protocol) as (client, peer, _):
        stream, asking, id = await first(client, peer, response_type=Tick)
        await peer.send(item=id, data={"n": 1})
        await peer.send(item=id, data={"n": "x"})
        await peer.send(item=id, data={"n": 3})
        assert await asking == Tick(1)
        with pytest.raises(RemoteError, match="an item of 'count' does not match response_type"):
            await anext(stream)
        assert await anext(stream) == Tick(3)
        await stream.aclose()


async def test_breaking_out_of_the_loop_cancels_at_once() -> None:
    async with pair() as (client, peer, _):

        async def leave() -> None:
            async for item in client.stream("count"):
                assert item == 1
                break

        leaving = asyncio.ensure_future(leave())
        id = (await peer.receive())["id"]
        await peer.send(item=id, data=1)
        assert await peer.receive() == {"cancel": id}
        await leaving
        assert len(client._core.answers) == 0


async def test_an_error_in_the_loop_cancels() -> None:
    async with pair() as (client, peer, _):

        async def fail() -> None:
            async for _ in client.stream("count"):
                raise ZeroDivisionError

        failing = asyncio.ensure_future(fail())
        id = (await peer.receive())["id"]
        await peer.send(item=id, data=1)
        with pytest.raises(ZeroDivisionError):
            await failing
        assert await peer.receive() == {"cancel": id}


async def test_cancelling_the_loop_cancels() -> None:
    async with pair() as (client, peer, _):

        async def wait() -> None:
            async for _ in client.stream("count"):
                pass

        waiting = asyncio.ensure_future(wait())
        id = (await peer.receive())["id"]
        waiting.cancel()
        assert await peer.receive() == {"cancel": id}


async def test_leaving_async_with_cancels_and_again_does_nothing() -> None:
    async with pair() as (client, peer, _):
        async with client.stream("count") as stream:
            asking = asyncio.ensure_future(anext(stream))
            id = (await peer.receive())["id"]
            await peer.send(item=id, data=1)
            await asking
        await stream.aclose()
        assert await peer.receive() == {"cancel": id}
        assert await peer.nothing_came()


async def test_a_stream_in_a_cycle_is_cancelled_when_it_is_collected() -> None:
    async with pair() as (client, peer, _):
        stream, asking, id = await first(client, peer)
        await peer.send(item=id, data=1)
        await asking
        cycle: list[Any] = [stream]
        cycle.append(cycle)
        del stream, cycle, asking
        # In another thread, where nothing may be written.
        await asyncio.to_thread(gc.collect)
        assert await peer.receive() == {"cancel": id}


async def test_one_that_is_complete_is_not_cancelled() -> None:
    async with pair() as (client, peer, _):

        async def all() -> list[Any]:
            return [item async for item in client.stream("count")]

        collecting = asyncio.ensure_future(all())
        id = (await peer.receive())["id"]
        await peer.send(item=id, data=1)
        await peer.send(end=id)
        assert await collecting == [1]
        assert await peer.nothing_came()


async def test_a_wait_that_is_given_up_loses_no_item() -> None:
    async with pair() as (client, peer, _):
        stream, asking, id = await first(client, peer)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await peer.send(item=id, data=1)
        assert await anext(stream) == 1
        await stream.aclose()


async def test_two_tasks_may_not_iterate_at_once() -> None:
    async with pair() as (client, peer, _):
        stream, asking, id = await first(client, peer)
        with pytest.raises(RuntimeError, match="Another task already iterates over the stream of 'count'"):
            await anext(stream)
        await peer.send(end=id)
        with pytest.raises(StopAsyncIteration):
            await asking


@pytest.mark.parametrize("credit", [1, 2, 3, 5, 64])
async def test_never_more_than_the_credit_waits_here(credit: int) -> None:
    """A server that sends as much as it may, and a slow reader."""
    async with pair() as (client, peer, _):
        stream, asking, id = await first(client, peer, credit=credit)
        granted, sent = credit, 0

        async def serve_all() -> None:
            nonlocal granted, sent
            while sent < 200:
                while sent < min(granted, 200):
                    sent += 1
                    await peer.send(item=id, data=sent)
                if sent < 200:
                    frame = await peer.receive()
                    assert frame["grant"] == id
                    granted += frame["credit"]
            await peer.send(end=id)

        serving = asyncio.ensure_future(serve_all())
        items = [await asking]
        async for item in stream:
            assert len(stream._flow._items) <= credit
            items.append(item)
        assert items == list(range(1, 201))
        await serving
        assert granted <= 200 + credit


async def test_a_server_that_sends_more_than_it_may_is_stopped() -> None:
    async with pair() as (client, peer, _):
        stream, asking, id = await first(client, peer, credit=2)
        for n in range(4):
            await peer.send(item=id, data=n)
        assert await peer.receive() == {"cancel": id}
        assert await asking == 0
        assert await anext(stream) == 1
        with pytest.raises(RemoteError, match="the stream of 'count' sent more items than were granted"):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


@pytest.mark.parametrize("credit", [0, -1, 2**31])
async def test_a_credit_that_is_none(credit: int) -> None:
    async with pair() as (client, _, _):
        with pytest.raises(ValueError, match="credit must be a number of items, 1 or more"):
            client.stream("count", credit=credit)


async def test_a_lost_connection_says_so_behind_the_items() -> None:
    async with pair() as (client, peer, server):
        stream, asking, id = await first(client, peer)
        await peer.send(item=id, data=1)
        await peer.send(item=id, data=2)
        await asking
        await until(lambda: stream._flow._items)
        await peer.drop()
        await until(lambda: client.state != "open")
        assert await anext(stream) == 2
        with pytest.raises(
            DisconnectedError, match=f"^The stream of 'count' was interrupted: the connection to {server.url}"
        ):
            await anext(stream)
        again = await server.accept()
        assert await again.nothing_came()


async def test_offline_it_waits_for_a_connection_as_long_as_a_request_would() -> None:
    async with pair(request_timeout=0.05) as (client, peer, server):
        await peer.drop()
        await until(lambda: client.state == "connecting")
        with pytest.raises(
            RequestTimeoutError, match=r"'count' was not sent to ws://.* within 0.05 s: there is no"
        ):
            await anext(client.stream("count"))
        again = await server.accept()
        await until(lambda: client.state == "open")
        assert await again.nothing_came()
        stream, asking, id = await first(client, again)
        # Once it is sent, its time to be sent does not matter; a later request runs out of it.
        with pytest.raises(RequestTimeoutError):
            await client.request("slow")
        await again.send(item=id, data=1)
        assert await asking == 1
        await stream.aclose()


async def test_offline_it_counts_to_what_may_wait_and_can_be_left() -> None:
    async with pair(max_queue=1) as (client, peer, server):
        await peer.drop()
        await until(lambda: client.state == "connecting")
        waiting = client.stream("count")
        asking = asyncio.ensure_future(anext(waiting))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await anext(client.stream("other"))
        await waiting.aclose()
        with pytest.raises(StopAsyncIteration):
            await asking
        again = await server.accept()
        assert await again.nothing_came()


async def test_it_ends_with_the_client() -> None:
    async with serve() as server:
        client = connect(server.url, **fast)
        opening = asyncio.ensure_future(client._open())
        await until(lambda: client.state == "connecting")
        before = asyncio.ensure_future(anext(client.stream("early")))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(DisconnectedError):
            await opening
        with pytest.raises(
            DisconnectedError, match=r"'early' was not sent: the client of ws://.* is closed\."
        ):
            await before
        with pytest.raises(DisconnectedError):
            client.stream("late")
