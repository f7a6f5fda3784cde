"""The server for the clients in this folder: a chat, polls, and a poem.

Run it with `python examples/clients/app.py`, and connect with any of the clients
in this folder. The browser client is at http://127.0.0.1:8080.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from symphony import DisconnectedError, RemoteError, RequestTimeoutError, Room, Socket, Symphony


async def page(request: Request) -> FileResponse:
    return FileResponse(Path(__file__).with_name("browser.html"))


app = Symphony(http=Starlette(routes=[Route("/", page)]))


@dataclass
class Person:
    """The state of one connection, available as `socket.state`."""

    name: str = ""


@dataclass
class Say:
    text: Annotated[str, Meta(min_length=1, max_length=1000)]


@dataclass
class Said:
    name: str
    text: str


@dataclass
class Poll:
    question: str
    options: Annotated[list[str], Meta(min_length=2, max_length=9)]


POEM = """Tyger Tyger, burning bright,
In the forests of the night;
What immortal hand or eye,
Could frame thy fearful symmetry?""".splitlines()

# Clients that connect join the room `chat`.
chat = app.route("/chat", state=Person, room="chat")


@chat.on_connect
async def enter(socket: Socket[Person], name: str) -> None:
    socket.state.name = name


# An event without an answer. The message is sent to everyone as the event `said`.
@chat.on("say")
async def say(socket: Socket[Person], room: Room, data: Say) -> None:
    await room.emit("said", Said(socket.state.name, data.text))


# A request. The return value is the reply.
@chat.on("who")
async def who(room: Room) -> list[str]:
    return [socket.state.name for socket in room.sockets]


# A request that needs other requests: the server asks all clients, even the client that
# waits for this reply.
@chat.on("poll")
async def poll(room: Room, data: Poll) -> dict[str, int]:
    votes = await asyncio.gather(*(vote(socket, data) for socket in room.sockets))
    return Counter(choice for choice in votes if choice in data.options)


async def vote(socket: Socket[Person], poll: Poll) -> str | None:
    try:
        return await socket.request("vote", poll, timeout=5, response_type=str)
    except (RequestTimeoutError, RemoteError, DisconnectedError):
        return None  # The client was too slow, has no handler, or has disconnected.


# A stream of lines. It ends with the poem, or when the client stops reading.
@chat.on("recite")
async def recite() -> AsyncIterator[str]:
    for line in POEM:
        await asyncio.sleep(0.5)
        yield line


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
