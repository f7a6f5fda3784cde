"""Presence: who is here, who is away for a moment, and who has gone.

Run it with `python examples/ws/presence.py`, and connect twice with
`symphony connect "ws://127.0.0.1:8080/?user=alice"` and the same as `bob`.
"""

import os
from dataclasses import dataclass
from typing import Literal

from symphony import Identity, Member, Room, Socket, Symphony

app = Symphony()
office = app.route("/")

# A user is one member, whatever the number of their tabs. A user whose connection is lost,
# for example because they reload the page, stays a member for 10 more seconds. With
# `presence=True`, clients are told who is in the room: `room.presence` in the client.
rooms = app.rooms("office:{name}", presence=True, grace=10, client_join=True)

Status = Literal["free", "busy"]


@dataclass
class Seen:
    name: str
    where: Literal["here", "away"]
    status: Status


# `Identity.info` is what the others see of a user.
@office.on_connect
async def enter(socket: Socket, user: str) -> None:
    socket.login(Identity(user, {"status": "free"}))
    await socket.join("office:main")


# `on_arrive` runs for the first connection of a user, and `on_depart` after the last: at once
# if the user has left, or when the 10 seconds are over. A reload runs neither of them.
@rooms.on_arrive
async def arrived(room: Room, member: Member) -> None:
    await room.emit("arrived", member.id)


@rooms.on_depart
async def departed(room: Room, member: Member) -> None:
    await room.emit("departed", member.id)


# These two are for a dot beside the name: grey while a user has no connection.
@rooms.on_away
async def away(room: Room, member: Member) -> None:
    await room.emit("away", member.id)


@rooms.on_back
async def back(room: Room, member: Member) -> None:
    await room.emit("back", member.id)


# A login with the same id replaces the info, and the others are told.
@office.on("status")
async def set_status(socket: Socket, user: Identity, status: Status) -> None:
    socket.login(Identity(user.id, {"status": status}))


# The members in all processes, in the order of their arrival.
@office.on("who")
async def who() -> list[Seen]:
    return [
        Seen(member.id, "away" if member.away else "here", member.user.info["status"])
        for member in await app.room("office:main").presence()
        if member.user is not None
    ]


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
