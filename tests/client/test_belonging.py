"""A client has one connection, and belongs to one event loop."""

import asyncio
import os
import threading
import warnings
from collections.abc import Callable
from typing import Any, cast

import pytest

from client.opened import fast, opened, pair
from client.scripted import serve
from support.clients import until
from symphony.client import Client, Pool, connect, sync
from symphony.errors import DisconnectedError, WrongThreadError

USES: list[Callable[[Client], Any]] = [
    lambda client: client.emit("x"),
    lambda client: client.send("x"),
    lambda client: client.stream("x"),
]


@pytest.mark.parametrize("tasks", [2, 3, 20])
async def test_tasks_that_open_it_at_once_share_one_connection(tasks: int) -> None:
    async with serve() as server:
        client = connect(server.url, **fast)
        opening = [asyncio.ensure_future(client._open()) for _ in range(tasks)]
        await server.accept()
        assert await asyncio.gather(*opening) == [client] * tasks
        assert server.no_handshake_waits()
        assert await client is client
        assert client._reconnector._attempts == 1
        await client.close()


async def test_one_of_several_that_wait_may_be_cancelled() -> None:
    async with serve() as server:
        client = connect(server.url, **fast)
        first, second = (asyncio.ensure_future(client._open()) for _ in range(2))
        handshake = await server.handshake()
        first.cancel()
        await asyncio.wait((first,))
        assert client.state == "connecting"
        await handshake.accept()
        assert await second is client
        await client.close()


async def test_the_last_that_waits_ends_it() -> None:
    async with serve() as server:
        client = connect(server.url, **fast)
        tasks = [asyncio.ensure_future(client._open()) for _ in range(2)]
        await server.handshake()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert client.state == "closed"
        with pytest.raises(DisconnectedError, match="cancelled"):
            await client


@pytest.mark.parametrize("use", USES)
def test_after_its_loop_it_says_so(use: Callable[[Client], Any]) -> None:
    async def forget() -> Client:
        async with serve() as server:
            client = connect(server.url, **fast)
            await opened(server, client)
            return client

    client = asyncio.run(forget())

    async def later() -> None:
        with pytest.raises(WrongThreadError, match="event loop that has ended"):
            await client
        # It was ended with its loop.
        with pytest.raises(DisconnectedError, match="not closed before its event loop ended"):
            use(client)
        await client.close()

    asyncio.run(later())


@pytest.mark.parametrize("use", USES)
async def test_in_another_loop_it_says_so(use: Callable[[Client], Any]) -> None:
    async with pair() as (client, peer, _):
        said: list[str] = []

        async def elsewhere() -> None:
            with pytest.raises(WrongThreadError) as caught:
                use(client)
            said.append(str(caught.value))
            with pytest.raises(WrongThreadError):
                await client
            with pytest.raises(WrongThreadError):
                await client.close()

        thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert "call_soon_threadsafe" in said[0]
        assert await peer.nothing_came()


async def test_in_a_forked_process_it_says_so() -> None:
    async with pair() as (client, peer, _):
        ours, theirs = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the test itself has threads
            child = os.fork()
        if not child:
            try:
                client.emit("x")
            except WrongThreadError as error:
                os.write(theirs, str(error).encode())
            finally:
                os._exit(0)
        os.close(theirs)
        with os.fdopen(ours) as said:
            assert "process that forked this one" in await asyncio.to_thread(said.read)
        await asyncio.to_thread(os.waitpid, child, 0)
        assert await peer.nothing_came()
        client.emit("y")
        assert (await peer.receive())["event"] == "y"


@pytest.mark.parametrize("state", ["open", "waiting", "busy"])
async def test_one_that_is_dropped_warns_and_closes(state: str) -> None:
    async with serve() as server:
        client = connect(server.url, backoff=100.0 if state == "waiting" else 0.01)
        peer = await opened(server, client)
        reconnector = client._reconnector
        if state == "waiting":
            await peer.drop()
            await until(lambda: reconnector.state == "waiting")
        elif state == "busy":
            began = asyncio.Event()

            async def tick() -> None:
                began.set()
                await asyncio.Event().wait()

            client.on("tick", tick)
            await peer.send(event="tick")
            await began.wait()
        with pytest.warns(ResourceWarning, match="was dropped without being closed"):
            del client
        if state != "waiting":
            assert (await peer.closed())[0] == 1000


async def test_its_tasks_begin_in_a_later_turn_whatever_the_loop_does() -> None:
    """As with `asyncio.eager_task_factory`, which runs the first step of a task at once."""
    loop = asyncio.get_running_loop()

    def eager(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        raise AssertionError(f"the client started {coro} with the factory of the loop")

    async with serve() as server:
        client = connect(server.url, **fast)
        accepting = asyncio.ensure_future(server.accept())
        answered: list[Any] = []
        client.on("name", lambda: "Ada")
        client.on("said", answered.append)
        factory = loop.get_task_factory()
        made = asyncio.ensure_future(client._open())
        loop.set_task_factory(lambda loop, coro, **more: _not_ours(loop, coro, eager, **more))
        try:
            await made
            peer = await accepting
            await peer.send(event="name", id=1)
            await peer.send(event="said", data=1)
            assert await peer.receive() == {"reply": 1, "data": "Ada"}
            await until(lambda: answered == [1])
            await client.close()
        finally:
            loop.set_task_factory(factory)


def _not_ours(loop: Any, coro: Any, ours: Callable[..., Any], **options: Any) -> Any:
    if "symphony/client" in getattr(getattr(coro, "cr_code", None), "co_filename", ""):
        return ours(loop, coro, **options)
    return asyncio.Task(coro, loop=loop, **options)


@pytest.mark.parametrize("make", [connect, Pool], ids=["client", "pool"])
def test_a_plain_with_names_what_opens_it(make: Callable[[str], Any]) -> None:
    said = r"by `async with`, not `with`.*symphony\.client\.sync\.connect"
    with pytest.raises(TypeError, match=said), make("ws://127.0.0.1:1/"):
        pass


async def test_async_with_names_what_opens_a_blocking_client() -> None:
    with pytest.raises(TypeError, match=r"by `with`, not `async with`.*symphony\.connect"):
        async with cast("Any", sync.connect("ws://127.0.0.1:1/")):
            pass
