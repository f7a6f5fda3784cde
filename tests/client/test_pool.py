"""Several connections to one server."""

import asyncio
import inspect
import os
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, get_type_hints

import pytest

from client.scripted import Peer, Server, serve
from support.clients import until
from support.servers import serve_natively
from symphony import Reject, Socket, Symphony
from symphony.client import Pool, connect
from symphony.client.connecting import ConnectOptions
from symphony.errors import DisconnectedError, RefusedError, RequestTimeoutError, WrongThreadError

FAST: Any = {"backoff": 0.01, "max_backoff": 0.02}


@asynccontextmanager
async def pooled(size: int, **options: Any) -> AsyncIterator[tuple[Pool, list[Peer], Server]]:
    """Give an open pool, and the server's ends in the order of its clients."""
    async with serve() as server:
        pool = Pool(server.url, size=size, **{**FAST, **options})
        opening = asyncio.ensure_future(pool.__aenter__())
        peers = [await server.accept() for _ in range(size)]
        await opening
        # The connections open at the same time, so find out which one is whose.
        found: list[Peer | None] = [None] * size
        for at, client in enumerate(pool.clients):
            client.emit("who", at)
        for peer in peers:
            found[(await peer.receive())["data"]] = peer
        try:
            yield pool, [peer for peer in found if peer is not None], server
        finally:
            await pool.close()


def key_of(pool: Pool, at: int) -> str:
    """Return a key whose messages go over a connection."""
    return next(key for key in map(str, range(1000)) if pool._slot(key) is pool._slots[at])


@pytest.mark.parametrize("size", [1, 2, 5])
async def test_requests_go_to_the_least_busy_connection(size: int) -> None:
    async with pooled(size) as (pool, peers, _):
        asked = [asyncio.ensure_future(pool.request("x", number)) for number in range(size * 2)]
        for peer in peers:
            frames = [await peer.receive() for _ in range(2)]
            assert await peer.nothing_came()
            for frame in frames:
                await peer.send(reply=frame["id"], data=frame["data"])
        assert await asyncio.gather(*asked) == list(range(size * 2))


async def test_a_busy_connection_is_avoided() -> None:
    async with pooled(3) as (pool, peers, _):
        first = asyncio.ensure_future(pool.request("slow"))
        await asyncio.sleep(0)
        stream = pool.stream("count")
        item = asyncio.ensure_future(anext(stream))
        assert (await peers[0].receive())["event"] == "slow"
        assert (await peers[1].receive())["event"] == "count"
        for number in range(5):
            asked = asyncio.ensure_future(pool.request("quick", number))
            frame = await peers[2].receive()
            await peers[2].send(reply=frame["id"], data=number)
            assert await asked == number
        first.cancel()
        item.cancel()
        await asyncio.wait((first, item))
        await stream.aclose()


async def test_a_key_keeps_its_connection_and_its_order() -> None:
    async with pooled(3) as (pool, peers, server):
        key = key_of(pool, 1)
        asked = [asyncio.ensure_future(pool.request("x", 0, key=key))]
        await peers[1].receive()
        await peers[1].drop()
        with pytest.raises(DisconnectedError):
            await asked[0]
        handshake = await server.handshake()
        # Others are open, but the order would be lost there.
        asked = [asyncio.ensure_future(pool.request("x", number, key=key)) for number in range(1, 4)]
        await asyncio.sleep(0)
        pool.emit("x", 4, key=key)
        assert all([await peers[at].nothing_came() for at in (0, 2)])
        other = asyncio.ensure_future(pool.request("other"))
        frame = await peers[0].receive()
        await peers[0].send(reply=frame["id"], data=None)
        await other
        peer = await handshake.accept()
        frames = [await peer.receive() for _ in range(4)]
        assert [frame["data"] for frame in frames] == [1, 2, 3, 4]
        for frame in frames[:3]:
            await peer.send(reply=frame["id"], data=frame["data"])
        assert await asyncio.gather(*asked) == [1, 2, 3]


async def test_keys_are_spread_and_stable() -> None:
    pool, other = (Pool("ws://127.0.0.1:9/", size=4) for _ in range(2))
    places = [pool._slots.index(pool._slot(f"user-{number}")) for number in range(400)]
    assert places == [other._slots.index(other._slot(f"user-{number}")) for number in range(400)]
    assert min(Counter(places).values()) > 50
    await pool.close()
    await other.close()


@pytest.mark.parametrize("code", [1000, 4403, 4404])
async def test_a_connection_that_ended_for_good_is_replaced(code: int) -> None:
    async with pooled(2) as (pool, peers, server):
        before = pool.clients
        key = key_of(pool, 0)
        await peers[0].close(code)
        await until(lambda: pool.clients[0].closed is not None)
        with pytest.raises(DisconnectedError):
            pool.emit("x", key=key)
        asked = [asyncio.ensure_future(pool.request("x", number, key=key)) for number in range(3)]
        peer = await server.accept()
        frames = [await peer.receive() for _ in range(3)]
        assert [frame["data"] for frame in frames] == [0, 1, 2]
        for frame in frames:
            await peer.send(reply=frame["id"], data=frame["data"])
        assert await asyncio.gather(*asked) == [0, 1, 2]
        assert pool.clients[0] is not before[0]
        assert pool.clients[1] is before[1]


async def test_a_request_waits_for_the_replacement_as_long_as_its_timeout() -> None:
    async with pooled(1) as (pool, peers, server):
        await peers[0].close(1000)
        handshake = await server.handshake()
        with pytest.raises(RequestTimeoutError, match=r"'x' was not sent to .* within 0\.05 s"):
            await pool.request("x", timeout=0.05)
        await handshake.accept()


async def test_a_replacement_that_is_refused_for_good_is_not_tried_again() -> None:
    app = Symphony()
    allowed = True

    @app.on_connect
    async def admit(socket: Socket) -> None:
        if not allowed:
            raise Reject("forbidden")

    @app.on("leave")
    async def leave(socket: Socket) -> None:
        await socket.close(1000)

    async with serve_natively(app) as url, Pool(f"{url}/", size=2, **FAST) as pool:
        allowed = False
        for _ in range(2):
            await pool.emit("leave")
            await until(lambda: any(client.closed is not None for client in pool.clients))
        await until(lambda: all(slot.task is not None and slot.task.done() for slot in pool._slots))
        for key in (None, "a", "b"):
            with pytest.raises(DisconnectedError):
                await pool.request("x", key=key)


async def test_with_symphony() -> None:
    app = Symphony()
    seen: list[str] = []

    @app.on("square")
    async def square(socket: Socket, data: int) -> int:
        seen.append(socket.id)
        await asyncio.sleep(0)
        return data * data

    @app.on("count")
    async def count(data: int) -> AsyncIterator[int]:
        for number in range(data):
            yield number

    async with serve_natively(app) as url, Pool(f"{url}/", size=3, protocol="msgpack") as pool:
        replies = await asyncio.gather(*(pool.request("square", n, response_type=int) for n in range(300)))
        assert replies == [n * n for n in range(300)]
        assert len(set(seen)) == 3
        assert [n async for n in pool.stream("count", 5, response_type=int)] == [0, 1, 2, 3, 4]
        seen.clear()
        await asyncio.gather(*(pool.request("square", n, key="a") for n in range(20)))
        assert len(set(seen)) == 1


async def test_opening_is_all_or_nothing() -> None:
    async with serve() as server:
        pool = Pool(server.url, size=3, **FAST)
        opening = asyncio.ensure_future(pool.__aenter__())
        await server.accept()
        await server.refuse(403)
        await server.accept()
        with pytest.raises(RefusedError, match="403"):
            await opening
        assert all(client.closed is not None for client in pool.clients)
    with pytest.raises(DisconnectedError):
        await pool.request("x")
    with pytest.raises(RuntimeError, match="never opened"):
        await Pool("ws://127.0.0.1:9/").request("x")


USES: list[Callable[[Pool], Awaitable[Any]]] = [
    lambda pool: pool.request("x"),
    lambda pool: pool.request("x", key="a"),
    lambda pool: pool.emit("x"),
    lambda pool: anext(pool.stream("x")),
    lambda pool: pool.close(),
    lambda pool: pool.__aenter__(),
]


async def _complaints(pool: Pool) -> list[str]:
    said: list[str] = []
    for use in USES:
        try:
            await asyncio.wait_for(use(pool), 5)
        except WrongThreadError as error:
            said.append(str(error))
        else:
            said.append("")
    return said


async def test_in_another_loop_each_use_says_so() -> None:
    """`close` waited for tasks of the other loop without an end."""
    async with pooled(2) as (pool, (peer, _), _):
        said = await asyncio.to_thread(asyncio.run, _complaints(pool))
        assert ["outside its event loop's thread" in each for each in said] == [True] * len(USES)
        answering = asyncio.ensure_future(pool.request("still there", key=key_of(pool, 0)))
        await peer.send(reply=(await peer.receive())["id"], data="yes")
        assert await answering == "yes"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
async def test_in_a_forked_process_each_use_says_so() -> None:
    async with pooled(2) as (pool, (peer, _), _):
        ours, theirs = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the test itself has threads
            child = os.fork()
        if not child:
            try:
                # In a thread, since the loop of this one runs.
                with ThreadPoolExecutor() as executor:
                    said = executor.submit(asyncio.run, _complaints(pool)).result()
                os.write(theirs, "\n".join(said).encode())
            finally:
                os._exit(0)
        os.close(theirs)
        with os.fdopen(ours) as reading:
            said = (await asyncio.to_thread(reading.read)).split("\n")
        await asyncio.to_thread(os.waitpid, child, 0)
        assert ["process that forked this one" in each for each in said] == [True] * len(USES)
        answering = asyncio.ensure_future(pool.request("still there", key=key_of(pool, 0)))
        await peer.send(reply=(await peer.receive())["id"], data="yes")
        assert await answering == "yes"


def test_after_its_loop_it_is_closed() -> None:
    async def forget() -> Pool:
        async with serve() as server:
            pool = Pool(server.url, size=2, **FAST)
            opening = asyncio.ensure_future(pool.__aenter__())
            for _ in range(2):
                await server.accept()
            return await opening

    async def later(pool: Pool) -> None:
        with pytest.raises(DisconnectedError, match="not closed before its event loop ended"):
            await pool.request("x")
        with pytest.raises(WrongThreadError, match="event loop that has ended"):
            await pool.__aenter__()
        await pool.close()

    pool = asyncio.run(forget())
    asyncio.run(later(pool))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del pool


@pytest.mark.parametrize("state", ["open", "reconnecting", "replacing"])
async def test_one_that_is_dropped_warns_and_closes(state: str) -> None:
    """Its tasks kept it, and its connections stayed open until the program ended."""
    async with serve() as server:
        pool = Pool(server.url, size=2, backoff=60, max_backoff=60)
        opening = asyncio.ensure_future(pool.__aenter__())
        peers = [await server.accept() for _ in range(2)]
        await opening
        del opening
        # The event loop refers to its last callback until the next turn.
        await asyncio.sleep(0)
        if state != "open":
            for peer in peers:
                await peer.close(1012 if state == "reconnecting" else 4403)
            expected = "waiting" if state == "reconnecting" else "closed"
            await until(lambda clients=pool.clients: {client.state for client in clients} == {expected})
        with pytest.warns(ResourceWarning, match="<Pool .* was dropped without being closed"):
            del pool
        if state == "open":
            for peer in peers:
                await peer.closed()
        await until(lambda: not any("symphony/client/" in repr(task) for task in asyncio.all_tasks()))


@pytest.mark.parametrize("size", [0, -1])
def test_what_is_no_size(size: int) -> None:
    with pytest.raises(ValueError, match="size must be 1 or more"):
        Pool("ws://127.0.0.1:9/", size=size)


def test_type_checkers_know_all_options() -> None:
    parameters = inspect.signature(connect).parameters
    # `raw` connections have no requests.
    assert set(get_type_hints(ConnectOptions)) == set(parameters) - {"url", "raw"}
