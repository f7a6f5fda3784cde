"""HAProxy and nginx with the configurations of `examples/deploy`, with addresses of the test."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.examples import EXAMPLES
from support.ports import free_port

__all__ = ("Balancer", "haproxy", "haproxy_binary", "nginx")

_NAMES = ("chat-a:8080", "chat-b:8080", "chat-c:8080")
_PATIENCE = 20.0


class Balancer:
    """A proxy in front of servers.

    Attributes:
        url: Where clients connect to.
        process: Its process.
    """

    def __init__(self, port: int, process: Process) -> None:
        self.url = f"ws://127.0.0.1:{port}"
        self.process = process


@asynccontextmanager
async def haproxy(folder: Path, ports: Sequence[int]) -> AsyncIterator[Balancer]:
    """Run HAProxy in front of three servers."""
    port = free_port()
    file = folder / "haproxy.cfg"
    file.write_text(_addressed("haproxy.cfg", "bind :80", f"bind 127.0.0.1:{port}", ports))
    async with _running(folder, port, haproxy_binary(), "-db", "-f", str(file)) as balancer:
        yield balancer


@asynccontextmanager
async def nginx(folder: Path, ports: Sequence[int]) -> AsyncIterator[Balancer]:
    """Run nginx in front of three servers."""
    port = free_port()
    site = folder / "chat.conf"
    site.write_text(_addressed("nginx.conf", "listen 80;", f"listen 127.0.0.1:{port};", ports))
    file = folder / "nginx.conf"
    places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"{place}_temp_path {folder}/{place};" for place in places)
    file.write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/log; worker_processes 2;\n"
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off;\n{temporary}\ninclude {site}; }}\n"
    )
    binary = _binary("nginx")
    async with _running(folder, port, binary, "-e", f"{folder}/log", "-c", str(file)) as balancer:
        yield balancer


def haproxy_binary() -> str:
    """Return the path of HAProxy; skip the test without it."""
    return _binary("haproxy")


def _binary(name: str) -> str:
    """Return the path of a program; skip the test without it."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is missing")
        pytest.skip(f"{name} is missing")
    return found


def _addressed(name: str, listens: str, instead: str, ports: Sequence[int]) -> str:
    """Return a configuration with the addresses of the test, and check that it has those of the example."""
    text = (EXAMPLES / "deploy" / name).read_text()
    for old, new in zip((listens, *_NAMES), (instead, *(f"127.0.0.1:{port}" for port in ports)), strict=True):
        assert len(re.findall(re.escape(old), text)) == 1, old
        text = text.replace(old, new)
    return text


@asynccontextmanager
async def _running(folder: Path, port: int, *command: str) -> AsyncIterator[Balancer]:
    with (folder / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, stdin=DEVNULL, stdout=output, stderr=output
        )
    try:
        end = time.monotonic() + _PATIENCE
        while not await _answers(port):
            assert process.returncode is None, (folder / "output").read_text()
            assert time.monotonic() < end, (folder / "output").read_text()
        yield Balancer(port, process)
    finally:
        if process.returncode is None:
            # In order: nginx ends its workers.
            process.terminate()
        await process.wait()


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        await asyncio.sleep(0.01)
        return False
    writer.close()
    return True
