"""From a WebSocket handshake to the acceptor, which answers it.

Nearly every client sends its handshake whole, and it is read here in one go. All
other requests go to `front.py`, which also answers those that are not valid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import httptools

from symphony.transport.base import CROWDED, HOSTS, Scope
from symphony.transport.native.connection import NativeConnection
from symphony.transport.native.opening import Opening
from symphony.transport.native.request import END_OF_HEAD
from symphony.websocket.handshake import HandshakeError, check_upgrade
from symphony.websocket.hosts import check_target

if TYPE_CHECKING:
    from symphony.limits import Limits
    from symphony.transport.native.config import Config
    from symphony.transport.native.crowd import Place

__all__ = ("Handshake", "asks_for_websocket", "read_handshake", "upgrade")

_HTTP_VERSION: Final = "1.1"
_ASKED: Final = {b"connection": b"upgrade", b"upgrade": b"websocket"}


class Handshake(NamedTuple):
    """A request for a WebSocket, which was checked.

    Attributes:
        target: The request target.
        fields: The header fields, with names in lower case.
        key: The key of the client.
        size: The length of the request in bytes.
    """

    target: bytes
    fields: list[tuple[bytes, bytes]]
    key: str
    size: int


def asks_for_websocket(fields: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether a request asks for the WebSocket protocol.

    Both headers are lists and may be on several lines (RFC 9110 §5.3).
    """
    missing = set(_ASKED)
    for name, value in fields:
        if name in missing and _ASKED[name] in (option.strip(b" \t").lower() for option in value.split(b",")):
            missing.discard(name)
    return not missing


def read_handshake(data: bytes, limits: Limits) -> Handshake | None:
    """Return the handshake at the beginning of *data*.

    `None` if it is another request, is not complete, or is to be refused.
    """
    size = data.find(END_OF_HEAD) + len(END_OF_HEAD)
    if size < len(END_OF_HEAD) or size > limits.max_header_bytes or b"upgrade" not in data.lower():
        return None
    request = _Request()
    parser = httptools.HttpRequestParser(request)
    try:
        parser.feed_data(data[:size])
        # There is no upgrade.
        return None
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    version, fields = parser.get_http_version(), request.fields
    if version != _HTTP_VERSION or len(fields) > limits.max_header_fields or not asks_for_websocket(fields):
        return None
    try:
        check_target(request.target, version, fields)
        key = check_upgrade(parser.get_method().decode(), version, fields)
    except HandshakeError:
        return None
    return Handshake(request.target, fields, key, size)


def upgrade(
    config: Config,
    transport: asyncio.Transport,
    place: Place,
    handshake: Handshake,
    early: bytearray | memoryview,
) -> None:
    """Pass a connection to the acceptor.

    Args:
        config: The configuration of the server.
        transport: The transport of the event loop.
        place: The place of the connection in the crowd.
        handshake: What the client asks for.
        early: What has arrived after the handshake.
    """
    acceptor = config.acceptor
    limits = acceptor.limits
    opening = Opening(
        transport,
        config.read_buffer,
        max_early_bytes=limits.max_early_bytes,
        close_timeout=limits.close_timeout,
    )
    extensions = [
        value.decode("latin-1") for name, value in handshake.fields if name == b"sec-websocket-extensions"
    ]
    connection = NativeConnection(transport, handshake.key, extensions, opening, acceptor.stats)
    connection.place = place
    opening.connection = connection
    transport.set_protocol(opening)
    if early:
        opening.take(early)
    connection.session = acceptor.connect(_scope(config, place, handshake), connection)


def _scope(config: Config, place: Place, handshake: Handshake) -> Scope:
    path, _, query = handshake.target.partition(b"?")
    if not path.startswith(b"/"):
        # The absolute form, with scheme and host (RFC 9112 §3.2.2).
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    root = config.root_path
    scope: Scope = {
        "type": "websocket",
        "asgi": {"version": config.asgi_version, "spec_version": "2.4"},
        "http_version": _HTTP_VERSION,
        "scheme": "wss" if config.is_ssl else "ws",
        "server": place.server,
        "client": place.client,
        "root_path": root,
        "path": root + unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": root.encode() + path,
        "query_string": query,
        "headers": handshake.fields,
    }
    if place.crowded is not None:
        scope[CROWDED] = place.crowded
    if config.local_hosts is not None:
        scope[HOSTS] = config.local_hosts
    return config.behind_proxy(scope)


class _Request:
    """What the parser calls."""

    __slots__ = ("fields", "target")

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))
