"""An app with rooms of all kinds, of which several nodes run in a cluster where things go wrong."""

import asyncio
from collections.abc import Collection
from typing import Any

from symphony import History, Identity, Room, Socket, Symphony
from symphony.protocol.positions import Position

ROOMS: tuple[str, ...] = ("chat:a", "chat:b", "board:a", "pad:a", "club:a", "game:a")


class Ledger:
    """A database that all nodes share, and that loses nothing.

    Attributes:
        marks: What was marked on each board.
    """

    def __init__(self) -> None:
        self.marks: dict[str, dict[str, None]] = {}


def plays(socket: Socket) -> bool:
    return "watch" not in socket.handshake.query_params


def make_app(ledger: Ledger, rooms: Collection[str], *, seats: bool) -> Symphony:
    """Return the app of one node.

    Args:
        ledger: The database.
        rooms: The rooms that are used. Compiling what is not used would take a good part of a seed.
        seats: Whether the routes are used where a user has one socket.
    """
    app = Symphony()
    for family in {room.partition(":")[0]: None for room in rooms}:
        FAMILIES[family](app, ledger)
    play = app.route("/play", events=True)
    play.on_connect(enter)
    if seats:
        add_seats(app)

    @play.on("say")
    async def say(data: dict[str, Any]) -> list[Any]:
        replaces = None if data["replaces"] is None else Position(*data["replaces"])
        room = app.room(data["room"])
        position = await room.emit("said", data["text"], key=data["key"], replaces=replaces)
        assert position is not None
        return [position.epoch, position.offset]

    @play.on("close")
    async def close(name: str) -> None:
        await app.room(name).close(reason="over")

    return app


async def enter(socket: Socket) -> None:
    token = socket.handshake.token
    if token:
        socket.login(Identity(token))


async def make_pen() -> str:
    # Others draw meanwhile.
    await asyncio.sleep(0.3)
    return "pen"


async def sweep(room: Room) -> None:
    # A room that is closed waits for it.
    await asyncio.sleep(0.3)


async def see_off(room: Room) -> None:
    # Other nodes ask meanwhile what there is to do.
    await asyncio.sleep(9)


def add_seats(app: Symphony) -> None:
    seats = app.rooms("seat:{name}", presence=True, grace=6)
    seats.on_depart(see_off)
    solo = app.route("/solo", per_user=1, room="seat:solo", events=True)
    exam = app.route("/exam", per_user=1, on_conflict="refuse", events=True)

    solo.on_connect(enter)
    exam.on_connect(enter)


def add_chats(app: Symphony, ledger: Ledger) -> None:
    chats = app.rooms("chat:{name}", history=History(size=6, ttl=120, bytes=50_000), client_join=True)

    @chats.on_publish("wrote")
    async def write(data: str) -> None: ...


def add_boards(app: Symphony, ledger: Ledger) -> None:
    boards = app.rooms("board:{name}", history=History(size=4, ttl=60), client_join=True)

    @boards.on_publish("marked")
    async def mark(room: Room, data: str) -> None:
        # It runs again if a client repeats its publication.
        ledger.marks.setdefault(room.name, {})[data] = None

    @boards.snapshot
    async def marks(room: Room) -> list[str]:
        found = list(ledger.marks.get(room.name, ()))
        # Reading takes time.
        await asyncio.sleep(0.4)
        return found


def add_pads(app: Symphony, ledger: Ledger) -> None:
    pads = app.rooms("pad:{name}", state=list, members=make_pen, presence=True, client_join=True)

    pads.on_leave(sweep)

    @pads.on_publish("drew")
    async def draw(room: Room[list[str]], data: str) -> list[Any]:
        room.state.append(data)
        return [len(room.state), data]

    @pads.snapshot
    def strokes(room: Room[list[str]]) -> list[str]:
        return room.state


def add_clubs(app: Symphony, ledger: Ledger) -> None:
    clubs = app.rooms("club:{name}", presence=True, max_members=2, grace=8, counts=plays, client_join=True)
    clubs.on_depart(see_off)
    clubs.on_leave(sweep)


def add_games(app: Symphony, ledger: Ledger) -> None:
    games = app.rooms("game:{name}", state=dict, grace=4, client_join=True)

    @games.every(1.0)
    async def tick(room: Room[dict[str, int]]) -> None:
        room.state["ticks"] = room.state.get("ticks", 0) + 1


FAMILIES = {"chat": add_chats, "board": add_boards, "pad": add_pads, "club": add_clubs, "game": add_games}
