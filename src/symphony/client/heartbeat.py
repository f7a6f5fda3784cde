"""Is the server still there?"""

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ("Beating", "Heartbeat")

_SHORTEST_GRACE = 1.0


class Beating(Protocol):
    """What a heartbeat needs of its connection."""

    heard_at: float
    """When the last byte came, by the loop's clock."""
    held: bool
    """Whether it is not read from: then nothing can be heard."""

    @property
    def unsent(self) -> int:
        """How many bytes wait to be taken by the network."""
        ...

    def ping(self) -> None:
        """Send a ping."""
        ...

    def silent(self) -> None:
        """Give up: it is dead."""
        ...


class Heartbeat:
    """Ask a connection that says nothing whether it lives; one timer, moved on when it is due.

    Args:
        connection: Whose pulse it is.
        interval: After so many seconds of silence comes a ping; after half of
            that again, and at least one second, the connection is given up.
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
        # A server that takes what it is sent is alive, even if the ping still
        # waits behind a large upload.
        if connection.heard_at > heard_at or connection.held or connection.unsent < unsent:
            self._check()
        else:
            connection.silent()
