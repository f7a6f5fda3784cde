"""Python programs that need not import Symphony first, which takes most of the time of a short one.

The nursery is a process that has imported what the command `symphony` needs. Each program is a fork of
it, with arguments, standard streams, folder, environment and session as after an `exec`.

This file is the program of the nursery, too.
"""

import asyncio
import atexit
import fcntl
import importlib
import json
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import termios
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

__all__ = ("START", "Program", "start")

START = (sys.executable, "-W", "error")
"""How a command begins that the nursery can run; `-m` and a module follow, or a file."""

_IMPORTED = (
    "httptools",
    "multiprocessing.spawn",
    "rich.console",
    "symphony.cli.connect.interactive",
    "symphony.cli.connect.script",
    "symphony.cli.main",
    "symphony.cli.workers.worker",
    "typer._adapters",
    "uvicorn.lifespan.on",
    "uvloop",
)
_MAX_REQUEST = 200_000


class Program:
    """A program in a process of its own, with what tests use of an `asyncio.subprocess.Process`."""

    pid: int

    def __init__(self) -> None:
        self.returncode: int | None = None
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._transports: list[asyncio.BaseTransport] = []

    async def begin(self, status: int, streams: Mapping[int, int]) -> None:
        """Connect to the other ends of its pipes, and wait until it is there."""
        answers = await self._reader(status)
        self.pid = int(await answers.readline())
        self._ending = asyncio.ensure_future(self._end(answers))
        if 0 in streams:
            self.stdin = await self._writer(streams[0])
        if 1 in streams:
            self.stdout = await self._reader(streams[1])
        if 2 in streams:
            self.stderr = await self._reader(streams[2])

    async def _end(self, answers: asyncio.StreamReader) -> None:
        self.returncode = int(await answers.readline())

    async def _reader(self, end: int) -> asyncio.StreamReader:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        file = os.fdopen(end, "rb", 0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, file)
        self._transports.append(transport)
        return reader

    async def _writer(self, end: int) -> asyncio.StreamWriter:
        loop = asyncio.get_running_loop()
        file = os.fdopen(end, "wb", 0)
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, file)
        self._transports.append(transport)
        return asyncio.StreamWriter(transport, protocol, None, loop)

    async def wait(self) -> int:
        """Wait until it has ended, and return its exit code."""
        await asyncio.shield(self._ending)
        assert self.returncode is not None
        return self.returncode

    async def communicate(self, data: bytes = b"") -> tuple[bytes, bytes]:
        """Give it its whole input, and return all that it writes."""
        if self.stdin is not None:
            self.stdin.write(data)
            self.stdin.close()
        output, errors = await asyncio.gather(_rest(self.stdout), _rest(self.stderr))
        await self.wait()
        return output, errors

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    async def aclose(self) -> None:
        """Close its pipes, after it has ended."""
        for transport in self._transports:
            transport.close()
        # They close their files in the next turn of the event loop.
        await asyncio.sleep(0)


async def start(
    *command: str,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    start_new_session: bool = False,
) -> Program:
    """Run a command that begins with `START`, as `asyncio.create_subprocess_exec` does."""
    assert command[: len(START)] == START
    request = {
        "arguments": command[len(START) :],
        "environment": dict(os.environ if env is None else env),
        "folder": str(cwd or Path.cwd()),
        "session": start_new_session,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    }
    ours: dict[int, int] = {}
    with ExitStack() as closing:

        def pipe(*, to_it: bool = False) -> tuple[int, int]:
            ends = os.pipe()
            mine, its = reversed(ends) if to_it else ends
            closing.callback(os.close, its)
            return mine, its

        status, told = pipe()
        given = [told]
        for number, how in enumerate((stdin, stdout, stderr)):
            if how == PIPE:
                ours[number], its = pipe(to_it=number == 0)
                given.append(its)
            elif how == DEVNULL:
                given.append(os.open(os.devnull, os.O_RDWR))
                closing.callback(os.close, given[-1])
            else:
                given.append(number if how is None else how)
        socket.send_fds(_nursery(), [json.dumps(request).encode()], given)
    program = Program()
    await program.begin(status, ours)
    return program


async def _rest(stream: asyncio.StreamReader | None) -> bytes:
    return b"" if stream is None else await stream.read()


@cache
def _nursery() -> socket.socket:
    """Start the nursery of this process. It ends when this process does."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen([*START, __file__, str(its.fileno())], pass_fds=[its.fileno()])

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# In the nursery


def main() -> bool:
    """Import, and fork for each request, until nobody can ask any more.

    Returns:
        Whether this is a program now. It runs below all that the nursery does, so that it is
        cleaned up at its end like one that was started alone.
    """
    requests = socket.socket(fileno=int(sys.argv[1]))
    # For the nursery, and for what waits for a program. Programs have what an interpreter starts with.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for name in _IMPORTED:
        importlib.import_module(name)
    while True:
        data, files, _, _ = socket.recv_fds(requests, _MAX_REQUEST, 4)
        if not data:
            requests.close()
            return False
        if os.fork() == 0:
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            program = os.fork()
            if program == 0:
                _prepare(json.loads(data), *files)
                return True
            _tell_end(program, *files)
        for file in files:
            os.close(file)


def _tell_end(program: int, status: int, *streams: int) -> NoReturn:
    for stream in (0, 1, 2, *streams):
        os.close(stream)
    os.write(status, f"{program}\n".encode())
    _, code = os.waitpid(program, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(code)}\n".encode())
    os._exit(0)


def _prepare(request: dict[str, Any], status: int, *streams: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_NOFILE, request["files"])
    if request["session"]:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for file in (status, *streams):
        os.close(file)
    if request["session"] and os.isatty(0):
        # A terminal becomes that of the session, as where a shell is started on it.
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.stdin = sys.__stdin__ = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, "utf-8", "backslashreplace", closefd=False)
    sys.argv[:] = request["arguments"]


def _run() -> None:
    if sys.argv[0] == "-m":
        _, module, *_ = sys.argv
        del sys.argv[0]
        sys.path[0] = str(Path.cwd())
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__" and main():
    _run()
