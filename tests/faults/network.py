"""A network between clients and server that can go bad: TCP, forwarded by hand."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal

__all__ = ("Cut", "Forwarder")

Cut = tuple[Literal["up", "down"], int, Literal["fin", "rst"]]
"""Of one connection: after how many bytes in which direction it is cut, and how."""

_AT_ONCE = 64 * 1024


class _Wire:
    """One connection through the forwarder."""

    def __init__(self, near: asyncio.StreamWriter) -> None:
        self.ends = [near]

    def cut(self, how: Literal["fin", "rst"] = "rst") -> None:
        for end in self.ends:
            if end.is_closing():
                continue
            if how == "rst":
                raw = end.get_extra_info("socket")
                with suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.transport.abort()
            else:
                end.close()


class Forwarder:
    """Hands bytes on, as long as the network is good.

    Args:
        port: Of the server.

    Attributes:
        port: Where clients connect to.
        arrivals: When each connection came.
        next_cut: Asked for each connection; `None`: it is not cut.
        cuts: How many were.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self.arrivals: list[float] = []
        self.next_cut: Callable[[], Cut | None] = lambda: None
        self.cuts = 0
        self._server_port = port
        self._nonsense: bytes | None = None
        self._good = asyncio.Event()
        self._entrance = asyncio.Event()
        self._good.set()
        self._entrance.set()
        self._wires: set[_Wire] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def go_dark(self) -> None:
        """Swallow everything from now on; nobody is told, nor will be."""
        self._good.clear()

    def hold(self) -> None:
        """Let new connections wait for the server; those there are go on."""
        self._entrance.clear()

    def answer(self, text: bytes) -> None:
        """Answer every handshake with this, as a proxy without a server does."""
        self._nonsense = text

    def come_back(self) -> None:
        """Be good again, to new connections: those there are, are cut."""
        self._nonsense = None
        for wire in tuple(self._wires):
            wire.cut()
        self._good.set()
        self._entrance.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.arrivals.append(time.time())
        # Not a coroutine: its task would be the listener's, and nobody would wait for it.
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = _Wire(writer)
        self._wires.add(wire)
        try:
            with suppress(OSError):
                await self._forward(wire, reader, writer)
        finally:
            wire.cut()
            self._wires.discard(wire)

    async def _forward(self, wire: _Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._entrance.wait()
        await self._good.wait()
        if writer.is_closing():
            return
        if self._nonsense is not None:
            text = self._nonsense
            with suppress(asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
            writer.write(text)
            wire.cut("fin")
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        wire.ends.append(far_writer)
        way, after, how = self.next_cut() or ("up", None, "fin")
        up = self._pump(wire, reader, far_writer, after if way == "up" else None, how)
        down = self._pump(wire, far_reader, writer, after if way == "down" else None, how)
        pumps = [asyncio.ensure_future(up), asyncio.ensure_future(down)]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self,
        wire: _Wire,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        after: int | None,
        how: Literal["fin", "rst"],
    ) -> None:
        with suppress(OSError):
            while block := await reader.read(_AT_ONCE):
                await self._good.wait()
                if after is not None and after <= len(block):
                    writer.write(block[:after])
                    await writer.drain()
                    self.cuts += 1
                    wire.cut(how)
                    return
                if after is not None:
                    after -= len(block)
                writer.write(block)
                await writer.drain()
            # The end of one side is news like any other.
            await self._good.wait()

    @asynccontextmanager
    async def run(self) -> AsyncIterator["Forwarder"]:
        listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=1000)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            for task in tuple(self._tasks):
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
