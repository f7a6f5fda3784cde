"""An app in a process of its own, as its user runs it."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from support import nursery
from support.nursery import START, Program

__all__ = ("Outcome", "Running", "execute", "launch", "outcome", "release", "start")

_FIRST_LINE = re.compile(r"Symphony listens on (\S+)")


class Running(NamedTuple):
    """A server process.

    Attributes:
        process: The process; its standard output is being read from already.
        address: Where it said that it listens: `http://…`, `https://…` or `unix:…`.
    """

    process: Process | Program
    address: str

    @property
    def url(self) -> str:
        """The address for WebSocket clients."""
        return self.address.replace("http", "ws", 1)

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def line(self) -> str:
        """Read its next line of output."""
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def errors(self) -> list[str]:
        """Wait for the end of its standard error, if `launch` was given `stderr=PIPE`."""
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode().splitlines()

    async def end(self) -> tuple[int, list[str]]:
        """Wait until it has ended; its exit code and the rest of its output."""
        assert self.process.stdout is not None
        output = await self.process.stdout.read()
        return await self.process.wait(), output.decode().splitlines()


_ON_ITS_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


async def execute(*command: str, terminal: int | None = None, **how: Any) -> Process | Program:
    """Run a command, in the nursery if that can run it.

    Args:
        command: The command.
        terminal: The terminal of its session, and its standard streams.
        how: The arguments of `asyncio.create_subprocess_exec`.
    """
    if terminal is not None:
        how |= {"stdin": terminal, "stdout": terminal, "stderr": terminal, "start_new_session": True}
    if command[: len(START)] == START and sys.platform == "linux":
        return await nursery.start(*command, **how)
    if terminal is not None:
        command = (sys.executable, "-c", _ON_ITS_TERMINAL, *command)
    return await asyncio.create_subprocess_exec(*command, **how)


async def release(process: Process | Program) -> None:
    """Close the pipes of a process that has ended."""
    if isinstance(process, Program):
        await process.aclose()


class Outcome(NamedTuple):
    """What came of a command that ends by itself."""

    code: int
    output: str
    errors: str


async def outcome(*command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Outcome:
    """Run a command to its end."""
    process = await execute(
        *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env={**os.environ, **(env or {})}, cwd=cwd
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await release(process)
    assert process.returncode is not None
    return Outcome(process.returncode, output.decode(), errors.decode())


@asynccontextmanager
async def start(file: Path, *arguments: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Running]:
    """Run a Python file and wait until it listens; kill it at the end if it still runs."""
    async with launch(*START, str(file), *arguments, env=env) as running:
        yield running


@asynccontextmanager
async def launch(
    *command: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    own_session: bool = False,
    stderr: int | None = None,
) -> AsyncIterator[Running]:
    """Run a command and wait until it listens; kill it at the end if it still runs."""
    process = await execute(
        *command,
        stdout=PIPE,
        stderr=stderr,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        start_new_session=own_session,
    )
    assert process.stdout is not None
    try:
        line = (await process.stdout.readline()).decode()
        found = _FIRST_LINE.match(line)
        assert found, f"its first line of output is {line!r}"
        yield Running(process, found[1].rstrip(","))
    finally:
        if process.returncode is None:
            process.kill()
        await process.stdout.read()
        await process.wait()
        await release(process)
