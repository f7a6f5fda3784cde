"""Users and sockets of two workers: each worker reaches those of the other."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import symphony
from support.fleets import Fleet, workers
from support.sizes import size

pytestmark = pytest.mark.timeout(size(60, full=240))

APP = """
import os

from symphony import CallNext, Identity, Limits, Socket, Symphony

app = Symphony(limits=Limits(drain_time=0.2, finish_timeout=1))
app.rooms("team:{name}", client_join=True)
chat = app.route("/chat/{user}")
game = app.route("/game/{user}", per_user=1)

@app.middleware("connect")
async def sign_in(socket: Socket, call_next: CallNext) -> None:
    socket.login(Identity(socket.params["user"]))
    await call_next(socket)

@app.on("where")
async def where(socket: Socket) -> tuple[int, str]:
    return os.getpid(), socket.id

@app.on("tell.{who}")
async def tell(who: str, data: str) -> None:
    await app.user(who).emit("told", data)

@app.on("count.{who}")
async def count(who: str) -> int:
    return await app.user(who).count()

@app.on("ask.{who}")
async def ask(who: str) -> list:
    return await app.user(who).request("which", policy="all", timeout=30)

@app.on("ask_socket")
async def ask_socket(data: str) -> object:
    return await app.socket(data).request("which", timeout=30)

@app.on("announce")
async def announce(data: str) -> None:
    await chat.everyone.emit("told", data)

@app.on("end.{room}")
async def end(room: str) -> None:
    await app.room(f"team:{room}").close(4000, "over")

@app.on("kick.{who}")
async def kick(who: str) -> None:
    await app.user(who).close(4403, "signed out")
"""


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    file = tmp_path / "users_app.py"
    file.write_text(APP)
    async with workers(file, 2) as fleet:
        yield fleet


class Connected:
    """A client, and what it heard."""

    def __init__(self, client: symphony.Client) -> None:
        self.client = client
        self.pid = 0
        self.id = ""
        self.told: asyncio.Queue[str] = asyncio.Queue()
        client.on("told")(self.told.put_nowait)

    def answers_which(self) -> None:
        @self.client.on("which")
        async def which() -> int:
            return self.pid


async def connected(fleet: Fleet, path: str, *, pid: int | None = None) -> Connected:
    """Connect to one of the workers."""
    while True:
        one = Connected(symphony.connect(f"{fleet.url}{path}", backoff=0.1))
        await one.client
        one.pid, one.id = await one.client.request("where", response_type=tuple[int, str])
        if pid in (None, one.pid):
            return one
        await one.client.close()


async def closed(one: Connected) -> int:
    return (await one.client.wait_closed()).code


async def counted(by: Connected, count: int) -> None:
    """Wait for the number of ann's sockets. A worker notices the end of a connection a moment later."""
    async with asyncio.timeout(20):
        while await by.client.request("count.ann") != count:
            continue


async def test_each_worker_reaches_the_users_and_sockets_of_the_other(fleet: Fleet) -> None:
    first, second = fleet.first
    ann, also_ann = [await connected(fleet, "/chat/ann", pid=pid) for pid in fleet.first]
    bob = await connected(fleet, "/chat/bob", pid=second)
    for one in (ann, also_ann):
        one.answers_which()
    await bob.client.request("tell.ann", "hello")
    assert [await one.told.get() for one in (ann, also_ann)] == ["hello"] * 2
    await ann.client.request("announce", "to all")
    assert [await one.told.get() for one in (ann, also_ann, bob)] == ["to all"] * 3
    assert await bob.client.request("count.ann") == 2
    # Those of the worker that asks come first.
    assert await bob.client.request("ask.ann") == [second, first]
    assert await bob.client.request("ask_socket", ann.id) == first
    rooms = [await one.client.join("team:red") for one in (ann, bob)]
    ends: asyncio.Queue[Any] = asyncio.Queue()
    for room in rooms:
        room.on_left(lambda left: ends.put_nowait(left))
    await ann.client.request("end.red")
    for _ in rooms:
        await ends.get()
    await bob.client.request("kick.ann")
    assert [await closed(one) for one in (ann, also_ann)] == [4403] * 2
    await counted(bob, 0)
    await bob.client.close()


async def test_a_user_has_one_socket_and_a_killed_worker_locks_nobody_out(fleet: Fleet) -> None:
    first, second = fleet.first
    one = await connected(fleet, "/game/ann", pid=first)
    bob = await connected(fleet, "/chat/bob", pid=second)
    asked = asyncio.Event()

    @one.client.on("which")
    async def never() -> None:
        asked.set()
        await asyncio.Event().wait()

    asking = asyncio.ensure_future(bob.client.request("ask_socket", one.id, timeout=60))
    await asked.wait()
    os.kill(first, signal.SIGKILL)
    await one.client.close()
    with pytest.raises(symphony.RemoteError):
        await asking
    other = await connected(fleet, "/game/ann", pid=second)
    third = await connected(fleet, "/game/ann")
    assert await closed(other) == 4410
    await counted(bob, 1)
    for each in (third, bob):
        await each.client.close()
