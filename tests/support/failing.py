"""A network between clients and a server that fails when a test tells it to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

__all__ = ("Network",)


class Network:
    """Passes connections on to a server, and fails when it is told to.

    Attributes:
        is_down: Whether it resets new connections, too.
    """

    def __init__(self) -> None:
        self.is_down = False
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def to(self, url: str) -> AsyncIterator[str]:
        """Give the URL that leads through this network to the server at *url*."""
        port = int(url.rpartition(":")[2])

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self.is_down:
                writer.transport.abort()
                return
            there, back = await asyncio.open_connection("127.0.0.1", port)
            self._writers += [writer, back]
            await asyncio.gather(_pump(reader, back), _pump(there, writer))

        async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            self.fail()

    def fail(self) -> None:
        """Reset all connections."""
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.transport.abort()

    def go_down(self) -> None:
        """Reset all connections, and new ones until it comes up."""
        self.is_down = True
        self.fail()

    def come_up(self) -> None:
        """Pass new connections on again."""
        self.is_down = False


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()
