"""Rooms with a history, for `symphony run --workers`."""

import os

from symphony import Socket, Symphony

app = Symphony()
feed = app.route("/{name}")
app.rooms("bench:{name}", history=100)


@feed.on_connect
async def enter(socket: Socket, name: str) -> None:
    await socket.join(f"bench:{name}")
    await socket.send(str(os.getpid()))


@feed.on_message
async def publish(message: str, name: str) -> None:
    await app.room(f"bench:{name}").send(message)
