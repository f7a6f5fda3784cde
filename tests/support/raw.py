"""A WebSocket client that says whatever bytes a test wants, and hides nothing of the answer."""

import asyncio
import itertools
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

__all__ = (
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "Frame",
    "RawClient",
    "Reset",
    "Response",
    "close",
    "connect",
    "cut",
    "dial",
    "frame",
    "handshake",
    "mask",
    "resident_bytes",
    "text",
)

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

# RFC 6455 §1.3 and §5.7: the sample nonce and the sample masking key.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MASKING_KEY = bytes.fromhex("37fa213d")


class Frame(NamedTuple):
    """A frame as the server wrote it."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0

    @property
    def code(self) -> int:
        """The close code; 1005 if there is none."""
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.payload[:2], "big") if self.payload else 1005


class Response(NamedTuple):
    """An HTTP answer; the body only if it is not a 101."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def mask(payload: bytes, key: bytes = MASKING_KEY) -> bytes:
    """Return *payload* masked as RFC 6455 §5.3 has it."""
    size = len(payload)
    stream = int.from_bytes((key * (size // 4 + 1))[:size], "big")
    return (int.from_bytes(payload, "big") ^ stream).to_bytes(size, "big")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    length: bytes | None = None,
) -> bytes:
    """Return a client's frame.

    Args:
        opcode: Any of 0-15.
        payload: As it is before masking.
        fin: Whether it is the last of its message.
        rsv: The three reserved bits, 4 being RSV1.
        masked: A server must refuse one that is not.
        length: The bytes behind the first, masking bit included, instead of
            the right ones.
    """
    size = len(payload)
    if length is None:
        bit = 0x80 if masked else 0
        if size < 126:
            length = bytes((bit | size,))
        elif size < 65536:
            length = bytes((bit | 126,)) + size.to_bytes(2, "big")
        else:
            length = bytes((bit | 127,)) + size.to_bytes(8, "big")
    first = (0x80 if fin else 0) | (rsv << 4) | opcode
    body = MASKING_KEY + mask(payload) if masked else payload
    return bytes((first,)) + length + body


def text(message: str) -> bytes:
    """Return an unfragmented text frame."""
    return frame(TEXT, message.encode())


def close(code: int | None = 1000, reason: str | bytes = b"") -> bytes:
    """Return a close frame; without a code if that is `None`."""
    if code is None:
        return frame(CLOSE)
    return frame(CLOSE, code.to_bytes(2, "big") + (reason.encode() if isinstance(reason, str) else reason))


def handshake(path: str = "/", *, method: str = "GET", **headers: str | None) -> bytes:
    """Return a handshake request; a header of `None` is left out, `_` stands for `-`."""
    fields: dict[str, str | None] = {
        "host": "localhost",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-key": KEY,
        "sec-websocket-version": "13",
    }
    fields.update((name.replace("_", "-"), value) for name, value in headers.items())
    lines = [f"{method} {path} HTTP/1.1"]
    lines += (f"{name}: {value}" for name, value in fields.items() if value is not None)
    return "\r\n".join((*lines, "", "")).encode()


class RawClient:
    """One TCP, TLS or Unix connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._ahead = b""

    async def send(self, *chunks: bytes) -> None:
        """Write all chunks in one go."""
        self.writer.write(b"".join(chunks))
        await self.writer.drain()

    @staticmethod
    def in_background(sending: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Send beside the test; that the server ends the connection meanwhile is no error."""
        task = asyncio.ensure_future(sending)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def send_slowly(self, data: bytes, size: int = 1) -> None:
        """Write *size* bytes a segment, and let the server read each by itself."""
        for at in range(0, len(data), size):
            self.writer.write(data[at : at + size])
            await self.writer.drain()
            await asyncio.sleep(0)

    async def response(self) -> Response:
        """Read an HTTP answer."""
        head = self._ahead + await self.reader.readuntil(b"\r\n\r\n")
        self._ahead = b""
        status, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        code = int(status.split(" ")[1])
        body = b""
        if "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        return Response(code, headers, body)

    async def open(self, request: bytes) -> Response:
        """Send a handshake that must succeed."""
        await self.send(request)
        response = await self.response()
        assert response.status == 101, response
        assert response.headers["sec-websocket-accept"] == ACCEPT
        return response

    async def frame(self) -> Frame:
        """Read the next frame; a server's must not be masked."""
        first, second = await self._exactly(2)
        assert not second & 0x80, "the server masked a frame"
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(await self._exactly(2), "big")
            assert size > 125, "not the shortest length"
        elif size == 127:
            size = int.from_bytes(await self._exactly(8), "big")
            assert size > 65535, "not the shortest length"
        payload = await self._exactly(size)
        return Frame(first & 0x0F, payload, bool(first & 0x80), (first >> 4) & 7)

    async def message(self) -> str | bytes:
        """Read the next frame, which must be a plain message."""
        got = await self.frame()
        assert got.opcode in (TEXT, BINARY), got
        assert (got.fin, got.rsv) == (True, 0), got
        return got.payload.decode() if got.opcode == TEXT else got.payload

    async def rest(self) -> list[Frame]:
        """Read frames until the server ends the TCP connection in order."""
        frames: list[Frame] = []
        while not await self.at_end():
            frames.append(await self.frame())
        return frames

    async def at_end(self) -> bool:
        """Wait for a byte or the end; whether it is the end."""
        if not self._ahead:
            self._ahead = await self.reader.read(1)
        return not self._ahead

    def finish(self) -> None:
        """Send FIN; reading goes on."""
        self.writer.write_eof()

    def reset(self) -> None:
        """Vanish with a RST instead of a FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def aclose(self) -> None:
        """End the connection, whatever state it is in."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    async def _exactly(self, size: int) -> bytes:
        ahead, self._ahead = self._ahead[:size], self._ahead[size:]
        return ahead + await self.reader.readexactly(size - len(ahead))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Reset:
    """A socket inside of asyncio, whose peer vanishes right after it has taken some bytes.

    Args:
        whole: The socket.
    """

    def __init__(self, whole: Any) -> None:
        self._whole = whole
        self.sent = 0

    def send(self, data: Any) -> int:
        self.sent += 1
        if self.sent > 1:
            raise ConnectionResetError(104, "Connection reset by peer")
        # All of it, as far as asyncio knows: nothing more is sent.
        return len(data)

    def sendmsg(self, buffers: Any) -> int:
        """Take what waited, as asyncio sends it since Python 3.12."""
        return self.send(b"".join(buffers))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)


async def dial(
    url: str, *, ssl_context: ssl.SSLContext | None = None, buffer: int | None = None
) -> RawClient:
    """Connect without saying a word.

    Args:
        url: `ws://host:port`, or `unix:/path`.
        ssl_context: For `wss`.
        buffer: Receive buffer of the kernel and of the reader, to be slow with.
    """
    limit = buffer or 2**26
    if url.startswith("unix:"):
        return RawClient(*await asyncio.open_unix_connection(url.removeprefix("unix:"), limit=limit))
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    sock = socket.socket()
    sock.setblocking(False)
    if buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
    except BaseException:
        sock.close()
        raise
    name = parts.hostname if ssl_context is not None else None
    return RawClient(
        *await asyncio.open_connection(sock=sock, limit=limit, ssl=ssl_context, server_hostname=name)
    )


@asynccontextmanager
async def connect(
    url: str, *, ssl_context: ssl.SSLContext | None = None, buffer: int | None = None, **headers: str | None
) -> AsyncIterator[RawClient]:
    """Open a WebSocket; at the end of the block the connection is cut, not closed in order."""
    path = urlsplit(url).path if not url.startswith("unix:") else "/"
    client = await dial(url, ssl_context=ssl_context, buffer=buffer)
    async with client:
        await client.open(handshake(path or "/", **headers))
        yield client


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Return *data* in pieces, cut at *places*."""
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges) if start < end]


def resident_bytes(pid: int | None = None) -> int:
    """Return the resident memory of a process, of this one without a *pid*."""
    with open(f"/proc/{pid or os.getpid()}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
