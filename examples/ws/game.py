"""A game for two: matchmaking, ticks, seats that survive a reload, and spectators.

Run it with `python examples/ws/game.py`. Connect as two players, with
`symphony connect "ws://127.0.0.1:8080/lobby?user=alice"` and the same as `bob`. Each gets
the id of a match. Play at `/match/ID?user=alice`, and watch at `/match/ID`.
"""

import os
import random
import secrets
from dataclasses import dataclass, field
from typing import Literal

from symphony import Identity, Member, Reject, Room, Socket, Symphony

WIDTH, HEIGHT, GOAL = 20, 10, 5
STEPS = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}

app = Symphony()


def anywhere() -> tuple[int, int]:
    return random.randrange(WIDTH), random.randrange(HEIGHT)


@dataclass
class Player:
    """The state of a member: it exists from their arrival to their departure."""

    place: tuple[int, int] = field(default_factory=anywhere)
    step: tuple[int, int] = (0, 0)
    coins: int = 0


@dataclass
class Match:
    """The state of a room."""

    coin: tuple[int, int] = field(default_factory=anywhere)


@dataclass
class Frame:
    """What players and spectators see: the coin, and the place and coins of each player."""

    coin: tuple[int, int]
    players: dict[str, tuple[tuple[int, int], int]]


# Matchmaking. The members of the lobby wait, in the order of their arrival. A reload does not
# cost them their place: they stay members for 5 seconds.
# Connecting to a route with `room=` joins, and leaving the room closes the connection.
lobby = app.route("/lobby", room="lobby", events=True)
lobbies = app.rooms("lobby", grace=5)


@lobby.on_connect
async def wait(socket: Socket, user: str) -> None:
    socket.login(Identity(user))


@lobbies.every(0.5)
async def pair(room: Room) -> None:
    waiting = [member for member in room.members.values() if member.sockets]
    for two in zip(waiting[::2], waiting[1::2], strict=False):
        match = secrets.token_hex(8)
        for socket in [socket for member in two for socket in member.sockets]:
            await socket.emit("matched", match)
            await socket.leave("lobby")


# Players are users. A connection without a user watches: it is a member too, but has no
# state, and takes no seat.
def player(user: Identity | None) -> Player | None:
    return Player() if user is not None else None


def plays(user: Identity | None) -> bool:
    return user is not None


# There are two seats. A player whose connection is lost keeps the seat and the coins for 15
# seconds. A third player is refused with `room_full`.
play = app.route("/match/{id}", room="match:{id}")
matches = app.rooms("match:{id}", state=Match, members=player, max_members=2, counts=plays, grace=15)


@play.on_connect
async def enter(socket: Socket, user: str | None = None) -> None:
    if user is not None:
        socket.login(Identity(user))


@play.on("turn")
async def turn(member: Member[Player | None], data: Literal["up", "down", "left", "right"]) -> None:
    if member.state is None:
        raise Reject("forbidden", "you are watching")
    member.state.step = STEPS[data]


# `volatile`: a client that reads slowly skips frames, since the next one has all it needs.
@matches.every(0.1)
async def tick(room: Room[Match, Player | None]) -> None:
    players = {id: member.state for id, member in room.members.items() if member.state is not None}
    if len(players) == 2:
        for id, player in players.items():
            (x, y), (dx, dy) = player.place, player.step
            player.place = (x + dx) % WIDTH, (y + dy) % HEIGHT
            if player.place == room.state.coin:
                player.coins += 1
                room.state.coin = anywhere()
            if player.coins == GOAL:
                await room.emit("won", id)
                await room.close(4000, f"{id} has won")
                return
    seen = {id: (player.place, player.coins) for id, player in players.items()}
    await room.emit("frame", Frame(room.state.coin, seen), volatile=True)


@matches.on_away
async def away(room: Room, member: Member) -> None:
    await room.emit("away", member.id)


@matches.on_back
async def back(room: Room, member: Member) -> None:
    await room.emit("back", member.id)


@matches.on_depart
async def gave_up(room: Room, member: Member) -> None:
    if member.user is not None:
        await room.emit("gave up", member.id)


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
