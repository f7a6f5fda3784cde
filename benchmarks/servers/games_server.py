"""Games in one process: each has a state, four players, and 20 ticks a second."""

import sys
import time
from dataclasses import dataclass

from symphony import Member, Room, Socket, Symphony

RATE = 20

app = Symphony()


@dataclass
class Player:
    x: int = 0
    y: int = 0


@dataclass
class Game:
    ticks: int = 0
    last: float = 0.0


play = app.route("/{id}", room="game:{id}")
games = app.rooms("game:{id}", state=Game, members=Player, max_members=4)
late: list[float] = []


@play.on("move")
async def move(member: Member[Player], data: tuple[int, int]) -> None:
    member.state.x += data[0]
    member.state.y += data[1]


@games.every(1 / RATE)
async def tick(room: Room[Game, Player]) -> None:
    now = time.monotonic()
    if room.state.last:
        late.append(abs(now - room.state.last - 1 / RATE) * 1000)
    room.state.last = now
    room.state.ticks += 1
    seen = {id: (member.state.x, member.state.y) for id, member in room.members.items()}
    await room.emit("frame", {"tick": room.state.ticks, "players": seen})


@app.route("/control/figures").on("figures")
async def figures(socket: Socket) -> dict[str, float]:
    """Return what was measured since the last call."""
    ordered = sorted(late) or [0.0]
    ticks = len(late)
    late.clear()
    share = {"p50": 0.5, "p99": 0.99, "worst": 1.0}
    jitter = {name: ordered[min(int(len(ordered) * part), len(ordered) - 1)] for name, part in share.items()}
    return {"ticks": ticks, "missed": app.stats.missed_ticks, "cpu": time.process_time(), **jitter}


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
