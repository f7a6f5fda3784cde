"""Rooms with a state live at one worker: clients of another one are sent elsewhere until they reach it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import symphony
from support.fleets import Fleet, workers
from support.sizes import size

pytestmark = pytest.mark.timeout(size(90, full=300))

GAMES = size(20, full=200)
PLAYERS = 4

APP = """
import os

from symphony import Limits, Room, Symphony

app = Symphony(limits=Limits(drain_time=0.2, finish_timeout=1))


class Game:
    ticks = 0


games = app.rooms("game:{id:int}", state=Game, linger=60)
play = app.route("/game/{id:int}", room="game:{id}", events=True)


@games.every(0.05)
async def tick(room: Room[Game]) -> None:
    room.state.ticks += 1
    await room.emit("tick", [os.getpid(), room.state.ticks])


@play.on("where")
async def where() -> int:
    return os.getpid()


@play.on("end")
async def end(room: Room[Game]) -> None:
    await room.close(4000, "the game is over")


@app.route("/", events=True).on("refused")
async def refused() -> list[int]:
    return [os.getpid(), app.stats.refused]
"""


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    file = tmp_path / "games_app.py"
    file.write_text(APP)
    async with workers(file, 2) as fleet:
        yield fleet


def client(fleet: Fleet, path: str) -> symphony.Client:
    return symphony.connect(f"{fleet.url}{path}", backoff=0.5, connect_timeout=30)


async def refusals(fleet: Fleet) -> int:
    """Return how many connections the workers have refused."""
    seen: dict[int, int] = {}
    async with asyncio.timeout(20):
        while set(seen) != set(fleet.first):
            async with client(fleet, "/") as one:
                pid, refused = await one.request("refused", response_type=tuple[int, int])
                seen[pid] = refused
    return sum(seen.values())


class Player:
    """A client in a game, and what it has heard of the ticks."""

    def __init__(self, fleet: Fleet, game: int) -> None:
        self.client = client(fleet, f"/game/{game}")
        self.ticks: list[tuple[int, int]] = []
        self.has_heard = asyncio.Event()

        @self.client.on("tick")
        async def tick(tick: tuple[int, int]) -> None:
            self.ticks.append(tick)
            if len(self.ticks) >= 5:
                self.has_heard.set()


async def test_each_game_runs_at_one_worker_and_all_of_its_players_reach_it(fleet: Fleet) -> None:
    async with AsyncExitStack() as stack:
        players = {game: [Player(fleet, game) for _ in range(PLAYERS)] for game in range(GAMES)}
        everyone = [player for game in players.values() for player in game]
        # The first player of a game decides where it runs. If all came at once, a worker that is slow for
        # a moment would find that each game has a player at the other one.
        first = [game[0] for game in players.values()]
        for some in (first, [player for player in everyone if player not in first]):
            await asyncio.gather(*(stack.enter_async_context(player.client) for player in some))
        homes: Counter[int] = Counter()
        for game in players.values():
            (home,) = {await player.client.request("where") for player in game}
            homes[home] += 1
        # The games are spread over both.
        assert set(homes) == set(fleet.first)
        await asyncio.wait_for(asyncio.gather(*(player.has_heard.wait() for player in everyone)), 30)
        for game in players.values():
            # One process ticks, and its ticks are those of one state: none is repeated or left out.
            assert len({pid for player in game for pid, _ in player.ticks}) == 1
            for player in game:
                numbers = [number for _, number in player.ticks]
                assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        refused = await refusals(fleet)
        # With two workers, half of the attempts are refused, but for those of the first player.
        assert 0 < refused < 16 * len(everyone)
        print(f"{refused} of {refused + len(everyone)} attempts of {len(everyone)} players were refused")


async def test_a_game_that_is_closed_ends_the_connections_of_its_players_with_the_code(fleet: Fleet) -> None:
    players = [client(fleet, "/game/1") for _ in range(PLAYERS)]
    for player in players:
        await player
    # Its connection ends before the reply.
    with pytest.raises(symphony.DisconnectedError):
        await players[0].request("end")
    for player in players:
        closed = await asyncio.wait_for(player.wait_closed(), 20)
        assert (closed.code, closed.reason) == (4000, "the game is over")
