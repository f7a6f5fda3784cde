"""Rooms: clients that connect to `/rooms/NAME` chat with each other.

Run it with `python examples/ws/rooms.py`, and connect twice, with
`wscat -c "ws://127.0.0.1:8080/rooms/lobby?user=alice"` and the same as `bob`.
"""

import os
from dataclasses import dataclass

from symphony import Room, Socket, Symphony

app = Symphony()


@dataclass
class Person:
    """The state of one connection, available as `socket.state`."""

    name: str = ""


chat = app.route("/rooms/{name}", state=Person)

# All rooms whose names match this pattern share the hooks below. `:path` matches the rest
# of the name, so the name may contain a `:`.
rooms = app.rooms("chat:{name:path}")


def present(room: Room) -> list[str]:
    """Return the names of the members of a room, in the order of joining."""
    return [socket.state.name for socket in room.sockets]


# `name` comes from the path. `user` is not in the path, so it is read from the query
# string. A client without it is refused with HTTP 400.
@chat.on_connect
async def enter(socket: Socket[Person], name: str, user: str) -> None:
    socket.state.name = user
    await socket.join(f"chat:{name}")


# `room.send` sends to all members of the room, except the sockets in `exclude`.
@chat.on_message
async def say(socket: Socket[Person], name: str, message: str) -> list[str] | None:
    room = app.room(f"chat:{name}")
    if message == "/who":
        return present(room)
    await room.send(f"{socket.state.name}: {message}", exclude=socket)
    return None


# Presence: the new member receives the list of members, and the others receive its name.
@rooms.on_join
async def joined(socket: Socket[Person], room: Room) -> None:
    await socket.send({"present": present(room)})
    await room.send({"joined": socket.state.name}, exclude=socket)


# A socket leaves its rooms automatically when it disconnects.
@rooms.on_leave
async def left(socket: Socket[Person], room: Room) -> None:
    await room.send({"left": socket.state.name})


# Cleanup: the room is removed after its last member has left. If you store data for a
# room elsewhere, such as in a dict or a database, clean it up here.
@rooms.on_empty
async def empty(room: Room) -> None:
    print(f"{room.name} is empty", flush=True)


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
