"""A chat with rooms, and the page to use it, on one port.

Start it with `make demo` or `symphony run examples/demo/app.py`. Then open
http://127.0.0.1:8080 in two tabs. With `--workers 2`, two processes serve it.
"""

import os
import secrets
import time
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, convert, field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from symphony import Handshake, History, Identity, Member, Reject, Room, Socket, Symphony

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


class Person(Struct):
    id: str
    name: str


class Said(Struct):
    id: str
    room: RoomName
    member: Person
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
    members: list[Person]
    said: list[Said]
    news: list[News]
    at: float = field(default_factory=time.time)


class Seen(Struct):
    """A member joined, left, or is typing."""

    room: str
    member: Person


class Visitor:
    """The state of one socket, `socket.state`."""

    def __init__(self) -> None:
        self.room: RoomName | None = None


chat = app.route("/chat", state=Visitor)

# A room keeps its last messages for a day, also while it is empty. A page that was offline gets
# what it has missed. A user whose page is reloaded stays a member, and the others notice nothing.
# Both are the same in all processes of a server with workers.
rooms = app.rooms("chat:{name}", history=History(KEPT, ttl=86400), grace=5)


# `name` comes from the query string. The token is a secret of the page, which sends the same
# one each time it reconnects. The id that is derived from it is public.
@chat.on_connect
async def connect(
    socket: Socket[Visitor], handshake: Handshake, name: Annotated[str, Meta(max_length=24, pattern=r"\S")]
) -> None:
    token = handshake.token or secrets.token_hex(16)
    socket.login(Identity(blake2b(token.encode(), digest_size=8).hexdigest(), {"name": name}))


def person(user: Identity) -> Person:
    return Person(user.id, user.info["name"])


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
async def enter(socket: Socket[Visitor], user: Identity, name: RoomName) -> Entered:
    room = await go(socket, name)
    return Entered(
        you=user.id,
        members=[person(member.user) for member in await room.presence() if member.user is not None],
        said=await remembered(name),
        news=[news(said) for name in ROOMS for said in await remembered(name)],
    )


# A message names its room, because it may have waited for a connection while its author
# moved to another one. A message that is sent twice is published once: its id is the key.
@chat.on("say")
async def say(socket: Socket[Visitor], user: Identity, data: Say) -> Said:
    room = await go(socket, data.room)
    said = Said(data.id, data.room, person(user), data.text)
    try:
        await room.emit("said", said, key=data.id)
    except Reject as refusal:
        # It was published already, at another time.
        if refusal.code != "conflict":
            raise
        return next((known for known in await remembered(data.room) if known.id == data.id), said)
    await app.everyone.emit("news", news(said))
    return said


# An event without a reply: it is not kept, and losing one does no harm.
@chat.on("typing")
async def typing(socket: Socket[Visitor], user: Identity) -> None:
    name = socket.state.room
    if name is not None:
        seen = Seen(name, person(user))
        await app.room(f"chat:{name}").emit("typing", seen, exclude=socket, transient=True)


async def remembered(name: RoomName) -> list[Said]:
    """Return the recent messages of a room, oldest first."""
    history = await app.room(f"chat:{name}").history(KEPT)
    return [convert(publication.data, Said) for publication in history]


def news(said: Said) -> News:
    return News(said.id, said.room, said.member.id, said.at)


# These run once for each visit, whatever the number of connections: a page may reconnect before
# the server notices that its old connection is lost.


@rooms.on_arrive
async def arrived(socket: Socket[Visitor], room: Room, name: str, member: Member) -> None:
    if member.user is not None:
        await room.emit("joined", Seen(name, person(member.user)), exclude=socket, transient=True)
        await tell_counts()


@rooms.on_depart
async def departed(room: Room, name: str, member: Member) -> None:
    if member.user is not None:
        await room.emit("left", Seen(name, person(member.user)), transient=True)
        await tell_counts()


async def tell_counts() -> None:
    await app.everyone.emit("counts", {name: await app.room(f"chat:{name}").count() for name in ROOMS})


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
