"""Reads a connection in segments of a bounded size."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from symphony.transport.native.front import FrontDoor

__all__ = ("Segments",)


class Segments(asyncio.BufferedProtocol):
    """The protocol of a connection in place of its `FrontDoor`.

    uvicorn's protocol is an `asyncio.Protocol`, to which event loops hand up to
    256 KiB at once. The buffer of this one decides how much is read in a turn.
    And uvloop never lets go of the methods of a first `asyncio.Protocol`: that
    kept 4 KiB for each WebSocket.

    Args:
        front: The protocol of HTTP.
        buffer: Where each segment is read into.
    """

    def __init__(self, front: FrontDoor, buffer: memoryview) -> None:
        self._front = front
        self._buffer = buffer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Pass on the call."""
        self._front.connection_made(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next segment goes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Hand over a segment, which is only valid until this returns."""
        self._front.take(self._buffer[:nbytes])

    def eof_received(self) -> bool | None:
        """Pass on the call."""
        return self._front.eof_received()

    def pause_writing(self) -> None:
        """Pass on the call."""
        self._front.pause_writing()

    def resume_writing(self) -> None:
        """Pass on the call."""
        self._front.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on the call."""
        self._front.connection_lost(exc)
