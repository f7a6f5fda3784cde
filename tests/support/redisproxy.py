"""Between a node and Redis: a proxy that can lose answers, or swallow everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

__all__ = ("RedisProxy",)


class RedisProxy:
    """Hands bytes on.

    Args:
        port: The port of the server.

    Attributes:
        port: Where nodes connect to.
        loses: Asked for each part of an answer: whether it is lost, and the connection cut.
        swallows: Asked for each part of an answer: whether it is lost without a sign.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self.loses: Callable[[bytes], bool] = lambda part: False
        self.swallows: Callable[[bytes], bool] = lambda part: False
        self._server_port = port
        self._refuses = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The URL of the server through this proxy."""
        return f"redis://127.0.0.1:{self.port}"

    async def __aenter__(self) -> RedisProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *of_exception: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def refuse(self) -> None:
        """Cut all connections, and each new one, until `accept`."""
        self._refuses = True
        self.cut()

    def accept(self) -> None:
        """Hand on the bytes of new connections."""
        self._refuses = False

    def cut(self) -> None:
        """Cut all connections."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        self._writers.add(writer)
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Also if it is cancelled before its first step.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far: asyncio.StreamWriter | None = None
        try:
            with suppress(OSError):
                far_reader, far = await asyncio.open_connection("127.0.0.1", self._server_port)
                up = asyncio.ensure_future(self._up(reader, far))
                try:
                    while part := await far_reader.read(65_536):
                        if self.loses(part):
                            break
                        if not self.swallows(part):
                            writer.write(part)
                            await writer.drain()
                finally:
                    up.cancel()
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            if far is not None:
                far.transport.abort()

    async def _up(self, reader: asyncio.StreamReader, far: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while part := await reader.read(65_536):
                far.write(part)
                await far.drain()
            far.transport.abort()
