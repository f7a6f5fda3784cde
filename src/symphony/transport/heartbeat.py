"""Sends pings, measures latency, and detects dead and idle connections."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

from symphony.limits import Limits
from symphony.websocket.frames import PING, frame

__all__ = ("Beating", "Heartbeat")


class Beating(Protocol):
    """The part of a connection that a heartbeat needs."""

    message_at: float
    """When its last message arrived, by the loop's clock."""

    @property
    def held(self) -> bool:
        """Whether reading is paused, so that no message can arrive."""
        ...

    @property
    def excused(self) -> bool:
        """Whether a pong cannot arrive, because we have paused reading."""
        ...

    def send_control(self, frame: bytes) -> None:
        """Send a frame after all others."""
        ...

    def pong_too_late(self) -> None:
        """Abort the connection, because the peer does not answer."""
        ...

    def message_too_late(self) -> None:
        """Close the connection, because the peer does not finish a fragmented message."""
        ...

    def idle_too_long(self) -> None:
        """Close the connection, because the peer sends no messages."""
        ...


class Heartbeat:
    """Applies the timeouts of a connection: for pings, silence and unfinished messages.

    Attributes:
        latency: The last round trip in seconds, `None` before the first.
    """

    __slots__ = (
        "_connection",
        "_count",
        "_idle_timer",
        "_limits",
        "_loop",
        "_message_timer",
        "_sent_at",
        "_timer",
        "latency",
    )

    def __init__(self, connection: Beating, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._count = 0
        self._sent_at = 0.0
        self.latency: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._message_timer: asyncio.TimerHandle | None = None
        if limits.ping_interval is not None:
            self._timer = self._loop.call_later(limits.ping_interval, self._ping)
        if limits.idle_timeout is not None:
            self._idle_timer = self._loop.call_later(
                limits.idle_timeout, self._check_idle, limits.idle_timeout
            )

    def pong(self, payload: bytes) -> None:
        """Handle a pong. Unsolicited pongs are valid and ignored (RFC 6455 §5.5.3)."""
        interval = self._limits.ping_interval
        if interval is None or not self._sent_at or payload != self._payload():
            return
        self.latency = monotonic() - self._sent_at
        self._sent_at = 0.0
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(interval, self._ping)

    def fragment(self, *, more: bool) -> None:
        """Note that a fragment has arrived, and whether its message goes on."""
        if more and self._message_timer is None:
            self._message_timer = self._loop.call_later(self._limits.message_timeout, self._check_message)
        elif not more and self._message_timer is not None:
            self._message_timer.cancel()
            self._message_timer = None

    def stop(self) -> None:
        """Cancel all timers."""
        for timer in (self._timer, self._idle_timer, self._message_timer):
            if timer is not None:
                timer.cancel()

    def _payload(self) -> bytes:
        return self._count.to_bytes(4, "big")

    def _ping(self) -> None:
        self._count += 1
        self._sent_at = monotonic()
        self._connection.send_control(frame(PING, self._payload()))
        self._timer = self._loop.call_later(self._limits.pong_timeout, self._check_pong)

    def _check_pong(self) -> None:
        if self._connection.excused:
            self._timer = self._loop.call_later(self._limits.pong_timeout, self._check_pong)
        else:
            self._connection.pong_too_late()

    def _check_message(self) -> None:
        self._message_timer = None
        if self._connection.held:
            # Its fragments cannot arrive.
            self.fragment(more=True)
        else:
            self._connection.message_too_late()

    def _check_idle(self, timeout: float) -> None:
        left = self._connection.message_at + timeout - self._loop.time()
        if self._connection.held:
            left = timeout
        if left > 0:
            self._idle_timer = self._loop.call_later(left, self._check_idle, timeout)
        else:
            self._connection.idle_too_long()
