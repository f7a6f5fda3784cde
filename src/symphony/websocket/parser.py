"""picows as a parser, and nothing else; of a client's frames and of a server's.

Its protocol class is fed through `get_buffer` and `buffer_updated`, by the
event loop itself; its transport is a shim, so that not one byte of its own
reaches the socket: what it sends is corrupt behind a slow reader above 8 KiB.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, cast

from picows import WSAutoPingStrategy, WSListener, picows

from symphony.websocket.handshake import accept_key

__all__ = ("Parser",)

logger = logging.getLogger("symphony.parser")

# Ours is checked already; picows refuses some lawful ones (Firefox sends
# `Connection: keep-alive, Upgrade`), so it always gets this one.
_REQUEST: Final = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_MASKED: Final = 0x80
_KEY: Final = b"Sec-WebSocket-Key: "
# The smallest buffer it takes: 12 KiB a connection instead of 26. It grows
# with the messages.
_READ_BUFFER_BYTES: Final = 2048


class Parser:
    """Turns the bytes of one connection into calls of `on_ws_frame`.

    Args:
        listener: Gets the frames.
        max_frame_bytes: A longer data frame is broken as soon as its header
            is read.
        broken: Called once with close code and reason when the bytes are not
            frames as RFC 6455 has them. Frames before that still arrive.
        is_client: Whether these are a server's frames, which are not masked.

    Attributes:
        get_buffer: For the event loop: where to read to.
        buffer_updated: For the event loop: how much was read.
    """

    __slots__ = ("buffer_updated", "get_buffer")

    def __init__(
        self,
        listener: WSListener,
        *,
        max_frame_bytes: int,
        broken: Callable[[int, str], None],
        is_client: bool = False,
    ) -> None:
        shim = _Shim(broken)
        # Not public API, hence the pinned minor version.
        protocol = cast("Any", picows).WSProtocol(
            "localhost" if is_client else None,  # host_port
            "/" if is_client else None,  # ws_path
            is_client,  # is_client_side
            lambda *_: listener,  # pyright: ignore[reportUnknownLambdaType]
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
        self.get_buffer: Callable[[int], memoryview] = protocol.get_buffer
        self.buffer_updated: Callable[[int], None] = protocol.buffer_updated
        # The real handshake is over; picows gets one of its own.
        self.feed(shim.answer() if is_client else _REQUEST)
        # It keeps both for its users; 1.9 KiB a connection that nobody reads.
        protocol.transport.request.headers = None
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


class _Shim:
    """Stands where picows expects a transport and a socket."""

    __slots__ = ("_broken", "_handshake", "listening")

    def __init__(self, broken: Callable[[int, str], None]) -> None:
        self._broken: Callable[[int, str], None] | None = broken
        self._handshake = b""
        self.listening = False

    def answer(self) -> bytes:
        """Return a server's answer to the request that picows has written as a client."""
        key = self._handshake.partition(_KEY)[2].partition(b"\r\n")[0].decode()
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(key).encode() + b"\r\n\r\n"
        )

    def begin(self) -> None:
        """Take what is written from now on for the end."""
        self.listening = True
        self._handshake = b""

    def write(self, data: bytes) -> None:
        if not self.listening:
            self._handshake = bytes(data)
        elif self._broken is not None:
            # All it writes after that is one close frame, when it gives up; a
            # client's is masked.
            broken, self._broken = self._broken, None
            payload = bytes(data[2:])
            if data[1] & _MASKED:
                mask, payload = payload[:4], payload[4:]
                payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
            broken(int.from_bytes(payload[:2], "big"), payload[2:].decode())

    def get_write_buffer_size(self) -> int:
        # Not 0, else it would write to the socket's descriptor itself.
        return 1

    def get_extra_info(self, name: str) -> Any:
        return self if name == "socket" else None

    def setsockopt(self, *_: int) -> None:
        """It sets TCP_NODELAY, which fails on Unix sockets and was done elsewhere."""

    def getsockopt(self, *_: int) -> int:
        return 0

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        """It closes a moment after its close frame; we do that ourselves."""


class _Quiet:
    """A logger that passes on what must not be lost and formats nothing else."""

    name = "symphony.parser"

    def isEnabledFor(self, level: int) -> bool:
        return False

    def exception(self, message: str, *args: object) -> None:
        logger.exception("picows: " + message, *args)

    def _ignore(self, *args: object) -> None:
        pass

    log = debug = info = warning = error = _ignore


_QUIET: Final = _Quiet()
