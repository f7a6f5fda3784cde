"""Log lines that strangers can cause: one a second for each kind."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Final

__all__ = ("Complaint",)

_EVERY: Final = 1.0


class Complaint:
    """A kind of log line, written at most once a second.

    The next line says how many were left out.

    Args:
        logger: Where it is logged.
        level: Its level.
        text: The line, with `%s` for its values.
    """

    __slots__ = ("_left_out", "_level", "_logged_at", "_logger", "_text")

    def __init__(self, logger: logging.Logger, level: int, text: str) -> None:
        self._logger = logger
        self._level = level
        self._text = text
        self._logged_at = -_EVERY
        self._left_out = 0

    def log(self, *values: object) -> None:
        """Log the line, or count it if there was one within the last second."""
        if not self._logger.isEnabledFor(self._level):
            return
        if monotonic() - self._logged_at < _EVERY:
            self._left_out += 1
            return
        self._logged_at = monotonic()
        left_out, self._left_out = self._left_out, 0
        if left_out:
            text = self._text + " (%d more like this were not logged.)"
            self._logger.log(self._level, text, *values, left_out)
        else:
            self._logger.log(self._level, self._text, *values)
