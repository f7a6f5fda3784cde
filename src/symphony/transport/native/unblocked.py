"""A stream for logs that never waits for its reader."""

from __future__ import annotations

import os
import select
from collections import deque
from contextlib import suppress
from typing import Final, TextIO

__all__ = ("MAX_WAITING_BYTES", "Unblocked")

MAX_WAITING_BYTES: Final = 256 * 1024
"""How much of the log waits for a reader that is slow. Further lines are dropped and counted."""

# A pipe that is writable takes at least this many bytes (POSIX: PIPE_BUF is at least 512).
_CHUNK: Final = 512 if os.name == "nt" else select.PIPE_BUF


class Unblocked:
    """Writes lines to a stream whose reader may have stopped reading.

    A full pipe would otherwise block the event loop, and with it the server.

    Args:
        stream: Usually standard error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0
        try:
            self._descriptor: int | None = stream.fileno() if os.name != "nt" else None
        except (OSError, ValueError, AttributeError):
            self._descriptor = None

    def write(self, text: str) -> None:
        """Write text, or keep it until the reader goes on, or drop and count it."""
        if self._descriptor is None:
            self._stream.write(text)
            return
        data = text.encode("utf-8", "backslashreplace")
        self._drain()
        if self._dropped and self._size <= MAX_WAITING_BYTES // 2:
            note = f"{self._dropped} log lines were dropped, because nothing read the log.\n"
            self._dropped = 0
            self._keep(note.encode())
        if self._size + len(data) > MAX_WAITING_BYTES:
            self._dropped += 1
            return
        self._keep(data)
        self._drain()

    def flush(self) -> None:
        """Write what the reader takes now."""
        if self._descriptor is None:
            self._stream.flush()
        else:
            self._drain()

    def _keep(self, data: bytes) -> None:
        for start in range(0, len(data), _CHUNK):
            self._waiting.append(data[start : start + _CHUNK])
        self._size += len(data)

    def _drain(self) -> None:
        assert self._descriptor is not None
        with suppress(OSError, ValueError):  # closed, or no longer read
            while self._waiting and select.select((), (self._descriptor,), (), 0)[1]:
                part = self._waiting[0]
                written = os.write(self._descriptor, part)
                self._size -= written
                if written < len(part):
                    self._waiting[0] = part[written:]
                else:
                    self._waiting.popleft()
