"""With `asyncio.eager_task_factory`, a task runs its first step before its caller has it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from client.opened import fast, opened, pair
from client.scripted import serve
from support.clients import until
from support.servers import serve_natively
from symphony import Reject, Socket, Symphony
from symphony.client import Pool, connect
from symphony.errors import DisconnectedError, RefusedError

pytestmark = [
    pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 has no eager tasks"),
    pytest.mark.usefixtures("each_loop", "eager"),
]


@pytest.fixture
async def eager() -> None:
    if sys.version_info >= (3, 12):

        def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
            # uvloop passes it on from Python 3.13 on, and asyncio's own factory does not take it there.
            options.pop("eager_start", None)
            return asyncio.eager_task_factory(loop, work, **options)

        asyncio.get_running_loop().set_task_factory(factory)


def chat(concurrency: int, left: list[str]) -> Symphony:
    app = Symphony()
    route = app.route("/chat", concurrency=concurrency)

    @route.on_connect
    async def enter(socket: Socket) -> None:
        if socket.handshake.token == "nobody":
            raise Reject("forbidden", "not you")
        await socket.join("everyone")

    @route.on("sum")
    def sum_up(data: list[int]) -> int:
        return sum(data)

    @route.on("count")
    async def count(data: int) -> AsyncIterator[int]:
        for number in range(data):
            yield number

    @route.on("introduce")
    async def introduce(socket: Socket) -> str:
        name = await socket.request("name")
        await app.room("everyone").emit("said", f"hello {name}")
        return f"{name} is here"

    @route.on("wait")
    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.append("wait")

    @route.on("later")
    async def later(socket: Socket) -> None:
        async def tell() -> None:
            await socket.emit("said", "later")

        socket.background(tell())

    @route.on_disconnect
    async def leave() -> None:
        left.append("socket")

    return app


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_session(concurrency: int) -> None:
    left: list[str] = []
    async with serve_natively(chat(concurrency, left)) as url:
        client = connect(f"{url}/chat", **fast)
        said: list[Any] = []
        client.on("said", said.append)
        client.on("name", lambda: "Ada")
        async with client:
            assert await client.request("sum", [1, 2, 3]) == 6
            assert await client.request("introduce") == "Ada is here"
            await client.emit("later")
            await until(lambda: said == ["hello Ada", "later"])
            assert [number async for number in client.stream("count", 200, credit=10)] == list(range(200))
            async with asyncio.TaskGroup() as group:
                sums = [group.create_task(client.request("sum", [number])) for number in range(50)]
            assert [task.result() for task in sums] == list(range(50))
            waiting = asyncio.create_task(client.request("wait"))
            await client.request("sum", []) if concurrency > 1 else await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await client.request("sum", [1]) == 1
        await until(lambda: "socket" in left)
        with pytest.raises(RefusedError) as caught:
            await connect(f"{url}/chat", token="nobody")
        assert caught.value.code == 4403


async def test_it_reconnects_and_repeats_what_is_idempotent() -> None:
    async with pair() as (client, peer, server):
        greeted: list[str] = []
        client.on_open(lambda: greeted.append(client.state))
        asking = asyncio.create_task(client.request("sum", idempotent=True))
        lost = asyncio.create_task(client.request("buy"))
        assert {(await peer.receive())["event"] for _ in range(2)} == {"sum", "buy"}
        await peer.drop()
        with pytest.raises(DisconnectedError):
            await lost
        client.emit("queued")
        peer = await server.accept()
        frames = [await peer.receive() for _ in range(2)]
        assert [frame["event"] for frame in frames] == ["sum", "queued"]
        await peer.send(reply=frames[0]["id"], data=7)
        assert await asking == 7
        assert len(greeted) == 1


async def test_a_request_and_a_stream_are_cancelled_at_the_server() -> None:
    async with pair() as (client, peer, _):
        asking = asyncio.create_task(client.request("slow"))
        number = (await peer.receive())["id"]
        asking.cancel()
        assert await peer.receive() == {"cancel": number}
        items = client.stream("items")
        taking = asyncio.create_task(anext(items))
        number = (await peer.receive())["id"]
        await peer.send(item=number, data=1)
        assert await taking == 1
        await items.aclose()
        assert await peer.receive() == {"cancel": number}


@pytest.mark.parametrize("ends", ["a handler", "another task", "on_open"])
async def test_it_is_closed_from_anywhere(ends: str) -> None:
    async with serve() as server:
        client = connect(server.url, **fast)

        async def end() -> None:
            await client.close()

        client.on("end", end)
        if ends == "on_open":
            client.on_open(end)
        if ends == "on_open":
            accepting = asyncio.create_task(server.accept())
            with pytest.raises(DisconnectedError):
                await client
            await accepting
        else:
            peer = await opened(server, client)
            if ends == "a handler":
                await peer.send(event="end")
            else:
                await asyncio.create_task(client.close())
        assert (await client.wait_closed()).code == 1000


async def test_two_tasks_open_it_and_one_is_cancelled() -> None:
    async with serve() as server:
        client = connect(server.url, **fast)
        first, second = (asyncio.create_task(client._open()) for _ in range(2))
        handshake = await server.handshake()
        first.cancel()
        await handshake.accept()
        await second
        assert client.state == "open"
        await client.close()


async def test_a_pool() -> None:
    async with serve_natively(chat(1, [])) as url, Pool(f"{url}/chat", size=3) as pool:
        async with asyncio.TaskGroup() as group:
            sums = [group.create_task(pool.request("sum", [number])) for number in range(20)]
        assert [task.result() for task in sums] == list(range(20))
