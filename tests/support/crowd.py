"""Thousands of clients in one process: each keeps the bytes it gets, and little else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import cast
from urllib.parse import urlsplit

from support.raw import CLOSE, close, handshake

__all__ = ("Crowd", "Member", "crowd")

_AT_ONCE = 200


class Member(asyncio.Protocol):
    """One client, that answers a close frame when asked to.

    Attributes:
        got: What came behind the 101.
        closed_at: When a close frame had come.
    """

    __slots__ = ("_opened", "_seen", "_wanted", "answers", "closed_at", "ended", "got", "transport")

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._seen = b""
        self._opened: asyncio.Future[None] = loop.create_future()
        self._wanted: tuple[int, asyncio.Future[None]] | None = None
        self.answers = True
        self.ended: asyncio.Future[None] = loop.create_future()
        self.got = bytearray()
        self.closed_at: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self._opened.done():
            self._seen += data
            head, end, rest = self._seen.partition(b"\r\n\r\n")
            if not end:
                return
            assert head.startswith(b"HTTP/1.1 101"), head
            self._opened.set_result(None)
            data, self._seen = rest, b""
        self.got += data
        if self._wanted is not None and len(self.got) >= self._wanted[0]:
            self._wanted[1].set_result(None)
            self._wanted = None
        # Only servers' close frames with a code and a short reason are looked for.
        at = self.got.rfind(bytes((0x80 | CLOSE,)))
        if self.closed_at is None and at >= 0 and self.got[at + 1] == len(self.got) - at - 2:
            self.closed_at = monotonic()
            if self.answers:
                self.transport.write(close(self.close_code))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._opened.done():
            self._opened.set_exception(exc or ConnectionResetError("refused"))
        self.ended.set_result(None)

    @property
    def close_code(self) -> int | None:
        """The code of the close frame that came."""
        if self.closed_at is None:
            return None
        at = self.got.rfind(bytes((0x80 | CLOSE,)))
        return int.from_bytes(self.got[at + 2 : at + 4], "big")

    async def opened(self) -> None:
        """Wait for the 101."""
        await self._opened

    async def reaches(self, size: int) -> None:
        """Wait until so many bytes have come behind the 101."""
        if len(self.got) < size:
            future = asyncio.get_running_loop().create_future()
            self._wanted = (size, future)
            await future


class Crowd(list[Member]):
    """Many members.

    Args:
        url: Of the server.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port
        self._request = handshake(parts.path or "/")

    async def grow(self, count: int) -> None:
        """Connect *count* more, some at a time, and wait until all are open."""
        loop = asyncio.get_running_loop()
        turn = asyncio.Semaphore(_AT_ONCE)

        async def connect() -> Member:
            async with turn:
                _, member = await loop.create_connection(Member, *self._address)
                member.transport.write(self._request)
                await member.opened()
                return member

        self += await asyncio.gather(*(connect() for _ in range(count)))

    async def leave(self) -> None:
        """Send a close frame from each, and wait until the server has ended them all."""
        for member in self:
            member.answers = False
            member.transport.write(close(1000))
        await asyncio.gather(*(member.ended for member in self))
        self.clear()


@asynccontextmanager
async def crowd(url: str, count: int) -> AsyncIterator[Crowd]:
    """Connect many clients; whoever is left at the end is cut off."""
    members = Crowd(url)
    try:
        await members.grow(count)
        yield members
    finally:
        for member in members:
            member.transport.abort()
        await asyncio.gather(*(member.ended for member in members))
