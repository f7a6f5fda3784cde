"""Log lines that strangers can cause: a few a second for each kind."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from time import monotonic
from typing import Final

__all__ = ("MAX_FAILURES", "Complaint", "Complaints", "place_of")

MAX_FAILURES: Final = 10
"""How many failures of one kind are logged in a second. Each could be the one that a developer looks for."""

_EVERY: Final = 1.0
_MAX_KINDS: Final = 1000


class Complaint:
    """A kind of log line, of which only a few are written in a second.

    The next line says how many were left out.

    Args:
        logger: Where it is logged.
        level: Its level.
        text: The line, with `%s` for its values.
        most: How many are written in a second.
    """

    __slots__ = ("_began", "_left_out", "_level", "_logged", "_logger", "_most", "_text")

    def __init__(self, logger: logging.Logger, level: int, text: str, *, most: int = 1) -> None:
        self._logger = logger
        self._level = level
        self._text = text
        self._most = most
        self._began = -_EVERY
        self._logged = 0
        self._left_out = 0

    def log(self, *values: object, error: BaseException | None = None) -> None:
        """Log the line, or count it if there were enough within the last second.

        Args:
            values: The values of the text.
            error: An exception whose traceback follows the line.
        """
        if not self._logger.isEnabledFor(self._level):
            return
        now = monotonic()
        if now - self._began >= _EVERY:
            self._began, self._logged = now, 0
        if self._logged >= self._most:
            self._left_out += 1
            return
        self._logged += 1
        left_out, self._left_out = self._left_out, 0
        if left_out:
            text = self._text + " (%d more like this were not logged.)"
            self._logger.log(self._level, text, *values, left_out, exc_info=error)
        else:
            self._logger.log(self._level, self._text, *values, exc_info=error)


class Complaints:
    """The log lines of one app, of each kind only a few in a second.

    A kind is a text and what the caller adds to it. At most 1,000 kinds are told
    apart. After that, lines of new kinds with the same text count as one kind.
    """

    __slots__ = ("_by_kind",)

    def __init__(self) -> None:
        self._by_kind: dict[Hashable, Complaint] = {}

    def log(
        self,
        logger: logging.Logger,
        level: int,
        text: str,
        *values: object,
        kind: Hashable = None,
        most: int = 1,
        error: BaseException | None = None,
    ) -> None:
        """Log a line, or count it if there were enough of its kind within the last second.

        Args:
            logger: Where it is logged.
            level: Its level.
            text: The line, with `%s` for its values.
            values: The values of the text.
            kind: What tells it apart from other lines with this text.
            most: How many of its kind are written in a second.
            error: An exception whose traceback follows the line.
        """
        key = (text, kind)
        complaint = self._by_kind.get(key)
        if complaint is None:
            if len(self._by_kind) >= _MAX_KINDS:
                key = (text, None)
            complaint = self._by_kind.setdefault(key, Complaint(logger, level, text, most=most))
        complaint.log(*values, error=error)


def place_of(error: BaseException) -> Hashable:
    """Return the class of an exception and the line that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = None if trace is None else (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
    return type(error), where
