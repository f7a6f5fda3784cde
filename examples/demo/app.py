"""A chat with rooms, and the page to use it, on one port.

Start it with `make demo` or `symphony run examples/demo/app.py`. Then open
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
MARK = Path(__file__).parents[2] / "docs" / "assets" / "mark.svg"
# How many messages a room remembers.
KEPT = 50

RoomName = Literal["lobby", "kitchen", "garden", "library"]
ROOMS: tuple[RoomName, ...] = ("lobby", "kitchen", "garden", "library")


async def page(request: Request) -> FileResponse:
    return FileResponse(PAGE, headers={"Cache-Control": "no-cache"})


async def mark(request: Request) -> FileResponse:
    return FileResponse(MARK)


# One port serves everything. Plain HTTP goes to an ASGI app, here Starlette, and WebSockets
# go to the routes below. Symphony itself serves the JavaScript client that the page imports,
# at `/_symphony/client.js`.
app = Symphony(http=Starlette(routes=[Route("/", page), Route("/mark.svg", mark)]))


# The data that the page sends. Symphony checks it against these types before it calls a
# handler. If it does not fit, the page gets an error that says why.


class Say(Struct):
    """A message to a room.

    The page chooses the id. After a lost connection it can send the same
    message again, and the server recognizes it.
    """

    id: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
    room: RoomName
    text: Annotated[str, Meta(max_length=1000, pattern=r"\S")]


# The data that the page receives.


class Member(Struct):
    id: str
    name: str


class Said(Struct):
    id: str
    room: RoomName
    member: Member
    text: str
    at: float = field(default_factory=time.time)


class News(Struct):
    """There is a message in a room.

    Every page gets this, to count unread messages. Only the pages in the room
    get the text.
    """

    id: str
    room: RoomName
    by: str
    at: float


class Entered(Struct):
    """The answer to `enter`: the room, and the recent news of all rooms."""

    you: str
    members: list[Member]
    said: list[Said]
    news: list[News]
    at: float = field(default_factory=time.time)


class Seen(Struct):
    """A member joined, left, or is typing."""

    room: str
    member: Member


class Visitor:
    """The state of one socket, `socket.state`."""

    def __init__(self) -> None:
        self.member = Member(id="", name="")
        self.room: RoomName | None = None


class Talk:
    """The state of one room, `room.state`."""

    def __init__(self) -> None:
        # The messages by id, oldest first.
        self.said: dict[str, Said] = {}


chat = app.route("/chat", state=Visitor)
# An empty room keeps its state for ten minutes.
rooms = app.rooms("chat:{name}", state=Talk, linger=600)


# `name` comes from the query string. The token is a secret of the page, which sends the same
# one each time it reconnects. The id that is derived from it is public.
@chat.on_connect
async def connect(
    socket: Socket[Visitor], handshake: Handshake, name: Annotated[str, Meta(max_length=24, pattern=r"\S")]
) -> None:
    token = handshake.token or secrets.token_hex(16)
    socket.state.member = Member(blake2b(token.encode(), digest_size=8).hexdigest(), name)


async def go(socket: Socket[Visitor], name: RoomName) -> Room:
    """Move a visitor to a room, and out of the previous one."""
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
    return Entered(
        you=socket.state.member.id,
        members=list(present(room).values()),
        said=list(remembered(name).values()),
        news=[news(said) for name in ROOMS for said in remembered(name).values()],
    )


# A message names its room, because it may have waited for a connection while its author
# moved to another one. A message that is sent twice is published once, as long as the room
# remembers it.
@chat.on("say")
async def say(socket: Socket[Visitor], data: Say) -> Said:
    room = await go(socket, data.room)
    known: dict[str, Said] = room.state.said
    if data.id not in known:
        known[data.id] = said = Said(data.id, data.room, socket.state.member, data.text)
        if len(known) > KEPT:
            del known[next(iter(known))]
        await room.emit("said", said)
        await app.everyone.emit("news", news(said))
    return known[data.id]


# An event without a reply: it is not stored, and losing one does no harm.
@chat.on("typing")
async def typing(socket: Socket[Visitor]) -> None:
    name = socket.state.room
    if name is not None:
        await app.room(f"chat:{name}").emit("typing", Seen(name, socket.state.member), exclude=socket)


def remembered(name: RoomName) -> dict[str, Said]:
    """Return the recent messages of a room by id, oldest first."""
    talk: Talk | None = app.room(f"chat:{name}").state
    return talk.said if talk is not None else {}


def news(said: Said) -> News:
    return News(said.id, said.room, said.member.id, said.at)


def present(room: Room, *, without: Socket[Visitor] | None = None) -> dict[str, Member]:
    """Return the members of a room by id; one member may have several sockets."""
    members = [socket.state.member for socket in room.sockets if socket is not without]
    return {member.id: member for member in members}


# A page may reconnect before the server notices that its old connection is lost. For a moment
# it has two sockets then, and the other members must not see it join or leave.


@rooms.on_join
async def joined(socket: Socket[Visitor], room: Room, name: str) -> None:
    me = socket.state.member
    if me.id not in present(room, without=socket):
        await room.emit("joined", Seen(name, me), exclude=socket)
        await tell_counts()


# A socket leaves when the app calls `socket.leave`, and also when it disconnects.
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
