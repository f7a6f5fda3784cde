"""Builds the load generator, which is written in C, runs it and reads its result."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machine import BUILD, Cores, Missing

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("FLOOR", "LoadError", "Sample", "build", "compiler", "hold_idle", "run_load")

SOURCES = Path(__file__).parent / "load"
WSLOAD = BUILD / "wsload"
FLOOR = BUILD / "floor"

# Four threads produce more load than any of the servers can handle on one core.
MAX_THREADS = 4


class LoadError(Exception):
    """The generator failed. The message is the one that it printed."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one server.

    Attributes:
        value: The value, in the unit of its row.
        lost: How many expected messages did not arrive.
        server_cpu: The server's share of a core during the measurement, or
            `None` for rows that measure no time.
        generator_cpu: The same for the generator's busiest thread.
    """

    value: float
    lost: int = 0
    server_cpu: float | None = None
    generator_cpu: float | None = None


def compiler() -> str:
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return name
    raise Missing("the load generator is written in C, and no compiler (cc, gcc, clang) is installed")


def build() -> None:
    """Compile the load generator and the floor, if a source is newer."""
    BUILD.mkdir(exist_ok=True)
    newest = max(source.stat().st_mtime for source in SOURCES.iterdir())
    for binary in (WSLOAD, FLOOR):
        if binary.exists() and binary.stat().st_mtime > newest:
            continue
        source = SOURCES / f"{binary.name}.c"
        command = [compiler(), "-O2", "-pthread", "-o", str(binary), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise Missing(f"{' '.join(command)} failed:\n{done.stderr}")


def _command(cores: Cores, mode: str, port: int, threads: int, arguments: tuple[str, ...]) -> list[str]:
    placed = ",".join(map(str, sorted(cores.load)))
    return ["taskset", "-c", placed, str(WSLOAD), mode, f"--port={port}", f"--threads={threads}", *arguments]


def run_load(cores: Cores, mode: str, port: int, pid: int, *arguments: str) -> Sample:
    """Put load on the server *pid* on *port* and return the measurement.

    Raises:
        LoadError: The server refused, closed or lost a connection, sent
            nothing, or took too long.
    """
    threads = min(MAX_THREADS, len(cores.load))
    command = _command(cores, mode, port, threads, (f"--server-pid={pid}", *arguments))
    # wsload exits after 120 s at the latest.
    done = subprocess.run(command, capture_output=True, text=True, timeout=130, check=False)
    if done.returncode:
        raise LoadError(done.stderr.strip().rpartition("\n")[2] or f"wsload exited with {done.returncode}")
    result = json.loads(done.stdout)
    if result["count"] == 0:
        raise LoadError("no message came back")
    return Sample(result["rate"], result["lost"], result["server_cpu"], result["generator_cpu"])


@contextmanager
def hold_idle(cores: Cores, port: int, connections: int, *arguments: str) -> Iterator[None]:
    """Open idle connections, and hold them until the context ends.

    Raises:
        LoadError: Some connections could not be opened.
    """
    command = _command(cores, "idle", port, 1, (f"--connections={connections}", *arguments))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            if not process.stdout.readline():
                raise LoadError(process.stderr.read().strip() or "wsload exited early")
            yield
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
