"""Divides the cores between server and load generator, and describes the machine."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ("BUILD", "Cores", "Missing", "describe_machine", "first_line", "package_version", "split_cores")

BUILD = Path(__file__).parent / ".build"


class Missing(Exception):
    """Something is not installed. The message says what."""


@dataclass(frozen=True, slots=True)
class Cores:
    server: int
    load: frozenset[int]


def split_cores() -> Cores:
    """Return one core for the server and the others for the load generator.

    If there are enough cores, the hyperthread of the server's core stays idle,
    because work on it would slow down the server.
    """
    if platform.system() != "Linux":
        raise Missing("the benchmarks need Linux (epoll, /proc, CPU affinity)")
    if shutil.which("taskset") is None:
        raise Missing("taskset (part of util-linux) is not installed")
    usable = os.sched_getaffinity(0)
    if len(usable) < 2:
        raise Missing("the benchmarks need two cores: one for the server, one for the load")
    server = min(usable)
    others = usable - {server}
    return Cores(server, frozenset(others - _siblings(server) or others))


def _siblings(core: int) -> set[int]:
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    if not path.exists():
        return {core}
    siblings: set[int] = set()
    for part in path.read_text().strip().split(","):
        first, _, last = part.partition("-")
        siblings.update(range(int(first), int(last or first) + 1))
    return siblings


def describe_machine() -> str:
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    model = found[1] if found else platform.machine()
    virtual = ", virtual" if "hypervisor" in Path("/proc/cpuinfo").read_text() else ""
    return f"{model} ({os.cpu_count()} cores{virtual}), {platform.system()} {platform.release()}"


def package_version(name: str) -> str:
    """Return the name and version of a Python package. Raises `Missing`."""
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        raise Missing(f"{name} is not installed") from None


def first_line(*command: str) -> str:
    """Return the first line that a command prints, such as its version. Raises `Missing`."""
    if shutil.which(command[0]) is None:
        raise Missing(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise Missing(f"{' '.join(command)} failed: {done.stderr.strip()[-200:]}")
    return done.stdout.partition("\n")[0].strip()
