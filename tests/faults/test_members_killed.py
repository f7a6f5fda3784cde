"""Members whose server is killed and starts again with `--data`: who comes back in time was never gone."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import symphony
from support.clients import until
from support.fleets import workers
from support.ports import free_port
from support.process import launch
from support.sizes import size

# The server has to be back within the grace.
pytestmark = [pytest.mark.alone, pytest.mark.timeout(size(120, full=300))]

APP = """
import json
import os

from symphony import CallNext, Identity, Limits, Member, Room, Socket, Symphony

app = Symphony(limits=Limits(drain_time=0.2, finish_timeout=1))
teams = app.rooms("team:{name}", presence=True, grace=GRACE, max_members=3)
chat = app.route("/{user}", room="team:a", events=True)

def note(what: str, member: Member) -> None:
    line = json.dumps([what, member.id, member.arrival])
    file = os.open("JOURNAL", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode() + b"\\n")
    os.close(file)

@chat.middleware("connect")
async def sign_in(socket: Socket, call_next: CallNext) -> None:
    socket.login(Identity(socket.params["user"], {"name": socket.params["user"].upper()}))
    await call_next(socket)

@teams.on_arrive
async def arrive(member: Member) -> None:
    note("arrive", member)

@teams.on_back
async def back(member: Member) -> None:
    note("back", member)

@teams.on_depart
async def depart(member: Member) -> None:
    note("depart", member)

@chat.on("who")
async def who() -> list[list[object]]:
    members = await app.room("team:a").presence()
    return [[one.id, one.user.info["name"], one.away, one.arrival] for one in members]
"""


class Server:
    """A server with its rooms in a file, which is killed and starts again at the same port."""

    def __init__(self, folder: Path, count: int, grace: float) -> None:
        self.file = folder / "teams_app.py"
        self.data = folder / "rooms"
        self.journal = folder / "journal"
        self.port = free_port()
        self.count = count
        self.file.write_text(APP.replace("GRACE", str(grace)).replace("JOURNAL", str(self.journal)))

    def noted(self) -> list[tuple[str, str, str]]:
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [tuple(json.loads(line)) for line in lines]

    def hooks(self, member: str) -> list[str]:
        return [what for what, id, _ in self.noted() if id == member]

    @asynccontextmanager
    async def life(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Start it; give what kills it and all of its workers."""
        options = ("--data", str(self.data), "--port", str(self.port))
        if self.count > 1:
            async with workers(self.file, self.count, *options) as fleet:

                async def kill_all() -> None:
                    fleet.running.signal(signal.SIGKILL)
                    await fleet.gone()

                yield kill_all
            return
        command = (sys.executable, "-W", "error", "-m", "symphony", "run", str(self.file), *options)
        async with launch(*command, own_session=True, stderr=PIPE) as running:

            async def kill() -> None:
                running.signal(signal.SIGKILL)
                await running.process.wait()

            yield kill

    def client(self, user: str) -> symphony.Client:
        url = f"ws://127.0.0.1:{self.port}/{user}"
        return symphony.connect(url, backoff=0.05, max_backoff=0.2, give_up_after=60)


async def who(client: symphony.Client) -> dict[str, bool]:
    """Return who is in the room, and whether it is away."""
    return {id: away for id, _, away, _ in await client.request("who", timeout=20)}


async def finds(client: symphony.Client, members: dict[str, bool]) -> None:
    """Ask who is in the room, until that is so."""
    async with asyncio.timeout(30):
        # Not an event: it is about a client whose connection is being made or lost.
        while await who(client) != members:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("count", [1, 2])
async def test_who_comes_back_after_a_kill_was_never_gone(tmp_path: Path, count: int) -> None:
    """Those who were here, and those who were away; their seats are kept."""
    server = Server(tmp_path, count, grace=60)
    async with server.life() as kill:
        ann, bob, eve = (server.client(user) for user in ("ann", "bob", "eve"))
        for each in (ann, bob, eve):
            await each
        before = await ann.request("who")
        # Its connection is lost, so it is away when the server is killed.
        await bob.close(4000)
        await finds(ann, {"ann": False, "bob": True, "eve": False})
        await kill()
    async with server.life():
        # Their clients reconnect automatically.
        await finds(ann, {"ann": False, "bob": True, "eve": False})
        assert [line[:2] + line[3:] for line in await ann.request("who")] == [
            line[:2] + line[3:] for line in before
        ]
        # All three seats are taken, also that of the one who is away.
        with pytest.raises(symphony.RefusedError, match="is full"):
            await symphony.connect(f"ws://127.0.0.1:{server.port}/sue", reconnect=False)
        bob = server.client("bob")
        await bob
        assert await who(bob) == {"ann": False, "bob": False, "eve": False}
        for member in ("ann", "bob", "eve"):
            assert server.hooks(member) == ["arrive", "back"]
        assert len({arrival for _, _, arrival in server.noted()}) == 3
        for each in (ann, bob, eve):
            await each.close()
        await until(lambda: all(server.hooks(each)[2:] == ["depart"] for each in ("ann", "bob", "eve")))
    async with server.life(), server.client("ann") as ann:
        assert await who(ann) == {"ann": False}
        assert server.hooks("ann")[3:] == ["arrive"]


@pytest.mark.parametrize("count", [1, 2])
async def test_who_does_not_come_back_after_a_kill_departs_once(tmp_path: Path, count: int) -> None:
    server = Server(tmp_path, count, grace=2)
    async with server.life() as kill:
        ann, bob = server.client("ann"), server.client("bob")
        await ann
        await bob
        arrivals = {id: arrival for _, id, arrival in server.noted()}
        await kill()
        await bob.close()
    async with server.life():
        await until(lambda: "depart" in server.hooks("bob"), timeout=60)
        assert await who(ann) == {"ann": False}
        assert {id: arrival for what, id, arrival in server.noted() if what == "depart"} == {
            "bob": arrivals["bob"]
        }
        assert server.hooks("bob") == ["arrive", "depart"]
        assert server.hooks("ann") == ["arrive", "back"]
        await ann.close()
        await until(lambda: server.hooks("ann")[2:] == ["depart"])
    assert server.hooks("bob") == ["arrive", "depart"]
