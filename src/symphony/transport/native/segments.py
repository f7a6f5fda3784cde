"""Reads a connection in segments of a bounded size."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from symphony.transport.native.upgrading import read_handshake, upgrade

if TYPE_CHECKING:
    from symphony.transport.native.config import Config
    from symphony.transport.native.crowd import Place
    from symphony.transport.native.front import FrontDoor

__all__ = ("Segments",)


class Segments(asyncio.BufferedProtocol):
    """The protocol of a connection until it is a WebSocket.

    It opens the WebSocket itself if the first segment is a handshake. Otherwise it
    makes a `FrontDoor`, and stands in its place.

    uvicorn's protocol is an `asyncio.Protocol`, to which event loops hand up to
    256 KiB at once. The buffer of this one decides how much is read in a turn.
    And uvloop never lets go of the methods of a first `asyncio.Protocol`: that
    kept 4 KiB for each WebSocket.

    Args:
        config: The configuration of the server.
        place: The place of the connection in the crowd.
        connections: The connections of the server that have no request yet, or
            HTTP requests only.
        make_front: Makes the protocol of HTTP.

    Attributes:
        transport: The transport of the event loop.
        cycle: What uvicorn's protocol has while a request is answered.
    """

    cycle: Final = None

    def __init__(
        self,
        config: Config,
        place: Place,
        connections: set[Any],
        make_front: Callable[[Place], FrontDoor],
    ) -> None:
        self._config = config
        self._place = place
        self._connections = connections
        self._make_front = make_front
        self._front: FrontDoor | None = None
        self._clock: asyncio.TimerHandle = cast("Any", None)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout for the first request."""
        self.transport = self._place.transport = transport
        self._connections.add(self)
        loop, limits = asyncio.get_running_loop(), self._config.acceptor.limits
        self._clock = loop.call_later(limits.handshake_timeout, self._too_late)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next segment goes."""
        return self._config.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take a segment."""
        config = self._config
        segment = config.read_buffer[:nbytes]
        front = self._front
        if front is None:
            handshake = read_handshake(bytes(segment), config.acceptor.limits)
            if handshake is not None:
                self._leave()
                upgrade(config, self.transport, self._place, handshake, segment[handshake.size :])
                return
            front = self._begin_front()
        front.take(segment)

    def eof_received(self) -> bool | None:
        """Close the connection, or pass on the call."""
        return None if self._front is None else self._front.eof_received()

    def pause_writing(self) -> None:
        """Pass on the call. Nothing is written before there is a front door."""
        if self._front is not None:
            self._front.pause_writing()

    def resume_writing(self) -> None:
        """Pass on the call."""
        if self._front is not None:
            self._front.resume_writing()

    def shutdown(self) -> None:
        """Close the connection, which waits for a first request, because the server stops."""
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, or pass on the call."""
        if self._front is not None:
            self._front.connection_lost(exc)
            return
        self._leave()
        self._place.leave()

    def _leave(self) -> None:
        self._clock.cancel()
        self._connections.discard(self)

    def _begin_front(self) -> FrontDoor:
        self._front = front = self._make_front(self._place)
        self._connections.discard(self)
        front.take_over(self.transport, self._clock)
        return front

    def _too_late(self) -> None:
        (self._front or self._begin_front()).too_late()
