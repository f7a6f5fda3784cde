"""picows as a parser of a server's frames, and nothing else.

The client's twin of `symphony/transport/native/parser.py`: the same shim in
place of a transport, the other side of the handshake. What picows itself
would send is corrupt behind a slow reader above 8 KiB, so nothing of it may
reach the socket.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, cast

from picows import WSAutoPingStrategy, WSListener, picows

from symphony.protocol.handshake import accept_key

__all__ = ("Parser",)

logger = logging.getLogger("symphony.client")

# The smallest buffer it takes; it grows with the messages.
_READ_BUFFER_BYTES: Final = 2048
_KEY: Final = b"Sec-WebSocket-Key: "


class Parser:
    """Turns the bytes of one connection into calls of `on_ws_frame`.

    Args:
        listener: Gets the frames.
        max_frame_bytes: A longer data frame is broken as soon as its header
            is read.
        broken: Called once with close code and reason when the bytes are not
            frames as RFC 6455 has them. The frame before that arrives
            behind this call.

    Attributes:
        get_buffer: For the event loop: where to read to.
        buffer_updated: How much was read.
    """

    __slots__ = ("buffer_updated", "get_buffer")

    def __init__(
        self, listener: WSListener, *, max_frame_bytes: int, broken: Callable[[int, str], None]
    ) -> None:
        shim = _Shim(broken)
        # Not public API, hence the pinned minor version.
        protocol = cast("Any", picows).WSProtocol(
            "localhost",  # host_port
            "/",  # ws_path
            True,  # is_client_side
            lambda request, response: listener,  # pyright: ignore[reportUnknownLambdaType]
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
        # The real handshake is over; picows gets one of its own, with its own key.
        self.feed(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(shim.key()).encode() + b"\r\n\r\n"
        )
        # It keeps both for its users.
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

    __slots__ = ("_broken", "_request", "listening")

    def __init__(self, broken: Callable[[int, str], None]) -> None:
        self._broken: Callable[[int, str], None] | None = broken
        self._request = b""
        self.listening = False

    def key(self) -> str:
        """Return the key of the request it has written."""
        request, self._request = self._request, b""
        return request.partition(_KEY)[2].partition(b"\r\n")[0].decode()

    def write(self, data: bytes) -> None:
        # All it writes after its request is one close frame, when it gives up.
        if not self.listening:
            self._request = bytes(data)
        elif self._broken is not None:
            broken, self._broken = self._broken, None
            mask, payload = data[2:6], data[6:]
            plain = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
            broken(int.from_bytes(plain[:2], "big"), plain[2:].decode())

    def get_write_buffer_size(self) -> int:
        # Not 0, else it would write to the socket's descriptor itself.
        return 1

    def get_extra_info(self, name: str) -> Any:
        return self if name == "socket" else None

    def setsockopt(self, *_: int) -> None:
        """It sets TCP_NODELAY; asyncio has done so."""

    def getsockopt(self, *_: int) -> int:
        return 0

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        """It closes a moment after its close frame; we do that ourselves."""


class _Quiet:
    """A logger that passes on what must not be lost and formats nothing else."""

    name = "symphony.client"

    def isEnabledFor(self, level: int) -> bool:
        return False

    def exception(self, message: str, *args: object) -> None:
        logger.exception("picows: " + message, *args)

    def _ignore(self, *args: object) -> None:
        pass

    log = debug = info = warning = error = _ignore


_QUIET: Final = _Quiet()
