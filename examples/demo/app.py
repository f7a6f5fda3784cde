"""A chat with rooms, and the page to use it, on one port.

Start it with `make demo` or `symphony run examples/demo/app.py`. Then open
http://127.0.0.1:8080 in two tabs. With `--workers 2`, two processes serve it.
"""

import os
import secrets
import time
from hashlib import blake2b
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from symphony import Handshake, History, Identity, Socket, Symphony

PAGE = Path(__file__).with_name("index.html")
MARK = Path(__file__).parents[2] / "docs" / "assets" / "mark.svg"
ROOMS = ("lobby", "kitchen", "garden", "library")


async def page(request: Request) -> FileResponse:
    return FileResponse(PAGE, headers={"Cache-Control": "no-cache"})


async def mark(request: Request) -> FileResponse:
    return FileResponse(MARK)


# One port serves everything. Plain HTTP goes to an ASGI app, here Starlette, and WebSockets
# go to the route below. Symphony itself serves the JavaScript client that the page imports,
# at `/_symphony/client.js`.
app = Symphony(http=Starlette(routes=[Route("/", page), Route("/mark.svg", mark)]))
chat = app.route("/chat")

# Each room of the page is two rooms here. What is said in the kitchen is published to
# `chat:kitchen`, which keeps its last messages for a day, also while it is empty. A page that was
# loaded again shows them, and one that was offline gets what it has missed. Each page is in all
# of these rooms, and counts what is unread.
talks = app.rooms("chat:{name}", history=History(50, ttl=86400))
# The users who have opened the kitchen are in `here:kitchen`, and each of their pages shows the
# list. A user who reloads the page stays in it.
places = app.rooms("here:{name}", presence=True, grace=5)


class Say(Struct):
    """A message from a page, which knows it by its id when it hears it."""

    id: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
    text: Annotated[str, Meta(max_length=1000, pattern=r"\S")]


class Person(Struct):
    id: str
    name: str


class Said(Struct):
    """What the pages get for a `Say`."""

    id: str
    member: Person
    text: str
    at: float = field(default_factory=time.time)


class Me(Struct):
    """Who a page is, and the time of the server."""

    id: str
    at: float = field(default_factory=time.time)


# `name` comes from the query string. The token is a secret of the page, which sends the same
# one each time it reconnects. The id that is derived from it is public.
@chat.on_connect
async def connect(
    socket: Socket, handshake: Handshake, name: Annotated[str, Meta(max_length=24, pattern=r"\S")]
) -> None:
    token = handshake.token or secrets.token_hex(16)
    socket.login(Identity(blake2b(token.encode(), digest_size=8).hexdigest(), {"name": name}))


@chat.on("me")
async def me(user: Identity) -> Me:
    return Me(user.id)


# Clients may join the rooms for which this returns `True`.
@talks.authorize
@places.authorize
async def exists(name: str) -> bool:
    return name in ROOMS


def person(user: Identity) -> Person:
    return Person(user.id, user.info["name"])


# Pages publish with `room.emit`. Symphony checks the data, and publishes what this returns. A
# page that has lost its connection repeats what was not acknowledged, with the same key, and
# it is published once.
@talks.on_publish("said")
async def said(user: Identity, data: Say) -> Said:
    return Said(data.id, person(user), data.text)


@places.on_publish("typing")
async def typing(user: Identity) -> Person:
    return person(user)


# These run once for each visit, whatever the number of connections, in all processes.
@places.on_arrive
@places.on_back
@places.on_depart
async def tell_counts() -> None:
    await app.everyone.emit("counts", {name: await app.room(f"here:{name}").count() for name in ROOMS})


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
