"""The server that the faults happen to, each life of it in a process of its own.

What starts is a process that has imported everything, and forks: a server is
there in some milliseconds then, and a test can have it die as often as it likes.
Commands come on standard input, a line each: what to live with, or for whose
end to wait.

Whatever a handler is called for goes into the journal, a file, before the
handler does anything: a killed server cannot be asked, and has lost nothing of it.
"""

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

from symphony import Limits, Reject, Socket, Symphony

app = Symphony()
root = app.route("/")
# Beside each other, so that one that is held does not keep the next one waiting.
beside = app.route("/beside", concurrency=8)
names: dict[str, str] = {}
numbers = itertools.count(1)

# Those of one life.
folder: Path
life: int
journal: int


def note(what: str, by: Socket, data: Any = None) -> None:
    """Write down a line, in one piece."""
    line = {"what": what, "by": names.get(by.id), "data": data, "at": time.time()}
    os.write(journal, json.dumps(line).encode() + b"\n")


def told(name: str) -> str | None:
    """Return what the test has left for the server to read."""
    file = folder / name
    return file.read_text() if file.exists() else None


@app.on_connect
async def enter(socket: Socket) -> None:
    names[socket.id] = f"{life}.{next(numbers)}"
    note("connect", socket, socket.handshake.token)
    if (code := told("refuse")) is not None:
        raise Reject(code, "by order")
    if (token := told("token")) is not None and token != socket.handshake.token:
        raise Reject("unauthorized", "the token is old")


@app.on_disconnect
async def leave(socket: Socket) -> None:
    note("left", socket)


@root.on("say")
@beside.on("say")
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


@beside.on("hold")
async def hold(socket: Socket, data: int) -> int:
    """Answer in a later life of the server only."""
    note("hold", socket, data)
    await once_more()
    return data


@beside.on("tick")
async def tick(socket: Socket, data: int) -> AsyncIterator[int]:
    """Do as `count` does."""
    note("tick", socket, data)
    for n in range(data):
        yield n
    await once_more()


async def once_more() -> None:
    """Wait for ever in the first life."""
    if life == 1:
        await asyncio.Event().wait()


def live(given: dict[str, Any]) -> NoReturn:
    """Be a server, and then no more."""
    global folder, life, journal
    folder, life = Path(given["folder"]), given["life"]
    journal = os.open(folder / "journal", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    app.limits = Limits(retry_after=given["retry"], finish_timeout=0.3, notice_time=None, drain_time=0.1)
    print(os.getpid(), flush=True)
    try:
        app.run(port=given["port"], log_level="error")
    finally:
        os._exit(0 if sys.exc_info()[0] is None else 1)


def main() -> None:
    alive: set[int] = set()
    for line in sys.stdin:
        command = json.loads(line)
        if "wait" in command:
            pid, status = os.waitpid(command["wait"], 0)
            alive.discard(pid)
            print(os.waitstatus_to_exitcode(status), flush=True)
        elif pid := os.fork():
            alive.add(pid)
        else:
            live(command)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
