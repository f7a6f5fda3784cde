"""Opens a client's WebSocket: DNS, TCP, TLS and the opening handshake."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar, cast

from symphony.client import refusals
from symphony.client.address import Address
from symphony.client.framelog import LoggedLink, frames_logged, shown_head, shown_headers
from symphony.client.frames import Compressor
from symphony.client.link import Close, DialError, Link, Offer
from symphony.client.opening import Answer, AnswerError, new_key, request, retry_after
from symphony.client.options import tls_context
from symphony.client.payload import Decoding, error_said
from symphony.client.proxies import Proxy, proxy_for
from symphony.client.reaching import reach, resolve
from symphony.client.redirects import MAX_REDIRECTS, redirected
from symphony.client.tunnels import Tunnel
from symphony.client.websocket import WebSocketLink
from symphony.errors import RemoteError
from symphony.printable import printable
from symphony.protocol.envelopes import Event, MalformedError, Retry
from symphony.protocol.subprotocols import REFUSE
from symphony.protocol.v1 import JSON
from symphony.websocket.deflate import OFFER

__all__ = ("WebSocketDial",)

logger = logging.getLogger("symphony.client")

"""A server that refuses chooses it; the error that follows and the close frame have the reason."""

# How long to wait for the body of a refusal after its head.
_BODY_TIMEOUT: Final = 1.0
_LOST: Final = 1006

P = TypeVar("P", bound=asyncio.BaseProtocol)


class WebSocketDial:
    """Opens WebSockets to one address.

    Args:
        address: The address of the server.
        context: The TLS context; `None`: no TLS.
        heartbeat: See `WebSocketLink`, also for the next two.
        max_message_bytes: The size limit of an incoming message.
        close_timeout: How long the closing handshake may take.
        proxy: The option `proxy=` of `connect`.
        compression: Compress messages of at least this many bytes; `None`: do
            not offer compression.

    Raises:
        ValueError: The URL of the proxy is invalid.
    """

    __slots__ = (
        "_address",
        "_close_timeout",
        "_compression",
        "_context",
        "_heartbeat",
        "_max_message_bytes",
        "_proxy",
    )

    def __init__(
        self,
        address: Address,
        context: ssl.SSLContext | None,
        *,
        heartbeat: float | None,
        max_message_bytes: int,
        close_timeout: float,
        proxy: str | bool = True,
        compression: int | None = None,
    ) -> None:
        proxy_for(address, proxy)
        self._address = address
        self._proxy = proxy
        self._compression = compression
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
        address = self._address
        for _ in range(MAX_REDIRECTS + 1):
            reached = await self._open(address, offer)
            if not isinstance(reached, Address):
                return reached
            address = reached
        raise refusals.redirected_too_often(MAX_REDIRECTS)

    async def _open(self, address: Address, offer: Offer) -> Link | Address:
        """Open a WebSocket, or return the address that the server redirects to."""
        key = new_key()
        handshake = request(
            address.target,
            address.authority,
            key,
            subprotocols=offer.subprotocols,
            headers=offer.headers,
            extension=None if self._compression is None else OFFER,
        )
        logged = frames_logged()
        if logged:
            logger.debug("sent %s", shown_head(handshake))
        opening = await self._connect(address, offer.stage, handshake)
        offer.stage(refusals.slow_answer(address))
        transport = opening.transport
        try:
            answer = await self._answer(opening, address)
            if logged:
                logger.debug(
                    "received %d %s; %s",
                    answer.status,
                    printable(answer.phrase),
                    shown_headers(answer.headers),
                )
            if answer.status != 101:
                transport.abort()
                if (there := redirected(address, answer)) is not None:
                    return there
                raise refusals.http(answer, retry_after(answer.headers.get("retry-after"), time.time()))
            try:
                chosen = answer.chosen(key, offer.subprotocols)
                window_bits = answer.window_bits(offered=self._compression is not None)
            except AnswerError as error:
                raise refusals.no_websocket(str(error)) from None
        except BaseException:
            transport.abort()
            raise
        compressor = None
        if window_bits is not None and self._compression is not None:
            compressor = Compressor(window_bits, self._compression)
        link = (LoggedLink if logged else WebSocketLink)(
            transport,
            answer.rest,
            subprotocol=chosen,
            heartbeat=self._heartbeat,
            max_message_bytes=self._max_message_bytes,
            close_timeout=self._close_timeout,
            compressor=compressor,
        )
        if chosen == REFUSE:
            raise await _refusal(link)
        return link

    async def _answer(self, opening: _Opening, address: Address) -> Answer:
        """Wait for the head of the response, and briefly for the body of a refusal."""
        await asyncio.wait((opening.head,))
        problem = opening.head.result()
        if isinstance(problem, ssl.SSLError):
            # With TLS 1.3, a server refuses the client when the handshake is done for the client.
            raise refusals.tls(problem, address) from problem
        if problem is not None:
            raise refusals.no_http(problem, address)
        if opening.answer.status != 101:
            await asyncio.wait((opening.body,), timeout=_BODY_TIMEOUT)
        return opening.answer

    async def _connect(self, address: Address, stage: Callable[[str], None], handshake: bytes) -> _Opening:
        """Open the connection, through a proxy if there is one, and send the request."""
        context = self._context
        if address.secure and context is None:
            # The URL was `ws`, and a redirect leads to `wss`.
            context = tls_context(True, None)
        try:
            proxy = proxy_for(address, self._proxy)
        except ValueError as error:
            raise DialError(_LOST, str(error), reason="proxy", again=False) from None
        try:
            if proxy is not None:
                return await self._connect_through(proxy, address, context, stage, handshake)
            sock = await reach(address, stage)
            stage(refusals.slow_tls(address))
            return await _over(sock, lambda: _Opening(handshake), context, address)
        except ssl.SSLError as error:
            raise refusals.tls(error, address) from error
        except OSError as error:
            raise refusals.unreachable([error], address) from error

    async def _connect_through(
        self,
        proxy: Proxy,
        address: Address,
        context: ssl.SSLContext | None,
        stage: Callable[[str], None],
        handshake: bytes,
    ) -> _Opening:
        loop = asyncio.get_running_loop()
        tunnel = await _tunnel(proxy, stage)
        try:
            stage(refusals.slow_proxy(proxy.where))
            host = address.tls_name
            if proxy.scheme == "socks5":
                # As in curl: only `socks5h` lets the proxy resolve names.
                host = str((await resolve(address))[0][4][0])
            await tunnel.lead_to(address, host)
            opening = _Opening(handshake)
            if context is None:
                transport: asyncio.BaseTransport | None = tunnel.transport
                tunnel.transport.set_protocol(opening)
            else:
                stage(refusals.slow_tls(address))
                transport = await loop.start_tls(
                    tunnel.transport, opening, context, server_hostname=address.tls_name
                )
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the proxy ended the connection")
            opening.connection_made(transport)
        except BaseException:
            tunnel.transport.abort()
            raise
        return opening


async def _tunnel(proxy: Proxy, stage: Callable[[str], None]) -> Tunnel:
    """Connect to a proxy."""
    address = proxy.address
    try:
        sock = await reach(address, lambda words: stage(refusals.at_proxy(proxy.where, words)))
        return await _over(sock, lambda: Tunnel(proxy), tls_context(address.secure, None), address)
    except DialError as error:
        raise refusals.no_proxy(error, proxy.where) from error
    except ssl.SSLError as error:
        raise refusals.no_proxy(refusals.tls(error, address), proxy.where) from error
    except OSError as error:
        raise refusals.no_proxy(refusals.unreachable([error], address), proxy.where) from error


async def _over(
    sock: socket.socket, protocol: Callable[[], P], context: ssl.SSLContext | None, address: Address
) -> P:
    """Start a protocol on a connected socket, with TLS if there is a context."""
    try:
        _, started = await asyncio.get_running_loop().create_connection(
            protocol,
            sock=sock,
            ssl=context,
            server_hostname=address.tls_name if context is not None else None,
        )
    except BaseException:
        sock.close()
        raise
    return started


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
                self.error = error_said(envelope.data, Decoding("json"))

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
