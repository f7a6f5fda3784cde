"""Flow control of an HTTP connection, in both directions."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl

from symphony.limits import Limits

__all__ = ("Flow",)


class Flow(FlowControl):
    """Pauses reading and writing, and ends a connection whose client does not read.

    Args:
        transport: The transport of the event loop.
        limits: The limits of the app.
    """

    def __init__(self, transport: asyncio.Transport, limits: Limits) -> None:
        super().__init__(transport)
        self._limits = limits
        self._held = False
        self._was_paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0

    def hold(self) -> None:
        """Pause reading until `release`, even if the app asks to resume."""
        self._held = True
        self.pause_reading()

    def release(self) -> None:
        """Resume reading."""
        self._held = False
        self.resume_reading()

    def pause_reading(self) -> None:
        """Pause reading, because the app has not taken what was read."""
        self._was_paused = True
        super().pause_reading()

    def resume_reading(self) -> None:
        """Resume reading, unless it is held."""
        if not self._held:
            super().resume_reading()

    def was_paused(self) -> bool:
        """Return whether reading was paused at any time since the last call."""
        was_paused, self._was_paused = self._was_paused or self.read_paused, False
        return was_paused

    def pause_writing(self) -> None:
        """Make the app wait, and watch whether the client reads."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Let the app go on."""
        super().resume_writing()
        self.stop()

    def stop(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self) -> None:
        self.stop()
        self._unsent = self._transport.get_write_buffer_size()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limits.response_timeout, self._check)

    def _check(self) -> None:
        if self._transport.get_write_buffer_size() < self._unsent:
            self._watch()
        else:
            self._transport.abort()
