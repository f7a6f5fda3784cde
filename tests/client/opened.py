"""A client, open at a scripted server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from client.scripted import Peer, Server, serve
from symphony.client import Client, connect

__all__ = ("fast", "opened", "pair")

fast = {"backoff": 0.01, "max_backoff": 0.02}
"""Options of a client that comes back at once."""


async def opened(server: Server, client: Client, subprotocol: str | None = "$spoken") -> Peer:
    """Open a client; return the server's end."""
    accepting = asyncio.ensure_future(server.accept(subprotocol))
    await client
    return await accepting


@asynccontextmanager
async def pair(
    subprotocol: str | None = "$spoken", *, register: Callable[[Client], None] | None = None, **options: Any
) -> AsyncIterator[tuple[Client, Peer, Server]]:
    """Give an open client, the server's end, and the server."""
    async with serve() as server:
        client = connect(server.url, **{**fast, **options})
        if register is not None:
            register(client)
        try:
            yield client, await opened(server, client, subprotocol), server
        finally:
            await client.close()
