"""The server that the faults happen to, in a process of its own.

Whatever a handler is called for goes into the journal, a file, before the
handler does anything: a killed server cannot be asked, and has lost nothing of it.
"""

import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from symphony import Limits, Reject, Socket, Symphony

FOLDER = Path(os.environ["FOLDER"])
LIFE = int(os.environ["LIFE"])

app = Symphony(limits=Limits(retry_after=float(os.environ["RETRY"]), finish_timeout=0.3, drain_time=0.1))
journal = os.open(FOLDER / "journal", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
root = app.route("/")
names: dict[str, str] = {}
numbers = itertools.count(1)


def note(what: str, by: Socket, data: Any = None) -> None:
    """Write down a line, in one piece."""
    name = names.get(by.id)
    line = {"what": what, "by": name, "data": data, "at": time.time()}
    os.write(journal, json.dumps(line).encode() + b"\n")


def told(name: str) -> str | None:
    """Return what the test has left for the server to read."""
    file = FOLDER / name
    return file.read_text() if file.exists() else None


@app.on_connect
async def enter(socket: Socket) -> None:
    names[socket.id] = f"{LIFE}.{next(numbers)}"
    note("connect", socket, socket.handshake.token)
    if (code := told("refuse")) is not None:
        raise Reject(code, "by order")
    if (token := told("token")) is not None and token != socket.handshake.token:
        raise Reject("unauthorized", "the token is old")


@app.on_disconnect
async def leave(socket: Socket) -> None:
    note("left", socket)


@root.on("say")
async def say(socket: Socket, data: int) -> None:
    note("say", socket, data)


@root.on("upload")
async def upload(socket: Socket, data: str) -> None:
    note("upload", socket, len(data))


@root.on("ask")
async def ask(socket: Socket, data: int) -> int:
    note("ask", socket, data)
    return data


@root.on("greet")
async def greet(socket: Socket, data: int) -> str:
    """Say something to the client, ask it something, and tell what it answered."""
    note("greet", socket, data)
    await socket.emit("greeted", data)
    return await socket.request("name", timeout=5, response_type=str)


@root.on("count")
async def count(socket: Socket, data: int) -> AsyncIterator[int]:
    """Give so many items; in the first life of the server without an end."""
    note("count", socket, data)
    for n in range(data):
        yield n
    await once_more()


# Beside each other, so that one that is held does not keep the next one waiting.
beside = app.route("/beside", concurrency=8)


@beside.on("hold")
async def hold(socket: Socket, data: int) -> int:
    """Answer in a later life of the server only."""
    note("hold", socket, data)
    await once_more()
    return data


async def once_more() -> None:
    """Wait for ever in the first life."""
    if LIFE == 1:
        await asyncio.Event().wait()


app.run(port=int(os.environ["PORT"]), log_level="error")
