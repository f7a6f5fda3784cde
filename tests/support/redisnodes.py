"""Two nodes of one app, which share a Redis."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import symphony
from support.process import Running, launch

__all__ = ("APP", "client", "nodes")

APP = """
import os

from symphony import Identity, Limits, Socket, Symphony

app = Symphony(limits=Limits(drain_time=0.2, finish_timeout=1, notice_time=None, publish_timeout=10))
chat = app.route("/")
kept = app.rooms("kept:{name}", history=100_000, client_join=True)
app.rooms("seats:{name}", client_join=True, presence=True, max_members=2, grace=5.0)
app.rooms("game:{name}", client_join=True, state=dict)

@kept.on_publish("posted")
async def may_post(data: int) -> None: ...

@chat.on("where")
async def where() -> int:
    return os.getpid()

@chat.on("login")
async def login(socket: Socket, data: str) -> None:
    socket.login(Identity(data))

@chat.on("tell")
async def tell(data: list[str]) -> None:
    await app.user(data[0]).emit("told", data[1])

@chat.on("count")
async def count(data: str) -> int:
    return await app.user(data).count()

@chat.on("revoke")
async def revoke(data: str) -> None:
    await app.user(data).revoke()
"""


@asynccontextmanager
async def nodes(folder: Path, url: str, count: int = 2, *, app: str = APP) -> AsyncIterator[list[Running]]:
    """Run servers that share a broker, as if each were on its own machine."""
    file = folder / "nodes_app.py"
    file.write_text(app)
    command = (sys.executable, "-W", "error", "-m", "symphony", "run", str(file), "--port", "0")
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(launch(*command, "--broker", url)) for _ in range(count)]


def client(node: Running) -> symphony.Client:
    """Return a client of a node that comes back soon."""
    return symphony.connect(f"{node.url}/", backoff=0.1, max_backoff=0.5)
