"""Limits of connections hold from `accept` on, whatever a connection is doing."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest

from support.process import launch, start
from support.raw import RawClient, connect, dial, handshake, text
from symphony import Limits, Symphony

# What a client may have said when the next one comes.
HALF = {
    "nothing": b"",
    "half a head": b"GET / HTTP/1.1\r\nhost: local",
    "half a handshake": handshake()[:-2],
    "half a body": b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\nx",
    "a request": b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
}


def served(**limits: Any) -> Symphony:
    app = Symphony(limits=Limits(**limits))

    @app.on_message
    async def echo(message: str) -> str:
        return message

    return app


@asynccontextmanager
async def half_open(url: str, said: bytes, count: int) -> AsyncIterator[list[RawClient]]:
    async with AsyncExitStack() as stack:
        clients: list[RawClient] = []
        for _ in range(count):
            client = await stack.enter_async_context(await dial(url))
            await client.send(said)
            if said.startswith(b"POST"):
                await client.response()
            clients.append(client)
        yield clients


async def answers(url: str, request: bytes = b"") -> int:
    async with await dial(url) as client:
        await client.send(request or handshake())
        return (await client.response()).status


async def served_again(url: str) -> None:
    async with asyncio.timeout(10):
        # A refused client is asked to come again, as here.
        while await answers(url) != 101:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("half", HALF)
@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_client"])
async def test_connections_without_a_socket_count(native, limit: str, half: str):
    """Only open sockets were counted: 400 requests with slow bodies took all descriptors."""
    app = served(**{limit: 3})
    status = 503 if limit == "max_connections" else 429
    async with native(app) as url:
        async with half_open(url, HALF[half], 2):
            assert await answers(url) == 101
        await served_again(url)
        async with half_open(url, HALF[half], 3):
            assert await answers(url) == status
            assert await answers(url, HALF["a request"]) == status
        await served_again(url)


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_client"])
async def test_far_beyond_a_limit_connections_are_closed_at_once(native, complaints, limit: str):
    app = served(**{limit: 1})
    async with native(app) as url, await dial(url), AsyncExitStack() as stack:
        closed = 0
        for _ in range(50):
            client = await stack.enter_async_context(await dial(url))
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(0.05):
                    closed += await client.at_end()
        assert closed >= 10
        assert app.stats.refused >= closed
        assert len(complaints) == 1
        assert "symphony.transport: Too many connections" in complaints[0]
        complaints.clear()


async def test_a_refused_handshake_is_told_in_full(native):
    async with (
        native(served(max_connections=1, retry_after=2.5)) as url,
        await dial(url),
        await dial(url) as late,
    ):
        await late.send(handshake())
        response = await late.response()
        assert (response.status, response.headers["retry-after"]) == (503, "3")
        assert response.headers["symphony-refusal"] == "unavailable"


@pytest.mark.parametrize("half", ["nothing", "half a body"])
async def test_clients_of_a_trusted_proxy_are_counted_by_their_own_addresses(native, half: str):
    app = served(max_connections_per_client=2)
    async with (
        native(app, proxy_headers=True, forwarded_allow_ips="127.0.0.1") as url,
        AsyncExitStack() as stack,
        half_open(url, HALF[half], 5),
    ):
        for address in ("1.2.3.4", "::ffff:1.2.3.4", "2001:db8::1", "2001:db8::2"):
            await stack.enter_async_context(connect(url, x_forwarded_for=address))
        for address in ("1.2.3.4", "2001:db8::3"):
            async with await dial(url) as client:
                await client.send(handshake(x_forwarded_for=address))
                assert (await client.response()).status == 429
        async with connect(url, x_forwarded_for="2001:db8:0:1::1") as other:
            await other.send(text("hi"))
            assert await other.message() == "hi"


EXHAUSTED = """
import resource
from symphony import Limits, Symphony

app = Symphony(limits=Limits(close_timeout=0.2))
files = []

@app.on_message
async def handle(message: str) -> str:
    if message == "free":
        files.clear()
    else:
        try:
            while True:
                files.append(open("/dev/null"))
        except OSError:
            pass
    return "done"

resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
app.run(port=0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
@pytest.mark.asyncio(loop_factories=["asyncio"])  # the client's; the server chooses its own
async def test_a_server_without_descriptors_says_so_and_goes_on(tmp_path):
    file = tmp_path / "app.py"
    file.write_text(EXHAUSTED)
    async with start(file) as server, connect(server.url) as client:
        await client.send(text("take"))
        assert await client.message() == "done"
        async with await dial(server.url) as waiting:
            await waiting.send(handshake())
            await client.send(text("still here"))
            assert await client.message() == "done"
            await client.send(text("free"))
            assert await client.message() == "done"
            assert (await waiting.response()).status == 101
        server.signal()
        async with asyncio.timeout(10):
            assert (await server.end())[0] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize(
    ("limit", "clients"), [(32, 16), (64, 32), (100, 50), (255, 159), (256, None), (4096, None)]
)
async def test_a_low_limit_of_descriptors_is_told_at_the_start(tmp_path, limit: int, clients: int | None):
    file = tmp_path / "app.py"
    file.write_text(LIMITED.format(limit=limit))
    async with launch(sys.executable, str(file), stderr=PIPE) as server, connect(server.url) as client:
        await client.send(text("hi"))
        assert await client.message() == "hi"
        server.signal()
        warnings = [line for line in await server.errors() if "WARNING" in line]
    expected = [] if clients is None else [f"only {limit} files open", f"about {clients} clients can connect"]
    assert len(warnings) == (clients is not None)
    assert all(words in warnings[0] for words in expected)


LIMITED = """
import resource
from symphony import Symphony

app = Symphony()

@app.on_message
async def handle(message: str) -> str:
    return message

resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
app.run(port=0)
"""
