"""Tunnels through proxies: HTTP CONNECT (RFC 9110 §9.3.6) and SOCKS5 (RFC 1928, 1929)."""

from __future__ import annotations

import asyncio
import base64
import re
from ipaddress import ip_address
from typing import Final, cast

from symphony.client.address import Address
from symphony.client.link import DialError
from symphony.client.proxies import Proxy
from symphony.printable import printable

__all__ = ("Tunnel",)

_LOST: Final = 1006
_MAX_HEAD_BYTES: Final = 64 * 1024
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: ([^\r\n]*))?\r?\n")
_END: Final = re.compile(rb"\r?\n\r?\n")
_SHOWN: Final = 100

_VERSION: Final = 5
_NO_AUTH, _PASSWORD = 0, 2
_SOCKS_ERRORS: Final = {
    1: "it failed",
    2: "its rules do not allow it",
    3: "the network cannot be reached",
    4: "the host cannot be reached",
    5: "the server refused the connection",
    6: "the server did not answer in time",
    7: "it cannot open connections",
    8: "it does not support such addresses",
}
# Trying again cannot help.
_SOCKS_FINAL: Final = (2, 7, 8)


class Tunnel(asyncio.Protocol):
    """The connection to a proxy, until it leads to the server.

    Args:
        proxy: The proxy.

    Attributes:
        transport: The transport of the event loop.
    """

    __slots__ = ("_ended", "_proxy", "_received", "_waiter", "transport")

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._received = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self.transport: asyncio.Transport

    async def lead_to(self, address: Address, host: str) -> None:
        """Ask the proxy for a connection to a server.

        Args:
            address: The server.
            host: Its name, or its IP address if it is already resolved.

        Raises:
            DialError: The proxy did not do it.
        """
        if self._proxy.scheme.startswith("socks"):
            await self._socks(host, address.port)
        else:
            await self._connect(host, address.port)
        if self._received:
            raise self._failed("it sent data before the server could", again=False)

    # The protocol of the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        # uvloop's transports are not subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Buffer the received bytes; more than an answer can have are left to the kernel."""
        self._received += data
        if len(self._received) > _MAX_HEAD_BYTES and not self.transport.is_closing():
            # `lead_to` refuses such an answer. But it may not have been called yet, while the
            # name of the server is looked up.
            self.transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _more(self) -> None:
        if self._ended:
            raise self._failed("it ended the connection", again=True)
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    async def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            await self._more()
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    # HTTP

    async def _connect(self, host: str, port: int) -> None:
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: Symphony"]
        if self._proxy.user is not None:
            credentials = f"{self._proxy.user}:{self._proxy.password}".encode()
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(credentials).decode()}")
        self.transport.write("\r\n".join((*lines, "", "")).encode("latin-1"))
        while (end := _END.search(self._received)) is None:
            if len(self._received) > _MAX_HEAD_BYTES:
                raise self._failed("its answer is too long", again=False)
            await self._more()
        head = await self._take(end.end())
        status = _STATUS.match(head)
        if status is None:
            shown = head[:_SHOWN].decode("latin-1")
            raise self._failed(f"it does not speak HTTP: {shown!r}", again=False)
        code = int(status[1])
        if 200 <= code < 300:
            return
        phrase = printable((status[2] or b"").decode("latin-1"), _SHOWN)
        line = f"HTTP {code} {phrase}".rstrip()
        if code == 407:
            raise self._failed(f"{line}. {self._hint()}", again=False)
        raise self._failed(line, again=code >= 500 or code in (408, 429))

    # SOCKS

    async def _socks(self, host: str, port: int) -> None:
        user = self._proxy.user
        methods = bytes((_NO_AUTH,)) if user is None else bytes((_NO_AUTH, _PASSWORD))
        self.transport.write(bytes((_VERSION, len(methods))) + methods)
        version, method = await self._take(2)
        if version != _VERSION:
            raise self._failed("it does not speak SOCKS5", again=False)
        if method == _PASSWORD and user is not None:
            name, password = user.encode(), self._proxy.password.encode()
            self.transport.write(bytes((1, len(name))) + name + bytes((len(password),)) + password)
            _, refused = await self._take(2)
            if refused:
                raise self._failed("it does not accept the user and the password", again=False)
        elif method != _NO_AUTH:
            raise self._failed(self._hint(), again=False)
        self.transport.write(bytes((_VERSION, 1, 0)) + _socks_address(host) + port.to_bytes(2, "big"))
        version, code, _, kind = await self._take(4)
        if version != _VERSION:
            raise self._failed("it does not speak SOCKS5", again=False)
        if code:
            words = _SOCKS_ERRORS.get(code, f"error {code}")
            raise self._failed(words, again=code not in _SOCKS_FINAL)
        # The address of the proxy's end, of which only the length matters.
        size = {1: 4, 4: 16}.get(kind)
        await self._take((size if size is not None else (await self._take(1))[0]) + 2)

    # Errors

    def _hint(self) -> str:
        if self._proxy.user is None:
            return "It requires a user and a password: write them in its URL, http://user:password@host:port"
        return "It does not accept the user and the password in its URL"

    def _failed(self, words: str, *, again: bool) -> DialError:
        return DialError(
            _LOST, f"the proxy {self._proxy.where} failed: {words}.", reason="proxy failed", again=again
        )


def _socks_address(host: str) -> bytes:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        name = host.encode("ascii")
        return bytes((3, len(name))) + name
    return bytes((1 if address.version == 4 else 4,)) + address.packed
