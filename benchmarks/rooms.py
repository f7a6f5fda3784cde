"""Measures rooms in one process: what a history costs, and the ticks of many games."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer
from micro import opened, symphony_of_tree
from process import free_port

from symphony import Socket
from symphony.client import sync

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("Effort", "Figures", "measure_rooms", "table")

SERVER: Final = Path(__file__).parent / "servers" / "games_server.py"
AUDIENCES: Final = (1, 100, 1_000)
IN_FLIGHT: Final = 16
PLAYERS: Final = 4
MOVES: Final = 5
MOVE: Final = b'{"event":"move","data":[1,1]}'
# A text frame of a client, whose mask is zero.
MOVED: Final = bytes((0x81, 0x80 | len(MOVE))) + bytes(4) + MOVE
START_LIMIT: Final = 20.0


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure."""

    parts: int = 40
    publications: int = 320
    games: int = 200
    seconds: float = 10.0


QUICK: Final = Effort(parts=8, games=20, seconds=1.0)


@dataclass(frozen=True, slots=True)
class Cost:
    """The microseconds of CPU time of one publication, without and with a history."""

    members: int
    plain: float
    kept: float


@dataclass(frozen=True, slots=True)
class Games:
    """How exactly the games of one process ticked.

    Attributes:
        ticks: How many ticks there were.
        missed: How many were skipped.
        p50: The median of the time by which two ticks were more or less than 50 ms apart, in ms.
        p99: The same for 99 of 100.
        worst: The most.
        cpu: The share of a core that the server used.
        frames: How many frames the players got.
        expected: How many they should have got.
    """

    ticks: int
    missed: int
    p50: float
    p99: float
    worst: float
    cpu: float
    frames: int
    expected: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured."""

    costs: list[Cost]
    games: Games


async def _cost_of_history(effort: Effort) -> list[Cost]:
    symphony, outbox, encoding = symphony_of_tree()
    app = symphony()
    app.rooms("kept:{size}", history=100)

    async def enter(socket: Socket, kind: str, size: str) -> None:
        await socket.join(f"{kind}:{size}")

    app.route("/{kind}/{size}", events=True).on_connect(enter)
    found: list[Cost] = []
    async with app.lifespan():
        for size in AUDIENCES:
            kinds = ("plain", "kept")
            for kind in kinds:
                for _ in range(size):
                    await opened(app, f"/{kind}/{size}", outbox, encoding)
            times: dict[str, list[float]] = {kind: [] for kind in kinds}
            for part in range(effort.parts + 1):
                for kind in kinds if part % 2 else kinds[::-1]:
                    figure = await _publish(app.room(f"{kind}:{size}"), effort.publications)
                    # The first part warms up.
                    if part:
                        times[kind].append(figure)
            found.append(Cost(size, *(median(times[kind]) for kind in kinds)))
    return found


async def _publish(room: Any, publications: int) -> float:
    """Return the microseconds of CPU time that one publication took."""
    began = time.process_time_ns()
    for _ in range(publications // IN_FLIGHT):
        for _ in range(IN_FLIGHT):
            await room.emit("said", {"user": "ann", "text": "x" * 48})
        await asyncio.sleep(0)
    return (time.process_time_ns() - began) / publications / 1000


class Player(asyncio.Protocol):
    """A connection that moves, and counts the frames of its game."""

    def __init__(self, game: str) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ticks: list[int] = []
        self._game = game
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(
            f"GET /{self._game} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self.opened.done():
            _, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            self._data = rest
            self.opened.set_result(None)
        for payload in self._payloads():
            said = json.loads(payload)
            if said.get("event") == "frame":
                self.ticks.append(said["data"]["tick"])

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionResetError("refused"))

    def _payloads(self) -> Iterator[bytes]:
        """Take the payloads of all frames that are here whole."""
        data, at = self._data, 0
        while len(data) >= at + 4:
            length, head = data[at + 1], 2
            if length == 126:
                length, head = int.from_bytes(data[at + 2 : at + 4]), 4
            if len(data) < at + head + length:
                break
            yield data[at + head : at + head + length]
            at += head + length
        self._data = data[at:]


async def _play(port: int, control: sync.Client, effort: Effort) -> Games:
    loop = asyncio.get_running_loop()
    players: list[Player] = []
    for game in range(effort.games):
        made = (loop.create_connection(lambda: Player(str(game)), "127.0.0.1", port) for _ in range(PLAYERS))  # noqa: B023
        players += [player for _, player in await asyncio.gather(*made)]
    await asyncio.gather(*(player.opened for player in players))
    before = await asyncio.to_thread(control.request, "figures")
    began, sent = time.monotonic(), 0
    while (passed := time.monotonic() - began) < effort.seconds:
        while sent < passed * MOVES * len(players):
            players[sent % len(players)].transport.write(MOVED)
            sent += 1
        await asyncio.sleep(0.005)
    after = await asyncio.to_thread(control.request, "figures")
    passed = time.monotonic() - began
    for player in players:
        player.transport.abort()
    # From the first frame that a player got, each number must come.
    seen = [player.ticks for player in players if player.ticks]
    return Games(
        int(after["ticks"]),
        int(after["missed"] - before["missed"]),
        *(float(after[name]) for name in ("p50", "p99", "worst")),
        cpu=(after["cpu"] - before["cpu"]) / passed,
        frames=sum(map(len, seen)),
        expected=sum(ticks[-1] - ticks[0] + 1 for ticks in seen),
    )


def _measure_games(effort: Effort) -> Games:
    port = free_port()
    with subprocess.Popen([sys.executable, str(SERVER), str(port)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            with sync.connect(f"ws://127.0.0.1:{port}/control/figures") as control:
                return asyncio.run(_play(port, control, effort))
        finally:
            process.terminate()
            try:
                process.wait(START_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()


def measure_rooms(effort: Effort) -> Figures:
    """Measure the cost of a history in this process, and games in another one."""
    gc.collect()
    gc.disable()
    try:
        costs = asyncio.run(_cost_of_history(effort))
    finally:
        gc.enable()
    return Figures(costs, _measure_games(effort))


def table(found: Figures, effort: Effort) -> str:
    """Return the figures as a section of Markdown."""
    games = found.games
    lost = games.expected - games.frames
    rows = [
        f"| {cost.members:,} | {cost.plain:.1f} us | {cost.kept:.1f} us | {cost.kept / cost.plain - 1:+.0%} |"
        for cost in found.costs
    ]
    return "\n".join(
        [
            "### Rooms in one process",
            "",
            "What a history of 100 in memory adds to the publication of an event with 80 bytes of JSON, in "
            "CPU time of the server without the writes to the network.",
            "",
            "| members | without | with history | difference |",
            "|---|---|---|---|",
            *rows,
            "",
            f"{effort.games} games of {PLAYERS} players, 20 ticks a second each. Every tick sends a frame to "
            f"all players, and every player sends {MOVES} moves a second. The jitter is the difference "
            "between 50 ms and the time from one tick of a game to the next.",
            "",
            "| ticks | skipped | jitter, p50 / p99 / worst | CPU of the server | frames |",
            "|---|---|---|---|---|",
            f"| {games.ticks:,} | {games.missed:,} "
            f"| {games.p50:.2f} / {games.p99:.2f} / {games.worst:.2f} ms "
            f"| {games.cpu:.0%} of a core | {games.frames:,}"
            + (f" ({lost:,} missing)" if lost else "")
            + " |",
            "",
        ]
    )


def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure little. The figures are not reliable.")
    ] = False,
) -> None:
    """Measure rooms in one process."""
    effort = QUICK if quick else Effort()
    print(table(measure_rooms(effort), effort))


if __name__ == "__main__":
    typer.run(main)
