"""Small proxies that are not ours: HTTP CONNECT and SOCKS5, in the test's own loop."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address

__all__ = ("Proxy", "http_proxy", "socks_proxy")


class Proxy:
    """A proxy, and what it was asked.

    Attributes:
        port: Where it listens.
        asked: The targets, as `host:port`.
        heads: The requests of an HTTP proxy.
        hosts: Where targets really are, by the name that is asked for.
        answer: What an HTTP proxy says instead of opening a tunnel.
        fields: Header fields of its answer when it opens one.
        user: `user:password`, if it requires one.
        code: The code with which a SOCKS proxy refuses.
    """

    def __init__(self, hosts: Mapping[str, str]) -> None:
        self.port = 0
        self.asked: list[str] = []
        self.heads: list[str] = []
        self.hosts = hosts
        self.answer: bytes | None = None
        self.fields = b""
        self.user: str | None = None
        self.code = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        method, target, _ = head.split("\r\n")[0].split(" ")
        self.asked.append(target)
        assert method == "CONNECT"
        if self.user is not None:
            wanted = f"Proxy-Authorization: Basic {base64.b64encode(self.user.encode()).decode()}\r\n"
            if wanted not in head:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
        if self.answer is not None:
            writer.write(self.answer)
            return
        host, _, port = target.rpartition(":")
        await self._tunnel(
            reader, writer, host.strip("[]"), int(port), b"HTTP/1.1 200 OK\r\n" + self.fields + b"\r\n"
        )

    async def socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        version, count = await reader.readexactly(2)
        assert version == 5
        methods = await reader.readexactly(count)
        wanted = 0 if self.user is None else 2
        if wanted not in methods:
            writer.write(b"\x05\xff")
            return
        writer.write(bytes((5, wanted)))
        if wanted == 2:
            _, size = await reader.readexactly(2)
            name = await reader.readexactly(size)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            good = f"{name.decode()}:{password.decode()}" == self.user
            writer.write(bytes((1, 0 if good else 1)))
            if not good:
                return
        _, command, _, kind = await reader.readexactly(4)
        assert command == 1
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = str(ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append(f"{host}:{port}")
        if self.code:
            writer.write(bytes((5, self.code, 0, 1)) + bytes(6))
            return
        # The address of this end, as a name: clients must be able to skip one.
        await self._tunnel(reader, writer, host, port, b"\x05\x00\x00\x03\x05proxy\x00\x00")

    async def _tunnel(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, ready: bytes
    ) -> None:
        there, out = await asyncio.open_connection(self.hosts.get(host, host), port)
        writer.write(ready)
        try:
            await asyncio.gather(_pump(reader, out), _pump(there, writer))
        finally:
            out.transport.abort()

    def handled(self, handle: object) -> object:
        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                    await handle(reader, writer)  # type: ignore[operator]
                    await writer.drain()
            finally:
                self._tasks.discard(task)
                writer.close()

        return run

    async def aclose(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()


@asynccontextmanager
async def http_proxy(
    hosts: Mapping[str, str] | None = None, *, context: ssl.SSLContext | None = None
) -> AsyncIterator[Proxy]:
    """Run an HTTP proxy that only knows CONNECT."""
    proxy = Proxy(hosts or {})
    async with _serving(proxy, proxy.http, context):
        yield proxy


@asynccontextmanager
async def socks_proxy(hosts: Mapping[str, str] | None = None) -> AsyncIterator[Proxy]:
    """Run a SOCKS5 proxy."""
    proxy = Proxy(hosts or {})
    async with _serving(proxy, proxy.socks, None):
        yield proxy


@asynccontextmanager
async def _serving(proxy: Proxy, handle: object, context: ssl.SSLContext | None) -> AsyncIterator[None]:
    server = await asyncio.start_server(proxy.handled(handle), "127.0.0.1", 0, ssl=context)  # type: ignore[arg-type]
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.close()
        await proxy.aclose()
