"""A worker that is killed: what it had is free at once, because its supervisor knows that it has died."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import symphony
from support.clients import until
from support.fleets import Fleet, workers
from support.sizes import size

# A lease is 30 s. What waits for its end would fail.
SOON = 20.0

pytestmark = pytest.mark.timeout(size(90, full=240))

APP = """
import json
import os

from symphony import CallNext, Identity, Limits, Member, Room, Socket, Symphony

app = Symphony(limits=Limits(drain_time=0.2, finish_timeout=1))
alone = app.route("/alone/{user}", per_user=1, on_conflict="refuse")
teams = app.rooms("team:{name}", presence=True, grace=120, max_members=2)
guests = app.rooms("guests:{name}", max_members=1)
games = app.rooms("game:{name}", state=dict)
app.route("/team/{user}", room="team:a")
app.route("/guests/{user}", room="guests:a")
app.route("/game/{user}", room="game:a")
app.route("/look/{user}")

def note(what: str, member: Member) -> None:
    file = os.open("JOURNAL", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, json.dumps([what, member.id]).encode() + b"\\n")
    os.close(file)

@app.middleware("connect")
async def sign_in(socket: Socket, call_next: CallNext) -> None:
    socket.login(Identity(socket.params["user"]))
    await call_next(socket)

@teams.on_away
async def away(member: Member) -> None:
    note("away", member)

@guests.on_depart
async def depart(member: Member) -> None:
    note("depart", member)

@app.on("where")
async def where() -> int:
    return os.getpid()

@app.on("who.{room}")
async def who(room: str) -> list[list[object]]:
    return [[one.id, one.away] for one in await app.room(room).presence()]
"""


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    file = tmp_path / "killed_app.py"
    file.write_text(APP.replace("JOURNAL", str(tmp_path / "journal")))
    async with workers(file, 2) as fleet:
        yield fleet


def client(fleet: Fleet, path: str, **options: Any) -> symphony.Client:
    return symphony.connect(f"{fleet.url}{path}", backoff=0.05, max_backoff=0.2, **options)


async def placed(fleet: Fleet, path: str, *, other_than: int | None = None) -> tuple[symphony.Client, int]:
    """Connect, at a worker that is another one."""
    while True:
        one = client(fleet, path, reconnect=False)
        await one
        pid = await one.request("where", response_type=int)
        if pid != other_than:
            return one, pid
        await one.close()


def noted(folder: Path) -> list[list[str]]:
    file = folder / "journal"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def who(look: symphony.Client, room: str) -> list[list[object]]:
    return await look.request(f"who.{room}", timeout=20)


async def test_a_user_is_not_locked_out_by_a_connection_of_a_killed_worker(fleet: Fleet) -> None:
    ann, pid = await placed(fleet, "/alone/ann")
    bob, _ = await placed(fleet, "/alone/bob", other_than=pid)
    with pytest.raises(symphony.RefusedError, match="another connection"):
        await client(fleet, "/alone/ann", reconnect=False)
    os.kill(pid, signal.SIGKILL)
    await ann.wait_closed()
    async with asyncio.timeout(SOON):
        while True:
            try:
                async with client(fleet, "/alone/ann", reconnect=False):
                    break
            except (symphony.RefusedError, symphony.DisconnectedError):
                await asyncio.sleep(0.05)
    # The claims of the other worker are still there.
    with pytest.raises(symphony.RefusedError, match="another connection"):
        await client(fleet, "/alone/bob", reconnect=False)
    await bob.close()


async def test_the_members_of_a_killed_worker_are_away_at_once(fleet: Fleet, tmp_path: Path) -> None:
    """Or have departed, if they have no grace; their hooks run at another worker."""
    ann, pid = await placed(fleet, "/team/ann")
    bob, _ = await placed(fleet, "/team/bob", other_than=pid)
    guest, departed = await at(fleet, "/guests/eve", pid)
    # Those that had reached the other worker, and left.
    await until(lambda: noted(tmp_path) == [["depart", "eve"]] * departed, timeout=SOON)
    look, _ = await placed(fleet, "/look/sue", other_than=pid)
    assert await who(look, "guests:a") == [["eve", False]]
    os.kill(pid, signal.SIGKILL)
    for each in (ann, guest):
        await each.wait_closed()
    async with asyncio.timeout(SOON):
        # Not an event: it is about what the broker has heard.
        while await who(look, "team:a") != [["ann", True], ["bob", False]]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        while await who(look, "guests:a"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    hooks = [["away", "ann"], *[["depart", "eve"]] * (departed + 1)]
    await until(lambda: sorted(noted(tmp_path)) == hooks, timeout=SOON)
    # The seat of the one who is away is kept.
    async with client(fleet, "/team/ann"):
        assert await who(look, "team:a") == [["ann", False], ["bob", False]]
    await bob.close()
    await look.close()


async def at(fleet: Fleet, path: str, pid: int) -> tuple[symphony.Client, int]:
    """Connect at one worker; return how many attempts have reached the other one, too."""
    for others in count():
        one = client(fleet, path, reconnect=False)
        await one
        if await one.request("where", response_type=int) == pid:
            return one, others
        await one.close()
    raise AssertionError


async def test_the_rooms_of_a_killed_worker_have_another_home_at_once(fleet: Fleet) -> None:
    ann, pid = await placed(fleet, "/game/ann")
    os.kill(pid, signal.SIGKILL)
    await ann.wait_closed()
    async with asyncio.timeout(SOON):
        async with client(fleet, "/game/ann") as again:
            assert await again.request("where", response_type=int, timeout=SOON) != pid
