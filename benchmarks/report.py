"""The reports in Markdown: a long one for the terminal and docs/performance.md, and a short one."""

from __future__ import annotations

import datetime
import platform
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

from generator import Sample
from machine import Cores, Missing, describe_machine
from peers import SYMPHONY, Peer
from rows import ROWS, Row

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ("Results", "render", "summarize")

# If both ends use less than this share of a core, neither of them was the bottleneck.
BUSY: Final = 0.9


@dataclass(frozen=True, slots=True)
class Target:
    """A target of the design: a ratio to a peer or to another row of Symphony, or an absolute bound."""

    row: str
    bound: float
    peer: str | None = None
    own: str | None = None


TARGETS: Final = (
    Target("echo-1", 0.75, "bun"),
    Target("echo-1", 1.0, "ws"),
    Target("echo-1", 2.0, "starlette"),
    Target("echo-16", 0.30, "bun"),
    Target("echo-16", 3.0, "ws"),
    Target("echo-16", 6.0, "starlette"),
    Target("fanout-1", 0.85, "bun"),
    Target("fanout-1", 1.1, "ws"),
    Target("fanout-1", 7.0, "python-socketio"),
    Target("fanout-16", 0.75, "bun"),
    Target("fanout-16", 12.0, "ws"),
    Target("fanout-16", 80.0, "python-socketio"),
    Target("history-1", 0.77, own="fanout-1"),
    Target("history-16", 0.77, own="fanout-16"),
    Target("request-16", 0.6, own="echo-16"),
    Target("request-16", 3.0, "socket.io"),
    Target("request-16", 20.0, "python-socketio"),
    Target("connect", 2000.0),
    Target("memory", 16.0),
    Target("fairness", 100.0),
)


TITLES: Final = {row.name: row.title for row in ROWS}


@dataclass(slots=True)
class Results:
    """All measurements of one run.

    Attributes:
        samples: One sample per round, by the names of row and server.
        left_out: The reason why a server was not measured, by its name.
        remarks: Failures of single rows.
    """

    peers: list[Peer]
    rows: list[Row]
    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict[tuple[str, str], list[Sample]])
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    remarks: list[str] = field(default_factory=list[str])

    def add(self, row: Row, peer: Peer, sample: Sample) -> None:
        self.samples.setdefault((row.name, peer.name), []).append(sample)

    def value(self, row: str, peer: str) -> float | None:
        samples = self.samples.get((row, peer))
        return median(sample.value for sample in samples) if samples else None

    def ratio(self, row: str, peer: str, peer_row: str | None = None) -> float | None:
        """Return Symphony's value divided by the peer's, by default in the same row."""
        ours, theirs = self.value(row, SYMPHONY.name), self.value(peer_row or row, peer)
        return ours / theirs if ours is not None and theirs else None

    def disturbed(self, row: Row, peer: Peer) -> bool:
        """Return whether neither end was busy, because other processes used their cores.

        Opening connections is mostly waiting, and measuring memory takes no CPU.
        """
        samples = self.samples[row.name, peer.name]
        return row.mode in ("echo", "fanout", "request") and max(_shares(samples)) < BUSY

    def measured(self) -> list[Peer]:
        return [
            peer for peer in self.peers if any((row.name, peer.name) in self.samples for row in self.rows)
        ]


def _shares(samples: list[Sample]) -> tuple[float, float]:
    """Return the CPU use of server and generator, as shares of a core."""
    return (
        median(sample.server_cpu or 0 for sample in samples),
        median(sample.generator_cpu or 0 for sample in samples),
    )


def number(value: float) -> str:
    """Format a value with three digits: 8.25, 912, 9.12k, 104k, 1.33M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return _three_digits(value / size) + suffix
    return _three_digits(value)


def _three_digits(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def _table(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    cells = [list(header), *map(list, lines)]
    cells.insert(1, ["---", *["--:"] * (len(cells[0]) - 1)])
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def _speeds(results: Results) -> str:
    def cell(row: Row, peer: Peer) -> str:
        value = results.value(row.name, peer.name)
        if value is None:
            return "-"
        ratio = results.ratio(row.name, peer.name) if peer is not SYMPHONY else None
        mark = "*" if results.disturbed(row, peer) else ""
        return number(value) + row.unit + mark + (f" ({ratio:.2f})" if ratio is not None else "")

    lines = [[f"**{peer.name}**", *(cell(row, peer) for row in results.rows)] for peer in results.measured()]
    return _table(["server", *(row.title for row in results.rows)], lines)


def _cost(results: Results) -> str:
    rows = [row for row in results.rows if row.mode != "idle"]

    def cell(row: Row, peer: Peer) -> str:
        samples = results.samples.get((row.name, peer.name))
        if not samples:
            return "-"
        server, load = _shares(samples)
        values = [sample.value for sample in samples]
        spread = (max(values) - min(values)) / median(values) / 2
        return f"{server:.0%} / {load:.0%}" + (f", ±{spread:.0%}" if len(values) > 1 else "")

    lines = [[f"**{peer.name}**", *(cell(row, peer) for row in rows)] for peer in results.measured()]
    return _table(["server", *(row.title for row in rows)], lines)


def _targets(results: Results) -> str:
    rows = {row.name: row for row in results.rows}
    lines: list[list[str]] = []
    for target in TARGETS:
        row = rows.get(target.row)
        if row is None:
            continue
        sign = "≥" if row.more_is_better else "≤"
        if target.own:
            value = results.ratio(row.name, SYMPHONY.name, target.own)
            wanted = f"{sign} {target.bound:.2f} x its own {TITLES[target.own]}"
        elif target.peer:
            value = results.ratio(row.name, target.peer)
            wanted = f"{sign} {target.bound:.2f} x {target.peer}"
        else:
            value = results.value(row.name, SYMPHONY.name)
            wanted = f"{sign} {target.bound:,.0f}{row.unit}"
        if value is None:
            lines.append([row.title, wanted, "-", "not measured"])
            continue
        met = value >= target.bound if row.more_is_better else value <= target.bound
        shown = f"{value:.2f} x" if target.peer or target.own else number(value) + row.unit
        lines.append([row.title, wanted, shown, "met" if met else "**missed**"])
    return _table(["work", "target", "measured", ""], lines)


def _where_others_win(results: Results) -> str:
    lines: list[str] = []
    for row in results.rows:
        better: list[str] = []
        for peer in results.measured():
            ratio = results.ratio(row.name, peer.name)
            if peer is SYMPHONY or ratio is None:
                continue
            lead = 1 / ratio if row.more_is_better else ratio
            if lead > 1:
                better.append(f"{peer.name} ({lead:.2f} x)")
        if better:
            lines.append(f"{row.title}: {', '.join(better)}")
    if SYMPHONY not in results.measured():
        return "Symphony was not measured."
    return _list(lines) or "Nowhere, in this run."


def _versions(peers: Iterable[Peer]) -> str:
    def versions(peer: Peer) -> str:
        try:
            return ", ".join(peer.versions())
        except Missing as missing:
            return str(missing)

    return _list(f"{peer.name}: {versions(peer)}" for peer in peers)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def summarize(results: Results, *, command: str) -> str:
    """Return the short table of the README as Markdown: throughput without ratios."""
    rows = [row for row in results.rows if row.mode in ("echo", "fanout") and not row.kept]

    def cell(row: Row, peer: Peer) -> str:
        value = results.value(row.name, peer.name)
        return "-" if value is None else number(value) + ("*" if results.disturbed(row, peer) else "")

    lines = [[f"**{peer.name}**", *(cell(row, peer) for row in rows)] for peer in results.measured()]
    notes = [f"Messages delivered per second, measured on {_today()} by `{command}` on {describe_machine()}."]
    if any("*" in line for cells in lines for line in cells[1:]):
        notes.append("A figure with a * is a lower bound, because other processes used the cores.")
    return f"{_table(['server', *(row.title for row in rows)], lines)}\n\n{' '.join(notes)}\n"


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def render(results: Results, *, cores: Cores, command: str, effort: str) -> str:
    """Return the report as Markdown."""
    load = ", ".join(map(str, sorted(cores.load)))
    parts = [
        f"Measured on {_today()} by `{command}` ({effort}), in one run.",
        f"**Machine**: {describe_machine()}; server on core {cores.server}, load on core {load}. "
        f"Python {platform.python_version()}.",
        "Messages delivered, requests answered and connections opened per second; resident memory of an idle "
        "connection. Brackets show Symphony's figure divided by this one (for memory, less is better).",
        _speeds(results),
        "### Where others win",
        _where_others_win(results),
        "### What was the bottleneck",
        "CPU of the server / of the load generator's busiest thread during the measurement, and half the "
        "range of the rounds. If the server is near 100%, the figure is its limit. If only the generator is, "
        "the figure is a lower bound. If neither is, other processes used their cores, and the figure has a "
        "*.",
        _cost(results),
        "### Targets",
        _targets(results),
        "### Versions",
        _versions(results.measured()),
    ]
    if results.left_out:
        parts += ["### Left out", _list(f"{name}: `{why}`" for name, why in results.left_out.items())]
    if results.remarks:
        parts += ["### Remarks", _list(results.remarks)]
    return "\n\n".join(parts) + "\n"
