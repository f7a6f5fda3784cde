"""The app of the vectors behind a real server, and in memory; and a client of each that is not ours."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

from support.clients import connect
from support.servers import serve_natively
from symphony import Limits
from symphony.testing import DisconnectedError, TestClient
from wire.app import make_app

__all__ = ("OFFERS", "SERVERS", "Peer", "Served")

OFFERS: Mapping[str, Sequence[str]] = {
    "json": ("symphony.v1.json", "symphony.raw", "symphony.refuse"),
    "msgpack": ("symphony.v1.msgpack", "symphony.raw", "symphony.refuse"),
    "plain": (),
}


class Peer(Protocol):
    """One connection to the server, from its client's side."""

    subprotocol: str | None

    async def send(self, message: str | bytes) -> None: ...

    async def receive(self) -> str | bytes: ...

    async def closed(self) -> tuple[int | None, str | None]: ...


class Served(Protocol):
    """A server that runs."""

    def connect(self, path: str, offers: Sequence[str], /) -> AbstractAsyncContextManager[Peer]: ...

    async def stop(self) -> None: ...


class _NativePeer:
    def __init__(self, client: Any) -> None:
        self._client = client
        self.subprotocol: str | None = client.subprotocol

    async def send(self, message: str | bytes) -> None:
        await self._client.send(message)

    async def send_as_text(self, message: bytes) -> None:
        """Send a text message whose bytes need not be text."""
        await self._client.send(message, text=True)

    async def receive(self) -> str | bytes:
        async with asyncio.timeout(5):
            return await self._client.recv()

    async def closed(self) -> tuple[int | None, str | None]:
        async with asyncio.timeout(5):
            await self._client.wait_closed()
        return self._client.close_code, self._client.close_reason


class _Native:
    def __init__(self, url: str, stop: Callable[[], Any]) -> None:
        self._url = url
        self.stop = stop

    @asynccontextmanager
    async def connect(self, path: str, offers: Sequence[str]) -> AsyncIterator[_NativePeer]:
        async with connect(self._url + path, subprotocols=list(offers) or None, max_size=None) as client:
            yield _NativePeer(client)


class _MemoryPeer:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.subprotocol: str | None = connection.subprotocol

    async def send(self, message: str | bytes) -> None:
        await self._connection.send(message)

    async def receive(self) -> str | bytes:
        return await self._connection.receive()

    async def closed(self) -> tuple[int | None, str | None]:
        close = await self._connection.wait_closed()
        # Nothing was left behind that nobody has received.
        try:
            message = await self._connection.receive()
        except DisconnectedError:
            return close.code, close.reason
        raise AssertionError(message)


class _Memory:
    def __init__(self, client: TestClient, stop: Callable[[], Any]) -> None:
        self._client = client
        self.stop = stop

    @asynccontextmanager
    async def connect(self, path: str, offers: Sequence[str]) -> AsyncIterator[_MemoryPeer]:
        async with self._client.connect(path, subprotocols=offers, protocol="raw") as connection:
            yield _MemoryPeer(connection)


@asynccontextmanager
async def _natively(limits: Limits | None) -> AsyncIterator[_Native]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serve_natively(make_app(limits)))
        yield _Native(url, stack.aclose)


@asynccontextmanager
async def _in_memory(limits: Limits | None) -> AsyncIterator[_Memory]:
    async with AsyncExitStack() as stack:
        client = TestClient(make_app(limits), timeout=5, raise_errors=False)
        await stack.enter_async_context(client)
        yield _Memory(client, stack.aclose)


SERVERS: Mapping[str, Callable[[Limits | None], AbstractAsyncContextManager[Served]]] = {
    "native": _natively,
    "memory": _in_memory,
}
