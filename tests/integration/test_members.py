"""Members of rooms: users, whatever the number of their sockets, over real connections."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from support.clients import Client, connect, refused, until
from symphony import ConfigurationError, Identity, Leave, Member, Reject, Room, Socket, Symphony
from symphony.testing import TestClient


class Hall:
    """An app with one family of rooms with members, and what its hooks have done."""

    def __init__(self, **options: Any) -> None:
        self.app = app = Symphony()
        self.log: list[str] = []
        self.sockets: dict[str, list[Socket]] = {}
        self.rooms = app.rooms("game:{id:int}", **options)
        route = app.route("/{user}")

        @route.on_connect
        async def enter(socket: Socket, user: str) -> None:
            name = user.rstrip("0123456789")
            if not name.startswith("anon"):
                socket.login(Identity(name, {"name": name.title()}))
            self.sockets.setdefault(user, []).append(socket)
            await socket.join("game:1")

        @route.on("leave")
        async def leave(socket: Socket) -> bool:
            return await socket.leave("game:1")

        @route.on("join")
        async def join(socket: Socket) -> None:
            await socket.join("game:1")

        @route.on("kick")
        async def kick(socket: Socket, data: int) -> None:
            socket.close(data, "out")

    def watch(self) -> None:
        """Log what the hooks are called with."""

        @self.rooms.on_arrive
        async def on_arrive(socket: Socket, room: Room, member: Member, id: int) -> None:
            assert room.members[member.id] is member
            assert socket in room
            assert member.sockets == (socket,)
            assert id == 1
            self.log.append(f"arrive {member.id}")

        @self.rooms.on_back
        async def on_back(socket: Socket, room: Room, member: Member) -> None:
            assert room.members[member.id] is member
            assert member.away_until is None
            self.log.append(f"back {member.id}")

        @self.rooms.on_join
        async def on_join(socket: Socket, room: Room) -> None:
            self.log.append(f"join {socket.user.id if socket.user else 'anon'}")

        @self.rooms.on_leave
        async def on_leave(socket: Socket, room: Room) -> None:
            assert socket not in room
            self.log.append(f"leave {socket.user.id if socket.user else 'anon'}")

        @self.rooms.on_away
        async def on_away(room: Room, member: Member) -> None:
            assert member.away_until is not None
            assert room.members[member.id] is member
            self.log.append(f"away {member.id}")

        @self.rooms.on_depart
        async def on_depart(room: Room, member: Member) -> None:
            assert member.id not in room.members
            self.log.append(f"depart {member.id if member.user else 'anon'}")

        @self.rooms.on_empty
        async def on_empty(room: Room) -> None:
            self.log.append("empty")

    @property
    def room(self) -> Room:
        return self.app.room("game:1")

    async def logged(self, *expected: str) -> None:
        await until(lambda: len(self.log) >= len(expected))
        assert self.log == list(expected)
        self.log.clear()


async def ask(client: Client, event: str, data: Any = None) -> Any:
    """Return the answer to a request."""
    await client.send(json.dumps({"event": event, "data": data, "id": 1}))
    while True:
        message = json.loads(await asyncio.wait_for(client.recv(), 5))
        if "reply" in message:
            return message["data"]


async def ask_nothing() -> None:
    """Let the loop turn: what the store was told has no event."""
    await asyncio.sleep(0)


def lose(client: Client) -> None:
    """Cut a connection, without a close frame."""
    client.transport.abort()


async def test_two_tabs_of_a_user_are_one_member(serve):
    hall = Hall(max_members=5)
    hall.watch()
    async with serve(hall.app) as url:
        async with connect(f"{url}/ann1"):
            await hall.logged("arrive ann", "join ann")
            async with connect(f"{url}/ann2"):
                await hall.logged("join ann")
                (member,) = hall.room.members.values()
                assert (member.id, len(member.sockets), dict(member.info)) == ("ann", 2, {"name": "Ann"})
                assert await hall.room.count() == 1
                assert [one.id for one in await hall.room.presence()] == ["ann"]
            await hall.logged("leave ann")
            assert "ann" in hall.room.members
        await hall.logged("leave ann", "depart ann", "empty")
        assert hall.room.members == {}
        assert await hall.room.count() == 0


async def test_a_reload_within_the_grace_period_is_silent(serve):
    hall = Hall(grace=30)
    hall.watch()
    async with serve(hall.app) as url:
        async with connect(f"{url}/ann") as client:
            await hall.logged("arrive ann", "join ann")
            arrival = hall.room.members["ann"].arrival
            lose(client)
        await hall.logged("leave ann", "away ann")
        assert await hall.room.count() == 1
        assert [one.away for one in await hall.room.presence()] == [True]
        async with connect(f"{url}/ann"):
            await hall.logged("back ann", "join ann")
            assert hall.room.members["ann"].arrival == arrival
        # A normal close: it has left.
        await hall.logged("leave ann", "depart ann", "empty")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1000, "depart ann"),
        (4000, "depart ann"),
        (4403, "depart ann"),
        (1001, "away ann"),
        (1012, "away ann"),
        (4503, "away ann"),
    ],
)
async def test_a_close_by_the_server_is_final_unless_its_code_is_retryable(serve, code, expected):
    hall = Hall(grace=30)
    hall.watch()
    async with serve(hall.app) as url, connect(f"{url}/ann") as client:
        await hall.logged("arrive ann", "join ann")
        await client.send(json.dumps({"event": "kick", "data": code}))
        await client.wait_closed()
        await until(lambda: len(hall.log) >= 2)
        assert hall.log[:2] == ["leave ann", expected]


async def test_a_member_who_leaves_departs_at_once(serve):
    hall = Hall(grace=30)
    hall.watch()
    async with serve(hall.app) as url, connect(f"{url}/ann") as client:
        await hall.logged("arrive ann", "join ann")
        assert await ask(client, "leave") is True
        assert hall.room.members == {}
        await hall.logged("leave ann", "depart ann", "empty")
        await ask(client, "join")
        await hall.logged("arrive ann", "join ann")


async def test_sockets_without_a_user_have_no_grace_period(serve):
    hall = Hall(grace=30)
    hall.watch()
    async with serve(hall.app) as url, connect(f"{url}/anon1") as one, connect(f"{url}/anon2"):
        await until(lambda: len(hall.room.members) == 2)
        assert all(member.user is None for member in hall.room.members.values())
        hall.log.clear()
        lose(one)
        await hall.logged("leave anon", "depart anon")
        assert len(hall.room.members) == 1


async def test_seats_are_counted_by_members(serve):
    hall = Hall(max_members=2, grace=30)
    async with serve(hall.app) as url, AsyncExitStack() as stack:
        for name in ("ann1", "ann2", "bob"):
            await stack.enter_async_context(connect(f"{url}/{name}"))
        refusal = await refused(f"{url}/eve")
        assert (refusal.status, refusal.code, refusal.body["retryable"]) == (409, "room_full", False)
        await stack.enter_async_context(connect(f"{url}/bob2"))
        assert {id: len(one.sockets) for id, one in hall.room.members.items()} == {"ann": 2, "bob": 2}


async def test_a_member_who_is_away_has_a_seat(serve):
    hall = Hall(max_members=1, grace=30)
    hall.watch()
    async with serve(hall.app) as url:
        async with connect(f"{url}/ann") as client:
            await hall.logged("arrive ann", "join ann")
            lose(client)
        await hall.logged("leave ann", "away ann")
        refusal = await refused(f"{url}/eve")
        assert (refusal.status, refusal.code, refusal.body["retryable"]) == (409, "room_full", True)
        async with connect(f"{url}/ann"):
            await hall.logged("back ann", "join ann")


async def test_spectators_need_no_seat(serve):
    hall = Hall(max_members=1, counts=lambda socket: not socket.params["user"].startswith("anon"))
    async with (
        serve(hall.app) as url,
        connect(f"{url}/ann"),
        connect(f"{url}/anon1"),
        connect(f"{url}/anon2"),
    ):
        assert await hall.room.count() == 3
        assert (await refused(f"{url}/bob")).code == "room_full"


class Player:
    made = 0

    def __init__(self, user: Identity, id: int) -> None:
        self.name, self.id = user.id, id
        self.score = 0
        Player.made += 1


async def test_the_state_of_a_member_lives_from_arrival_to_departure(serve):
    hall = Hall(members=Player, grace=30)
    hall.watch()
    seen: list[Any] = []

    @hall.rooms.on_depart
    async def save(room: Room, member: Member[Player]) -> None:
        seen.append((member.state.name, member.state.score))

    async with serve(hall.app) as url:
        Player.made = 0
        async with connect(f"{url}/ann1") as client, connect(f"{url}/ann2") as other:
            assert (Player.made, hall.room.members["ann"].state.id) == (1, 1)
            hall.room.members["ann"].state.score = 5
            lose(client)
            lose(other)
        await until(lambda: "away ann" in hall.log)
        async with connect(f"{url}/ann"):
            assert (Player.made, hall.room.members["ann"].state.score) == (1, 5)
        await until(lambda: seen == [("ann", 5)])
        async with connect(f"{url}/ann"):
            assert (Player.made, hall.room.members["ann"].state.score) == (2, 0)


@pytest.mark.parametrize("hook", ["members", "on_arrive", "on_join"])
async def test_what_raises_undoes_the_join(serve, hook):
    def fails() -> None:
        raise Reject("forbidden", "not you")

    hall = Hall(**({"members": fails} if hook == "members" else {"grace": 30}))
    hall.watch()
    if hook != "members":
        getattr(hall.rooms, hook)(fails)
    async with serve(hall.app) as url:
        refusal = await refused(f"{url}/ann")
        assert (refusal.status, refusal.code) == (403, "forbidden")
        assert hall.room.members == {}
        assert await hall.room.count() == 0
        expected = {
            "members": [],
            "on_arrive": ["arrive ann", "leave ann", "depart ann", "empty"],
            "on_join": ["arrive ann", "join ann", "leave ann", "depart ann", "empty"],
        }
        await until(lambda: len(hall.log) >= len(expected[hook]))
        assert hall.log == expected[hook]


async def test_rooms_without_members_say_so(serve):
    app = Symphony()
    app.rooms("plain:{id}", history=10)
    app.route("/")
    async with serve(app):
        for name in ("plain:1", "other"):
            with pytest.raises(RuntimeError, match="have no members"):
                _ = app.room(name).members
            with pytest.raises(RuntimeError, match="have no members"):
                await app.room(name).presence()
            assert await app.room(name).count() == 0


async def test_the_hooks_of_a_member_keep_their_order(serve):
    """Also if one of them takes long: a member does not depart before it has arrived."""
    hall = Hall()
    go_on = asyncio.Event()

    @hall.rooms.on_arrive
    async def slow(member: Member) -> None:
        hall.log.append("arriving")
        await go_on.wait()

    hall.watch()
    async with serve(hall.app) as url:
        first = asyncio.create_task(connect(f"{url}/ann1").__aenter__())
        await hall.logged("arriving")
        async with connect(f"{url}/ann2"):
            await hall.logged("join ann")
        await hall.logged("leave ann")
        first.cancel()
        await until(lambda: not hall.room.sockets)
        go_on.set()
        await until(lambda: "empty" in hall.log)
        assert hall.log == ["leave ann", "depart ann", "empty"]


async def test_a_member_that_is_lost_before_its_turn_has_arrived_all_the_same(serve):
    """A departure took long. The member was back, waited for it, and was lost: its `on_arrive` never ran.

    Its `on_depart` did. So an app that counts in these hooks was wrong from then on.
    """
    hall = Hall()
    go_on = asyncio.Event()
    log: list[str] = []

    @hall.rooms.on_arrive
    async def arrive(member: Member) -> None:
        log.append(f"arrive {member.arrival}")

    @hall.rooms.on_depart
    async def depart(member: Member) -> None:
        log.append(f"depart {member.arrival}")
        await go_on.wait()

    async with serve(hall.app) as url:
        async with connect(f"{url}/ann1"):
            pass
        await until(lambda: len(log) == 2)
        second = asyncio.create_task(connect(f"{url}/ann2").__aenter__())
        await until(lambda: bool(hall.room.sockets))
        second.cancel()
        await until(lambda: not hall.room.sockets)
        go_on.set()
        await until(lambda: len(log) == 4)
        first, again = (line.partition(" ")[2] for line in log[::2])
        assert first != again
        assert log == [f"arrive {first}", f"depart {first}", f"arrive {again}", f"depart {again}"]


async def test_a_member_can_be_put_out_in_its_own_hook(serve):
    hall = Hall(grace=30)
    hall.watch()

    @hall.rooms.on_arrive
    async def put_out(socket: Socket, member: Member) -> None:
        assert await socket.leave("game:1")

    async with serve(hall.app) as url:
        assert (await refused(f"{url}/ann")).code == "cancelled"
        await until(lambda: "empty" in hall.log)
        assert hall.log == ["arrive ann", "leave ann", "depart ann", "empty"]


async def test_login_of_a_member_tells_what_is_new(serve):
    hall = Hall(grace=30)
    async with serve(hall.app) as url, connect(f"{url}/ann"):
        socket = hall.sockets["ann"][0]
        await until(lambda: socket.opened)
        socket.login(Identity("ann", {"name": "Dr. Ann"}))
        assert dict(hall.room.members["ann"].info) == {"name": "Dr. Ann"}
        while (await hall.room.presence())[0].user != Identity("ann", {"name": "Dr. Ann"}):
            await ask_nothing()
        assert await hall.app.presence("ann") == ["game:1"]
        assert await hall.app.presence("bob") == []


async def test_a_socket_that_is_a_member_without_a_user_may_not_log_in(serve):
    hall = Hall(grace=30)
    async with serve(hall.app) as url, connect(f"{url}/anon"):
        socket = hall.sockets["anon"][0]
        await until(lambda: socket.opened)
        with pytest.raises(RuntimeError, match="before it joins"):
            socket.login(Identity("ann"))
        assert socket.user is None
        await socket.leave("game:1")
        socket.login(Identity("ann"))
        await socket.join("game:1")
        assert list(hall.room.members) == ["ann"]


@pytest.mark.within("rooms.seating._MAX_INFO_BYTES")
@pytest.mark.beyond("rooms.seating._MAX_INFO_BYTES")
async def test_what_is_told_about_a_member_is_limited(serve):
    hall = Hall(grace=30)
    async with serve(hall.app) as url, connect(f"{url}/ann"):
        socket = hall.sockets["ann"][0]
        await until(lambda: socket.opened)
        socket.login(Identity("ann", {"note": "x" * 16_000}))
        with pytest.raises(ValueError, match=r"Identity\.info has .* bytes"):
            socket.login(Identity("ann", {"note": "x" * 17_000}))
        assert len(socket.user.info["note"]) == 16_000


async def test_the_grace_period_ends_on_the_clock_of_the_loop():
    hall = Hall(grace=10)
    hall.watch()
    async with TestClient(hall.app) as client:
        async with client.connect("/ann") as ann:
            await ann.close(1001)
        await client.clock.advance(9)
        assert hall.log[-1] == "away ann"
        await client.clock.advance(1)
        assert hall.log[-2:] == ["depart ann", "empty"]
        assert hall.room.members == {}


async def test_leases_are_renewed_for_as_long_as_a_socket_is_there():
    hall = Hall(grace=10)
    hall.watch()
    async with TestClient(hall.app) as client, client.connect("/ann"):
        await client.clock.advance(200)
        assert hall.log == ["arrive ann", "join ann"]
        assert await hall.room.count() == 1


async def test_members_who_are_away_depart_when_their_room_is_closed(serve):
    hall = Hall(grace=60, members=dict)
    leaves: list[tuple[str, Leave, dict[str, Any]]] = []
    hall.watch()

    @hall.rooms.on_depart
    def on_depart(member: Member, leave: Leave) -> None:
        leaves.append((member.id, leave, member.state))

    async with serve(hall.app) as url:
        client = await connect(f"{url}/ann")
        await hall.logged("arrive ann", "join ann")
        hall.room.members["ann"].state["score"] = 7
        lose(client)
        await hall.logged("leave ann", "away ann")
        async with connect(f"{url}/bob"):
            await hall.logged("arrive bob", "join bob")
            arrival = hall.room.members["ann"].arrival
            await hall.room.close(4000, "over")
            await until(lambda: len(hall.log) == 4)
            assert sorted(hall.log[:3]) == ["depart ann", "depart bob", "leave bob"]
            assert hall.log.index("leave bob") < hall.log.index("depart bob")
            assert hall.log[3] == "empty"
            closed = Leave("closed", 4000)
            assert sorted(leaves, key=str) == [("ann", closed, {"score": 7}), ("bob", closed, {})]
            assert await hall.room.count() == 0
            hall.log.clear()
        # It is a new visit, in a new room.
        async with connect(f"{url}/ann"):
            await hall.logged("arrive ann", "join ann")
            assert hall.room.members["ann"].arrival != arrival
            assert hall.room.members["ann"].state == {}


async def test_who_is_lost_just_before_the_close_departs_too(serve):
    """The store has not answered yet when the room is closed."""
    hall = Hall(grace=60)
    hall.watch()
    async with serve(hall.app) as url:
        client = await connect(f"{url}/ann")
        await hall.logged("arrive ann", "join ann")
        store = hall.app._core.node.rooms._store
        untrack, may_answer = store.untrack, asyncio.Event()

        async def slow_untrack(*arguments: Any, **options: Any) -> Any:
            await may_answer.wait()
            return await untrack(*arguments, **options)

        store.untrack = slow_untrack
        lose(client)
        await hall.logged("leave ann")
        await hall.room.close(4000)
        may_answer.set()
        await hall.logged("away ann", "depart ann", "empty")


async def test_a_departure_whose_answer_is_lost_is_asked_for_again(serve):
    hall = Hall(grace=60)
    hall.watch()
    async with serve(hall.app) as url:
        client = await connect(f"{url}/ann")
        await hall.logged("arrive ann", "join ann")
        lose(client)
        await hall.logged("leave ann", "away ann")
        store = hall.app._core.node.rooms._store
        dismiss = store.dismiss

        async def lost_answer(*arguments: Any) -> Any:
            store.dismiss = dismiss
            await dismiss(*arguments)
            raise ConnectionError

        store.dismiss = lost_answer
        await hall.room.close(4000)
        await hall.logged("depart ann", "empty")


@pytest.mark.parametrize("who", ["ann", "anon"])
async def test_on_join_and_on_publish_take_the_member_of_the_socket(serve, who):
    hall = Hall(members=dict, client_join=True)

    @hall.rooms.on_join
    async def on_join(room: Room, member: Member[dict[str, int]], socket: Socket) -> None:
        assert socket in member.sockets
        member.state["joins"] = member.state.get("joins", 0) + 1

    @hall.rooms.on_publish("said")
    async def said(member: Member[dict[str, int]], id: int, text: str) -> str:
        member.state["said"] = member.state.get("said", 0) + 1
        return f"{text} {id} {member.user.id if member.user else 'anon'} {member.state}"

    async with serve(hall.app) as url, connect(f"{url}/{who}") as client:
        assert json.loads(await client.recv())["joined"] == "game:1"
        for number in (1, 2):
            publish = {"publish": "said", "room": "game:1", "data": "hi", "id": number}
            await client.send(json.dumps(publish))
            heard = json.loads(await client.recv())
            assert heard["data"] == f"hi 1 {who} {{'joins': 1, 'said': {number}}}"
            await client.recv()


@pytest.mark.parametrize(
    ("hook", "options", "problem"),
    [
        ("on_join", {}, "the rooms have no members"),
        ("on_publish", {}, "the rooms have no members"),
        ("authorize", {"presence": True}, "here the socket is no member"),
        ("on_leave", {"presence": True}, "here the socket is no member"),
        ("on_empty", {"grace": 1}, "here the socket is no member"),
        ("on_join", {"members": dict, "wrong": True}, "wants Member\\[int\\]"),
    ],
)
async def test_a_member_that_a_hook_cannot_have_is_found_at_the_start(hook, options, problem):
    app = Symphony()
    kind = Member[int] if options.pop("wrong", False) else Member
    rooms = app.rooms("game", **options)

    def handle(given) -> None: ...

    handle.__annotations__["given"] = kind
    register = getattr(rooms, hook)
    (register("said") if hook == "on_publish" else register)(handle)
    with pytest.raises(ConfigurationError, match=problem):
        async with TestClient(app):
            pass
