"""uvicorn's HTTP protocol, extended for WebSocket handshakes.

uvicorn drops bytes that follow a handshake in the same segment, parses all
requests of a segment before it answers the first, and has no bounds for the
time and size of requests. This module changes all of that.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from symphony.printable import printable
from symphony.transport.base import HOSTS, Acceptor, shown_address
from symphony.transport.native.config import Config
from symphony.transport.native.crowd import Place, refusal_of
from symphony.transport.native.flow import Flow
from symphony.transport.native.request import BadRequestError, Meter, end_of_piece
from symphony.transport.native.upgrading import Handshake, asks_for_websocket, upgrade
from symphony.transport.probing import PROBES
from symphony.websocket.handshake import HandshakeError, check_upgrade, http_response
from symphony.websocket.hosts import check_target

__all__ = ("FrontDoor",)

logger = logging.getLogger("symphony.http")


class FrontDoor(HttpToolsProtocol):
    """Passes HTTP requests to the app, and WebSocket upgrades to the acceptor.

    One request is parsed at a time. While it is being answered, what follows
    it waits unparsed.
    """

    config: Config
    _timer: asyncio.TimerHandle | None = None
    # What has arrived and was not parsed; and the three bytes that were parsed last.
    _unparsed: bytearray
    _tail = b""
    # Whether the head of the current request was parsed, its answer has begun, and
    # all of it was parsed.
    _in_body = False
    _begun = False
    _complete = False
    # The length of the body, `None`: it is chunked.
    _body_bytes: int | None = 0
    # The bytes of the body when the clock was last looked at.
    _body_before = 0
    _refusal: BadRequestError | None = None
    # Whether further data is no longer for this protocol.
    _done = False

    def __init__(self, config: Config, *args: Any, place: Place, **options: Any) -> None:
        super().__init__(config, *args, **options)
        self._place = place
        self.acceptor: Acceptor = config.acceptor
        self._unparsed = bytearray()
        self._meter = Meter(self.acceptor.limits)

    # The event loop's calls

    def take_over(self, transport: asyncio.Transport, clock: asyncio.TimerHandle) -> None:
        """Begin, with the timeout for the first request that runs already."""
        super().connection_made(transport)
        self.flow = self._flow = Flow(transport, self.acceptor.limits)
        self._timer = clock

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timeouts."""
        self._stop_clock()
        self._flow.stop()
        self._place.leave()
        super().connection_lost(exc)

    def take(self, data: memoryview) -> None:
        """Parse a segment, or keep it while a request is being answered."""
        if self._done:
            return
        self._unparsed += data
        self._parse()

    def too_late(self) -> None:
        """Refuse a request that took too long to arrive."""
        self.acceptor.stats.late_handshakes += 1
        self._answer(408, "the request took too long to arrive")

    # The parser's calls

    def on_message_begin(self) -> None:
        """Start the timeout for a further request on the same connection."""
        if self._in_body or self._answering:
            # Not reached: `_parse` lets one request end in a piece.
            raise self._refused(BadRequestError(400, "a request inside of another one"))
        super().on_message_begin()
        self._complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head. Trailers are counted and dropped (RFC 9110 §6.5.1)."""
        self._counted(self._meter.field)
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the head, and start to answer it."""
        self._in_body = True
        try:
            self._check_head()
        except BadRequestError as error:
            raise self._refused(error) from None
        before = self.cycle
        super().on_headers_complete()
        # A WebSocket handshake has no cycle.
        self._begun = self.cycle is not before

    def on_chunk_header(self) -> None:
        """Count a chunk."""
        self._meter.chunk()

    def on_body(self, body: bytes) -> None:
        """Hand bytes of the body to the app, if it still wants them."""
        self._counted(self._meter.data, len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request has arrived whole."""
        super().on_message_complete()
        self._complete = True

    # uvicorn's calls

    def on_response_complete(self) -> None:
        """Go on with what follows the request that was answered."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._flow.release()
        if self._complete and not self._done:
            self._start_clock(self.acceptor.limits.keep_alive_timeout, self.transport.close)
            # Not in this call: it is one of the app's.
            self.loop.call_soon(self._parse)

    def handle_websocket_upgrade(self) -> None:
        """Check the handshake, and pass the connection to the acceptor."""
        try:
            key = check_upgrade(self.scope["method"], self.scope["http_version"], self.headers)
        except HandshakeError as error:
            self._answer(error.status, error.message, error.headers)
            return
        self._done = True
        self._stop_clock()
        self._flow.stop()
        self.connections.discard(cast("Any", self))
        # Break the reference cycle of parser and protocol, so that 2 KiB per connection
        # are freed at once.
        self.parser = cast("Any", None)
        early, self._unparsed = self._unparsed, bytearray()
        upgrade(self.config, self.transport, self._place, Handshake(self.url, self.headers, key, 0), early)

    def _get_upgrade(self) -> bytes | None:
        # uvicorn looks at the last line of each header only.
        return b"websocket" if asks_for_websocket(self.headers) else None

    # Parsing

    @property
    def _answering(self) -> bool:
        """Whether a request is still being answered."""
        cycle = cast("Any", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _parse(self) -> None:
        """Parse what has arrived, up to the end of the next request."""
        unparsed = self._unparsed
        while unparsed and not self._done and not self.transport.is_closing():
            if self._complete or not self._in_body:
                if self._answering:
                    self._wait()
                    return
                self._next_request()
                if not unparsed:
                    return
            in_head = not self._in_body
            piece = bytes(unparsed[: self._piece()])
            del unparsed[: len(piece)]
            try:
                self._feed(piece)
            except BadRequestError as error:
                self._answer(error.status, error.message, error.headers)
                return
            self._tail = (self._tail + piece)[-3:]
            if self._done:
                return
            limits = self.acceptor.limits
            if self._complete and self._answering:
                self._stop_clock()
            elif self._complete:
                self._start_clock(limits.keep_alive_timeout, self.transport.close)
            elif self._in_body and in_head:
                self._start_clock(limits.handshake_timeout, self._check_body)

    def _wait(self) -> None:
        """Keep what follows a request that is being answered, within bounds."""
        unparsed = self._unparsed
        if not unparsed.strip(b"\r\n"):
            # Old browsers send a line break after a body (RFC 9112 §2.2).
            unparsed.clear()
        elif len(unparsed) > self.acceptor.limits.max_early_bytes:
            self._flow.hold()

    def _next_request(self) -> None:
        """Get ready for the head of another request."""
        if not self._in_body:
            return
        unparsed = self._unparsed
        # Line breaks before a request must not stop the keep-alive clock.
        del unparsed[: len(unparsed) - len(unparsed.lstrip(b"\r\n"))]
        if unparsed:
            self._in_body = self._begun = self._complete = False
            self._tail = b""
            self._meter.begin()
            self._start_clock(self.acceptor.limits.handshake_timeout, self.too_late)

    def _piece(self) -> int:
        if self._in_body and self._body_bytes is not None:
            return self._body_bytes - self._meter.body or len(self._unparsed)
        return end_of_piece(self._unparsed, self._tail)

    def _feed(self, piece: bytes) -> None:
        in_head = not self._in_body
        if in_head:
            self._meter.head(len(piece))
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
        except httptools.HttpParserError:
            raise self._refusal or BadRequestError(400, "Invalid HTTP request received.") from None
        else:
            if not in_head:
                self._meter.after_head(len(piece))

    def _check_head(self) -> None:
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise BadRequestError(505, "only HTTP/1.0 and HTTP/1.1 are supported")
        try:
            check_target(self.url, version, self.headers)
        except HandshakeError as error:
            raise BadRequestError(error.status, error.message, error.headers) from None
        if self.config.local_hosts is not None:
            cast("Any", self.scope)[HOSTS] = self.config.local_hosts
        self._body_bytes, self._body_before = 0, 0
        for name, value in self.headers:
            if name == b"content-length":
                # The parser has checked it.
                self._body_bytes = int(value)
                self._meter.announce(self._body_bytes)
            elif name == b"transfer-encoding":
                self._body_bytes = None
        if self._body_bytes != 0 and self.parser.should_upgrade() and not self._should_upgrade():
            # The parser would take the body for the next request.
            raise BadRequestError(400, "a request with a body cannot change the protocol")
        crowded = self._place.crowded
        # An orchestrator would end a server that is full.
        if crowded is not None and not self._should_upgrade() and not _is_probe(self.url):
            refusal = refusal_of(crowded, retry_after=self.acceptor.limits.retry_after)
            raise BadRequestError(refusal.status, refusal.message, refusal.headers)

    def _counted(self, count: Any, *size: int) -> None:
        try:
            count(*size)
        except BadRequestError as error:
            raise self._refused(error) from None

    def _refused(self, error: BadRequestError) -> BadRequestError:
        # The parser wraps what its callbacks raise.
        self._refusal = error
        return error

    # Time

    def _start_clock(self, seconds: float, late: Any) -> None:
        self._stop_clock()
        self._timer = self.loop.call_later(seconds, late)

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_body(self) -> None:
        """Refuse a body of which too little has arrived since the last look."""
        limits, arrived = self.acceptor.limits, self._meter.body - self._body_before
        rate = limits.min_body_rate
        # Not while the client waits for us: for a 100, or because the app does not read.
        is_ours = self._flow.was_paused() or cast("Any", self.cycle).waiting_for_100_continue
        if rate is not None and not is_ours and arrived < rate * limits.handshake_timeout:
            self.acceptor.stats.late_handshakes += 1
            self._answer(408, "the request's body took too long to arrive")
            return
        self._body_before = self._meter.body
        self._start_clock(limits.handshake_timeout, self._check_body)

    # Refusing

    def _answer(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        self._stop_clock()
        self._done = True
        self._unparsed.clear()
        transport = self.transport
        if transport.is_closing():
            return
        client = shown_address(self.client)
        text = "Refused a request from %s: %d %s"
        complaints = self.acceptor.complaints
        complaints.log(logger, logging.INFO, text, client, status, printable(message), kind=status)
        self._flow.release()
        if self._answering:
            cycle = self.cycle
            # The app learns that its client has gone, and what it sends is dropped.
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                transport.close()
                return
        elif self._begun:
            # The request has been answered, and its body went on.
            transport.close()
            return
        headers = {"content-type": "text/plain; charset=utf-8", **(headers or {})}
        transport.write(http_response(status, headers.items(), message.encode()))
        if not transport.can_write_eof():
            transport.close()
        elif not transport.is_closing():
            # Closing with unread bytes in the kernel's buffer resets the connection,
            # and the reset can overtake the response.
            transport.write_eof()
            self._start_clock(self.acceptor.limits.close_timeout, transport.abort)


def _is_probe(target: bytes) -> bool:
    return target.partition(b"?")[0].decode("latin-1") in PROBES
