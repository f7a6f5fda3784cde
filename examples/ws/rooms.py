"""Rooms: whoever connects to `/rooms/NAME` talks with all others in that room.

Run it with `python examples/ws/rooms.py`, and connect twice, with
`wscat -c "ws://127.0.0.1:8080/rooms/lobby?user=alice"` and the same as `bob`.
"""

import os
from dataclasses import dataclass

from symphony import Room, Socket, Symphony

app = Symphony()


@dataclass
class Person:
    """What is remembered of one connection: `socket.state`."""

    name: str = ""


chat = app.route("/rooms/{name}", state=Person)

# The rooms of one kind share a name pattern, and what happens in them. `:path` takes
# all that is left, so that the name of a room may have a `:` in it.
rooms = app.rooms("chat:{name:path}")


def present(room: Room) -> list[str]:
    """Return the names of those who are in a room, in the order they came."""
    return [socket.state.name for socket in room.sockets]


# `name` is the part of the path with that name. `user` is not in the path, so it is
# read from the query string; without it the client is refused with HTTP 400.
@chat.on_connect
async def enter(socket: Socket[Person], name: str, user: str) -> None:
    socket.state.name = user
    await socket.join(f"chat:{name}")


# To a room, `send` reaches everybody in it, except whom `exclude` names.
@chat.on_message
async def say(socket: Socket[Person], name: str, message: str) -> list[str] | None:
    room = app.room(f"chat:{name}")
    if message == "/who":
        return present(room)
    await room.send(f"{socket.state.name}: {message}", exclude=socket)
    return None


# Presence: who comes is told who is there, and the others who came.
@rooms.on_join
async def joined(socket: Socket[Person], room: Room) -> None:
    await socket.send({"present": present(room)})
    await room.send({"joined": socket.state.name}, exclude=socket)


# A socket leaves its rooms by itself when it disconnects, however that happens.
@rooms.on_leave
async def left(socket: Socket[Person], room: Room) -> None:
    await room.send({"left": socket.state.name})


# Cleanup: the room is gone when its last member has left. What you keep for a room
# elsewhere, in a dict or a database, is put away here.
@rooms.on_empty
async def empty(room: Room) -> None:
    print(f"{room.name} is empty", flush=True)


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
