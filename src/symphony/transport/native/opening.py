"""In place from the handshake request to its answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from symphony.transport.native.connection import NativeConnection

__all__ = ("Opening",)


class Opening(asyncio.Protocol):
    """Keeps what a client sends before its handshake is answered.

    Args:
        transport: The event loop's.
        max_early_bytes: Above this the client is not read from.
        close_timeout: How long a refused client may take to go.

    Attributes:
        early: What came so far.
        paused: Whether reading is paused because of it.
        connection: The connection this opens.
    """

    connection: NativeConnection

    def __init__(self, transport: asyncio.Transport, *, max_early_bytes: int, close_timeout: float) -> None:
        self.early = bytearray()
        self.paused = False
        self._transport = transport
        self._max_early_bytes = max_early_bytes
        self._close_timeout = close_timeout
        self._timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Keep bytes for the parser; what comes after a refusal goes nowhere."""
        if self._timer is not None:
            return
        self.early += data
        if len(self.early) > self._max_early_bytes and not self.paused:
            self.paused = True
            self._transport.pause_reading()

    def linger(self) -> None:
        """Let the client read the refusal, then end the connection."""
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
