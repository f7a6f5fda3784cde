"""The protocol of a connection from the handshake request to the answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from symphony.transport.native.connection import NativeConnection

__all__ = ("Opening",)


class Opening(asyncio.BufferedProtocol):
    """Buffers data that a client sends before its handshake is answered.

    Args:
        transport: The transport of the event loop.
        buffer: Where a segment is read into.
        max_early_bytes: Above this, reading is paused.
        close_timeout: How long a refused client may take to close.

    Attributes:
        early: The data received so far.
        paused: Whether reading is paused because there is too much data.
        connection: The connection that is being opened.
    """

    connection: NativeConnection

    def __init__(
        self, transport: asyncio.Transport, buffer: memoryview, *, max_early_bytes: int, close_timeout: float
    ) -> None:
        self.early = bytearray()
        self._buffer = buffer
        self.paused = False
        self._transport = transport
        self._max_early_bytes = max_early_bytes
        self._close_timeout = close_timeout
        self._timer: asyncio.TimerHandle | None = None

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next segment goes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take a segment."""
        self.take(self._buffer[:nbytes])

    def take(self, data: bytearray | memoryview) -> None:
        """Buffer bytes for the parser, or discard them after a refusal."""
        if self._timer is not None:
            return
        self.early += data
        if len(self.early) > self._max_early_bytes and not self.paused:
            self.paused = True
            self._transport.pause_reading()

    def linger(self) -> None:
        """Give the client time to read the refusal, then end the connection."""
        transport = self._transport
        if not transport.can_write_eof():
            transport.close()
        if transport.is_closing():
            return
        transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(self._close_timeout, transport.abort)
        if self.paused:
            transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the connection."""
        if self._timer is not None:
            self._timer.cancel()
        self.connection.connection_lost(exc)
