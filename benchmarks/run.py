"""Measure Symphony and its peers side by side: `make bench`."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from generator import LoadError, build
from machine import Cores, Missing, split_cores
from peers import PEERS, SYMPHONY, Peer
from process import Server, StartError, running
from report import Results, number, render, summarize
from rich.console import Console
from rich.markdown import Markdown
from rooms import QUICK as FEW_GAMES
from rooms import Effort as RoomsEffort
from rooms import measure_rooms
from rooms import table as rooms_table
from rows import FULL, QUICK, ROWS, Effort, Row, measure
from workers import QUICK as FEW_CLIENTS
from workers import Effort as WorkersEffort
from workers import measure_workers, table

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
README = ROOT / "README.md"
WORKERS, ROOMS = "workers", "rooms"
BEGIN, END = "<!-- bench:begin -->\n", "<!-- bench:end -->\n"

log = Console(stderr=True, highlight=False)


def choose(only: list[str]) -> tuple[list[Peer], list[Row]]:
    """Return the selected servers and rows. If none is selected, return all."""
    peers = [peer for peer in PEERS if peer.name in only]
    rows = [row for row in ROWS if row.name in only]
    unknown = set(only) - {peer.name for peer in peers} - {row.name for row in rows}
    if unknown:
        known = ", ".join([*(peer.name for peer in PEERS), *(row.name for row in ROWS), ROOMS, WORKERS])
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: choose from {known}", param_hint="--only")
    return peers or list(PEERS), rows or list(ROWS)


def start(peer: Peer, cores: Cores, results: Results, stack: ExitStack) -> Server | None:
    if peer.name in results.left_out:
        return None
    try:
        return stack.enter_context(running(peer, cores.server))
    except (Missing, StartError, OSError) as reason:
        results.left_out[peer.name] = str(reason)
        log.print(f"  {peer.name} is left out: {reason}", markup=False)
        return None


def take(row: Row, server: Server, cores: Cores, effort: Effort, results: Results) -> None:
    name = server.peer.name
    try:
        sample = measure(row, server, cores, effort)
    except (LoadError, OSError) as reason:
        results.remarks.append(f"{name}, {row.title}: {reason}")
        log.print(f"  {row.title}: {name} failed: {reason}", markup=False)
        return
    if sample is None:
        return
    if sample.lost:
        results.remarks.append(f"{name}, {row.title}: {sample.lost} messages were lost")
    results.add(row, server.peer, sample)
    log.print(f"  {row.title}: {name} {number(sample.value)}{row.unit}", markup=False)


def run_rounds(results: Results, cores: Cores, effort: Effort) -> None:
    """Measure everything.

    Each row is measured at all servers in turn, so that changes of the machine's
    speed affect all servers equally.
    """
    repeated = [row for row in results.rows if not row.fresh]
    for round_number in range(1, effort.rounds + 1 if repeated else 1):
        log.print(f"round {round_number} of {effort.rounds}")
        with ExitStack() as stack:
            started = [start(peer, cores, results, stack) for peer in results.peers]
            servers = [server for server in started if server]
            for row in repeated:
                for server in servers:
                    take(row, server, cores, effort, results)
    for row in results.rows:
        for peer in results.peers if row.fresh else ():
            with ExitStack() as stack:
                if server := start(peer, cores, results, stack):
                    take(row, server, cores, effort, results)


def write_between(page: Path, text: str) -> None:
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} has no {BEGIN.strip()} … {END.strip()} to write between")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="Run one short round. Its figures are not reliable.")
    ] = False,
    seconds: Annotated[float | None, typer.Option(help="How many seconds to measure each figure.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Measure only this server or row. Can be repeated.")
    ] = None,
    write: Annotated[
        bool,
        typer.Option("--write", help="Write the report to docs/performance.md and its table to README.md."),
    ] = False,
) -> None:
    """Measure Symphony and its peers side by side, on this machine, in one run."""
    if write and (quick or only):
        raise typer.BadParameter("not possible with --quick or --only", param_hint="--write")
    effort = QUICK if quick else FULL
    if seconds is not None:
        effort = replace(effort, seconds=seconds)
    others = [name for name in only or [] if name not in (ROOMS, WORKERS)]
    peers, rows = choose(others) if others or not only else ([], [])
    # Stop the servers on SIGTERM too, as on Ctrl+C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        cores = split_cores()
        build()
    except Missing as reason:
        raise SystemExit(f"benchmarks: {reason}") from None
    results = Results(peers, rows)
    begun = time.monotonic()
    run_rounds(results, cores, effort)
    more: list[str] = []
    if not only or ROOMS in only:
        log.print("rooms in one process")
        games = FEW_GAMES if quick else RoomsEffort()
        more.append(rooms_table(measure_rooms(games), games))
    if not only or WORKERS in only:
        log.print("workers that share rooms")
        size = FEW_CLIENTS if quick else WorkersEffort()
        more.append(table(measure_workers(size), size))
    log.print(f"took {time.monotonic() - begun:.0f} s")
    command = " ".join(["python", "benchmarks/run.py", *sys.argv[1:]])
    summary = f"median of {effort.rounds}, {effort.seconds:g} s each after {effort.warmup:g} s of warm-up"
    report = "\n".join([render(results, cores=cores, command=command, effort=summary), *more])
    console = Console()
    # The tables have nine columns. Wrapped lines are better than truncated names.
    Console(width=max(console.width, 140)).print(Markdown(report))
    if SYMPHONY.name in results.left_out:
        raise SystemExit("benchmarks: Symphony itself was not measured")
    if write:
        write_between(PAGE, report)
        # `make bench` runs exactly this command, and is shorter.
        write_between(README, summarize(results, command="make bench"))


if __name__ == "__main__":
    typer.run(main)
