"""Read lines: the contract, and standard input as scripts use it."""

from __future__ import annotations

import asyncio
import codecs
import os
import threading
from collections import deque
from contextlib import suppress
from typing import Final, Protocol

__all__ = ("LineSource", "StandardInput")

_STDIN: Final = 0
_BYTES: Final = 64 * 1024
_BLOCKS: Final = 4


class LineSource(Protocol):
    """Returns lines one by one."""

    async def read_line(self) -> str | None:
        """Return the next line without its line ending, or `None` at the end."""
        ...


class StandardInput:
    """The lines of standard input: a pipe, a file or a terminal.

    A thread reads them, because event loops cannot wait for files and Windows
    consoles. It reads the file descriptor and not `sys.stdin`, whose lock it
    would still hold when the interpreter exits. It never reads more than a few
    blocks ahead.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: deque[str | None] = deque()
        self._arrived = asyncio.Event()
        self._wanted = threading.Semaphore(_BLOCKS)
        self._thread = threading.Thread(target=self._read, name="stdin", daemon=True)
        self._thread.start()

    async def read_line(self) -> str | None:
        """Return the next line."""
        while not self._lines:
            self._arrived.clear()
            self._wanted.release()
            await self._arrived.wait()
        if self._lines[0] is None:
            return None
        return self._lines.popleft()

    def _read(self) -> None:
        decode = codecs.getincrementaldecoder(os.device_encoding(_STDIN) or "utf-8")("replace").decode
        rest = ""
        with suppress(RuntimeError):  # the loop is closed
            while True:
                self._wanted.acquire()
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
        self._arrived.set()
