"""Rooms of several workers: what is published at one is heard at all, whoever is killed meanwhile."""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import symphony
from support.fleets import Fleet, workers
from support.sizes import size
from symphony.errors import DisconnectedError, RemoteError, RequestTimeoutError

pytestmark = pytest.mark.timeout(size(60, full=240))

CLIENTS = size(30, full=200)
KILLS = size(3, full=20)
# Seconds between publications. All clients are in the process of the test, which has one core.
PACE = size(5, full=100) / 1000

APP = """
import os

from symphony import Limits, Socket, Symphony

app = Symphony(limits=Limits(drain_time=0.2, finish_timeout=1))
chat = app.route("/")
app.rooms("kept:{name}", history=100_000, client_join=True)

@chat.on("where")
async def where() -> int:
    return os.getpid()

@chat.on("post")
async def post(data: int) -> None:
    await app.room("kept:a").emit("posted", data)
"""


# The broker of its supervisor ends at SIGUSR1.
BREAKABLE = """
import signal
from contextlib import contextmanager

from symphony.cli.main import main
from symphony.cli.workers import supervisor

serve = supervisor.shared_broker

@contextmanager
def breakable(url):
    with serve(url) as served:
        signal.signal(signal.SIGUSR1, lambda *_: served.close())
        yield served

if __name__ == "__main__":
    supervisor.shared_broker = breakable
    main()
"""


def rewrite(file: Path, text: str) -> None:
    file.write_text(text)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    file = tmp_path / "rooms_app.py"
    file.write_text(APP)
    async with workers(file, 3) as fleet:
        yield fleet


def client(fleet: Fleet) -> symphony.Client:
    return symphony.connect(f"{fleet.url}/", backoff=0.1, max_backoff=0.5)


class Reader:
    """A client that keeps what it hears in the room with a history."""

    def __init__(self, client: symphony.Client) -> None:
        self.client = client
        self.heard: list[int] = []
        self.lost = 0

    async def join(self) -> None:
        self.room = await (await self.client).join("kept:a")

        @self.room.on_lost
        def lost(position: symphony.Position) -> None:
            self.lost += 1

    async def run(self) -> None:
        async for publication in self.room:
            if publication.data < 0:
                return
            self.heard.append(publication.data)


async def test_publications_reach_the_members_at_every_worker(fleet: Fleet) -> None:
    # Enough for a client of each worker, with very few exceptions.
    clients = [client(fleet) for _ in range(20)]
    rooms = [await (await one).join("kept:a") for one in clients]
    assert {await one.request("where") for one in clients} == set(fleet.first)

    async def posted(room: symphony.client.Room) -> list[int]:
        heard: list[int] = []
        async for publication in room:
            heard.append(publication.data)
            if len(heard) == len(clients):
                break
        return heard

    hearing = [asyncio.ensure_future(posted(room)) for room in rooms]
    for number, one in enumerate(clients):
        await one.request("post", number)
    assert await asyncio.wait_for(asyncio.gather(*hearing), 10) == [list(range(20))] * 20
    for one in clients:
        await one.close()


async def test_killed_workers_lose_nothing_in_rooms_with_a_history(fleet: Fleet) -> None:
    chance = random.Random(5)
    readers = [Reader(client(fleet)) for _ in range(CLIENTS)]
    for reader in readers:
        await reader.join()
    reading = [asyncio.ensure_future(reader.run()) for reader in readers]
    acknowledged: list[int] = []
    over = asyncio.Event()

    async def publish(first: int) -> None:
        async with client(fleet) as publisher:
            number = first
            while not over.is_set():
                number += 2
                try:
                    await publisher.request("post", number, timeout=20)
                except (DisconnectedError, RemoteError, RequestTimeoutError):
                    # It may or may not have been published.
                    continue
                acknowledged.append(number)
                await asyncio.sleep(PACE)

    publishing = [asyncio.ensure_future(publish(first)) for first in (0, 1)]
    for number in range(1, KILLS + 1):
        victim = chance.choice(sorted({await fleet.where() for _ in range(10)}))
        os.kill(victim, signal.SIGKILL if number % 3 else signal.SIGTERM)
        await fleet.logged("A new one (starts|replaces)", number)
    over.set()
    await asyncio.gather(*publishing)
    async with client(fleet) as last:
        await last.request("post", -1, timeout=20)
    await asyncio.wait_for(asyncio.gather(*reading), 20)

    first = readers[0].heard
    assert max(Counter(first).values()) == 1, "something was published twice"
    assert set(acknowledged) <= set(first), "something that was acknowledged is gone"
    for reader in readers:
        assert reader.lost == 0
        assert reader.heard == first
        await reader.client.close()
    print(f"{len(first)} publications, {len(acknowledged)} acknowledged, {KILLS} workers ended")


async def test_rooms_in_a_folder_survive_the_whole_server(tmp_path: Path) -> None:
    file, folder = tmp_path / "rooms_app.py", tmp_path / "data" / "rooms"
    rewrite(file, APP)
    for number, end in ((1, signal.SIGKILL), (2, signal.SIGTERM), (3, signal.SIGTERM)):
        async with workers(file, 2, "--data", str(folder)) as fleet:
            assert f"sqlite:///{folder}/rooms.db" in fleet.rooms
            async with client(fleet) as one, client(fleet) as other:
                await one.request("post", number)
                room = await other.join("kept:a", since="start")
                kept: list[int] = []
                async for publication in room:
                    kept.append(publication.data)
                    if len(kept) == number:
                        break
                assert kept == list(range(1, number + 1))
            fleet.running.signal(end)
            await fleet.gone()


async def test_nothing_of_a_killed_supervisor_stays_behind(fleet: Fleet) -> None:
    (folder,) = fleet.broker_folders()
    assert (folder / "broker").is_socket()
    fleet.running.signal(signal.SIGKILL)
    await fleet.gone()
    assert not folder.exists()


async def test_a_broker_that_fails_ends_the_server(tmp_path: Path) -> None:
    """Its workers would start again and again, and whatever started the server would not know."""
    program = tmp_path / "breakable.py"
    file = tmp_path / "rooms_app.py"
    rewrite(file, APP)
    rewrite(program, BREAKABLE)
    async with workers(file, 2, program=(str(program),)) as fleet:
        fleet.running.signal(signal.SIGUSR1)
        assert await fleet.running.end() == (1, [])
        await fleet.logged("CRITICAL symphony.workers: The broker of the rooms has ended")


async def test_the_socket_of_the_broker_is_removed_at_a_stop(fleet: Fleet) -> None:
    (folder,) = fleet.broker_folders()
    fleet.running.signal(signal.SIGTERM)
    assert await fleet.running.end() == (0, [])
    assert not folder.exists()
