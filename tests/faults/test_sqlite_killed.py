"""A broker in a file whose process is killed: what was acknowledged is there."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec

from support.sizes import size
from symphony.broker.sqlite import SqliteBroker
from symphony.broker.sqlitetarget import target_of

KEEPS = 20_000
ROOMS = 5

# It publishes from several tasks at once, and says what was acknowledged. Its numbers go on where the last
# one ended.
PUBLISHER = """
import asyncio, sys
import msgspec
from symphony.broker.base import Draft, History
from symphony.broker.sqlite import SqliteBroker
from symphony.broker.sqlitetarget import target_of

async def main(url, life):
    broker = await SqliteBroker.open(
        target_of(url), max_bytes=10**9, max_calls=10_000, max_waiting_bytes=10**8
    )
    out = sys.stdout
    history = History(%KEEPS%, ttl=1e6, bytes=10**9)
    async def publish(task):
        number = 0
        while True:
            number += 1
            room = f"room:{number % %ROOMS%}"
            payload = msgspec.msgpack.encode([life, task, number, "x" * (number * 7 % 200)])
            position = await broker.publish(room, Draft("said", payload), history)
            out.write(f"{room} {position.epoch} {position.offset} {task} {number}\\n")
            out.flush()
    await asyncio.gather(*(publish(task) for task in range(20)))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
""".replace("%ROOMS%", str(ROOMS)).replace("%KEEPS%", str(KEEPS))

Acknowledged = dict[tuple[str, str, int], tuple[int, int, int]]


def publish_and_kill(url: str, life: int, most: int) -> Acknowledged:
    """Run the publisher, kill it after some acknowledgements, and return all that it has made."""
    acknowledged: Acknowledged = {}
    command = [sys.executable, "-c", PUBLISHER, url, str(life)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.endswith("\n"):
                # It was killed in the middle of it.
                break
            room, epoch, offset, task, number = line.split()
            acknowledged[room, epoch, int(offset)] = life, int(task), int(number)
            if len(acknowledged) == most:
                process.kill()
    assert len(acknowledged) >= most
    return acknowledged


async def kept(url: str) -> dict[tuple[str, str, int], tuple[int, int, int]]:
    """Return what the broker has after the kill, as it would serve it."""
    broker = await SqliteBroker.open(target_of(url), max_bytes=10**9, max_calls=1, max_waiting_bytes=1000)
    found: dict[tuple[str, str, int], tuple[int, int, int]] = {}
    for number in range(ROOMS):
        room = f"room:{number}"
        page = await broker.after(room, None, limit=10**6, max_bytes=10**9)
        offsets = [record.position.offset for record in page.records]
        assert offsets == list(range(1, len(offsets) + 1))
        for record in page.records:
            life, task, count, _ = msgspec.msgpack.decode(record.payload)
            found[room, record.position.epoch, record.position.offset] = life, task, count
    broker.close()
    return found


def test_every_acknowledged_publication_is_there_after_each_kill(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'rooms.db'}"
    pick = random.Random(7)
    acknowledged: Acknowledged = {}
    for life in range(size(4, full=50)):
        acknowledged |= publish_and_kill(url, life, pick.randrange(1, 300))
        found = asyncio.run(kept(url))
        assert {position: found.get(position) for position in acknowledged} == acknowledged
    # Nothing was published twice, in any life.
    assert len(set(found.values())) == len(found)
    with closing(sqlite3.connect(tmp_path / "rooms.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
