"""An app with rooms of all kinds, of which several nodes run in a cluster where things go wrong."""

import asyncio
from typing import Any

from symphony import History, Identity, Room, Socket, Symphony
from symphony.protocol.positions import Position

ROOMS = ("chat:a", "chat:b", "board:a", "pad:a", "club:a", "game:a")


class Ledger:
    """A database that all nodes share, and that loses nothing.

    Attributes:
        marks: What was marked on each board.
    """

    def __init__(self) -> None:
        self.marks: dict[str, dict[str, None]] = {}


def plays(socket: Socket) -> bool:
    return "watch" not in socket.handshake.query_params


def make_app(ledger: Ledger) -> Symphony:
    app = Symphony()
    add_rooms(app, ledger)
    play = app.route("/play", events=True)
    app.rooms("seat:{name}", presence=True, grace=6)
    solo = app.route("/solo", per_user=1, room="seat:solo", events=True)
    exam = app.route("/exam", per_user=1, on_conflict="refuse", events=True)

    async def enter(socket: Socket) -> None:
        token = socket.handshake.token
        if token:
            socket.login(Identity(token))

    for route in (play, solo, exam):
        route.on_connect(enter)

    @play.on("say")
    async def say(data: dict[str, Any]) -> list[Any]:
        replaces = None if data["replaces"] is None else Position(*data["replaces"])
        room = app.room(data["room"])
        position = await room.emit("said", data["text"], key=data["key"], replaces=replaces)
        assert position is not None
        return [position.epoch, position.offset]

    return app


def add_rooms(app: Symphony, ledger: Ledger) -> None:
    chats = app.rooms("chat:{name}", history=History(size=6, ttl=120, bytes=50_000), client_join=True)
    boards = app.rooms("board:{name}", history=History(size=4, ttl=60), client_join=True)
    pads = app.rooms("pad:{name}", state=list, presence=True, client_join=True)
    app.rooms("club:{name}", presence=True, max_members=3, grace=8, counts=plays, client_join=True)
    games = app.rooms("game:{name}", state=dict, grace=4, client_join=True)

    @chats.on_publish("wrote")
    async def write(data: str) -> None: ...

    @boards.on_publish("marked")
    async def mark(room: Room, data: str) -> None:
        # It runs again if a client repeats its publication.
        ledger.marks.setdefault(room.name, {})[data] = None

    @boards.snapshot
    async def marks(room: Room) -> list[str]:
        found = list(ledger.marks.get(room.name, ()))
        # Reading takes time.
        await asyncio.sleep(0.05)
        return found

    @pads.on_publish("drew")
    async def draw(room: Room[list[str]], data: str) -> list[Any]:
        room.state.append(data)
        return [len(room.state), data]

    @pads.snapshot
    def strokes(room: Room[list[str]]) -> list[str]:
        return room.state

    @games.every(1.0)
    async def tick(room: Room[dict[str, int]]) -> None:
        room.state["ticks"] = room.state.get("ticks", 0) + 1
