"""9,000 connections in one room, and what is left when they have gone."""

import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from support.crowd import crowd
from support.process import start
from support.raw import RawClient, close, connect, resident_bytes, text
from support.sizes import size

pytestmark = pytest.mark.alone

# Never fewer: with 2,000, what the allocator keeps in any case is most of what is measured below.
CONNECTIONS = 9_000
BROADCASTS = 10

APP = """
import asyncio
import gc
import json
from symphony import Limits, Socket, Symphony

app = Symphony(limits=Limits(ping_interval=None))
left = 0
control = app.route("/control")
member = app.route("/member")


@member.on_connect
async def enter(socket: Socket) -> None:
    await socket.join("all")
    await socket.join(f"of:{socket.id}")


@member.on_message
async def echo(message: str) -> str:
    return message


@member.on_disconnect
async def leave(socket: Socket) -> None:
    global left
    left += 1


@control.on_message
async def command(message: str) -> object:
    if message.startswith("publish"):
        for number in range(int(message.split()[1])):
            app.room("all").send(f"broadcast {number}")
            await asyncio.sleep(0)
        return "published"
    # uvloop lets go of cancelled timers a turn later.
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    node = app._core.node
    return {
        "left": left,
        "sessions": len(node._sessions),
        "sockets": len(node.sockets),
        "clients": dict(node._admission._per_address),
        "rooms": len(node.rooms),
        "everyone": len(node.rooms.everyone),
        "tasks": len(asyncio.all_tasks()),
        "objects": len(gc.get_objects()),
        "dropped": app.stats.dropped_frames,
    }


app.run(port=0, log_level="error")
"""


class Report(NamedTuple):
    left: int
    sessions: int
    sockets: int
    clients: dict[str, int]
    rooms: int
    everyone: int
    tasks: int
    objects: int
    dropped: int


async def report(client: RawClient) -> Report:
    await client.send(text("report"))
    return Report(**json.loads(await client.message()))


EXPECTED = b"".join(bytes((0x81, 11)) + f"broadcast {number}".encode() for number in range(BROADCASTS))


@pytest.mark.timeout(90)
async def test_9000_connections_get_every_broadcast_and_leave_nothing_behind(tmp_path: Path):
    """Three times, so that what the allocator keeps for the next time is not taken for a leak.

    What it keeps differs by 16 MB from one time to the next. A leak grows each time.
    """
    file = tmp_path / "app.py"
    file.write_text(APP)
    async with start(file) as server, connect(f"{server.url}/control") as control:
        pid = server.process.pid
        before = await report(control)
        empty = resident_bytes(pid)
        levels: list[int] = []
        peaks: list[int] = []
        for turn in (1, 2, 3):
            async with crowd(f"{server.url}/member", CONNECTIONS) as members:
                full = await report(control)
                peaks.append(resident_bytes(pid))
                assert full.sockets == full.everyone == CONNECTIONS + 1
                assert full.rooms == CONNECTIONS + 1
                await control.send(text(f"publish {BROADCASTS}"))
                assert await control.message() == "published"
                await asyncio.gather(*(member.reaches(len(EXPECTED)) for member in members))
                assert {bytes(member.got) for member in members} == {EXPECTED}
                await members.leave()
            after = await report(control)
            assert after.left == turn * CONNECTIONS
            assert after.clients == {"127.0.0.1": 1}
            assert (after.sessions, after.sockets, after.everyone, after.rooms) == (1, 1, 1, 0)
            assert after.tasks == before.tasks
            assert after.objects - before.objects < 500
            assert after.dropped == 0
            levels.append(resident_bytes(pid))
        # An idle connection with two rooms, and what is left of it.
        assert peaks[0] - empty < CONNECTIONS * 20 * 1024
        assert levels[0] - empty < (peaks[0] - empty) * 0.5
        growth = min(after - before for before, after in pairwise(levels))
        assert growth < (peaks[0] - empty) * 0.1
        await control.send(close())
        assert (await control.frame()).code == 1000


@pytest.mark.timeout(60)
async def test_thousands_that_vanish_at_once_leave_nothing_behind(tmp_path: Path):
    """Resets in the middle of broadcasts: writes to dead transports, and leaves in bulk."""
    file = tmp_path / "app.py"
    file.write_text(APP)
    count = size(1_000, full=3_000)
    async with start(file) as server, connect(f"{server.url}/control") as control:
        before = await report(control)
        async with crowd(f"{server.url}/member", count) as members:
            await control.send(text("publish 200"))
            for member in members:
                member.transport.abort()
            assert await control.message() == "published"
        async with asyncio.timeout(20):
            while (after := await report(control)).left < count:
                pass
        assert (after.sessions, after.sockets, after.everyone, after.rooms) == (1, 1, 1, 0)
        assert after.objects - before.objects < 500
