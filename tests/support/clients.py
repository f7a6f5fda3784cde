"""A client that is not ours: `websockets`, with what the tests ask of it again and again."""

import asyncio
import json
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import httpx
import pytest
import websockets
from websockets.exceptions import InvalidStatus

__all__ = (
    "Client",
    "Log",
    "Refusal",
    "closed",
    "connect",
    "error_in",
    "get",
    "http_client",
    "refused",
    "settled",
    "until",
)

Client = websockets.ClientConnection

# Reading the system's certificates takes longer than a request that has no use for them.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

connect = partial(websockets.connect, proxy=None, compression=None, ping_interval=None)


class Refusal(NamedTuple):
    """The HTTP answer to a handshake."""

    status: int
    headers: websockets.Headers
    body: Any

    @property
    def code(self) -> str:
        return self.body["code"]

    @property
    def message(self) -> str:
        return self.body["message"]


async def refused(url: str, **options: Any) -> Refusal:
    """Open a connection that must be refused, and return how it was."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(url, **options):
            pass
    response = caught.value.response
    return Refusal(response.status_code, response.headers, json.loads(response.body))


async def closed(client: Client) -> tuple[int | None, str | None]:
    """Wait until the server has closed, and return code and reason."""
    await client.wait_closed()
    return client.close_code, client.close_reason


def error_in(message: str | bytes) -> dict[str, Any]:
    """Return the error that a message of a raw connection carries."""
    envelope = json.loads(message)
    assert envelope["event"] == "error"
    return envelope["data"]


class Log(list[Any]):
    """What happened, in order, and a way to wait for it."""

    async def reaches(self, length: int) -> None:
        """Wait until so much has happened."""
        await until(lambda: len(self) >= length)


async def until(condition: Callable[[], Any], *, timeout: float = 10.0) -> None:
    """Look again each turn of the loop, and give up after *timeout* seconds."""
    async with asyncio.timeout(timeout):
        # Not an event, because what the tests ask about has none.
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def settled(measure: Callable[[], int]) -> int:
    """Return what *measure* gives once it is above 0 and changes no more."""
    # Not an event: what the system's buffers still take, no program is told.
    earlier = 0
    async with asyncio.timeout(10):
        while not (earlier and earlier == measure()):
            earlier = measure()
            await asyncio.sleep(0.05)
    return earlier


def http_client() -> httpx.AsyncClient:
    """Make a client for http://."""
    return httpx.AsyncClient(trust_env=False, verify=_NO_TLS)


async def get(url: str, **options: Any) -> httpx.Response:
    """Ask the server at a WebSocket's URL for a page."""
    async with http_client() as client:
        return await client.get(url.replace("ws", "http", 1), **options)
