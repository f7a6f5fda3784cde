"""The servers to measure: how to start each one, and how to communicate with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from generator import FLOOR, compiler
from machine import BUILD, Missing, first_line, package_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ("PEERS", "RAW", "SYMPHONY", "Peer", "Wire")

SERVERS = Path(__file__).parent / "servers"
NODE_MODULES = BUILD / "node_modules"


@dataclass(frozen=True, slots=True)
class Wire:
    """Arguments for the load generator, which say how to communicate with a server.

    Attributes:
        request: `None` if the server has no requests.
        kept: As *fanout*, in a room with a history; `None` if the server has none.
    """

    echo: tuple[str, ...]
    fanout: tuple[str, ...]
    request: tuple[str, ...] | None = None
    kept: tuple[str, ...] | None = None


RAW = Wire(echo=("--path=/echo",), fanout=("--path=/fanout",))

# The data of a request and of its reply: 64 bytes, as in the echo.
_MOVE = f'{{"x":1,"y":2,"name":"{"x" * 41}"}}'

# `#` is the id of a request.
SYMPHONY_V1 = replace(
    RAW,
    kept=("--path=/kept",),
    request=(
        "--path=/events",
        f'--request={{"event":"move","data":{_MOVE},"id":#}}',
        f'--reply={{"reply":#,"data":{_MOVE}}}',
    ),
)

# Engine.IO 4 without polling. The client connects to the default namespace with `40`. It is
# ready after the answer `40…`, and answers the ping `2` with `3`.
_SOCKETIO = (
    "--path=/socket.io/?EIO=4&transport=websocket",
    "--first=40",
    "--ready=40",
    "--ping=2",
    "--pong=3",
)
SOCKETIO = Wire(
    echo=(*_SOCKETIO, '--prefix=42["echo","', '--suffix="]'),
    fanout=(*_SOCKETIO, '--prefix=42["publish","', '--suffix="]'),
    request=(*_SOCKETIO, f'--request=42#["move",{_MOVE}]', f"--reply=43#[{_MOVE}]"),
)


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to measure.

    Attributes:
        name: The name for `--only` and in the tables.
        command: Returns the command line, without the port. Raises `Missing`.
        versions: Returns the measured versions, for the report. Raises `Missing`.
    """

    name: str
    command: Callable[[], list[str]]
    versions: Callable[[], list[str]]
    wire: Wire = RAW
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


@cache
def _install_node_packages() -> None:
    if all((NODE_MODULES / name).exists() for name in ("@oven", "socket.io", "ws")):
        return
    if shutil.which("npm") is None:
        raise Missing("npm is not installed")
    BUILD.mkdir(exist_ok=True)
    # Do not run install scripts. `_bun` finds the binary of Bun, which is a separate package.
    command = [
        "npm",
        "install",
        f"--prefix={BUILD}",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "bun@1",
        "socket.io@4",
        "ws@8",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        raise Missing("npm install took more than 180 s") from None
    if done.returncode:
        raise Missing(f"npm install failed: {done.stderr.strip()[-200:]}")


@cache
def _bun() -> str:
    _install_node_packages()
    # Prefer the standard build to those for CPUs without AVX2 ("baseline") and for musl.
    for binary in sorted(NODE_MODULES.glob("@oven/bun-*/bin/bun"), key=lambda path: len(str(path))):
        if (
            os.access(binary, os.X_OK)
            and subprocess.run([binary, "--version"], capture_output=True).returncode == 0
        ):
            return str(binary)
    raise Missing("npm has no Bun that runs on this machine")


def _node() -> str:
    _install_node_packages()
    node = shutil.which("node")
    if node is None:
        raise Missing("node is not installed")
    return node


def _node_versions(name: str) -> list[str]:
    package = NODE_MODULES / name / "package.json"
    return [
        f"{name} " + first_line(_node(), "-p", f"require({str(package)!r}).version"),
        "Node " + first_line(_node(), "--version"),
    ]


def _uvicorn_versions() -> list[str]:
    from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

    # uvicorn chooses an implementation that is installed. The report says which one.
    module = getattr(AutoWebSocketsProtocol, "__module__", "none").rpartition(".")[2]
    return [
        package_version("uvicorn"),
        f"its {module}",
        package_version("uvloop"),
        package_version("httptools"),
    ]


def _node_peer(name: str, file: str, wire: Wire = RAW) -> Peer:
    return Peer(
        name,
        lambda: [_node(), str(SERVERS / file)],
        lambda: _node_versions(name),
        wire,
        environment={"NODE_PATH": str(NODE_MODULES)},
    )


def _python_peer(name: str, file: str, versions: Callable[[], list[str]], wire: Wire = RAW) -> Peer:
    return Peer(name, lambda: [sys.executable, str(SERVERS / file)], versions, wire)


SYMPHONY = _python_peer(
    "symphony",
    "symphony_server.py",
    lambda: [package_version(name) for name in ("symphony-ws", "uvicorn", "picows", "uvloop", "httptools")],
    SYMPHONY_V1,
)

PEERS = (
    SYMPHONY,
    Peer(
        "bun",
        lambda: [_bun(), str(SERVERS / "bun_server.js")],
        lambda: ["Bun " + first_line(_bun(), "--version")],
    ),
    _node_peer("ws", "ws_server.cjs"),
    _python_peer(
        "aiohttp", "aiohttp_server.py", lambda: [package_version("aiohttp"), package_version("uvloop")]
    ),
    _python_peer(
        "websockets",
        "websockets_server.py",
        lambda: [package_version("websockets"), package_version("uvloop")],
    ),
    _python_peer(
        "starlette",
        "starlette_server.py",
        lambda: [package_version("starlette"), *_uvicorn_versions(), package_version("websockets")],
    ),
    _node_peer("socket.io", "socketio_server.cjs", SOCKETIO),
    _python_peer(
        "python-socketio",
        "socketio_server.py",
        lambda: [
            package_version("python-socketio"),
            package_version("python-engineio"),
            *_uvicorn_versions(),
        ],
        SOCKETIO,
    ),
    Peer(
        "floor",
        lambda: [str(FLOOR)],
        lambda: [f"benchmarks/load/floor.c, {first_line(compiler(), '--version')}"],
    ),
)
