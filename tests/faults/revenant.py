"""A server that dies and lives again, always at one address."""

import json
import random
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

from support.clients import until
from support.process import Running, start

__all__ = ("RETRY", "Entry", "Revenant")

RETRY = 0.7
"""Seconds for which clients are asked to stay away when it stops."""

_FILE = Path(__file__).with_name("server.py")


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
        folder: For its journal.
    """

    def __init__(self, folder: Path) -> None:
        self.port = _free_port()
        self.life = 0
        self._folder = folder
        self._body = AsyncExitStack()
        self._running: Running | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Live."""
        self.life += 1
        env = {
            "PORT": str(self.port),
            "FOLDER": str(self._folder),
            "LIFE": str(self.life),
            "RETRY": str(RETRY),
        }
        self._running = await self._body.enter_async_context(start(_FILE, env=env))

    async def kill(self) -> None:
        """Die without a word."""
        self.signal(signal.SIGKILL)
        await self._body.aclose()

    async def stop(self) -> None:
        """End in order, on SIGTERM."""
        assert self._running is not None
        self.signal(signal.SIGTERM)
        assert await self._running.end() == (0, [])
        await self._body.aclose()

    def signal(self, number: signal.Signals) -> None:
        assert self._running is not None
        self._running.signal(number)

    async def aclose(self) -> None:
        await self._body.aclose()

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

    def numbers(self, what: str) -> list[Any]:
        """Return the data that came, in order."""
        return [entry.data for entry in self.journal(what)]

    async def noted(self, what: str, count: int = 1) -> list[Entry]:
        """Wait until so much of a kind was noted."""
        await until(lambda: len(self.journal(what)) >= count, timeout=10)
        return self.journal(what)


def _free_port() -> int:
    # Not one that the system gives to clients: while the server is dead, one
    # that connects to its port could be given that very port, and then TCP
    # connects it to itself.
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
