"""A server that dies and lives again, always at one address."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from support.clients import until
from support.ports import free_port

__all__ = ("RETRY", "Entry", "Hatchery", "Revenant")

RETRY = 0.7
"""Seconds for which clients are asked to stay away when it stops."""

_FILE = Path(__file__).with_name("server.py")


class Hatchery:
    """The process that becomes a server as often as it is told to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(_FILE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def hatch(self, **life: Any) -> int:
        """Start a server; return its process id once it listens."""
        pid = int(await self._say(life))
        line = await self._line()
        assert line.startswith("Symphony listens on "), line
        return pid

    async def end(self, pid: int) -> int:
        """Wait until a server has ended; return its exit code."""
        return int(await self._say({"wait": pid}))

    def close(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0

    async def _say(self, command: dict[str, Any]) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return await self._line()

    async def _line(self) -> str:
        assert self._process.stdout is not None
        return await asyncio.to_thread(self._process.stdout.readline)


class Entry(NamedTuple):
    """What a handler was called for."""

    what: str
    by: str
    """The connection: which life of the server, and the how manieth in it."""
    data: Any
    at: float


class Revenant:
    """The process of `server.py`, or what remains of it.

    Args:
        hatchery: Where it gets its lives.
        folder: For its journal.
    """

    def __init__(self, hatchery: Hatchery, folder: Path) -> None:
        self.port = free_port()
        self.life = 0
        self._hatchery = hatchery
        self._folder = folder
        self._pid: int | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Live."""
        assert self._pid is None
        self.life += 1
        self._pid = await self._hatchery.hatch(
            port=self.port, folder=str(self._folder), life=self.life, retry=RETRY
        )

    async def kill(self) -> None:
        """Die without a word."""
        assert await self._end(signal.SIGKILL) == -signal.SIGKILL

    async def stop(self) -> None:
        """End in order."""
        assert await self._end(signal.SIGTERM) == 0

    def freeze(self) -> None:
        """Stop where it is; its kernel goes on."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        self._signal(signal.SIGCONT)

    async def aclose(self) -> None:
        if self._pid is not None:
            await self.kill()

    def tell(self, name: str, text: str) -> None:
        """Leave a word for it."""
        (self._folder / name).write_text(text)

    def journal(self, *what: str) -> list[Entry]:
        """Return what its handlers were called for, of these kinds, or of all."""
        try:
            lines = (self._folder / "journal").read_text().splitlines()
        except FileNotFoundError:
            return []
        entries = (Entry(**json.loads(line)) for line in lines)
        return [entry for entry in entries if not what or entry.what in what]

    def numbers(self, *what: str) -> list[Any]:
        """Return the data that came, in order."""
        return [entry.data for entry in self.journal(*what)]

    async def noted(self, what: str, count: int = 1) -> None:
        """Wait until so much of a kind was noted."""
        await until(lambda: len(self.journal(what)) >= count, timeout=10)

    async def _end(self, number: signal.Signals) -> int:
        self._signal(number)
        pid, self._pid = self._pid, None
        assert pid is not None
        return await self._hatchery.end(pid)

    def _signal(self, number: signal.Signals) -> None:
        assert self._pid is not None
        # Nobody else can have its id before `end` was asked for.
        os.kill(self._pid, number)
