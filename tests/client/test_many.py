"""A client costs little: a thousand of them in one process, at one server."""

import asyncio
import gc
import json
import resource
from collections.abc import Iterator

import pytest
import websockets

from support.raw import resident_bytes
from symphony.client import connect

COUNT = 1000


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let the process have a socket for each end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 3 * COUNT:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(3 * COUNT, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def answer(connection: websockets.ServerConnection) -> None:
    async for message in connection:
        frame = json.loads(message)
        await connection.send(json.dumps({"reply": frame["id"], "data": frame["data"]}))


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("many_files")
async def test_a_thousand_clients_at_one_server() -> None:
    async with websockets.serve(
        answer,
        "127.0.0.1",
        0,
        subprotocols=["symphony.v1.json"],
        compression=None,
        ping_interval=None,
    ) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        tasks, before = len(asyncio.all_tasks()), resident_bytes()
        clients = [connect(url, connect_timeout=50) for _ in range(COUNT)]
        await asyncio.gather(*(client._open() for client in clients))
        gc.collect()
        # One that keeps it connected; the rest are the server's, three each.
        ours = [task for task in asyncio.all_tasks() if "Reconnector" in repr(task.get_coro())]
        assert len(ours) == COUNT
        # The server's end included, which is the larger.
        assert (resident_bytes() - before) / COUNT < 150 * 1024
        for _ in range(3):
            replies = await asyncio.gather(*(client.request("n", n) for n, client in enumerate(clients)))
            assert replies == list(range(COUNT))
        timers = [one for one in asyncio.get_running_loop()._scheduled if not one.cancelled()]
        assert len([one for one in timers if "Heartbeat" in repr(one)]) == COUNT
        await asyncio.gather(*(client.close() for client in clients))
        assert all(client.state == "closed" for client in clients)
    assert len(asyncio.all_tasks()) == tasks
