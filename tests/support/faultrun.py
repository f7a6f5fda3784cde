"""Clients of two nodes publish and read while the broker of both fails; what came of it is checked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import symphony
from support.process import Running
from support.redisnodes import client
from support.sizes import size
from symphony import Limits
from symphony.broker.engines import open_broker
from symphony.errors import SymphonyError
from symphony.testing.drafts import PAGE, data_of

__all__ = ("CALM", "READERS", "Outcome", "check", "run", "table")

READERS = size(20, full=200)
PUBLISHERS = 2
# Seconds between publications of one publisher, and before and after a fault.
PACE = size(10, full=50) / 1000
CALM = size(500, full=3000) / 1000


class Reader:
    """A client that keeps what it hears, until a negative number.

    Attributes:
        parts: What it has heard; a new part begins when it is told that something is lost.
    """

    def __init__(self, one: symphony.Client, name: str) -> None:
        self.client = one
        self.name = name
        self.parts: list[list[int]] = [[]]

    @property
    def heard(self) -> list[int]:
        return [number for part in self.parts for number in part]

    @property
    def lost(self) -> int:
        return len(self.parts) - 1

    async def join(self) -> symphony.client.Room:
        room = await self.client.join(self.name)

        @room.on_lost
        def lost(position: symphony.Position) -> None:
            self.parts.append([])

        return room

    async def read(self, room: symphony.client.Room) -> None:
        async for publication in room:
            if publication.data < 0:
                return
            self.parts[-1].append(publication.data)


class Outcome(NamedTuple):
    """What came of a fault: a row of the table.

    Attributes:
        fault: The fault.
        sent: How many publications were tried.
        acknowledged: How many of them their publishers know to be published.
        dropped: How many of these the broker has lost.
        gap: The longest time in seconds without an acknowledgement.
        delivered: How often members have got one.
        told: How often a member was told that something is lost.
        silent: How many that the room still keeps members have not got who were not told. What
            the broker has lost before a member heard it leaves this member no hole.
    """

    fault: str
    sent: int
    acknowledged: int
    dropped: int
    gap: float
    delivered: int
    told: int
    silent: int


async def run(
    fault: Callable[[], Awaitable[None]], name: str, url: str, pair: list[Running], readers: int = READERS
) -> tuple[Outcome, list[Reader]]:
    """Publish and read during a fault, and check what came of it.

    Args:
        fault: The fault. It returns when it is over.
        name: Its name.
        url: The URL of the broker.
        pair: Two nodes.
        readers: How many clients read.
    """
    room_name = f"kept:{name}"
    members = [Reader(client(pair[number % 2]), room_name) for number in range(readers)]
    for member in members:
        await member.client
    rooms = [await member.join() for member in members]
    reading = [asyncio.ensure_future(member.read(room)) for member, room in zip(members, rooms, strict=True)]
    sent: list[int] = []
    acknowledged: list[int] = []
    over = asyncio.Event()
    clock = asyncio.get_running_loop().time
    gap, last = 0.0, clock()

    async def publish(first: int) -> None:
        nonlocal gap, last
        async with client(pair[first % 2]) as publisher:
            room = await publisher.join(room_name)
            number = first
            while not over.is_set():
                number += PUBLISHERS
                sent.append(number)
                try:
                    await room.emit("posted", number)
                except SymphonyError:
                    # It may or may not have been published.
                    continue
                acknowledged.append(number)
                gap, last = max(gap, clock() - last), clock()
                await asyncio.sleep(PACE)

    publishing = [asyncio.ensure_future(publish(first)) for first in range(PUBLISHERS)]
    await asyncio.sleep(CALM)
    await fault()
    await asyncio.sleep(CALM)
    over.set()
    await asyncio.wait_for(asyncio.gather(*publishing), 60)
    async with client(pair[0]) as ending:
        room = await ending.join(room_name)
        await room.emit("posted", -1)
    await asyncio.wait_for(asyncio.gather(*reading), 30)
    kept = await _kept(url, room_name)
    told = silent = 0
    for member in members:
        told += member.lost
        if not member.lost:
            silent += len(set(acknowledged) & set(kept) - set(member.heard))
        await member.client.close()
        check(member.parts, kept, name)
    outcome = Outcome(
        name.replace("_", " "),
        len(sent),
        len(acknowledged),
        len(set(acknowledged) - set(kept)),
        round(gap, 2),
        sum(len(member.heard) for member in members),
        told,
        silent,
    )
    return outcome, members


async def _kept(url: str, room: str) -> list[int]:
    """Return what the room has kept, but for the last one."""
    broker = await open_broker(url, Limits())
    numbers: list[int] = []
    try:
        position = None
        while True:
            page = await broker.after(room, position, limit=1000, max_bytes=PAGE)
            assert page.complete
            numbers += [data_of(record) for record in page.records]  # pyright: ignore[reportAssignmentType]
            position = page.end
            if page.end == page.top:
                return numbers[:-1]
    finally:
        broker.close()


def check(parts: list[list[int]], kept: list[int], fault: str) -> None:
    """Check that a member has everything once and in order, as far as it was not told otherwise."""
    assert len(kept) == len(set(kept)), f"{fault}: published twice"
    *before, last = parts
    if not before:
        assert last == kept, f"{fault}: a member that was not told has not what is kept"
        return
    # It goes on where what it has heard and what is kept are the same.
    skipped = len(kept) - len(last)
    assert last == kept[skipped:], f"{fault}: after it was told, a member has not what is kept"
    if len(before) == 1:
        assert before[0][:skipped] == kept[:skipped], f"{fault}: a member was told of less than it has missed"
    for part in parts:
        assert len(part) == len(set(part)), f"{fault}: came twice"


def table(outcomes: list[Outcome]) -> None:
    """Print the table of docs/brokers.md."""
    print()
    print("| fault | sent | acknowledged | dropped | longest gap (s) | delivered | told | lost silently |")
    print("|---|---|---|---|---|---|---|---|")
    for outcome in outcomes:
        print("| " + " | ".join(str(field) for field in outcome) + " |")
