"""Limits what event loops log about writes to connections that are lost."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Final

__all__ = ("limit_lost_writes",)

# asyncio logs such a line for each write from the sixth on. What is written to a client that
# has gone is not missed, and a client can cause thousands of these lines.
_LINES: Final = ("socket.send() raised exception.", "SSL connection is closed")
_EVERY: Final = 1.0


class _LostWrites(logging.Filter):
    """Lets one of these lines through a second."""

    def __init__(self) -> None:
        super().__init__()
        self._passed_at = -_EVERY

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg not in _LINES:
            return True
        if monotonic() - self._passed_at < _EVERY:
            return False
        self._passed_at = monotonic()
        return True


_filter: Final = _LostWrites()


def limit_lost_writes() -> None:
    """Limit the lines to one a second, for all connections of the process. Idempotent."""
    logging.getLogger("asyncio").addFilter(_filter)
