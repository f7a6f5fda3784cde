"""History: a chat whose members miss nothing when their network fails for a moment.

Run it with `python examples/ws/history.py`, and connect twice with
`symphony connect "ws://127.0.0.1:8080/?user=alice"` and the same as `bob`.
"""

import os
from dataclasses import dataclass
from typing import Any

from symphony import History, Room, Socket, Symphony

app = Symphony()


@dataclass
class Person:
    """The state of one connection, available as `socket.state`."""

    name: str = ""


# Clients that connect join this room.
chat = app.route("/", state=Person, room="chat:lobby")

# Each room keeps its last 100 lines for an hour, also while nobody is in it. Clients may
# join these rooms on their own: `await client.join("chat:lobby", since="start")`.
app.rooms("chat:{name}", history=History(100, ttl=3600), client_join=True)


# Both clients remember how far they have read. After a reconnect they get the rest, and
# their handlers are called once for each line, in order. Nothing here has to care.
@chat.on_connect
async def enter(socket: Socket[Person], user: str) -> None:
    socket.state.name = user


# The position is the number of the line in its room. The sender hears its own line, too,
# so every member sees the lines in the same order.
@chat.on("say")
async def say(socket: Socket[Person], room: Room, text: str) -> int:
    position = await room.emit("said", {"by": socket.state.name, "text": text})
    return position.offset if position is not None else 0


# What is soon out of date is not kept, and may leave out the sender.
@chat.on("typing")
async def typing(socket: Socket[Person], room: Room) -> None:
    await room.emit("typing", socket.state.name, exclude=socket, transient=True)


# The last lines, for a client that begins. A page can ask for earlier ones with a position.
@chat.on("lines")
async def lines(room: Room, count: int) -> list[Any]:
    return [line.data for line in await room.history(min(max(count, 1), 100))]


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
