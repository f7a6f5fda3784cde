"""Measures rooms that several workers share: `symphony run --workers N`."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, cast

import typer

__all__ = ("Figures", "measure_workers", "table")

SERVER: Final = Path(__file__).parent / "servers" / "workers_server.py"
COUNTS: Final = (1, 2, 4)
SIZE: Final = 128
# A text frame of a server with 128 bytes has four bytes before them.
FRAME: Final = SIZE + 4
# A text frame of a client, whose mask is zero: the payload is what it was.
HEAD: Final = bytes((0x81, 0x80 | 126)) + SIZE.to_bytes(2, "big") + bytes(4)
AT_ONCE: Final = 100
CLOCK_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
PACE: Final = 0.005
# A server that does nothing but answer. What it takes is the price of waking two processes.
ECHO: Final = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
client, _ = server.accept()
client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while data := client.recv(4096):
    client.sendall(data)
"""


@dataclass(slots=True)
class Figures:
    """What was measured with so many workers.

    Attributes:
        workers: How many there were.
        quiet: Latencies of single publications to a member at another worker, in ms.
        loaded: Latencies under load, to members at all workers, in ms.
        delivered: How many messages arrived under load.
        expected: How many should have arrived.
        per_cpu: Deliveries a CPU second of the workers.
        broker: The share of a core that the supervisor used, with the broker.
    """

    workers: int
    quiet: list[float] = field(default_factory=list[float])
    loaded: list[float] = field(default_factory=list[float])
    delivered: int = 0
    expected: int = 0
    per_cpu: float = 0.0
    broker: float = 0.0


class Member(asyncio.Protocol):
    """A connection that counts what it gets, and takes the latency of one message a read."""

    def __init__(self, room: str, latencies: list[float]) -> None:
        self.pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.got = 0
        self.latencies = latencies
        self._room = room
        self._data = b""
        self._skip = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(
            f"GET /{self._room} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        data = self._data + data
        if not self.pid.done():
            _, end, rest = data.partition(b"\r\n\r\n")
            if not end or len(rest) < 2 or len(rest) < 2 + rest[1]:
                self._data = data
                return
            self.pid.set_result(int(rest[2 : 2 + rest[1]]))
            data = rest[2 + rest[1] :]
        whole, left = divmod(len(data), FRAME)
        self._data = data[len(data) - left :] if left else b""
        if whole:
            self.got += whole
            sent = int(data[4 : 4 + 20])
            self.latencies.append((time.monotonic_ns() - sent) / 1e6)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.pid.done():
            self.pid.set_exception(exc or ConnectionResetError("refused"))

    def publish(self) -> None:
        text = str(time.monotonic_ns()).zfill(20).encode()
        self.transport.write(HEAD + text.ljust(SIZE, b"."))


@contextmanager
def _serving(count: int) -> Iterator[tuple[int, int]]:
    """Run the server; yield its port and the process of its supervisor."""
    command = [sys.executable, "-m", "symphony", "run", str(SERVER), "--port", "0", "--workers", str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            found = re.search(r":(\d+) ", line)
            if found is None:
                raise RuntimeError(f"the server said {line!r}")
            yield int(found[1]), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * CLOCK_TICK


async def _connect(port: int, rooms: list[str], latencies: Callable[[], list[float]]) -> list[Member]:
    loop = asyncio.get_running_loop()
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(room: str) -> Member:
        async with turn:
            _, member = await loop.create_connection(lambda: Member(room, latencies()), "127.0.0.1", port)
            await member.pid
            return member

    return await asyncio.gather(*(one(room) for room in rooms))


async def _quiet(port: int, workers: int, publications: int) -> list[float]:
    """Publish now and then, and take the latency at members of other workers."""
    apart: list[float] = []
    members = await _connect(port, ["quiet"] * 16, list)
    publisher = members[0]
    others = [each for each in members[1:] if each.pid.result() != publisher.pid.result()]
    if workers == 1:
        others = members[1:2]
    for each in others[:1]:
        each.latencies = apart
    for _ in range(publications):
        publisher.publish()
        await asyncio.sleep(PACE)
    await asyncio.sleep(0.2)
    for each in members:
        each.transport.abort()
    return apart


def _measure_echo(messages: int) -> list[float]:
    """Return the latencies of a plain echo at the same pace, in ms."""
    with subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        return asyncio.run(_echo(int(process.stdout.readline()), messages))


async def _echo(port: int, messages: int) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found: list[float] = []
    for _ in range(messages):
        began = time.monotonic_ns()
        writer.write(bytes(SIZE))
        await reader.readexactly(SIZE)
        found.append((time.monotonic_ns() - began) / 1e6)
        await asyncio.sleep(PACE)
    writer.close()
    return found


async def _loaded(figures: Figures, port: int, supervisor: int, effort: Effort) -> None:
    """Publish to many rooms at a steady rate."""
    rooms = [str(number % effort.rooms) for number in range(effort.clients)]
    members = await _connect(port, rooms, lambda: figures.loaded)
    pids = {each.pid.result() for each in members}
    each_room = effort.clients // effort.rooms
    before = {pid: _cpu(pid) for pid in {*pids, supervisor}}
    begun = time.monotonic()
    published = 0
    while (passed := time.monotonic() - begun) < effort.seconds:
        while published < passed * effort.rate:
            # Each from a member of its room, at whatever worker that is.
            members[published % effort.clients].publish()
            published += 1
        await asyncio.sleep(0.001)
    figures.expected = published * each_room
    for _ in range(100):
        figures.delivered = sum(each.got for each in members)
        if figures.delivered >= figures.expected:
            break
        await asyncio.sleep(0.05)
    used = {pid: _cpu(pid) - before[pid] for pid in before}
    figures.per_cpu = figures.delivered / (sum(used[pid] for pid in pids) or CLOCK_TICK)
    figures.broker = 0.0 if supervisor in pids else used[supervisor] / effort.seconds
    for each in members:
        each.transport.abort()


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure."""

    clients: int = 8_000
    rooms: int = 100
    rate: int = 500
    seconds: float = 4.0
    quiet: int = 400


QUICK: Final = Effort(clients=500, rooms=50, rate=200, seconds=1.0, quiet=100)


def measure_workers(effort: Effort, counts: tuple[int, ...] = COUNTS) -> list[Figures]:
    """Measure with each number of workers, one after the other."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * effort.clients + 200)), hard))
    found: list[Figures] = []
    for count in counts:
        figures = Figures(count)
        with _serving(count) as (port, supervisor):
            figures.quiet = asyncio.run(_quiet(port, count, effort.quiet))
            asyncio.run(_loaded(figures, port, supervisor, effort))
        found.append(figures)
    return found


def table(found: list[Figures], effort: Effort) -> str:
    """Return the figures as a section of Markdown."""
    echo = _share(_measure_echo(effort.quiet))
    lines = [
        "### Workers",
        "",
        f"Rooms with a history, {SIZE} bytes a message. Quiet: one publication every 5 ms, to a member at "
        "another worker. It passes four processes in turn. A plain echo between two processes takes "
        f"{echo} at this pace, because idle cores wake slowly. Loaded: {effort.clients:,} clients in "
        f"{effort.rooms} rooms, {effort.rate} "
        "publications a second. The workers, the broker and the clients share the cores of the machine.",
        "",
        "| workers | quiet, p50 / p99 | loaded, p50 / p99 | delivered | in a CPU second of the workers "
        "| CPU of the broker |",
        "|---|---|---|---|---|---|",
    ]
    for each in found:
        missing = each.expected - each.delivered
        delivered = f"{each.delivered:,}" + (f" ({missing:,} missing)" if missing else "")
        lines.append(
            f"| {each.workers} ({'memory://' if each.workers == 1 else 'ipc://'}) | {_share(each.quiet)} "
            f"| {_share(each.loaded)} | {delivered} | {each.per_cpu:,.0f} | {each.broker:.0%} |"
        )
    return "\n".join(lines) + "\n"


def _share(latencies: list[float]) -> str:
    if not latencies:
        return "-"
    ordered = sorted(latencies)
    return f"{ordered[len(ordered) // 2]:.2f} / {ordered[int(len(ordered) * 0.99)]:.2f} ms"


def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure little. The figures are not reliable.")
    ] = False,
) -> None:
    """Measure rooms that workers share."""
    effort = QUICK if quick else Effort()
    print(table(measure_workers(effort), effort))


if __name__ == "__main__":
    typer.run(main)
