"""Runs server processes on their core, reads /proc, and always stops them."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peers import Peer

__all__ = ("Server", "StartError", "free_port", "running")

START_LIMIT = 15.0
STOP_LIMIT = 2.0
SETTLE_LIMIT = 6.0
CLOCK_TICK = 1 / os.sysconf("SC_CLK_TCK")


class StartError(Exception):
    """A server did not start. The message is the last line that it printed."""


@dataclass(frozen=True, slots=True)
class Server:
    peer: Peer
    pid: int
    port: int

    def resident_bytes(self) -> int:
        """Return the resident memory of the process."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ProcessLookupError(f"{self.peer.name} has exited")

    def _cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * CLOCK_TICK

    def settle(self) -> None:
        """Wait until the server is idle and its memory does not change.

        Otherwise it may still be closing the connections of the last
        measurement, which would disturb the next one, of this server or another.
        """
        deadline = time.monotonic() + SETTLE_LIMIT
        before = (-1.0, -1)
        while time.monotonic() < deadline:
            now = (self._cpu_seconds(), self.resident_bytes())
            if now[0] - before[0] <= CLOCK_TICK and abs(now[1] - before[1]) <= 64 * 1024:
                return
            before = now
            time.sleep(0.15)


def free_port() -> int:
    """Return a port that no server has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_listening(process: subprocess.Popen[bytes], port: int, said: IO[bytes]) -> None:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise StartError(lines[-1] if lines else f"it exited with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise StartError(f"it did not listen within {START_LIMIT:.0f} s")


@contextmanager
def running(peer: Peer, core: int) -> Iterator[Server]:
    """Run a server on one core until the context ends.

    Raises:
        Missing: A program or package that it needs is not installed.
        StartError: It exited, or did not listen in time.
    """
    port = free_port()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *peer.command(), str(port)],
            env={**os.environ, **peer.environment},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            # Ctrl+C must reach only the benchmark, which then stops its servers.
            start_new_session=True,
        )
        try:
            _await_listening(process, port, said)
            server = Server(peer, process.pid, port)
            server.settle()
            yield server
        finally:
            process.terminate()
            try:
                process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
