"""Servers that say what a test tells them to, made with `websockets`: not ours."""

import asyncio
import http
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import websockets
from websockets.datastructures import Headers
from websockets.http11 import Response

__all__ = ("Handshake", "Peer", "Server", "serve")


class Peer:
    """One accepted connection, frame by frame."""

    def __init__(self, connection: websockets.ServerConnection) -> None:
        self.connection = connection

    @property
    def subprotocol(self) -> str | None:
        return self.connection.subprotocol

    async def send(self, **frame: Any) -> None:
        """Send a frame: `send(reply=1, data=2)`."""
        await self.say(frame)

    async def say(self, frame: Any) -> None:
        """Send a frame that is a map, or a message as it is."""
        if not isinstance(frame, str | bytes):
            if self.subprotocol == "symphony.v1.msgpack":
                frame = msgspec.msgpack.encode(frame)
            else:
                frame = msgspec.json.encode(frame).decode()
        await self.connection.send(frame)

    async def receive(self) -> dict[str, Any]:
        """Return the next frame."""
        message = await self.receive_message()
        if self.subprotocol == "symphony.v1.msgpack":
            assert isinstance(message, bytes)
            return msgspec.msgpack.decode(message)
        assert isinstance(message, str)
        return msgspec.json.decode(message)

    async def receive_message(self) -> str | bytes:
        async with asyncio.timeout(5):
            return await self.connection.recv()

    async def nothing_came(self) -> bool:
        """Whether the client has sent nothing more, up to a ping that it answers now."""
        await (await self.connection.ping())
        try:
            async with asyncio.timeout(0):
                await self.connection.recv()
        except TimeoutError:
            return True
        return False

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.connection.close(code, reason)

    async def drop(self) -> None:
        """Cut the connection, without a close frame."""
        self.connection.transport.abort()
        await self.connection.wait_closed()

    def silence(self) -> None:
        """Read nothing more: as a stopped process, whose kernel still holds the connection."""
        self.connection.transport.pause_reading()

    async def closed(self) -> tuple[int | None, str | None]:
        """Wait for the client's end of the connection; return code and reason."""
        async with asyncio.timeout(5):
            await self.connection.wait_closed()
        return self.connection.close_code, self.connection.close_reason


class Handshake:
    """A handshake that waits for its answer."""

    def __init__(self, connection: websockets.ServerConnection, request: Any) -> None:
        self.connection = connection
        self.headers: Headers = request.headers
        self.path: str = request.path
        self.arrived = asyncio.get_running_loop().time()
        self.offers = [name.strip() for name in self.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        self.choice: str | None = None
        self.decided: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
        self.peer: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()

    @property
    def spoken(self) -> str:
        """What Symphony would choose."""
        return next(name for name in self.offers if name.startswith("symphony.v1."))

    async def accept(self, subprotocol: str | None = "$spoken") -> Peer:
        self.choice = self.spoken if subprotocol == "$spoken" else subprotocol
        self.decided.set_result(None)
        return await self.peer

    def refuse(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        fields = Headers(headers or {})
        fields["Connection"] = "close"
        fields["Content-Length"] = str(len(body))
        try:
            phrase = http.HTTPStatus(status).phrase
        except ValueError:
            phrase = "Whatever"
        self.decided.set_result(Response(status, phrase, fields, body))


class Server:
    """A server whose handshakes and connections the test takes one by one."""

    def __init__(self) -> None:
        self.url = ""
        self._handshakes: asyncio.Queue[Handshake] = asyncio.Queue()
        self._open: dict[Any, Handshake] = {}
        self._leaving = asyncio.Event()

    async def handshake(self) -> Handshake:
        async with asyncio.timeout(8):
            return await self._handshakes.get()

    async def accept(self, subprotocol: str | None = "$spoken") -> Peer:
        """Accept the next handshake."""
        return await (await self.handshake()).accept(subprotocol)

    async def refuse(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        """Refuse the next handshake by HTTP."""
        (await self.handshake()).refuse(status, headers, body)

    async def refuse_by_code(self, code: int, reason: str = "") -> None:
        """Refuse the next handshake by close code."""
        peer = await self.accept("symphony.refuse")
        await peer.close(code, reason)

    def no_handshake_waits(self) -> bool:
        return self._handshakes.empty()

    async def handle(self, connection: websockets.ServerConnection) -> None:
        self._open.pop(connection).peer.set_result(Peer(connection))
        await connection.wait_closed()

    async def process_request(self, connection: websockets.ServerConnection, request: Any) -> Any:
        handshake = Handshake(connection, request)
        self._open[connection] = handshake
        self._handshakes.put_nowait(handshake)
        leaving = asyncio.ensure_future(self._leaving.wait())
        await asyncio.wait((handshake.decided, leaving), return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        return handshake.decided.result() if handshake.decided.done() else None

    def select_subprotocol(self, connection: websockets.ServerConnection, _: Sequence[str]) -> str | None:
        return self._open[connection].choice

    def leave(self) -> None:
        self._leaving.set()


@asynccontextmanager
async def serve(**options: Any) -> AsyncIterator[Server]:
    """Run a scripted server; at the end nobody may be connected, or he is cut off."""
    server = Server()
    options.setdefault("host", "127.0.0.1")
    options.setdefault("port", 0)
    async with websockets.serve(
        server.handle,
        process_request=server.process_request,
        select_subprotocol=server.select_subprotocol,
        compression=None,
        ping_interval=None,
        max_size=2**26,
        open_timeout=None,
        close_timeout=1,
        **options,
    ) as listening:
        port = listening.sockets[0].getsockname()[1]
        scheme = "wss" if options.get("ssl") else "ws"
        server.url = f"{scheme}://127.0.0.1:{port}/chat"
        try:
            yield server
        finally:
            server.leave()
