"""uvicorn's HTTP protocol, extended for WebSocket handshakes.

uvicorn drops bytes that follow a handshake in the same segment, and has no
timeout for receiving a request. Both are fixed here.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from symphony.transport.base import Acceptor, Scope
from symphony.transport.native.config import Config
from symphony.transport.native.connection import NativeConnection
from symphony.transport.native.opening import Opening
from symphony.websocket.handshake import HandshakeError, check_upgrade, http_response

__all__ = ("FrontDoor",)


class FrontDoor(HttpToolsProtocol):
    """Passes HTTP requests to the app, and WebSocket upgrades to the acceptor."""

    config: Config
    _deadline: asyncio.TimerHandle | None = None
    # The size of the current request head in the previous segments.
    _head_bytes = 0
    _segment = b""
    # Whether further data is no longer for this protocol.
    _done = False

    def __init__(self, config: Config, *args: Any, **options: Any) -> None:
        super().__init__(config, *args, **options)
        self.acceptor: Acceptor = config.acceptor

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout for the first request."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timeout."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse a segment, and keep it in case data follows a handshake."""
        if self._done:
            return
        self._segment = data
        super().data_received(data)
        self._segment = b""
        if self._done:
            return
        if self._deadline is not None:
            # Count after parsing: data after a complete head does not belong to it.
            self._head_bytes += len(data)
            if self._head_bytes > self.acceptor.limits.max_header_bytes:
                self._answer(431, "the request's headers are too large")
        elif self.timeout_keep_alive_task is None and not self._answering:
            # uvicorn cancels its keep-alive timeout at any byte, and starts it again
            # only after a response. An empty line would cancel it permanently.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_message_begin(self) -> None:
        """Start the timeout for a further request on the same connection."""
        super().on_message_begin()
        if self._deadline is None:
            self._expect_head()
            # The segment may start with the end of another request.
            self._head_bytes = -len(self._segment)

    def on_headers_complete(self) -> None:
        """Cancel the timeout, because the request head is complete."""
        self._stop_clock()
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """Check the handshake, and pass the connection to the acceptor."""
        # uvicorn calls this while it handles the exception of httptools, which
        # contains the position where the request ended.
        upgrade = sys.exception()
        end: int = upgrade.args[0] if upgrade is not None else len(self._segment)
        rest = self._segment[end:]
        if self._answering:
            self._answer(400, "a handshake in the middle of another request's answer")
            return
        if max(self._head_bytes, 0) + end > self.acceptor.limits.max_header_bytes:
            self._answer(431, "the request's headers are too large")
            return
        scope = self._websocket_scope()
        try:
            key = check_upgrade(self.scope["method"], self.scope["http_version"], scope["headers"])
        except HandshakeError as error:
            self._answer(error.status, error.message, error.headers)
            return
        limits = self.acceptor.limits
        transport = self.transport
        opening = Opening(
            transport, max_early_bytes=limits.max_early_bytes, close_timeout=limits.close_timeout
        )
        extensions = [
            value.decode("latin-1") for name, value in scope["headers"] if name == b"sec-websocket-extensions"
        ]
        connection = NativeConnection(transport, key, extensions, opening, self.acceptor.stats)
        opening.connection = connection
        self._done = True
        self.connections.discard(cast("Any", self))
        transport.set_protocol(opening)
        # Break the reference cycle of parser and protocol, so that 2 KiB per connection
        # are freed at once.
        self.parser = cast("Any", None)
        if rest:
            opening.data_received(rest)
        connection.session = self.acceptor.connect(scope, connection)

    def _get_upgrade(self) -> bytes | None:
        # Both headers are lists and may be on several lines (RFC 9110 §5.3). uvicorn
        # looks at the last line only.
        options: dict[bytes, set[bytes]] = {b"connection": set(), b"upgrade": set()}
        for name, value in self.headers:
            if name in options:
                options[name].update(option.strip(b" \t").lower() for option in value.split(b","))
        return (
            b"websocket"
            if b"upgrade" in options[b"connection"] and b"websocket" in options[b"upgrade"]
            else None
        )

    @property
    def _answering(self) -> bool:
        """Whether an earlier request is still being answered."""
        cycle = cast("Any", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _websocket_scope(self) -> Scope:
        path, _, query = self.url.partition(b"?")
        if not path.startswith(b"/"):
            # The absolute form, with scheme and host (RFC 9112 §3.2.2).
            path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
        decoded = unquote_to_bytes(path).decode("utf-8", "replace")
        scope: Scope = {
            "type": "websocket",
            "asgi": {"version": self.asgi_version, "spec_version": "2.4"},
            "http_version": self.scope["http_version"],
            "scheme": "wss" if self.scheme == "https" else "ws",
            "server": self.server,
            "client": self.client,
            "root_path": self.root_path,
            "path": self.root_path + decoded,
            "raw_path": self.root_path.encode() + path,
            "query_string": query,
            "headers": self.headers,
        }
        return self.config.behind_proxy(scope)

    def _expect_head(self) -> None:
        if self._deadline is None:
            self._head_bytes = 0
            self._deadline = self.loop.call_later(self.acceptor.limits.handshake_timeout, self._too_late)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        self.acceptor.stats.late_handshakes += 1
        self._answer(408, "the request took too long to arrive")

    def _answer(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        self._stop_clock()
        self._done = True
        transport = self.transport
        if transport.is_closing():
            return
        if self._answering:
            # This answer would take the place of the response to the previous request.
            # Let that response be the last on this connection.
            self.cycle.keep_alive = False
            return
        headers = {"content-type": "text/plain; charset=utf-8", **(headers or {})}
        transport.write(http_response(status, headers.items(), message.encode()))
        if not transport.can_write_eof():
            transport.close()
        elif not transport.is_closing():
            # Closing with unread bytes in the kernel's buffer resets the connection,
            # and the reset can overtake the response.
            transport.write_eof()
            self._deadline = self.loop.call_later(self.acceptor.limits.close_timeout, transport.abort)
