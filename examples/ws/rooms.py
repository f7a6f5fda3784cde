"""Rooms: clients that connect to `/rooms/NAME` chat with each other.

Run it with `python examples/ws/rooms.py`, and connect twice, with
`symphony connect "ws://127.0.0.1:8080/rooms/lobby?user=alice"` and the same as `bob`.
"""

import os

from symphony import Identity, Member, Room, Socket, Symphony

app = Symphony()
chat = app.route("/rooms/{name}")

# All rooms whose names match this pattern share these options and the hooks below. `:path`
# matches the rest of the name, so the name may contain a `:`.
#
# - `history=100`: a room keeps its last 100 lines. A client that was offline gets what it has
#   missed, and `client.join(name, since="start")` gets all of them.
# - `presence=True`: clients are told who is in the room. `grace=10`: a user who reloads the page
#   stays in it, and the others notice nothing.
# - `client_join=True`: clients may join with `client.join`.
rooms = app.rooms("chat:{name:path}", history=100, presence=True, grace=10, client_join=True)


# `name` comes from the path. `user` is not in the path, so it is read from the query
# string. A client without it is refused with HTTP 400.
@chat.on_connect
async def enter(socket: Socket, name: str, user: str) -> None:
    socket.login(Identity(user))
    await socket.join(f"chat:{name}")


# `room.emit` sends an event to all members of the room. The sender hears its own line, too, so
# everybody sees the lines in the same order.
@chat.on("say")
async def say(user: Identity, name: str, text: str) -> None:
    await app.room(f"chat:{name}").emit("said", {"by": user.id, "text": text})


# What is soon out of date is not kept in the history, and may leave out the sender.
@chat.on("typing")
async def typing(socket: Socket, user: Identity, name: str) -> None:
    await app.room(f"chat:{name}").emit("typing", user.id, exclude=socket, transient=True)


# A member is a user, whatever the number of their tabs, in whatever process.
@chat.on("who")
async def who(name: str) -> list[str]:
    return [member.id for member in await app.room(f"chat:{name}").presence()]


# These run once for each visit: when the first tab has joined, and after the last one has left.
# A socket leaves its rooms automatically when it disconnects.
@rooms.on_arrive
async def joined(room: Room, member: Member) -> None:
    await room.emit("joined", member.id, transient=True)


@rooms.on_depart
async def left(room: Room, member: Member) -> None:
    await room.emit("left", member.id, transient=True)


# Cleanup: the room is removed after its last member has left, while its history stays. If you
# store data for a room elsewhere, such as in a dict or a database, clean it up here.
@rooms.on_empty
async def empty(room: Room) -> None:
    print(f"{room.name} is empty", flush=True)


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
