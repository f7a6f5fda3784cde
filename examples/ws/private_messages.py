"""Private messages: they reach all devices of a user, also one that is away for a minute.

Run it with `python examples/ws/private_messages.py`, and connect twice with
`symphony connect "ws://127.0.0.1:8080/?user=alice"` and the same as `bob`.
"""

import os
from dataclasses import dataclass
from typing import Any

from symphony import History, Identity, Socket, Symphony

app = Symphony()

# `app.user("bob")` is all connections of bob. They are in the room `user:bob`, so this gives
# every user a history: a client that lost its connection gets what it has missed when it is
# back. Messages are kept for an hour, also while bob is not connected at all.
app.rooms("user:{id}", history=History(100, ttl=3600))


@dataclass
class Letter:
    sender: str
    to: str
    text: str


# Replace this with your authentication. Only a login lets a connection into the user's room:
# clients cannot join it by its name.
@app.on_connect
async def sign_in(socket: Socket, user: str) -> None:
    socket.login(Identity(user))


# `emit` returns when the message is kept. The sender's own devices get a copy, so that a
# conversation looks the same on each of them.
@app.on("tell.{to}")
async def tell(user: Identity, to: str, text: str) -> None:
    letter = Letter(user.id, to, text)
    await app.user(to).emit("letter", letter)
    if to != user.id:
        await app.user(user.id).emit("letter", letter)


# A device that begins, or a page that was loaded again, asks for the last messages.
@app.on("letters")
async def letters(user: Identity, count: int) -> list[Any]:
    kept = await app.user(user.id).history(min(max(count, 1), 100))
    return [letter.data for letter in kept if letter.event == "letter"]


# "bob is typing": not kept, since it is soon out of date.
@app.on("typing.{to}")
async def typing(user: Identity, to: str) -> None:
    await app.user(to).emit("typing", user.id, transient=True)


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
