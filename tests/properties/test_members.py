"""Users that come, leave and are lost in any order, against the promises of the hooks of members."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from symphony import Identity, Member, Reject, Room, Socket, Symphony
from symphony.testing import TestClient, TestConnection

USERS = ("ann", "bob", "anon")
ROOM = "game:1"
GRACE = 10.0

slot = st.integers(0, 3)
OPERATIONS = st.one_of(
    st.tuples(st.just("come"), slot),
    st.tuples(st.just("come"), slot),
    st.tuples(st.just("leave"), slot),
    st.tuples(st.just("join"), slot),
    st.tuples(st.just("close"), slot),
    st.tuples(st.just("lose"), slot),
    st.tuples(st.just("fail"), st.integers(0, 1)),
    st.tuples(st.just("time"), st.sampled_from([0, 1, 4, 9, 11, 40])),
)


class Watched:
    """An app whose hooks are checked as they are called."""

    def __init__(self) -> None:
        self.app = Symphony()
        self.here: dict[str, str] = {}
        self.arrivals: dict[str, str] = {}
        self.joined: dict[Socket[Any], bool] = {}
        self.sockets: dict[int, Socket[Any]] = {}
        self.fails = False
        self.over: set[str] = set()
        rooms = self.app.rooms("game:{id:int}", grace=GRACE, max_members=2, members=list)
        route = self.app.route("/{user}/{slot:int}")

        @route.on_connect
        async def enter(socket: Socket, user: str, slot: int) -> None:
            if user != "anon":
                socket.login(Identity(user))
            self.sockets[slot] = socket
            await socket.join(ROOM)

        @route.on("do")
        async def do(socket: Socket, data: str) -> None:
            await (socket.join(ROOM) if data == "join" else socket.leave(ROOM))

        @rooms.on_arrive
        async def on_arrive(socket: Socket, room: Room, member: Member) -> None:
            assert member.arrival not in self.over
            assert self.here.get(member.id) is None
            assert room.members[member.id] is member
            self.here[member.id] = "here"
            self.arrivals[member.id] = member.arrival
            member.state.append("arrived")
            await asyncio.sleep(0)
            if self.fails:
                raise Reject("forbidden")

        @rooms.on_back
        async def on_back(room: Room, member: Member) -> None:
            assert self.here.get(member.id) == "away"
            assert self.arrivals[member.id] == member.arrival
            assert member.state
            self.here[member.id] = "here"

        @rooms.on_away
        async def on_away(member: Member) -> None:
            assert self.here.get(member.id) == "here"
            assert member.user is not None
            self.here[member.id] = "away"
            await asyncio.sleep(0)

        @rooms.on_depart
        async def on_depart(room: Room, member: Member) -> None:
            assert self.here.pop(member.id, None) is not None
            assert self.arrivals[member.id] == member.arrival
            assert member.state == ["arrived"]
            self.over.add(member.arrival)

        @rooms.on_join
        async def on_join(socket: Socket, room: Room) -> None:
            id = socket.user.id if socket.user is not None else socket.id
            assert self.here[id] == "here"
            assert not self.joined.get(socket)
            self.joined[socket] = True

        @rooms.on_leave
        async def on_leave(socket: Socket) -> None:
            self.joined[socket] = False

        @rooms.on_empty
        async def on_empty(room: Room) -> None:
            assert not room.members
            assert not self.here

    @property
    def members(self) -> dict[str, int]:
        return {id: len(member.sockets) for id, member in self.app.room(ROOM).members.items()}


@given(st.lists(OPERATIONS, min_size=10, max_size=40))
@settings(max_examples=60, deadline=None)
def test_the_hooks_of_members_are_called_in_order_and_once(operations: list[tuple[str, int]]) -> None:
    asyncio.run(_play(operations))


async def _play(operations: list[tuple[str, int]]) -> None:
    watched = Watched()
    async with TestClient(watched.app) as client, AsyncExitStack() as stack:
        connections: dict[int, TestConnection] = {}
        for kind, number in operations:
            connection = connections.get(number)
            if kind == "come" and connection is None:
                path = f"/{USERS[number % 3]}/{number}"
                try:
                    connections[number] = await stack.enter_async_context(client.connect(path))
                except Exception as error:
                    if "full" not in str(error) and not watched.fails:
                        raise
            elif kind in ("leave", "join") and connection is not None:
                await connection.emit("do", kind)
            elif kind in ("close", "lose") and connection is not None:
                del connections[number]
                await connection.close(1000 if kind == "close" else 1001)
            elif kind == "fail":
                watched.fails = bool(number)
            elif kind == "time":
                await client.clock.advance(number)
                _check(watched)
        watched.fails = False
        for connection in connections.values():
            await connection.close(1001)
        await client.clock.advance(GRACE)
        assert watched.members == {}
        assert watched.here == {}
        assert not any(watched.joined.values())
        assert client.errors == []


def _check(watched: Watched) -> None:
    """Compare the room with its sockets, when nothing is under way."""
    expected: dict[str, int] = defaultdict(int)
    for socket in watched.app.room(ROOM).sockets:
        expected[socket.user.id if socket.user is not None else socket.id] += 1
    assert {id: number for id, number in watched.members.items() if number} == expected
    assert {id for id, state in watched.here.items() if state == "here"} == set(expected)
    away = {id for id, member in watched.app.room(ROOM).members.items() if member.away_until is not None}
    assert away == {id for id, state in watched.here.items() if state == "away"}
    assert len(watched.members) <= 2
