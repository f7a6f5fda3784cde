"""Log lines that strangers can cause: a few per second of each kind."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Final

__all__ = ("Complaint",)

_EVERY: Final = 1.0


class Complaint:
    """A kind of log line, with a limit per second.

    The next line says how many were left out.

    Args:
        logger: Where it is logged.
        level: Its level.
        text: The line, with `%s` for its values.
        burst: How many lines are written in one second.
    """

    __slots__ = ("_began", "_burst", "_left_out", "_level", "_logger", "_text", "_written")

    def __init__(self, logger: logging.Logger, level: int, text: str, *, burst: int = 1) -> None:
        self._logger = logger
        self._level = level
        self._text = text
        self._burst = burst
        # The second that began with a line, and the lines in it.
        self._began = -_EVERY
        self._written = 0
        self._left_out = 0

    def log(self, *values: object) -> None:
        """Log the line, or count it if the limit is reached."""
        if not self._logger.isEnabledFor(self._level):
            return
        now = monotonic()
        if now - self._began >= _EVERY:
            self._began = now
            self._written = 0
        elif self._written >= self._burst:
            self._left_out += 1
            return
        self._written += 1
        left_out, self._left_out = self._left_out, 0
        if left_out:
            text = self._text + " (%d more like this were not logged.)"
            self._logger.log(self._level, text, *values, left_out)
        else:
            self._logger.log(self._level, self._text, *values)
