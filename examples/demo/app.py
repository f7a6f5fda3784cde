"""A chat with rooms, and the page to use it, on one port.

Run it with `make demo` or `symphony run examples/demo/app.py`, and open
http://127.0.0.1:8080 in two tabs.
"""

import os
import secrets
import time
from collections import deque
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from symphony import Room, Socket, Symphony

PAGE = Path(__file__).with_name("index.html")

RoomName = Literal["lobby", "kitchen", "garden", "library"]
ROOMS: tuple[RoomName, ...] = ("lobby", "kitchen", "garden", "library")


async def page(request: Request) -> FileResponse:
    return FileResponse(PAGE, headers={"Cache-Control": "no-cache"})


# One port for both: plain HTTP goes to any ASGI app, WebSockets to the routes below.
app = Symphony(http=Starlette(routes=[Route("/", page)]))


# What the browser sends. `type` tells which of them a message is; one that fits none
# never reaches the handler: its sender is told what is wrong with it.


class Say(Struct, tag="say"):
    text: Annotated[str, Meta(max_length=1000, pattern=r"\S")]


class Go(Struct, tag="go"):
    room: RoomName


# What it gets.


class Member(Struct):
    id: str
    name: str


class Said(Struct, tag="said"):
    member: Member
    text: str
    at: float = field(default_factory=time.time)


class Entered(Struct, tag="entered"):
    """To who came: where it is, who is there, and what was said lately."""

    room: RoomName
    you: str
    members: list[Member]
    said: list[Said]


class Joined(Struct, tag="joined"):
    """To the others in the room."""

    member: Member


class Left(Struct, tag="left"):
    """To those who stay."""

    member: Member


class Counts(Struct, tag="counts"):
    """To everyone: how many are where."""

    rooms: dict[RoomName, int]


class Visitor:
    """The state of a socket: `socket.state`."""

    def __init__(self) -> None:
        # Never the socket's own id, which is a secret between it and the server.
        self.member = Member(id=secrets.token_hex(4), name="")
        self.room: RoomName = "lobby"


class Talk:
    """The state of a room: `room.state`."""

    def __init__(self) -> None:
        self.said: deque[Said] = deque(maxlen=50)


chat = app.route("/chat", state=Visitor)
# An empty room keeps its state for ten minutes.
rooms = app.rooms("chat:{name}", state=Talk, linger=600)


# `name` and `room` are not in the path, so they come from the query string, and a
# request whose values do not fit these types is refused with HTTP 400.
@chat.on_connect
async def enter(
    socket: Socket[Visitor],
    name: Annotated[str, Meta(max_length=24, pattern=r"\S")],
    room: RoomName = "lobby",
) -> None:
    socket.state.member.name = name
    socket.state.room = room
    await socket.join(f"chat:{room}")


@chat.on_message
async def act(socket: Socket[Visitor], command: Say | Go) -> None:
    here = socket.state.room
    match command:
        case Say(text):
            room = app.room(f"chat:{here}")
            said = Said(socket.state.member, text)
            room.state.said.append(said)
            await room.send(said)
        case Go(there) if there != here:
            await socket.leave(f"chat:{here}")
            socket.state.room = there
            await socket.join(f"chat:{there}")


@rooms.on_join
async def joined(socket: Socket[Visitor], room: Room) -> None:
    me = socket.state.member
    members = [other.state.member for other in room.sockets]
    await socket.send(Entered(socket.state.room, me.id, members, list(room.state.said)))
    await room.send(Joined(me), exclude=socket)
    await tell_counts()


# A socket leaves by `socket.leave` or, however it goes, by disconnecting.
@rooms.on_leave
async def left(socket: Socket[Visitor], room: Room) -> None:
    await room.send(Left(socket.state.member))
    await tell_counts()


async def tell_counts() -> None:
    await app.everyone.send(Counts({name: await app.room(f"chat:{name}").count() for name in ROOMS}))


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
