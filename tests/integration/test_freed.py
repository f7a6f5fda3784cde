"""A socket that has ended is freed at once, however it ended, without the garbage collector.

Left to the collector, thousands of sockets wait for its next full round.
"""

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlsplit

import pytest

from support.clients import until
from support.raw import CLOSE, close, dial, handshake, text
from symphony import Depends, Limits, Reject, Socket, Symphony
from symphony.errors import DisconnectedError
from symphony.testing import HandshakeRefusedError, TestClient

TIMES = 5

# How a socket that was open ends, and how one that was never open ends.
SERVED = (
    "the client closes",
    "the client is dropped",
    "the server closes",
    "the handler is refused",
    "the handler fails",
    "the handler is cancelled",
    "a request gets no answer",
    "a stream is sent",
    "a background task is cancelled",
    "a background task fails",
    "a thread fails",
    "a thread answers",
)
REFUSED = ("refused", "the connect handler fails", "the connect handler is too slow")

each_end = pytest.mark.parametrize("end", [*SERVED, *REFUSED])
each_route = pytest.mark.parametrize("path", ["/raw", "/events", "/several"])


@pytest.fixture(autouse=True)
def nothing_is_logged() -> Iterator[None]:
    """Keep pytest from collecting log records: they hold exceptions, and these the frames of handlers."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


class Ends:
    """An app whose sockets end in one way, and what must be freed with them."""

    def __init__(self, end: str) -> None:
        self.end = end
        self.born: list[weakref.ref[Any]] = []
        self.running = 0
        self.app = app = Symphony(
            limits=Limits(connect_timeout=0.05, finish_timeout=0.05, close_timeout=5, ping_interval=None)
        )

        async def opened(socket: Socket) -> AsyncIterator[str]:
            self.born += weakref.ref(socket.state), weakref.ref(socket._connection)
            yield "opened"

        Opened = Annotated[str, Depends(opened, scope="socket")]
        OfMessage = Annotated[str, Depends(opened)]

        async def handle(socket: Socket, _: OfMessage) -> Any:
            self.running += 1
            return await self.handle(socket)

        def handle_in_thread(socket: Socket, _: OfMessage) -> str:
            self.running += 1
            if end == "a thread fails":
                raise ValueError("expected")
            return "done"

        in_thread = end.startswith("a thread")
        for path, concurrency in (("/raw", 1), ("/events", 1), ("/several", 2)):
            route = app.route(path, concurrency=concurrency, errors="message" if path == "/raw" else None)

            @route.on_connect
            async def enter(socket: Socket, _: Opened) -> None:
                if end == "refused":
                    raise Reject("forbidden")
                if end == "the connect handler fails":
                    raise ValueError("expected")
                if end == "the connect handler is too slow":
                    await asyncio.Event().wait()
                await socket.join("lobby")

            on = route.on_message if path == "/raw" else partial(route.on, "go")
            on(thread=True)(handle_in_thread) if in_thread else on()(handle)

    async def handle(self, socket: Socket) -> Any:
        if self.end == "the server closes":
            await socket.close(4000, "bye")
        elif self.end == "the handler is refused":
            raise Reject("forbidden")
        elif self.end == "the handler fails":
            raise ValueError("expected")
        elif self.end == "the handler is cancelled":
            await asyncio.Event().wait()
        elif self.end == "a request gets no answer" and socket.route != "/raw":
            try:
                await socket.request("name", timeout=0.001)
            except TimeoutError:
                return "no answer"
        elif self.end == "a background task is cancelled":
            socket.background(asyncio.Event().wait())
        elif self.end == "a background task fails":
            socket.background(self.fail())
        elif self.end == "a stream is sent":
            return self.stream()
        return "done"

    async def fail(self) -> None:
        await asyncio.sleep(0)
        raise ValueError("expected")

    async def stream(self) -> AsyncIterator[int]:
        while True:
            yield 1
            await asyncio.sleep(0.001)

    @contextmanager
    def without_collector(self) -> Iterator[None]:
        gc.collect()
        gc.disable()
        try:
            yield
        finally:
            gc.enable()

    @property
    def stops_here(self) -> bool:
        return self.end in REFUSED

    async def all_ended(self) -> None:
        stats = self.app.stats
        await until(lambda: stats.closed == stats.opened and not self.app._core.node._sessions)

    async def check(self) -> None:
        await self.all_ended()
        # Each socket opened its dependency, and each message one of its own.
        assert len(self.born) >= 2 * TIMES
        await until(lambda: not any(ref() for ref in self.born), timeout=1)


@each_route
@each_end
async def test_a_socket_is_freed_however_it_ends(serve, end: str, path: str):
    ends = Ends(end)
    async with serve(ends.app) as url:
        with ends.without_collector():
            for _ in range(TIMES):
                await talk(ends, url, path)
            await ends.check()


@each_route
@each_end
async def test_a_socket_of_the_test_client_is_freed_however_it_ends(end: str, path: str):
    ends = Ends(end)
    async with TestClient(ends.app, raise_errors=False) as client:
        with ends.without_collector():
            for _ in range(TIMES):
                await talk_in_memory(ends, client, path)
            # It keeps them for the test, and they keep the frames of their handlers.
            client.errors.clear()
            await ends.check()


async def talk(ends: Ends, url: str, path: str) -> None:
    async with await dial(url) as client:
        await client.send(handshake(urlsplit(url).path + path))
        response = await client.response()
        if ends.stops_here:
            assert response.status >= 400
            return
        assert response.status == 101
        running = ends.running
        await client.send(text("go" if path == "/raw" else '{"event": "go", "id": 1}'))
        await until(lambda: ends.running > running)
        if ends.end in ("the client is dropped", "the handler is cancelled"):
            client.reset()
            return
        first = await client.frame()
        while first.opcode != CLOSE and b'"event"' in first.payload and b'"name"' in first.payload:
            first = await client.frame()  # the server's request
        await client.send(close(4000 if first.opcode == CLOSE else 1000))
        await client.rest()


async def talk_in_memory(ends: Ends, client: TestClient, path: str) -> None:
    try:
        connection = await client.connect(path)
    except HandshakeRefusedError:
        assert ends.stops_here
        return
    assert not ends.stops_here
    running = ends.running
    if path == "/raw":
        await connection.send("go")
    else:
        await connection.emit("go")
    await until(lambda: ends.running > running)
    try:
        await (connection.drop() if ends.end == "the client is dropped" else connection.close())
    except DisconnectedError:
        assert ends.end == "the server closes"
