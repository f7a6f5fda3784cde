"""Joins, leaves, cancellations and departures in every order, against the promises of a room's hooks."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack, suppress
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from symphony import DisconnectedError, Reject, Room, Socket, Symphony
from symphony.testing import TestClient

SOCKETS = 2
ROOM = "game:1"

which = st.integers(0, SOCKETS - 1)
turns = st.tuples(st.just("turn"), st.integers(1, 4))
OPERATIONS = st.one_of(
    st.tuples(st.just("join"), which),
    st.tuples(st.just("join unasked"), which),
    st.tuples(st.just("leave"), which),
    st.tuples(st.just("let go on"), st.integers(0, 3)),
    st.tuples(st.just("let fail"), st.integers(0, 3)),
    st.tuples(st.just("cancel"), st.integers(0, 3)),
    st.tuples(st.just("disconnect"), which),
    turns,
    turns,
)


class Watched:
    """An app with one family of rooms, whose hooks wait until they may go on, and are checked."""

    def __init__(self, linger: float) -> None:
        self.app = Symphony()
        self.app.route("/")
        self.open = False
        self.doors: list[asyncio.Future[None]] = []
        self.calls: list[asyncio.Task[Any]] = []
        self.closing: list[asyncio.Task[Any]] = []
        # The hooks of one socket that run, and whether `on_leave` is owed for its `on_join`.
        self.running: dict[Socket[Any] | None, str] = {}
        self.owed: dict[Socket[Any], bool] = defaultdict(bool)
        self.joins: dict[Socket[Any], int] = defaultdict(int)
        self.tasks = 0
        rooms = self.app.rooms("game:{id:int}", linger=linger, state=dict)

        @rooms.authorize
        async def authorize(socket: Socket, room: Room) -> None:
            assert socket not in room
            await self.hook("authorize", socket)

        @rooms.on_join
        async def on_join(socket: Socket, room: Room) -> None:
            assert socket in room
            assert room.state is not None
            assert not self.owed[socket]
            await self.hook("on_join", socket)
            self.owed[socket] = True

        @rooms.on_leave
        async def on_leave(socket: Socket, room: Room) -> None:
            assert socket not in room
            assert room.state is not None
            self.owed[socket] = False
            await self.hook("on_leave", socket)

        @rooms.on_empty
        async def on_empty(room: Room) -> None:
            assert room.state is not None
            assert self.tasks == 0 or room.sockets
            await self.hook("on_empty", None)

        @rooms.task
        async def task(room: Room) -> None:
            self.tasks += 1
            assert self.tasks == 1
            try:
                await asyncio.Event().wait()
            finally:
                self.tasks -= 1

    async def hook(self, kind: str, socket: Socket[Any] | None) -> None:
        """Wait in a hook; no two hooks of one socket run at a time."""
        assert kind == "on_empty" or socket not in self.running, (kind, self.running.get(socket))
        self.running[socket] = kind
        try:
            if not self.open:
                door = asyncio.get_running_loop().create_future()
                self.doors.append(door)
                await door
        finally:
            self.running.pop(socket, None)

    async def join(self, socket: Socket[Any], authorize: bool) -> None:
        self.joins[socket] += 1
        try:
            await socket.join(ROOM, authorize=authorize)
        except (Reject, DisconnectedError):
            return
        assert self.running.get(socket) != "on_join", "it has returned before the hook"

    async def leave(self, socket: Socket[Any]) -> None:
        joins = self.joins[socket]
        with suppress(Reject):
            await socket.leave(ROOM)
        if joins == self.joins[socket]:
            assert socket not in self.app.room(ROOM), "a leave wins over the joins that began before it"

    async def perform(
        self, operation: tuple[str, int], sockets: list[Socket[Any]], clients: list[Any]
    ) -> None:
        match operation:
            case "join", index:
                self.calls.append(asyncio.create_task(self.join(sockets[index], authorize=True)))
            case "join unasked", index:
                self.calls.append(asyncio.create_task(self.join(sockets[index], authorize=False)))
            case "leave", index:
                self.calls.append(asyncio.create_task(self.leave(sockets[index])))
            case "let go on", index:
                self.pass_door(index, None)
            case "let fail", index:
                self.pass_door(index, Reject("shop.closed"))
            case "cancel", index:
                running = [call for call in self.calls if not call.done()]
                if running:
                    running[index % len(running)].cancel()
            case "disconnect", index:
                # Returns when the hooks have.
                self.closing.append(asyncio.create_task(clients[index].close()))
            case _, count:
                for _ in range(count):
                    await asyncio.sleep(0)

    def pass_door(self, index: int, error: Exception | None) -> None:
        doors = [door for door in self.doors if not door.done()]
        if not doors:
            return
        door = doors[index % len(doors)]
        if error is None:
            door.set_result(None)
        else:
            door.set_exception(error)

    async def settle(self) -> None:
        """Open all doors, and wait until no call runs."""
        self.open = True
        while self.running or any(not call.done() for call in (*self.calls, *self.closing)):
            for door in self.doors:
                if not door.done():
                    door.set_result(None)
            await asyncio.sleep(0)
        # A client does not wait long for hooks that a test holds.
        await asyncio.gather(*self.closing, return_exceptions=True)
        for call in self.calls:
            if not call.cancelled():
                call.result()


async def scenario(operations: list[tuple[str, int]], linger: float) -> None:
    watched = Watched(linger)
    rooms = watched.app
    async with TestClient(watched.app, raise_errors=False) as test:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(test.connect("/")) for _ in range(SOCKETS)]
            await test.settle()
            sockets = list(rooms.everyone.sockets)
            for operation in operations:
                await watched.perform(operation, sockets, clients)
            async with asyncio.timeout(10):
                await watched.settle()
            await test.settle()
            members = rooms.room(ROOM).sockets
            for socket in sockets:
                # A member's `on_join` succeeded; a failed `on_leave` has begun all the same.
                assert watched.owed[socket] == (socket in members)
                assert socket.connected or socket not in members
            if members:
                assert watched.tasks == 1
        await test.settle()
        await test.clock.advance(linger + 1)
        await test.settle()
        assert not any(watched.owed.values())
        assert watched.tasks == 0
        node = watched.app._core.node
        assert len(node.rooms) == 0
        assert not node.rooms._changes._by_recipient
        assert not node.rooms._changes._waiting
    # What a hook raised on purpose was reported or given to its caller; nothing else failed.
    wrong = [error for error in test.errors if not isinstance(error, Reject)]
    test.errors.clear()
    assert not wrong, wrong


@settings(max_examples=150, deadline=None)
@given(st.lists(OPERATIONS, max_size=30), st.sampled_from([0.0, 5.0]))
@example([("join", 0), ("turn", 2), ("join", 0), ("let go on", 0), ("turn", 2), ("let fail", 0)], 0.0)
@example([("join", 0), ("turn", 2), ("leave", 0), ("turn", 2), ("let go on", 0)], 0.0)
@example([("join unasked", 0), ("turn", 2), ("leave", 0), ("turn", 2), ("let go on", 0)], 5.0)
@example(
    # A leave undoes a join that waits for another one, too.
    [("join", 0), ("join", 0), ("turn", 2), ("leave", 0), ("turn", 2)],
    0.0,
)
def test_whatever_meets_the_hooks_of_a_room_keep_their_promises(
    operations: list[tuple[str, int]], linger: float
) -> None:
    asyncio.run(scenario(operations, linger))
