"""`symphony run --workers N`, as its user runs it: a supervisor and its workers."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import symphony
from support.clients import connect
from support.process import Running, launch
from support.raw import RawClient, handshake

__all__ = ("APP", "Fleet", "dial", "visit", "workers")

APP = """
import os
import time

from symphony import Limits, Symphony

app = Symphony(limits=Limits(drain_time=0.2, finish_timeout=1, notice_time=None))

@app.on_connect
async def greet(socket) -> None:
    await socket.send(str(os.getpid()))

@app.on_message
async def answer(message: str) -> str:
    if message.startswith("block"):
        time.sleep(float(message[6:]))
    return message
"""


class Fleet:
    """A supervisor and its workers, in a session of their own.

    Attributes:
        running: The supervisor.
        log: Its lines on standard error, and those of the workers.
        first: The processes of the workers that have started first.
        rooms: What it said of the broker.
    """

    def __init__(self, running: Running) -> None:
        self.running = running
        self.log: list[str] = []
        self.first: list[int] = []
        self.rooms = ""
        self._changed = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())

    @property
    def url(self) -> str:
        return self.running.url

    @property
    def pid(self) -> int:
        return self.running.process.pid

    def processes(self) -> set[int]:
        """Return the processes of the session, except for the supervisor, and for zombies."""
        found: set[int] = set()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(session) == self.pid and state not in "ZX":
                found.add(int(folder.name))
        return found - {self.pid}

    def broker_folders(self) -> set[Path]:
        """Return the folders of the brokers that the supervisor serves."""
        sockets = Path("/proc/net/unix").read_text().splitlines()
        inodes = {
            os.readlink(entry)
            for entry in Path(f"/proc/{self.pid}/fd").iterdir()
            if entry.exists() or entry.is_symlink()
        }
        return {
            Path(fields[7]).parent
            for line in sockets[1:]
            if len(fields := line.split()) > 7 and f"socket:[{fields[6]}]" in inodes
            if fields[7].endswith("/broker")
        }

    async def where(self) -> int:
        """Return the process that serves a new connection of an app with the event `where`."""
        async with symphony.connect(f"{self.url}/") as client:
            return await client.request("where", response_type=int)

    async def logged(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Wait until so many lines of the log contain a pattern; return the last match."""
        while True:
            self._changed.clear()
            found = [match for line in self.log if (match := re.search(pattern, line))]
            if len(found) >= count:
                return found[count - 1]
            await self._changed.wait()

    async def greeting(self) -> int:
        """Return the process that serves a new connection."""
        async with connect(self.url) as client:
            return int(await client.recv())

    async def gone(self) -> None:
        """Wait until no process of the session is left."""
        async with asyncio.timeout(15):
            # Not an event: the system tells only their parent, which is gone.
            while self.processes():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def spread(self, count: int) -> Counter[int | None]:
        """Open so many connections at once; return how many each process has got."""
        limit = asyncio.Semaphore(100)
        writers: list[asyncio.StreamWriter] = []

        async def one() -> int | None:
            async with limit:
                pid, writer = await visit(self.url)
            writers.append(writer)
            return pid

        try:
            return Counter(await asyncio.gather(*(one() for _ in range(count))))
        finally:
            for writer in writers:
                writer.close()

    async def aclose(self) -> None:
        """End what is left, and see that nothing stays behind."""
        if self.running.process.returncode is None:
            self.running.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(20):
                await self.running.process.wait()
                await self.gone()
        finally:
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)
            await self._reading

    async def _read(self) -> None:
        assert self.running.process.stderr is not None
        async for line in self.running.process.stderr:
            self.log.append(line.decode().rstrip("\n"))
            self._changed.set()


async def dial(url: str) -> RawClient:
    """Open a TCP connection, and say nothing."""
    host, _, port = url.partition("//")[2].partition(":")
    return RawClient(*await asyncio.open_connection(host, int(port)))


async def visit(url: str) -> tuple[int | None, asyncio.StreamWriter]:
    """Connect, and return the process that was sent in the first frame, `None` after a 503."""
    host, _, port = url.partition("//")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(handshake("/", host=f"{host}:{port}"))
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 503"):
            return None, writer
        assert head.startswith(b"HTTP/1.1 101"), head
        start = await reader.readexactly(2)
        return int(await reader.readexactly(start[1])), writer
    except BaseException:
        writer.close()
        raise


@asynccontextmanager
async def workers(
    file: Path,
    count: int,
    *options: str,
    name: str = "",
    program: Sequence[str] = ("-m", "symphony"),
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Fleet]:
    """Run workers, and wait until they listen."""
    command = (sys.executable, "-W", "error", *program, "run", f"{file}{name}")
    options = ("--port", "0", "--workers", str(count), *options)
    async with launch(*command, *options, env=env, own_session=True, stderr=PIPE) as running:
        fleet = Fleet(running)
        try:
            line = await running.line()
            found = re.search(r"processes ([0-9, ]+)", line)
            assert found is not None, line
            fleet.rooms = await running.line()
            fleet.first = [int(pid) for pid in found[1].split(", ")]
            yield fleet
        finally:
            await fleet.aclose()
