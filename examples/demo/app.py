"""A chat with rooms and a web page, on one port.

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


# One port serves everything. Plain HTTP goes to an ASGI app, and WebSockets go to the
# routes below. The page imports the JavaScript client from `/_symphony/client.js`, which
# Symphony serves.
app = Symphony(http=Starlette(routes=[Route("/", page)]))


# The data of events from the page. Invalid data never reaches a handler: the page receives
# an error.


class Say(Struct):
    """A message from the page, which creates the id so that it can send the message again."""

    id: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
    room: RoomName
    text: Annotated[str, Meta(max_length=1000, pattern=r"\S")]


# The data of events and replies to the page.


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
    """The members of a room, and its recent messages."""

    you: str
    members: list[Member]
    said: list[Said]


class Seen(Struct):
    """A member joined, left, or is typing."""

    room: str
    member: Member


class Visitor:
    """The state of a socket, available as `socket.state`."""

    def __init__(self) -> None:
        self.member = Member(id="", name="")
        self.room: RoomName | None = None


class Talk:
    """The state of a room, available as `room.state`."""

    def __init__(self) -> None:
        # Messages by id, oldest first.
        self.said: dict[str, Said] = {}


chat = app.route("/chat", state=Visitor)
# An empty room keeps its state for ten minutes.
rooms = app.rooms("chat:{name}", state=Talk, linger=600)


# `name` comes from the query string. The page sends the same token when it reconnects. The
# token is secret, and the id of the member is a hash of it that everyone may see.
@chat.on_connect
async def connect(
    socket: Socket[Visitor], handshake: Handshake, name: Annotated[str, Meta(max_length=24, pattern=r"\S")]
) -> None:
    token = handshake.token or secrets.token_hex(16)
    socket.state.member = Member(blake2b(token.encode(), digest_size=8).hexdigest(), name)


async def go(socket: Socket[Visitor], name: RoomName) -> Room:
    """Move a socket to a room, and out of its previous room."""
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


# The message names its room, because it may have been queued while its author changed
# rooms. If the page sends it again, its id prevents a duplicate.
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


# Typing notices have no reply and are not stored. It does not matter if one is lost.
@chat.on("typing")
async def typing(socket: Socket[Visitor]) -> None:
    name = socket.state.room
    if name is not None:
        await app.room(f"chat:{name}").emit("typing", Seen(name, socket.state.member), exclude=socket)


def present(room: Room, *, without: Socket[Visitor] | None = None) -> dict[str, Member]:
    """Return the members of a room by id; a member can have several sockets."""
    members = [socket.state.member for socket in room.sockets if socket is not without]
    return {member.id: member for member in members}


# A page can reconnect before the server notices that the old connection is lost. The
# member then has two sockets for a while, and the others are not notified.


@rooms.on_join
async def joined(socket: Socket[Visitor], room: Room, name: str) -> None:
    me = socket.state.member
    if me.id not in present(room, without=socket):
        await room.emit("joined", Seen(name, me), exclude=socket)
        await tell_counts()


# A socket leaves with `socket.leave`, or when it disconnects for whatever reason.
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
