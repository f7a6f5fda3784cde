"""Opens a client's WebSocket: DNS, TCP, TLS and the opening handshake."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final, TypeAlias, cast

from symphony.client import refusals
from symphony.client.address import Address
from symphony.client.link import Close, DialError, Link, Offer
from symphony.client.opening import Answer, AnswerError, new_key, request, retry_after
from symphony.client.payload import error_said
from symphony.client.websocket import WebSocketLink
from symphony.errors import RemoteError
from symphony.protocol.envelopes import Event, MalformedError, Retry
from symphony.protocol.subprotocols import REFUSE
from symphony.protocol.v1 import JSON

__all__ = ("WebSocketDial",)

"""A server that refuses chooses it; the error that follows and the close frame have the reason."""

# How long to wait for an address if there is another one.
_ADDRESS_TIMEOUT: Final = 2.0
# How long to wait for the body of a refusal after its head.
_BODY_TIMEOUT: Final = 1.0

_Info: TypeAlias = tuple[int, int, int, str, Any]


class WebSocketDial:
    """Opens WebSockets to one address.

    Args:
        address: The address of the server.
        context: The TLS context; `None`: no TLS.
        heartbeat: See `WebSocketLink`, also for the next two.
        max_message_bytes: The size limit of an incoming message.
        close_timeout: How long the closing handshake may take.
    """

    __slots__ = ("_address", "_close_timeout", "_context", "_heartbeat", "_max_message_bytes")

    def __init__(
        self,
        address: Address,
        context: ssl.SSLContext | None,
        *,
        heartbeat: float | None,
        max_message_bytes: int,
        close_timeout: float,
    ) -> None:
        self._address = address
        self._context = context
        self._heartbeat = heartbeat
        self._max_message_bytes = max_message_bytes
        self._close_timeout = close_timeout

    @property
    def where(self) -> str:
        """The URL, without its query."""
        return self._address.where

    async def __call__(self, offer: Offer) -> Link:
        """Open a WebSocket."""
        key = new_key()
        opening = await self._connect(
            offer.stage,
            request(
                self._address.target,
                self._address.authority,
                key,
                subprotocols=offer.subprotocols,
                headers=offer.headers,
            ),
        )
        offer.stage(refusals.slow_answer(self._address))
        transport = opening.transport
        try:
            answer = await self._answer(opening)
            if answer.status != 101:
                transport.abort()
                raise refusals.http(answer, retry_after(answer.headers.get("retry-after"), time.time()))
            try:
                chosen = answer.chosen(key, offer.subprotocols)
            except AnswerError as error:
                raise refusals.no_websocket(str(error)) from None
        except BaseException:
            transport.abort()
            raise
        link = WebSocketLink(
            transport,
            answer.rest,
            subprotocol=chosen,
            heartbeat=self._heartbeat,
            max_message_bytes=self._max_message_bytes,
            close_timeout=self._close_timeout,
        )
        if chosen == REFUSE:
            raise await _refusal(link)
        return link

    async def _answer(self, opening: _Opening) -> Answer:
        """Wait for the head of the response, and briefly for the body of a refusal."""
        await asyncio.wait((opening.head,))
        if (problem := opening.head.result()) is not None:
            raise refusals.no_http(problem, self._address)
        if opening.answer.status != 101:
            await asyncio.wait((opening.body,), timeout=_BODY_TIMEOUT)
        return opening.answer

    async def _connect(self, stage: Callable[[str], None], handshake: bytes) -> _Opening:
        """Try the addresses of the host, one after the other."""
        stage(refusals.slow_host(self._address))
        infos = await self._resolve()
        failures: list[OSError] = []
        for at, info in enumerate(infos):
            try:
                async with asyncio.timeout(_ADDRESS_TIMEOUT if at < len(infos) - 1 else None):
                    return await self._connect_to(info, stage, handshake)
            except ssl.SSLError as error:
                raise refusals.tls(error, self._address) from error
            except OSError as error:  # a TimeoutError too
                failures.append(error)
        raise refusals.unreachable(failures, self._address) from failures[-1]

    async def _connect_to(self, info: _Info, stage: Callable[[str], None], handshake: bytes) -> _Opening:
        loop = asyncio.get_running_loop()
        family, kind, proto, _, sockaddr = info
        sock = socket.socket(family, kind, proto)
        try:
            sock.setblocking(False)
            stage(refusals.slow_connect(self._address))
            await loop.sock_connect(sock, sockaddr)
            stage(refusals.slow_tls(self._address))
            _, opening = await loop.create_connection(
                lambda: _Opening(handshake),
                sock=sock,
                ssl=self._context,
                server_hostname=self._address.host if self._context is not None else None,
            )
        except BaseException:
            sock.close()
            raise
        return opening

    async def _resolve(self) -> Sequence[_Info]:
        host, port = self._address.host, self._address.port
        try:
            version = ip_address(host).version
        except ValueError:
            pass
        else:
            # No thread is needed for an IP address.
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
        loop = asyncio.get_running_loop()
        try:
            return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise refusals.unknown_host(error, self._address) from error


class _Opening(asyncio.Protocol):
    """The asyncio protocol until the handshake is answered.

    Attributes:
        transport: The transport of the event loop. Reading is paused once
            *head* is done with a 101.
        answer: The response received so far.
        head: Done when the head of the response is complete, with `None`, or
            with the reason why it failed.
        body: Done when the response is complete.
    """

    __slots__ = ("_handshake", "answer", "body", "head", "transport")

    def __init__(self, handshake: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._handshake = handshake
        self.answer = Answer()
        self.head: asyncio.Future[Exception | None] = loop.create_future()
        self.body: asyncio.Future[None] = loop.create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        # uvloop's transports are not subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._handshake)

    def data_received(self, data: bytes) -> None:
        """Parse the response."""
        if self.body.done() or (self.head.done() and self.head.result() is not None):
            return
        try:
            self.answer.feed(data)
        except AnswerError as error:
            self._finish(error)
            return
        if self.answer.status == 101:
            # The next bytes are frames; `WebSocketLink.start` resumes reading.
            self.transport.pause_reading()
            self._finish(None)
        elif self.answer.complete:
            self._finish(None)
        elif self.answer.status and not self.head.done():
            self.head.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Finish with the part that has been received."""
        self._finish(None if self.answer.status else exc or EOFError())

    def _finish(self, problem: Exception | None) -> None:
        if not self.head.done():
            self.head.set_result(problem)
        if not self.body.done():
            self.body.set_result(None)


class _Refusal:
    """Listens to a link that the server opened only to send the reason of a refusal."""

    __slots__ = ("close", "error", "retry_after")

    def __init__(self) -> None:
        self.close: asyncio.Future[Close] = asyncio.get_running_loop().create_future()
        self.error: RemoteError | None = None
        self.retry_after: float | None = None

    def received(self, message: str | bytes) -> None:
        """Handle the error, or the message that says when to reconnect."""
        with suppress(MalformedError):
            envelope = JSON.decode(message)
            if isinstance(envelope, Retry):
                self.retry_after = envelope.retry
            elif isinstance(envelope, Event) and envelope.event == "error":
                self.error = error_said(envelope.data, "json")

    def relieved(self) -> None:
        """Do nothing: nothing is sent."""

    def closed(self, close: Close) -> None:
        """Store how the link closed."""
        if not self.close.done():
            self.close.set_result(close)


async def _refusal(link: Link) -> DialError:
    listener = _Refusal()
    link.start(listener)
    try:
        await asyncio.wait((listener.close,))
        return refusals.close(listener.close.result(), listener.retry_after, listener.error)
    finally:
        link.abort()
        await link.wait_closed()
