"""A server of bytes: it says what a test wants, and reads when a test wants."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from support import raw
from symphony.websocket.handshake import switching_protocols

__all__ = ("Frame", "RawPeer", "RawServer", "listen", "server_frame")


class Frame(NamedTuple):
    """A frame as the client wrote it, unmasked."""

    opcode: int
    payload: bytes
    fin: bool = True


class RawPeer:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.request = ""

    async def accept(self, subprotocol: str | None = "symphony.v1.json", *, behind: bytes = b"") -> None:
        """Answer the handshake, with *behind* in the same segment."""
        await self.read_request()
        self.write(self.answer(subprotocol) + behind)

    async def read_request(self) -> str:
        self.request = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        return self.request

    def header(self, name: str) -> str:
        lines = [line.partition(": ") for line in self.request.split("\r\n")]
        return next(value for found, _, value in lines if found.lower() == name.lower())

    def answer(self, subprotocol: str | None = "symphony.v1.json") -> bytes:
        key = self.header("sec-websocket-key")
        return switching_protocols(key, subprotocol=subprotocol, extension=None, headers=())

    def write(self, *chunks: bytes) -> None:
        self.writer.write(b"".join(chunks))

    async def frame(self) -> Frame:
        first, second = await self.reader.readexactly(2)
        assert second & 0x80, "the client did not mask a frame"
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await self.reader.readexactly(8), "big")
        key = await self.reader.readexactly(4)
        payload = raw.mask(await self.reader.readexactly(size), key)
        assert not first & 0x70, "reserved bits"
        return Frame(first & 0x0F, payload, bool(first & 0x80))

    async def close_frame(self) -> tuple[int, str]:
        """Return code and reason of the next frame, which must be a close frame."""
        frame = await self.frame()
        assert frame.opcode == raw.CLOSE, frame
        code = int.from_bytes(frame.payload[:2], "big") if frame.payload else 1005
        return code, frame.payload[2:].decode()

    async def at_end(self) -> bool:
        """Wait for the end of what the client sends; whether nothing came before it."""
        try:
            return not await self.reader.read(1)
        except ConnectionResetError:
            return True

    def cut(self) -> None:
        self.writer.transport.abort()


class RawServer:
    def __init__(self, url: str) -> None:
        self.url = url
        self.peers: asyncio.Queue[RawPeer] = asyncio.Queue()

    async def peer(self) -> RawPeer:
        async with asyncio.timeout(5):
            return await self.peers.get()

    async def accept(self, subprotocol: str | None = "symphony.v1.json", *, behind: bytes = b"") -> RawPeer:
        peer = await self.peer()
        await peer.accept(subprotocol, behind=behind)
        return peer


@asynccontextmanager
async def listen(context: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Take connections; at the end all are cut."""
    server = RawServer("")
    writers: list[asyncio.StreamWriter] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        server.peers.put_nowait(RawPeer(reader, writer))

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    server.url = f"{'wss' if context else 'ws'}://127.0.0.1:{port}/"
    try:
        yield server
    finally:
        listening.close()
        for writer in writers:
            writer.transport.abort()
            with suppress(OSError, ssl.SSLError):
                await writer.wait_closed()


def server_frame(opcode: int, payload: bytes | str = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """Return a frame as a server writes it."""
    if isinstance(payload, str):
        payload = payload.encode()
    return raw.frame(opcode, payload, fin=fin, rsv=rsv, masked=False)
