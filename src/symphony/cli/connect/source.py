"""Where lines come from, and those of standard input, as scripts write them."""

from __future__ import annotations

import asyncio
import codecs
import os
import threading
from collections import deque
from contextlib import suppress
from typing import Final, Protocol

__all__ = ("Source", "StandardInput")

_STDIN: Final = 0
_BYTES: Final = 64 * 1024
_PIECES: Final = 4


class Source(Protocol):
    """Gives lines; `terminal.py` those that are typed."""

    async def line(self) -> str | None:
        """Return the next line without its end, `None`: there are no more."""
        ...


class StandardInput:
    """The lines of standard input, whatever it is; read as they are taken.

    A thread reads, for files and consoles cannot be waited for in an event
    loop everywhere. It reads past `sys.stdin`, whose lock it would still hold
    when the interpreter ends.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: deque[str | None] = deque()
        self._came = asyncio.Event()
        self._room = threading.Semaphore(_PIECES)
        self._thread = threading.Thread(target=self._read, name="stdin", daemon=True)
        self._thread.start()

    async def line(self) -> str | None:
        """Return the next line."""
        while not self._lines:
            self._came.clear()
            self._room.release()
            await self._came.wait()
        if self._lines[0] is None:
            return None
        return self._lines.popleft()

    def _read(self) -> None:
        decode = codecs.getincrementaldecoder(os.device_encoding(_STDIN) or "utf-8")("replace").decode
        rest = ""
        with suppress(RuntimeError):  # the loop is closed: nobody wants more
            while True:
                self._room.acquire()
                try:
                    data = os.read(_STDIN, _BYTES)
                except OSError:
                    data = b""
                *lines, rest = (rest + decode(data, not data)).split("\n")
                if not data and rest:
                    lines.append(rest)
                self._loop.call_soon_threadsafe(
                    self._put, [line.removesuffix("\r") for line in lines], not data
                )
                if not data:
                    return

    def _put(self, lines: list[str], end: bool) -> None:
        self._lines.extend(lines)
        if end:
            self._lines.append(None)
        self._came.set()
