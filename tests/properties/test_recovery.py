"""Members that come and go, against the promise of a room with a history.

From its position on, a member gets every publication that is kept, once and in order. Otherwise it is told
that something is gone, once for each gap, with the position from which it goes on.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from symphony import History, Limits, Symphony
from symphony.rooms import feed
from symphony.testing import Clock, TestClient, TestConnection

ROOM = "chat:a"
MEMBERS = 3
TTL = 10.0

which = st.integers(0, MEMBERS - 1)
OPERATIONS = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 12)),
    st.tuples(st.just("publish"), st.integers(1, 3)),
    st.tuples(st.just("transient"), st.integers(1, 3)),
    st.tuples(st.just("tell"), which),
    st.tuples(st.just("join"), which),
    st.tuples(st.just("join again"), which),
    st.tuples(st.just("join anew"), which),
    # Twice in a row while it is still behind.
    st.tuples(st.just("insist"), which),
    st.tuples(st.just("leave"), which),
    st.tuples(st.just("drop"), which),
    st.tuples(st.just("read"), which),
    st.tuples(st.just("turn"), st.integers(1, 3)),
    st.tuples(st.just("time"), st.sampled_from([1.0, TTL + 1])),
)


class Member:
    """A client that keeps to the protocol, and notices when the server does not."""

    def __init__(self) -> None:
        self.connection: TestConnection | None = None
        self.epoch: str | None = None
        # The publication that it has last, and those that it has: in order, each once.
        self.offset: int | None = None
        self.has: list[int] = []
        self.told: list[tuple[int, int]] = []
        self.id = 0
        # Those that are not answered: whether each asked for what it has missed.
        self.joins: list[bool] = []

    async def join(self) -> None:
        assert self.connection is not None
        self.id += 1
        self.joins.append(self.offset is not None)
        envelope: dict[str, Any] = {"join": ROOM, "id": self.id}
        if self.offset is not None:
            envelope["since"] = {"epoch": self.epoch, "offset": self.offset}
        await self.connection.send(json.dumps(envelope))

    def take(self, message: str) -> None:
        envelope = json.loads(message)
        assert "error" not in envelope, envelope
        if "joined" in envelope:
            asked = self.joins.pop(0)
            position = envelope["position"]
            recovered = envelope.get("recovered")
            assert (recovered is not None) is asked
            if recovered:
                # Where it was when it asked; it has got further if it asked twice.
                assert position["epoch"] == self.epoch
                assert self.offset is not None
                assert position["offset"] <= self.offset
            elif recovered is False:
                self.lost(position)
            self.epoch, self.offset = position["epoch"], position["offset"]
        elif "lost" in envelope:
            self.lost(envelope["position"])
        elif "offset" in envelope and not self.joins:
            assert self.offset is not None
            assert envelope["offset"] == self.offset + 1
            assert envelope["data"] == envelope["offset"]
            self.offset = envelope["offset"]
            self.has.append(self.offset)

    def lost(self, position: dict[str, Any]) -> None:
        assert self.offset is not None
        if position["epoch"] == self.epoch:
            assert position["offset"] > self.offset
            self.told.append((self.offset, position["offset"]))
        self.epoch, self.offset = position["epoch"], position["offset"]


async def _run(operations: list[tuple[str, Any]], history: History, limits: Limits) -> None:
    app = Symphony(limits=limits)
    app.rooms("chat:{name}", history=history, client_join=True)
    app.route("/", events=True)
    members = [Member() for _ in range(MEMBERS)]
    room = app.room
    published = 0
    clock = Clock.of_running_loop()
    async with TestClient(app) as client:

        async def read(member: Member) -> None:
            await client.settle()
            while member.connection is not None:
                try:
                    message = await member.connection.receive(timeout=0)
                except TimeoutError:
                    return
                assert isinstance(message, str)
                member.take(message)

        for operation, argument in operations:
            match operation:
                case "publish":
                    for _ in range(argument):
                        published += 1
                        position = await room(ROOM).emit("said", published)
                        assert position is not None
                        assert position.offset == published
                case "tell":
                    # Nothing may be overtaken by what is sent directly.
                    for socket in app.everyone.sockets[argument : argument + 1]:
                        await socket.emit("told")
                case "transient":
                    for _ in range(argument):
                        assert await room(ROOM).emit("typing", transient=True) is None
                case "turn":
                    for _ in range(argument):
                        await asyncio.sleep(0)
                case "time":
                    await clock.advance(argument)
                case _:
                    member = members[argument]
                    if operation == "join" and member.connection is None:
                        member.connection = await client.connect("/", protocol="raw")
                        await member.join()
                    elif operation == "join again" and member.connection is not None:
                        await member.join()
                    elif operation == "join anew" and member.connection is not None:
                        await read(member)
                        member.offset = None
                        await member.join()
                    elif operation == "insist" and member.connection is not None:
                        for turns in (3, 5):
                            await member.join()
                            for _ in range(turns):
                                await asyncio.sleep(0)
                    elif operation == "leave" and member.connection is not None:
                        member.id += 1
                        await member.connection.send(json.dumps({"leave": ROOM, "id": member.id}))
                    elif operation == "drop" and member.connection is not None:
                        # What was sent may have arrived, or not: here it has not.
                        await member.connection.drop()
                        member.connection, member.joins = None, []
                    elif operation == "read":
                        await read(member)
        # In the end everybody is there, and has heard of everything.
        for member in members:
            if member.connection is None:
                member.connection = await client.connect("/", protocol="raw")
            await read(member)
            await member.join()
            await read(member)
            last = await room(ROOM).history(1)
            if last and member.offset is not None:
                assert member.offset == published
            ends = [start for start, _ in member.told]
            missing = {n for start, end in member.told for n in range(start + 1, end + 1)}
            assert len(set(ends)) == len(ends)
            assert not missing & set(member.has)
            assert member.has == sorted(set(member.has))
            await member.connection.close()


@given(
    operations=st.lists(OPERATIONS, max_size=40),
    size=st.integers(1, 20),
    most=st.integers(1, 30),
)
@settings(deadline=None)
def test_members_get_each_publication_once_and_in_order_or_are_told(
    operations: list[tuple[str, Any]], size: int, most: int
) -> None:
    async def run() -> None:
        await _run(operations, History(size, ttl=TTL), Limits(max_recovery=most))

    # Small pages, so that members are behind for several turns.
    with (
        patch.object(feed, "_PAGE_RECORDS", 2),
        asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner,
    ):
        runner.run(run())
