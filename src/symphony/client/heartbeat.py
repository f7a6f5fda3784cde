"""Detects a server that no longer answers."""

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ("Beating", "Heartbeat")

_SHORTEST_GRACE = 1.0


class Beating(Protocol):
    """The connection, as a heartbeat needs it."""

    heard_at: float
    """When the last byte arrived, by the loop's clock."""

    @property
    def held(self) -> bool:
        """Whether reading is paused, so that nothing can arrive."""
        ...

    @property
    def unsent(self) -> int:
        """How many bytes are waiting to be sent."""
        ...

    def ping(self) -> None:
        """Send a ping."""
        ...

    def silent(self) -> None:
        """Close the connection, because the server does not answer."""
        ...


class Heartbeat:
    """Pings a silent connection, and closes it if nothing arrives.

    It uses one timer, which is set again only when it expires.

    Args:
        connection: The connection to check.
        interval: Seconds of silence before a ping. If nothing arrives within
            half that time (at least one second), the connection is closed.
    """

    __slots__ = ("_connection", "_grace", "_interval", "_loop", "_timer")

    def __init__(self, connection: Beating, interval: float) -> None:
        self._connection = connection
        self._interval = interval
        self._grace = max(interval / 2, _SHORTEST_GRACE)
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(interval, self._check)

    def stop(self) -> None:
        """Cancel the timer."""
        self._timer.cancel()

    def _check(self) -> None:
        connection = self._connection
        left = connection.heard_at + self._interval - self._loop.time()
        if connection.held:
            self._timer = self._loop.call_later(self._interval, self._check)
        elif left > 0:
            self._timer = self._loop.call_later(left, self._check)
        else:
            connection.ping()
            self._timer = self._loop.call_later(
                self._grace, self._judge, connection.heard_at, connection.unsent
            )

    def _judge(self, heard_at: float, unsent: int) -> None:
        connection = self._connection
        # A server that still receives data is alive, even if the ping is queued after a
        # large upload.
        if connection.heard_at > heard_at or connection.held or connection.unsent < unsent:
            self._check()
        else:
            connection.silent()
