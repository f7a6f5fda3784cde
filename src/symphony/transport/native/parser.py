"""picows as a parser, and nothing else.

Its protocol class is fed through `get_buffer` and `buffer_updated`, by the
event loop itself; its transport is a shim, so that not one byte of its own
reaches the socket.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, cast

from picows import WSAutoPingStrategy, WSListener, picows

__all__ = ("Parser",)

logger = logging.getLogger("symphony.transport")

# Ours is checked already; picows refuses some lawful ones (Firefox sends
# `Connection: keep-alive, Upgrade`), so it always gets this one.
_REQUEST: Final = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
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

    Attributes:
        get_buffer: For the event loop: where to read to.
        buffer_updated: For the event loop: how much was read.
    """

    __slots__ = ("buffer_updated", "get_buffer")

    def __init__(
        self, listener: WSListener, *, max_frame_bytes: int, broken: Callable[[int, str], None]
    ) -> None:
        shim = _Shim(broken)
        # Not public API, hence the pinned minor version.
        protocol = cast("Any", picows).WSProtocol(
            None,  # host_port
            None,  # ws_path
            False,  # is_client_side
            lambda request: listener,  # pyright: ignore[reportUnknownLambdaType]
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
        self.feed(_REQUEST)
        # It keeps both for its users; 1.9 KiB a connection that nobody reads.
        protocol.transport.request.headers = None
        protocol.transport.response.headers = None
        shim.listening = True

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

    __slots__ = ("_broken", "listening")

    def __init__(self, broken: Callable[[int, str], None]) -> None:
        self._broken: Callable[[int, str], None] | None = broken
        self.listening = False

    def write(self, data: bytes) -> None:
        # All it writes after its 101 is one close frame, when it gives up.
        if self.listening and self._broken is not None:
            broken, self._broken = self._broken, None
            broken(int.from_bytes(data[2:4], "big"), bytes(data[4:]).decode())

    def get_write_buffer_size(self) -> int:
        # Not 0, else it would write to the socket's descriptor itself.
        return 1

    def get_extra_info(self, name: str) -> Any:
        return self if name == "socket" else None

    def setsockopt(self, *_: int) -> None:
        """It sets TCP_NODELAY, which fails on Unix sockets."""

    def getsockopt(self, *_: int) -> int:
        return 0

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        """It closes a moment after its close frame; we do that ourselves."""


class _Quiet:
    """A logger that passes on what must not be lost and formats nothing else."""

    name = "symphony.transport"

    def isEnabledFor(self, level: int) -> bool:
        return False

    def exception(self, message: str, *args: object) -> None:
        logger.exception("picows: " + message, *args)

    def _ignore(self, *args: object) -> None:
        pass

    log = debug = info = warning = error = _ignore


_QUIET: Final = _Quiet()
