"""The rows of the report: each is one kind of work to measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fairness import EVENT_FLOODS, RAW_FLOODS, worst_echo
from generator import Sample, hold_idle, run_load

if TYPE_CHECKING:
    from machine import Cores
    from peers import Peer
    from process import Server

__all__ = ("FULL", "QUICK", "ROWS", "Effort", "Row", "measure")


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: How often each server is started and measured.
        seconds: The duration of one measurement.
        warmup: How many seconds of load come before it, for JIT compilers.
        opened: The most connections to open for the connection rate.
        idle: How many connections to hold open to measure their memory.
    """

    rounds: int
    seconds: float
    warmup: float
    opened: int
    idle: int


FULL = Effort(rounds=3, seconds=1.0, warmup=0.5, opened=8000, idle=5000)
QUICK = Effort(rounds=1, seconds=0.4, warmup=0.3, opened=2000, idle=1000)


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of work.

    Attributes:
        name: The name for `--only`.
        title: The title in the tables.
        arguments: Arguments for the load generator.
        fresh: Measure it once, on servers that have done no other work.
            Otherwise they would reuse memory of earlier work, and the result
            would be too low.
        kept: Whether the room has a history.
    """

    name: str
    title: str
    mode: Literal["echo", "fanout", "request", "connect", "idle", "flood"]
    arguments: tuple[str, ...] = ()
    unit: str = ""
    more_is_better: bool = True
    fresh: bool = False
    kept: bool = False

    def wire(self, peer: Peer) -> tuple[str, ...] | None:
        """Return the peer's arguments for this work, or `None` if the peer cannot do it."""
        special = {"fanout": peer.wire.kept if self.kept else peer.wire.fanout, "request": peer.wire.request}
        return special.get(self.mode, peer.wire.echo)


_ECHO = ("--connections=100", "--size=64")
_FANOUT = ("--connections=1000", "--size=128")
_REQUEST = ("--connections=100",)

ROWS = (
    Row("echo-1", "echo, 1 in flight", "echo", (*_ECHO, "--depth=1")),
    Row("echo-16", "echo, 16 in flight", "echo", (*_ECHO, "--depth=16")),
    Row("fanout-1", "fan-out, 1 in flight", "fanout", (*_FANOUT, "--depth=1")),
    Row("fanout-16", "fan-out, 16 in flight", "fanout", (*_FANOUT, "--depth=16")),
    Row("history-1", "fan-out with history, 1 in flight", "fanout", (*_FANOUT, "--depth=1"), kept=True),
    Row("history-16", "fan-out with history, 16 in flight", "fanout", (*_FANOUT, "--depth=16"), kept=True),
    Row("request-1", "typed request, 1 in flight", "request", (*_REQUEST, "--depth=1")),
    Row("request-16", "typed request, 16 in flight", "request", (*_REQUEST, "--depth=16")),
    Row("connect", "connections/s", "connect"),
    Row("memory", "memory a connection", "idle", unit=" KiB", more_is_better=False, fresh=True),
    Row("fairness", "worst round trip beside a flood", "flood", unit=" ms", more_is_better=False, fresh=True),
)


def measure(row: Row, server: Server, cores: Cores, effort: Effort) -> Sample | None:
    """Measure one row at one server, once. Return `None` if the server cannot do it.

    Raises:
        LoadError: The measurement failed.
    """
    wire = row.wire(server.peer)
    if wire is None:
        return None
    if row.mode == "idle":
        return _memory(server, cores, effort.idle, wire)
    if row.mode == "flood":
        return _fairness(server, cores, effort.seconds, wire)
    times = (f"--seconds={effort.seconds}", f"--warmup={effort.warmup}")
    if row.mode == "connect":
        times = (f"--seconds={effort.seconds}", f"--connections={effort.opened}")
    sample = run_load(cores, row.mode, server.port, server.pid, *row.arguments, *times, *wire)
    server.settle()
    return sample


def _fairness(server: Server, cores: Cores, seconds: float, wire: tuple[str, ...]) -> Sample | None:
    """Return the worst of all kinds of flood that the server can be sent."""
    if len(wire) > 1:
        # It has a protocol of its own on every connection.
        return None
    path = wire[0].removeprefix("--path=")
    floods = [(path, kind) for kind in RAW_FLOODS]
    request = server.peer.wire.request
    if request is not None:
        floods += [(request[0].removeprefix("--path="), kind) for kind in EVENT_FLOODS]
    worst = 0.0
    for flood_path, kind in floods:
        worst = max(worst, worst_echo(cores, server.port, path, flood_path, kind, seconds))
        server.settle()
    return Sample(worst)


def _memory(server: Server, cores: Cores, connections: int, wire: tuple[str, ...]) -> Sample:
    before = server.resident_bytes()
    with hold_idle(cores, server.port, connections, *wire):
        server.settle()
        grown = server.resident_bytes() - before
    return Sample(grown / connections / 1024)
