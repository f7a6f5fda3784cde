"""A chat with rooms, and the page to use it, on one port.

Run it with `make demo` or `symphony run examples/demo/app.py`, and open
http://127.0.0.1:8080 in two tabs.
"""

import os
import secrets
import time
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from symphony import Handshake, Room, Socket, Symphony

PAGE = Path(__file__).with_name("index.html")
KEPT = 50

RoomName = Literal["lobby", "kitchen", "garden", "library"]
ROOMS: tuple[RoomName, ...] = ("lobby", "kitchen", "garden", "library")


async def page(request: Request) -> FileResponse:
    return FileResponse(PAGE, headers={"Cache-Control": "no-cache"})


# One port for all: plain HTTP goes to any ASGI app, WebSockets to the routes below. The
# page imports the JavaScript client from `/_symphony/client.js`, which is always there.
app = Symphony(http=Starlette(routes=[Route("/", page)]))


# What the page sends with its events. What does not fit never reaches a handler: the
# page is told what is wrong with it.


class Say(Struct):
    """The page makes the id, so that it can send again what may not have arrived."""

    id: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
    room: RoomName
    text: Annotated[str, Meta(max_length=1000, pattern=r"\S")]


# What it gets.


class Member(Struct):
    id: str
    name: str


class Said(Struct):
    id: str
    room: RoomName
    member: Member
    text: str
    at: float = field(default_factory=time.time)


class Entered(Struct):
    """Who is in a room, and what was said there lately."""

    you: str
    members: list[Member]
    said: list[Said]


class Seen(Struct):
    """Somebody came, left, or types."""

    room: str
    member: Member


class Visitor:
    """The state of a socket: `socket.state`."""

    def __init__(self) -> None:
        self.member = Member(id="", name="")
        self.room: RoomName | None = None


class Talk:
    """The state of a room: `room.state`."""

    def __init__(self) -> None:
        # By id, the oldest first.
        self.said: dict[str, Said] = {}


chat = app.route("/chat", state=Visitor)
# An empty room keeps its state for ten minutes.
rooms = app.rooms("chat:{name}", state=Talk, linger=600)


# `name` comes from the query string. The page's token is the same whenever it comes
# back, and is known to nobody else; what is made of it here is for all to see.
@chat.on_connect
async def connect(
    socket: Socket[Visitor], handshake: Handshake, name: Annotated[str, Meta(max_length=24, pattern=r"\S")]
) -> None:
    token = handshake.token or secrets.token_hex(16)
    socket.state.member = Member(blake2b(token.encode(), digest_size=8).hexdigest(), name)


async def go(socket: Socket[Visitor], name: RoomName) -> Room:
    """Take somebody to a room, and out of the one before."""
    before = socket.state.room
    if before != name:
        if before is not None:
            await socket.leave(f"chat:{before}")
        socket.state.room = name
        await socket.join(f"chat:{name}")
    return app.room(f"chat:{name}")


@chat.on("enter")
async def enter(socket: Socket[Visitor], name: RoomName) -> Entered:
    room = await go(socket, name)
    return Entered(socket.state.member.id, list(present(room).values()), list(room.state.said.values()))


# What is said names its room: it may have waited for a connection, while its author
# went on. Sent again it is said once, as long as it is remembered.
@chat.on("say")
async def say(socket: Socket[Visitor], data: Say) -> Said:
    room = await go(socket, data.room)
    known: dict[str, Said] = room.state.said
    if data.id not in known:
        known[data.id] = said = Said(data.id, data.room, socket.state.member, data.text)
        if len(known) > KEPT:
            del known[next(iter(known))]
        await room.emit("said", said)
    return known[data.id]


# Nobody answers this, nobody keeps it, and if it gets lost nobody misses it.
@chat.on("typing")
async def typing(socket: Socket[Visitor]) -> None:
    name = socket.state.room
    if name is not None:
        await app.room(f"chat:{name}").emit("typing", Seen(name, socket.state.member), exclude=socket)


def present(room: Room, *, without: Socket[Visitor] | None = None) -> dict[str, Member]:
    """Return who is in a room, by id; somebody may be there twice."""
    members = [socket.state.member for socket in room.sockets if socket is not without]
    return {member.id: member for member in members}


# A page that comes back may be here before it is noticed that it was gone. Then, for
# the others, nobody came and nobody leaves.


@rooms.on_join
async def joined(socket: Socket[Visitor], room: Room, name: str) -> None:
    me = socket.state.member
    if me.id not in present(room, without=socket):
        await room.emit("joined", Seen(name, me), exclude=socket)
        await tell_counts()


# A socket leaves by `socket.leave` or, however it goes, by disconnecting.
@rooms.on_leave
async def left(socket: Socket[Visitor], room: Room, name: str) -> None:
    me = socket.state.member
    if me.id not in present(room, without=socket):
        await room.emit("left", Seen(name, me), exclude=socket)
        await tell_counts()


async def tell_counts() -> None:
    await app.everyone.emit("counts", {name: len(present(app.room(f"chat:{name}"))) for name in ROOMS})


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
