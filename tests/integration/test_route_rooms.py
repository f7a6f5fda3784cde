"""Routes with `room=`: connecting joins, over real connections."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from websockets.exceptions import ConnectionClosed

from support.clients import Log, closed, connect, refused, until
from symphony import (
    Close,
    ConfigurationError,
    Depends,
    Identity,
    Leave,
    Limits,
    Member,
    RefusedError,
    Reject,
    Room,
    Router,
    Socket,
    Symphony,
)
from symphony.testing import TestClient

JSON = ["symphony.v1.json"]
REFUSE = [*JSON, "symphony.refuse"]


@dataclass
class Board:
    name: str
    strokes: list[str] = field(default_factory=list)


@dataclass
class Player:
    score: int = 0


def strokes_of(room: Room[Any]) -> list[str]:
    return room.state.strokes


class House:
    """An app with one route whose sockets join `doc:{name}`, and what its hooks have done."""

    def __init__(self, *, raw: bool = False, route: dict[str, Any] | None = None, **options: Any) -> None:
        self.app = app = Symphony()
        self.log = Log()
        self.rooms = app.rooms("doc:{name}", **options)
        self.route = app.route("/doc/{name}", room="doc:{name}", events=not raw, **route or {})

        @app.middleware("connect")
        async def sign_in(socket: Socket, call_next) -> None:
            if "user" in socket.handshake.query_params:
                socket.login(Identity(socket.handshake.query_params["user"]))
            await call_next(socket)

        @self.rooms.authorize
        async def may_join(socket: Socket, room: Room) -> bool:
            self.log.append(f"authorize {room.state}")
            return "no" not in socket.handshake.query_params

        @self.rooms.on_join
        async def on_join(socket: Socket, room: Room) -> None:
            assert socket in room
            assert not socket.opened
            self.log.append("join")
            if "unwelcome" in socket.handshake.query_params:
                raise Reject("conflict", "not today", details={"day": 1})

        @self.rooms.on_leave
        async def on_leave(leave: Leave) -> None:
            self.log.append(f"leave {leave.reason}")

        @self.route.on_connect
        async def enter(socket: Socket, room: Room) -> None:
            assert socket not in room
            self.log.append(f"connect {room.name} {room.state}")
            if "late" in socket.handshake.query_params:
                raise Reject("too_many", "later")

        @self.route.on_disconnect
        async def bye(socket: Socket, room: Room, close: Close) -> None:
            self.log.append(f"bye {room.name}")

    def room(self, name: str = "a") -> Room:
        return self.app.room(f"doc:{name}")

    async def logged(self, *expected: str) -> None:
        await self.log.reaches(len(expected))
        assert self.log == list(expected)
        self.log.clear()


@pytest.mark.parametrize("raw", [False, True])
async def test_connecting_joins_and_disconnecting_leaves(serve, raw):
    house = House(raw=raw, state=lambda name: f"state of {name}")
    async with serve(house.app) as url:
        async with connect(f"{url}/doc/a", subprotocols=None if raw else JSON) as client:
            await house.logged("authorize None", "connect doc:a state of a", "join")
            assert await house.room().count() == 1
            if not raw:
                assert json.loads(await client.recv())["joined"] == "doc:a"
            await house.room().send("hi")
            assert "hi" in await client.recv()
        await house.logged("leave left", "bye doc:a")
        assert len(house.app._core.node.rooms) == 0


async def test_the_room_and_the_member_are_parameters_of_all_handlers(serve):
    app = Symphony()
    heard = Log()
    boards = app.rooms("board:{id:int}", state=lambda id: Board(f"b{id}"), members=Player)
    route = app.route("/board/{id:int}", room="board:{id}")

    @app.middleware("connect")
    async def sign_in(socket: Socket, call_next) -> None:
        socket.login(Identity("ann"))
        await call_next(socket)

    @route.middleware("message")
    async def watch(socket: Socket, message: Any, call_next, room: Room, member: Member) -> Any:
        heard.append((room.name, member.id))
        return await call_next(socket, message)

    @route.on_connect
    async def enter(room: Room[Any], id: int) -> None:
        heard.append(("connect", room.state.name, id, len(room.members)))

    @route.on("draw")
    async def draw(
        room: Room[Any],
        member: Member[Player],
        data: str,
        strokes: Annotated[list[str], Depends(strokes_of)],
    ) -> int:
        assert member.user == Identity("ann")
        assert room.members["ann"] is member
        strokes.append(data)
        member.state.score += 1
        return member.state.score

    @route.on("clear.{what}")
    def clear(what: str, member: Member[Player], room: Room[Any]) -> list[str]:
        return [what, *room.state.strokes, str(member.state.score)]

    @route.on_disconnect
    async def bye(room: Room[Any]) -> None:
        heard.append(("bye", room.name))

    async with serve(app) as url:
        async with connect(f"{url}/board/7", subprotocols=JSON) as client:
            await client.send(json.dumps({"event": "draw", "data": "x", "id": 1}))
            assert json.loads(await client.recv())["data"] == 1
            await client.send(json.dumps({"event": "draw", "data": "y", "id": 2}))
            assert json.loads(await client.recv())["data"] == 2
            await client.send(json.dumps({"event": "clear.all", "data": None, "id": 3}))
            assert json.loads(await client.recv())["data"] == ["all", "x", "y", "2"]
        await heard.reaches(5)
    assert heard == [("connect", "b7", 7, 0), *[("board:7", "ann")] * 3, ("bye", "board:7")]
    assert boards.policy.members is Player


async def test_messages_that_wait_when_the_client_leaves_still_know_their_member(serve):
    """Its socket is out of the room at once, and the rest of what it has sent is still handled."""
    app = Symphony()
    done = Log()
    start = asyncio.Event()
    app.rooms("game", members=Player)
    route = app.route("/", room="game")

    @route.on_message
    async def play(message: str, member: Member[Player], room: Room) -> None:
        await start.wait()
        member.state.score += int(message)
        done.append((message, member.state.score, len(room.sockets)))

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            for number in range(1, 4):
                await client.send(str(number))
        await until(lambda: not app.room("game").sockets)
        start.set()
        await done.reaches(3)
    assert done == [("1", 1, 0), ("2", 3, 0), ("3", 6, 0)]


@pytest.mark.parametrize(
    ("query", "status", "code", "log"),
    [
        ("?no=1", 403, "forbidden", ["authorize None"]),
        ("?late=1", 429, "too_many", ["authorize None", "connect doc:a None", "bye doc:a"]),
        (
            "?unwelcome=1",
            409,
            "conflict",
            ["authorize None", "connect doc:a None", "join", "leave removed", "bye doc:a"],
        ),
    ],
)
async def test_a_refused_join_refuses_the_connection_before_it_opens(serve, query, status, code, log):
    house = House()
    async with serve(house.app) as url:
        refusal = await refused(f"{url}/doc/a{query}", subprotocols=JSON)
        assert (refusal.status, refusal.code) == (status, code)
        assert refusal.headers["Symphony-Refusal"] == code
        await house.log.reaches(len(log))
        await until(lambda: not house.app._core.node.sessions)
        assert sorted(house.log) == sorted(log)
        assert len(house.app._core.node.rooms) == 0
        assert house.app.stats.opened == 0


@pytest.mark.parametrize(("query", "close"), [("?no=1", 4403), ("?late=1", 4429), ("?unwelcome=1", 4409)])
async def test_a_browser_is_told_nothing_but_the_error(serve, query, close):
    """`joined` was queued for the connection when a hook of the join refused it."""
    house = House(history=10)
    async with serve(house.app) as url, connect(f"{url}/doc/a{query}", subprotocols=REFUSE) as client:
        assert json.loads(await client.recv())["event"] == "error"
        assert (await closed(client))[0] == close


async def test_a_state_that_cannot_be_made_refuses_the_connection(serve):
    def load(name: str) -> None:
        raise Reject("not_found", f"there is no {name}")

    house = House(state=load)
    async with serve(house.app) as url:
        assert (await refused(f"{url}/doc/a")).code == "not_found"
        assert house.log == ["authorize None"]
        assert len(house.app._core.node.rooms) == 0


async def test_a_full_room_refuses_after_the_connect_handler(serve):
    house = House(max_members=1)
    async with serve(house.app) as url, connect(f"{url}/doc/a?user=ann", subprotocols=JSON):
        await house.logged("authorize None", "connect doc:a None", "join")
        refusal = await refused(f"{url}/doc/a?user=bob", subprotocols=JSON)
        assert (refusal.status, refusal.code, refusal.body["retryable"]) == (409, "room_full", False)
        await house.log.reaches(3)
        assert house.log == ["authorize None", "connect doc:a None", "bye doc:a"]
        # One who has a seat is not refused.
        async with connect(f"{url}/doc/a?user=ann", subprotocols=JSON):
            assert await house.room().count() == 1


async def test_too_many_rooms_refuse_the_connection(serve):
    house = House(route={"limits": Limits(max_rooms=1)})

    @house.route.middleware("connect")
    async def join_another(socket: Socket, call_next) -> None:
        await socket.join("other")
        await call_next(socket)

    async with serve(house.app) as url:
        assert (await refused(f"{url}/doc/a")).code == "too_many"


@pytest.mark.parametrize("path", ["/doc/a:b", "/doc/%3A", "/doc/" + "x" * 600, "/doc/%7Ba%7D", "/doc/a%07b"])
async def test_a_path_that_is_no_name_of_a_room_is_refused(serve, path):
    """A `:` in it would let a client choose a room of another family."""
    house = House()
    house.app.rooms("doc:{name}:staff")
    async with serve(house.app) as url:
        refusal = await refused(f"{url}{path}", subprotocols=JSON)
        assert (refusal.status, refusal.code) == (400, "invalid")
        assert house.log == []


@pytest.mark.parametrize(("number", "code"), [("7", None), ("007", "invalid"), ("x", "invalid")])
async def test_a_path_of_text_joins_only_what_the_rooms_allow(serve, number, code):
    app = Symphony()
    app.rooms("game:{id:int}")
    route = app.route("/{id}", room="game:{id}")
    route.on_message(lambda message: None)
    async with serve(app) as url:
        if code is not None:
            assert (await refused(f"{url}/{number}")).code == code
            return
        async with connect(f"{url}/{number}"):
            await until(lambda: len(app.room("game:7").sockets) == 1)


async def test_nobody_connects_into_the_room_of_a_user(serve):
    app = Symphony()
    route = app.route("/{kind}/{id}", room="{kind}:{id}")
    route.on_message(lambda message: None)
    async with serve(app) as url:
        assert (await refused(f"{url}/user/ann")).code == "forbidden"
        async with connect(f"{url}/users/ann"):
            await until(lambda: len(app.room("users:ann").sockets) == 1)


# How a membership ends


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    ("code", "reason", "seen"),
    [
        (4000, "the game is over", "the game is over"),
        (1000, "", "the room was closed"),
        (1012, "later", "later"),
    ],
)
async def test_closing_the_room_closes_its_sockets_with_the_code(serve, raw, code, reason, seen):
    house = House(raw=raw, history=10)
    protocols = None if raw else JSON
    async with serve(house.app) as url, connect(f"{url}/doc/a", subprotocols=protocols) as client:
        await house.logged("authorize None", "connect doc:a None", "join")
        other = await connect(f"{url}/doc/b")
        await house.logged("authorize None", "connect doc:b None", "join")
        await house.room().emit("last", 1)
        await house.room().close(code, reason)
        messages = await rest(client)
        assert [message.get("event") for message in messages] == [None, "last"][int(raw) :]
        assert await closed(client) == (code, seen)
        await house.logged("leave closed", "bye doc:a")
        await other.close()
        await house.logged("leave left", "bye doc:b")


async def test_others_of_a_closed_room_are_told_and_stay_connected(serve):
    house = House(history=10)
    plain = house.app.route("/plain", events=True)

    @plain.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("doc:a", authorize=False)

    async with serve(house.app) as url, connect(f"{url}/doc/a", subprotocols=JSON) as client:
        house.rooms.hooks.clear()
        async with connect(f"{url}/plain", subprotocols=JSON) as other:
            assert json.loads(await other.recv())["joined"] == "doc:a"
            await house.room().close(4000, "over")
            assert json.loads(await other.recv())["left"] == "doc:a"
            assert await closed(client) == (4000, "over")
            await (await other.ping())


async def test_a_slow_member_is_closed_after_what_it_has_missed(serve):
    house = House(history=200, route={"limits": Limits(high_water_bytes=4096, low_water_bytes=1024)})
    async with serve(house.app) as url, connect(f"{url}/doc/a", subprotocols=JSON) as client:
        for number in range(100):
            await house.room().emit("line", [number, "x" * 500])
        closing = asyncio.ensure_future(house.room().close(4001, "over"))
        lines = await rest(client)
        await closing
        assert [line["data"][0] for line in lines[1:]] == list(range(100))
        assert await closed(client) == (4001, "over")


@pytest.mark.parametrize("who", ["server", "client"])
async def test_leaving_the_room_closes_the_socket(serve, who):
    house = House(history=10)

    @house.route.on("go")
    async def go(socket: Socket, room: Room) -> None:
        assert await socket.leave(room.name)

    async with serve(house.app) as url, connect(f"{url}/doc/a", subprotocols=JSON) as client:
        await house.logged("authorize None", "connect doc:a None", "join")
        await client.send(json.dumps({"event": "go"} if who == "server" else {"leave": "doc:a", "id": 1}))
        assert (await closed(client))[0] == 1000
        await house.logged("leave left", "bye doc:a")


async def test_leaving_another_room_closes_nothing(serve):
    house = House()

    @house.route.on("go")
    async def go(socket: Socket) -> bool:
        await socket.join("other")
        return await socket.leave("other")

    async with serve(house.app) as url, connect(f"{url}/doc/a", subprotocols=JSON) as client:
        assert json.loads(await client.recv())["joined"] == "doc:a"
        await client.send(json.dumps({"event": "go", "id": 1}))
        assert json.loads(await client.recv())["data"] is True


async def test_a_revoked_user_is_closed_with_the_error(serve):
    app = Symphony()
    allowed = {"ann"}
    rooms = app.rooms("doc:{name}")
    route = app.route("/{name}", room="doc:{name}", events=True)

    @rooms.authorize
    async def may(user: Identity) -> bool:
        return user.id in allowed

    @app.middleware("connect")
    async def sign_in(socket: Socket, call_next) -> None:
        socket.login(Identity("ann"))
        await call_next(socket)

    assert route.path
    async with serve(app) as url, connect(f"{url}/a", subprotocols=JSON) as client:
        assert json.loads(await client.recv())["joined"] == "doc:a"
        await app.user("ann").revoke()
        assert client.state.name == "OPEN"
        allowed.clear()
        await app.user("ann").revoke()
        error = json.loads(await client.recv())
        assert (error["event"], error["data"]["code"]) == ("error", "forbidden")
        assert (await closed(client))[0] == 4403


# What happens meanwhile


class Slow:
    """An app whose connect handler waits, and whose room has a state."""

    def __init__(self, **options: Any) -> None:
        self.app = Symphony()
        self.log = Log()
        self.made = 0
        self.may_go_on = asyncio.Event()

        def make() -> int:
            self.made += 1
            return self.made

        self.rooms = self.app.rooms("doc", state=make, **options)
        self.route = self.app.route("/", room="doc")

        @self.route.on_connect
        async def enter(room: Room[Any]) -> None:
            self.log.append(room.state)
            await self.may_go_on.wait()
            self.log.append(room.state)

        @self.rooms.on_join
        async def on_join(room: Room) -> None:
            self.log.append(("join", room.state))

        @self.rooms.on_empty
        async def on_empty(room: Room) -> None:
            self.log.append(("empty", room.state))

        self.route.on_message(lambda message: None)


async def test_the_room_stays_while_the_connect_handler_runs(serve):
    """It is the only thing that keeps the room."""
    slow = Slow()
    async with serve(slow.app) as url:
        task = asyncio.create_task(_open(f"{url}/"))
        await slow.log.reaches(1)
        other = asyncio.create_task(_open(f"{url}/"))
        await slow.log.reaches(2)
        slow.may_go_on.set()
        first, second = await task, await other
        await slow.log.reaches(6)
        assert slow.log[:2] == [1, 1]
        await first.close()
        await second.close()
        await slow.log.reaches(7)
    assert slow.made == 1
    assert slow.log[-1] == ("empty", 1)


async def rest(client: Any) -> list[Any]:
    """Return what comes until the server closes."""
    messages: list[Any] = []
    with suppress(ConnectionClosed):
        async for message in client:
            messages.append(json.loads(message))
    return messages


async def _open(url: str, **options: Any) -> Any:
    return await connect(url, **options)


async def test_a_client_that_goes_during_its_connect_handler_ends_the_room(serve):
    slow = Slow()
    async with serve(slow.app) as url:
        task = asyncio.create_task(_open(f"{url}/"))
        await slow.log.reaches(1)
        task.cancel()
        await slow.log.reaches(2)
        assert slow.log == [1, ("empty", 1)]
        await until(lambda: len(slow.app._core.node.rooms) == 0)


async def test_a_room_that_is_closed_during_the_connect_handler_is_made_anew(serve):
    slow = Slow()
    async with serve(slow.app) as url:
        task = asyncio.create_task(_open(f"{url}/"))
        await slow.log.reaches(1)
        await slow.app.room("doc").close(4000)
        slow.may_go_on.set()
        client = await task
        await slow.log.reaches(4)
        assert slow.log == [1, 1, ("empty", 1), ("join", 2)]
        await client.close()


async def test_a_room_that_is_closed_during_its_join_hook_refuses_with_its_code(serve):
    app = Symphony()
    rooms = app.rooms("doc")
    route = app.route("/", room="doc", events=True)

    @rooms.on_join
    async def on_join(room: Room) -> None:
        await room.close(4123, "too late")

    assert route.path
    async with serve(app) as url:
        refusal = await refused(f"{url}/", subprotocols=JSON)
        assert (refusal.status, refusal.code, refusal.message) == (400, "cancelled", "too late")
        async with connect(f"{url}/", subprotocols=REFUSE) as client:
            assert json.loads(await client.recv())["data"]["code"] == "cancelled"
            assert (await closed(client))[0] == 4123


async def test_a_connect_handler_may_join_the_room_itself(serve):
    house = House()

    @house.app.middleware("connect")
    async def join_first(socket: Socket, call_next) -> None:
        await call_next(socket)
        await socket.join("doc:a")

    async with serve(house.app) as url, connect(f"{url}/doc/a", subprotocols=JSON) as client:
        await house.log.reaches(4)
        assert house.log == ["authorize None", "connect doc:a None", "authorize None", "join"]
        await house.room().close(4000)
        assert (await closed(client))[0] == 4000


@pytest.mark.parametrize("how", ["never calls it", "swallows the refusal"])
async def test_connect_middleware_lets_nobody_past_authorize(serve, how):
    app = Symphony()
    rooms = app.rooms("secret")
    route = app.route("/", room="secret", events=True)

    @app.middleware("connect")
    async def careless(socket: Socket, call_next) -> None:
        if how == "swallows the refusal":
            with pytest.raises(Reject):
                await call_next(socket)

    @rooms.authorize
    async def may(socket: Socket) -> bool:
        return False

    assert route.path
    async with serve(app) as url:
        assert (await refused(f"{url}/", subprotocols=JSON)).code == "forbidden"


async def test_a_lost_connection_keeps_the_seat_and_one_that_never_opened_does_not(serve):
    app = Symphony()
    log = Log()
    may_join = asyncio.Event()
    rooms = app.rooms("doc", grace=60)
    route = app.route("/{user}", room="doc", events=True)

    @app.middleware("connect")
    async def sign_in(socket: Socket, call_next) -> None:
        socket.login(Identity(socket.params["user"]))
        await call_next(socket)

    @rooms.on_join
    async def on_join(socket: Socket) -> None:
        log.append("join")
        if socket.params["user"] == "bob":
            await may_join.wait()

    @rooms.on_away
    async def on_away(member: Member, leave: Leave) -> None:
        log.append(f"{member.id} away {leave.reason}")

    @rooms.on_depart
    async def on_depart(member: Member, leave: Leave) -> None:
        log.append(f"{member.id} departs {leave.reason}")

    assert route.path
    async with serve(app) as url:
        ann = await connect(f"{url}/ann", subprotocols=JSON)
        await log.reaches(1)
        ann.transport.abort()
        await log.reaches(2)
        task = asyncio.create_task(_open(f"{url}/bob", subprotocols=JSON))
        await log.reaches(3)
        task.cancel()
        await log.reaches(4)
        assert log == ["join", "ann away lost", "join", "bob departs left"]
        assert list(app.room("doc").members) == ["ann"]


# One socket a user


@pytest.mark.parametrize("members", [None, Player])
async def test_a_new_socket_of_the_user_is_a_member_before_the_old_one_goes(serve, members):
    house = House(members=members, route={"per_user": 1})
    gone = Log()
    if members is not None:

        @house.rooms.on_away
        @house.rooms.on_depart
        def gone_again(member: Member) -> None:
            gone.append(member.id)

    async with serve(house.app) as url, connect(f"{url}/doc/a?user=ann", subprotocols=JSON) as old:
        await house.logged("authorize None", "connect doc:a None", "join")
        async with connect(f"{url}/doc/a?user=ann", subprotocols=JSON):
            assert (await closed(old))[0] == 4410
            await house.log.reaches(5)
            assert house.log[3:] == ["leave replaced", "bye doc:a"]
            assert len(house.room().sockets) == 1
            assert gone == []


@pytest.mark.parametrize("members", [None, Player])
async def test_a_join_that_fails_after_the_claim_leaves_the_old_socket_its_place(serve, members):
    house = House(members=members, route={"per_user": 1})
    async with serve(house.app) as url, connect(f"{url}/doc/a?user=ann", subprotocols=JSON) as old:
        await house.logged("authorize None", "connect doc:a None", "join")
        assert (await refused(f"{url}/doc/a?user=ann&unwelcome=1", subprotocols=JSON)).code == "conflict"
        await until(lambda: len(house.app._core.node.sessions) == 1)
        assert old.state.name == "OPEN"
        # It has its place, which the next one takes.
        async with connect(f"{url}/doc/a?user=ann", subprotocols=JSON):
            assert (await closed(old))[0] == 4410


@pytest.mark.parametrize("hook", ["on_back", "on_join"])
async def test_a_member_who_is_away_stays_so_if_its_next_attempt_is_cut_before_it_opens(serve, hook):
    """Until the same time as before: the attempt changes nothing."""
    app = Symphony()
    log = Log()
    go_on = asyncio.Event()
    rooms = app.rooms("doc", grace=60)
    route = app.route("/{user}", room="doc", events=True)

    @app.middleware("connect")
    async def sign_in(socket: Socket, call_next) -> None:
        socket.login(Identity(socket.params["user"]))
        await call_next(socket)

    async def wait(name: str) -> None:
        log.append(name)
        if name == hook and len(log) > 2:
            await go_on.wait()

    @rooms.on_back
    async def on_back(member: Member) -> None:
        await wait("on_back")

    @rooms.on_join
    async def on_join(socket: Socket) -> None:
        await wait("on_join")

    @rooms.on_away
    async def on_away(member: Member, leave: Leave) -> None:
        log.append(f"{leave.reason} {member.away_until is not None}")

    @rooms.on_depart
    async def on_depart(member: Member) -> None:
        log.append("departs")

    assert route.path
    async with serve(app) as url:
        ann = await connect(f"{url}/ann", subprotocols=JSON)
        await log.reaches(1)
        ann.transport.abort()
        await log.reaches(2)
        member = app.room("doc").members["ann"]
        entry = app._core.node.rooms._store._table._rooms["doc"].members["ann"]
        until_then = entry.away_until
        assert until_then is not None
        for attempt in (1, 2):
            before = len(log)
            task = asyncio.create_task(_open(f"{url}/ann", subprotocols=JSON))
            await log.reaches(before + (1 if hook == "on_back" else 2))
            task.cancel()
            await until(lambda: not member.sockets)
            go_on.set()
            await log.reaches(before + (2 if hook == "on_back" else 3))
            assert log.count("lost True") == attempt + 1
            go_on.clear()
            assert app.room("doc").members["ann"] is member
            assert entry.away_until == until_then
        assert "departs" not in log
        go_on.set()
        async with connect(f"{url}/ann", subprotocols=JSON):
            await until(lambda: member.sockets)
            assert (member.away_until, app.room("doc").members["ann"]) == (None, member)


async def test_a_second_socket_is_refused_before_the_hooks_of_its_join(serve):
    house = House(members=Player, route={"per_user": 1, "on_conflict": "refuse"})
    arrived = Log()

    @house.rooms.on_arrive
    def on_arrive(member: Member) -> None:
        arrived.append(member.arrival)

    async with serve(house.app) as url:
        async with connect(f"{url}/doc/a?user=ann", subprotocols=JSON):
            await house.logged("authorize None", "connect doc:a None", "join")
            assert (await refused(f"{url}/doc/a?user=ann", subprotocols=JSON)).code == "conflict"
            assert house.log == []
        assert len(arrived) == 1
        assert (await refused(f"{url}/doc/a", subprotocols=JSON)).code == "unauthorized"


async def test_sockets_of_one_user_that_connect_at_once_get_one_place(serve):
    house = House(members=Player, route={"per_user": 1, "on_conflict": "refuse"})
    events = Log()

    @house.rooms.on_arrive
    def on_arrive(member: Member) -> None:
        events.append(f"arrive {member.id}")

    @house.rooms.on_depart
    def on_depart(member: Member) -> None:
        events.append(f"depart {member.id}")

    async with serve(house.app) as url:
        url = f"{url}/doc/a?user=ann"
        results = await asyncio.gather(
            *[_open(url, subprotocols=JSON) for _ in range(8)], return_exceptions=True
        )
        opened = [each for each in results if not isinstance(each, Exception)]
        assert len(opened) == 1
        assert len(house.room().sockets) == 1
        await opened[0].close()
        await until(lambda: len(events) >= 2 and events[-1] == "depart ann")
        assert events == ["arrive ann", "depart ann"] * (len(events) // 2)


# Mistakes


def _app_with(path: str, room: str, *, prefix: str = "") -> Symphony:
    app = Symphony()
    router = Router(prefix)
    router.route(path, room=room, events=True)
    app.include(router)
    return app


@pytest.mark.parametrize(
    ("path", "room", "problem"),
    [
        ("/doc/{name}", "doc:{title}", r"\{title\} is not a parameter of the path \(its parameters: name\)"),
        ("/doc", "doc:{name}", r"\{name\} is not a parameter of the path \(its parameters: none\)"),
        ("/doc/{id:int}", "doc:{id:float}", r"\{id\} is converted by the path"),
        ("/doc/{id}", "doc:{id:int}", r"\{id\} is converted by the path"),
        ("/{id}", "user:{id}", "while it is logged in"),
        ("/{id}", "doc:{id", "braces are not balanced"),
        ("/{id}", "", "cannot be empty"),
        ("/{id}", "doc:{id}:{id}", "used twice"),
    ],
)
async def test_a_wrong_room_is_found_at_the_start(path, room, problem):
    with pytest.raises(ConfigurationError, match=problem):
        async with TestClient(_app_with(path, room)):
            pass


@pytest.mark.parametrize("room", ["doc:{title}", "{a}:{name}", "doc:{name}:{id}"])
def test_an_unknown_parameter_is_an_error_at_the_registration(room):
    app = Symphony()
    with pytest.raises(ConfigurationError, match="is not a parameter of the path"):
        app.route("/doc/{name}", room=room)


async def test_the_prefix_of_a_router_may_have_the_parameters():
    app = _app_with("/{name}", "{team}:{name}", prefix="/teams/{team}")
    async with TestClient(app) as client, client.connect("/teams/red/x"):
        assert len(app.room("red:x").sockets) == 1


@pytest.mark.parametrize(
    ("pattern", "path", "room"),
    [
        ("doc:{name}", "/{x}", "doc:{x}"),
        ("doc:{id:int}", "/{x}", "doc:{x}"),
        ("doc:{id:int}", "/{x:int}", "doc:{x:int}"),
        ("doc:{id:uuid}", "/{x:uuid}", "doc:{x}"),
        ("doc:{id:float}", "/{x:float}", "doc:{x}"),
        ("doc:{rest:path}", "/{x:path}", "doc:{x}"),
        ("doc:main", "/", "doc:main"),
        ("{kind}:{name}", "/{a}/{b}", "{a}:{b}"),
    ],
)
async def test_a_wrong_type_is_found_at_the_start(pattern, path, room):
    def make() -> Board:
        return Board("")

    def register(annotation: Any, **options: Any) -> Symphony:
        app = Symphony()
        app.rooms(pattern, **options)
        route = app.route(path, room=room)

        def handle(message, given) -> None: ...

        handle.__annotations__["given"] = annotation
        route.on_message(handle)
        return app

    for annotation, options, problem in [
        (Room[Player], {"state": make}, "wants Room\\[Player\\], but the state of the family is Board"),
        (Room[Player], {}, "wants Room\\[Player\\], but the family has no state"),
        (Member, {}, "have no members"),
        (Member[Board], {"members": Player}, "wants Member\\[Board\\]"),
    ]:
        with pytest.raises(ConfigurationError, match=problem):
            async with TestClient(register(annotation, **options)):
                pass
    for annotation, options in [
        (Room[Board], {"state": make}),
        (Room, {}),
        (Member[Player], {"members": Player}),
        (Member, {"presence": True}),
    ]:
        async with TestClient(register(annotation, **options)):
            pass


@pytest.mark.parametrize(
    ("stage", "kind", "problem"),
    [
        ("on_connect", Member, "on_connect runs before the user is a member"),
        ("on_disconnect", Member, "the socket has left its room already"),
    ],
)
async def test_a_member_is_not_for_every_stage(stage, kind, problem):
    app = Symphony()
    app.rooms("doc", presence=True)
    route = app.route("/", room="doc")

    def handle(given) -> None: ...

    handle.__annotations__["given"] = kind
    getattr(route, stage)(handle)
    with pytest.raises(ConfigurationError, match=problem):
        async with TestClient(app):
            pass


@pytest.mark.parametrize("kind", [Room, Member])
async def test_connect_middleware_and_routes_without_a_room_have_none(kind):
    async def around(socket, call_next, given) -> None: ...

    def handle(message, given) -> None: ...

    around.__annotations__["given"] = handle.__annotations__["given"] = kind
    app = Symphony()
    app.rooms("doc", presence=True)
    app.route("/", room="doc").middleware("connect")(around)
    with pytest.raises(ConfigurationError, match="connect middleware runs before the room is joined"):
        async with TestClient(app):
            pass
    app = Symphony()
    app.route("/").on_message(handle)
    with pytest.raises(ConfigurationError, match="routes with room="):
        async with TestClient(app):
            pass


async def test_a_member_is_not_for_a_dependency_that_lives_as_long_as_the_socket():
    app = Symphony()
    app.rooms("doc", presence=True)
    route = app.route("/", room="doc")

    def mine(member: Member) -> str:
        return member.id

    @route.on_message
    def handle(message: str, mine: Annotated[str, Depends(mine, scope="socket")]) -> str:
        return mine

    with pytest.raises(ConfigurationError, match="socket"):
        async with TestClient(app):
            pass


# In memory


async def test_the_test_client_joins_and_is_refused():
    house = House(state=Board, max_members=1)
    async with TestClient(house.app) as client, client.connect("/doc/a?user=ann") as ann:
        assert house.room().state == Board("a")
        assert list(house.room().members) == ["ann"]
        with pytest.raises(RefusedError) as caught:
            async with client.connect("/doc/a?user=bob"):
                pass
        assert caught.value.refusal is not None
        assert caught.value.refusal.code == "room_full"
        await house.room().close(4000, "over")
        closing = await ann.wait_closed()
        assert (closing.code, closing.reason) == (4000, "over")
