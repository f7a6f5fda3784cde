"""Uses picows as a parser only, for the frames of clients and of servers.

The event loop feeds the protocol class of picows through `get_buffer` and
`buffer_updated`. Its transport is a shim, so picows cannot write to the socket:
with a slow reader, the frames above 8 KiB that it writes are corrupt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Final, cast

from picows import WSAutoPingStrategy, WSFrame, WSListener, WSUpgradeResponseWithListener, picows

from symphony.websocket.assembler import Assembler
from symphony.websocket.handshake import accept_key

__all__ = ("MAX_READ_BYTES", "Parser", "assemble")

logger = logging.getLogger("symphony.parser")

# The real request is checked already. picows refuses some valid requests (Firefox sends
# `Connection: keep-alive, Upgrade`), so it always gets this one.
_REQUEST: Final = (
    b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_MASKED: Final = 0x80
_KEY: Final = b"Sec-WebSocket-Key: "
# The smallest buffer that picows accepts: 12 KiB per connection instead of 26. It grows
# with the messages.
_READ_BUFFER_BYTES: Final = 2048
MAX_READ_BYTES: Final = 64 * 1024


def assemble(assembler: Assembler, frame: WSFrame) -> str | bytes | None:
    """Feed a frame of picows to *assembler*; return the message if it is complete.

    Raises:
        ProtocolError: The frame breaks RFC 6455 or RFC 7692.
    """
    return assembler.feed(
        frame.msg_type.value,
        bool(frame.fin),
        bool(frame.rsv1),
        bool(frame.rsv2),
        bool(frame.rsv3),
        frame.get_payload_as_bytes(),
    )


class Parser:
    """Turns the bytes of one connection into calls of `on_ws_frame`.

    Args:
        listener: Receives the frames.
        max_frame_bytes: The largest data frame. *broken* is called for a larger
            one as soon as its header is read.
        broken: Called once, with close code and reason, if the bytes are not
            valid frames (RFC 6455). Frames before them are still delivered.
        max_read_bytes: The most that one read takes. picows doubles its buffer
            when a read fills it, without a limit.
        is_client: Whether the frames come from a server and are not masked.
        grown: Called before a read into a buffer with room for more than
            *max_read_bytes*, with the most bytes that the buffer may have.
            picows never shrinks it: make a new parser.

    Attributes:
        get_buffer: For the event loop: returns the buffer to read into.
        buffer_updated: For the event loop: called with the number of bytes read.
    """

    __slots__ = ("buffer_updated", "get_buffer")

    def __init__(
        self,
        listener: WSListener,
        *,
        max_frame_bytes: int,
        broken: Callable[[int, str], None],
        max_read_bytes: int = MAX_READ_BYTES,
        is_client: bool = False,
        grown: Callable[[int], None] | None = None,
    ) -> None:
        shim = _Shim(broken)
        # Not public API, hence the pinned minor version.
        protocol = cast("Any", picows).WSProtocol(
            "localhost" if is_client else None,  # host_port
            "/" if is_client else None,  # ws_path
            is_client,  # is_client_side
            partial(_begun if is_client else _answered, listener),
            _QUIET,
            True,  # disconnect_on_exception
            None,  # websocket_handshake_timeout
            False,  # enable_auto_ping
            1.0,  # auto_ping_idle_timeout
            1.0,  # auto_ping_reply_timeout
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # enable_auto_pong
            max_frame_bytes,
            None,  # extra_headers
            _READ_BUFFER_BYTES,
        )
        protocol.connection_made(shim)
        # picows doubles the buffer when 90 % of it are in use.
        largest = 2 * (max_frame_bytes + max_read_bytes)
        # Not a closure: each connection would keep its cells.
        self.get_buffer: Callable[[int], memoryview] = partial(
            _offer, protocol.get_buffer, max_read_bytes, grown, largest
        )
        self.buffer_updated: Callable[[int], None] = protocol.buffer_updated
        # The real handshake is over. picows gets a constant one.
        self.feed(shim.answer() if is_client else _REQUEST)
        # picows keeps both for its users. Symphony does not need them, and they take
        # 1.9 KiB per connection.
        protocol.transport.request.headers = None
        if is_client:
            protocol.transport.response.headers = None
        shim.begin()

    def feed(self, data: bytes) -> None:
        """Parse bytes that the event loop did not read into the buffer itself."""
        view = memoryview(data)
        while view:
            buffer = self.get_buffer(-1)
            size = min(len(buffer), len(view))
            buffer[:size] = view[:size]
            self.buffer_updated(size)
            view = view[size:]


class _Response:
    """Replaces the response of picows to `_REQUEST`, which nothing sends. One for all connections."""

    __slots__ = ()

    status: Final = HTTPStatus.SWITCHING_PROTOCOLS
    headers: Final[dict[str, str]] = {}
    content: Final = bytearray()

    def to_bytes(self) -> bytearray:
        return self.content


_RESPONSE: Final = cast("Any", _Response())


def _begun(listener: WSListener, *_: object) -> WSListener:
    return listener


def _answered(listener: WSListener, _: object) -> WSUpgradeResponseWithListener:
    return WSUpgradeResponseWithListener(_RESPONSE, listener)


def _offer(
    get_buffer: Callable[[int], memoryview],
    most: int,
    grown: Callable[[int], None] | None,
    largest: int,
    size_hint: int,
) -> memoryview:
    """Return at most *most* bytes of the buffer of picows."""
    view = get_buffer(size_hint)
    if len(view) <= most:
        return view
    if grown is not None:
        # After the buffer has grown, half of it or more is free.
        grown(min(2 * len(view), largest))
    return view[:most]


class _Shim:
    """Replaces the transport and the socket that picows expects."""

    __slots__ = ("_broken", "_handshake", "listening")

    def __init__(self, broken: Callable[[int, str], None]) -> None:
        self._broken: Callable[[int, str], None] | None = broken
        self._handshake = b""
        self.listening = False

    def answer(self) -> bytes:
        """Return a server's response to the request that picows has written as a client."""
        key = self._handshake.partition(_KEY)[2].partition(b"\r\n")[0].decode()
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(key).encode() + b"\r\n\r\n"
        )

    def begin(self) -> None:
        """Treat everything that is written from now on as a close frame."""
        self.listening = True
        self._handshake = b""

    def write(self, data: bytes) -> None:
        if not self.listening:
            self._handshake = bytes(data)
        elif self._broken is not None:
            # After the handshake, picows writes only one close frame, when the bytes are
            # invalid. As a client it masks the frame.
            broken, self._broken = self._broken, None
            payload = bytes(data[2:])
            if data[1] & _MASKED:
                mask, payload = payload[:4], payload[4:]
                payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
            broken(int.from_bytes(payload[:2], "big"), payload[2:].decode())

    def get_write_buffer_size(self) -> int:
        # If this were 0, picows would write to the socket's file descriptor directly.
        return 1

    def get_extra_info(self, name: str) -> Any:
        return self if name == "socket" else None

    def setsockopt(self, *_: int) -> None:
        """Ignore TCP_NODELAY, which fails on Unix sockets and is set elsewhere."""

    def getsockopt(self, *_: int) -> int:
        return 0

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        """Do nothing: the connection closes itself after a close frame."""


class _Quiet:
    """A logger that passes on exceptions and ignores everything else."""

    name = "symphony.parser"

    def isEnabledFor(self, level: int) -> bool:
        return False

    def exception(self, message: str, *args: object) -> None:
        logger.exception("picows: " + message, *args)

    def _ignore(self, *args: object) -> None:
        pass

    log = debug = info = warning = error = _ignore


_QUIET: Final = _Quiet()
