"""uvicorn's HTTP protocol, with the doors that Symphony needs.

uvicorn drops bytes that come behind a handshake in the same segment, and lets
a client take for ever to send one; both are mended here.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from symphony.protocol.handshake import HandshakeError, check_upgrade, http_response
from symphony.transport.base import Acceptor, Scope
from symphony.transport.native.config import Config
from symphony.transport.native.connection import NativeConnection
from symphony.transport.native.opening import Opening

__all__ = ("FrontDoor",)


class FrontDoor(HttpToolsProtocol):
    """HTTP to the app, upgrades to the acceptor."""

    config: Config
    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _segment = b""

    def __init__(self, config: Config, *args: Any, **options: Any) -> None:
        super().__init__(config, *args, **options)
        self.acceptor: Acceptor = config.acceptor

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock for the first request."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop it."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and remember the segment for what may stand behind a handshake."""
        self._segment = data
        if self._deadline is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self.acceptor.limits.max_header_bytes:
                self._answer(431, "the request's headers are too large")
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Start the clock for a later request of the same connection."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """Stop it: the request is whole."""
        self._stop_clock()
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """Check the handshake and hand the connection over."""
        # uvicorn calls this where it caught what httptools raises, which
        # knows where the request ended.
        upgrade = sys.exception()
        rest = self._segment[upgrade.args[0] :] if upgrade is not None else b""
        scope = self._websocket_scope()
        try:
            key = check_upgrade(self.scope["method"], self.scope["http_version"], scope["headers"])
        except HandshakeError as error:
            self._answer(error.status, error.message, error.headers)
            return
        answering = cast("Any", self.cycle)
        if answering is not None and not answering.response_complete:
            self._answer(400, "a handshake in the middle of another request's answer")
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
        self.connections.discard(cast("Any", self))
        transport.set_protocol(opening)
        # Parser and protocol refer to each other: 2 KiB a connection that
        # would wait for the garbage collector.
        self.parser = cast("Any", None)
        if rest:
            opening.data_received(rest)
        connection.session = self.acceptor.connect(scope, connection)

    def _websocket_scope(self) -> Scope:
        path, _, query = self.url.partition(b"?")
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
        if self.transport.is_closing():
            return
        headers = {"content-type": "text/plain; charset=utf-8", **(headers or {})}
        self.transport.write(http_response(status, headers.items(), message.encode()))
        self.transport.close()
