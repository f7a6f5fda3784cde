"""`app.rooms(pattern)`: one policy for many rooms, and its hooks."""

import asyncio
import json
from typing import Any

import pytest

from support.clients import Log, connect, error_in, refused, until
from symphony import ConfigurationError, Identity, Leave, Reject, Room, Router, Socket, Symphony


class Game:
    def __init__(self) -> None:
        self.score = 0


def joins_by_message(app: Symphony) -> None:
    """Let sockets join with `+name` and leave with `-name`."""

    @app.on_message
    async def handle(socket: Socket, message: str) -> str:
        name = message[1:]
        if message.startswith("+"):
            await socket.join(name)
        else:
            await socket.leave(name)
        return message


async def say(client: Any, message: str) -> None:
    await client.send(message)
    assert await client.recv() == message


async def test_authorize_is_asked_before_each_join_and_may_refuse(serve):
    app = Symphony()
    log = Log()
    joins_by_message(app)
    rooms = app.rooms("team:{team}:{name}")

    @rooms.authorize
    async def may_join(socket: Socket, room: Room, team: str, name: str) -> bool:
        log.append((room.name, team, name))
        assert socket not in room
        if name == "secret":
            raise Reject("forbidden", "ask the owner", details={"owner": team})
        return name != "closed"

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, "+team:red:lobby")
        await client.send("+team:red:closed")
        error = error_in(await client.recv())
        assert (error["code"], error["message"]) == ("forbidden", "you may not join 'team:red:closed'")
        await client.send("+team:red:secret")
        error = error_in(await client.recv())
        assert (error["message"], error["details"]) == ("ask the owner", {"owner": "red"})
        await say(client, "+other")
        [socket] = app.everyone.sockets
        assert socket.rooms == {"team:red:lobby", "other"}
        assert await socket.join("team:red:closed", authorize=False) == app.room("team:red:closed")
        assert socket in app.room("team:red:closed")
        await until(lambda: len(log) == 3)
    assert log == [
        ("team:red:lobby", "red", "lobby"),
        ("team:red:closed", "red", "closed"),
        ("team:red:secret", "red", "secret"),
    ]


async def test_authorize_is_not_asked_again_of_a_member(serve):
    app = Symphony()
    log = Log()
    joins_by_message(app)

    @app.rooms("{name}").authorize
    def may_join(name: str) -> None:
        log.append(name)

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, "+a")
        await say(client, "+a")
    assert log == ["a"]


async def test_a_refused_join_in_the_connect_handler_is_an_http_answer(serve):
    app = Symphony()

    @app.rooms("chat:{name}").authorize
    async def members_only(socket: Socket, name: str) -> bool:
        return socket.user is not None

    @app.middleware("connect")
    async def authenticate(socket: Socket, call_next) -> None:
        if socket.handshake.query_params.get("token"):
            socket.login(Identity("ann"))
        await call_next(socket)

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("chat:a")
        await socket.send("in")

    async with serve(app) as url:
        refusal = await refused(f"{url}/")
        assert (refusal.status, refusal.message) == (403, "you may not join 'chat:a'")
        async with connect(f"{url}/?token=x") as client:
            assert await client.recv() == "in"


async def test_on_join_and_on_leave_are_told_once_a_membership_however_it_ends(serve):
    app = Symphony()
    log = Log()
    joins_by_message(app)
    rooms = app.rooms("chat:{name}")

    @rooms.on_join
    async def joined(socket: Socket, room: Room, name: str) -> None:
        assert socket in room
        log.append(f"join {name}")
        await room.send(f"welcome to {name}")

    @rooms.on_leave
    async def left(socket: Socket, room: Room, name: str) -> None:
        assert socket not in room
        log.append(f"leave {name}")

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.send("+chat:a")
            assert [await client.recv(), await client.recv()] == ["welcome to a", "+chat:a"]
            await say(client, "+chat:a")
            await say(client, "-chat:a")
            await say(client, "-chat:a")
            await client.send("+chat:b")
            assert [await client.recv(), await client.recv()] == ["welcome to b", "+chat:b"]
        await log.reaches(4)
    assert log == ["join a", "leave a", "join b", "leave b"]


async def test_an_on_join_that_refuses_undoes_the_join(serve):
    app = Symphony()
    log = Log()
    joins_by_message(app)
    rooms = app.rooms("chat:{name}")

    @rooms.on_join
    async def joined(room: Room) -> None:
        raise Reject("conflict", "not now")

    @rooms.on_leave
    async def left(name: str, leave: Leave) -> None:
        log.append((name, leave))

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("+chat:a")
        assert error_in(await client.recv())["message"] == "not now"
        assert app.room("chat:a").sockets == ()
        assert app.room("chat:a").state is None
    assert log == [("a", Leave("removed"))]


async def test_a_full_room_refuses_and_takes_again_when_one_leaves(serve):
    app = Symphony()
    joins_by_message(app)
    app.rooms("duel:{id}", max_members=2)

    async with (
        serve(app) as url,
        connect(f"{url}/") as one,
        connect(f"{url}/") as two,
        connect(f"{url}/") as three,
    ):
        await say(one, "+duel:1")
        await say(two, "+duel:1")
        await three.send("+duel:1")
        assert error_in(await three.recv()) == {
            "code": "room_full",
            "message": "'duel:1' is full",
            "retryable": True,
            "details": {"room": "duel:1", "max_members": 2},
        }
        await say(three, "+duel:2")
        await say(one, "-duel:1")
        await say(three, "+duel:1")


async def test_a_room_has_its_state_from_the_first_join_to_the_last_leave(serve):
    app = Symphony()
    app.rooms("game:{id:int}", state=Game)
    joins_by_message(app)

    async with serve(app) as url, connect(f"{url}/") as one, connect(f"{url}/") as two:
        room = app.room("game:7")
        assert room.state is None
        await say(one, "+game:7")
        state = room.state
        assert isinstance(state, Game)
        assert room.params == {"id": 7}
        state.score = 3
        await say(two, "+game:7")
        await say(one, "-game:7")
        assert room.state is state
        assert app.room("game:8").state is None
        await say(two, "-game:7")
        assert room.state is None
        await say(one, "+game:7")
        assert room.state.score == 0


async def test_on_empty_is_told_when_the_last_has_left_and_still_has_the_state(serve):
    app = Symphony()
    log = Log()
    joins_by_message(app)
    rooms = app.rooms("game:{id}", state=Game)

    @rooms.on_empty
    async def empty(room: Room, id: str) -> None:
        log.append((id, room.state.score, room.sockets))

    async with serve(app) as url, connect(f"{url}/") as one:
        async with connect(f"{url}/") as two:
            await say(one, "+game:7")
            app.room("game:7").state.score = 5
            await say(two, "+game:7")
            await say(one, "-game:7")
            assert log == []
        await log.reaches(1)
        await until(lambda: app.room("game:7").state is None)
    assert log == [("7", 5, ())]


async def test_a_lingering_room_keeps_state_and_task_for_who_comes_back(serve):
    app = Symphony()
    log = Log()
    joins_by_message(app)
    rooms = app.rooms("game:{id}", state=Game, linger=60)

    @rooms.task
    async def tick(room: Room, id: str) -> None:
        log.append(f"task {id}")
        await asyncio.Event().wait()

    @rooms.on_empty
    def empty() -> None:
        log.append("empty")

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, "+game:7")
        state = app.room("game:7").state
        await say(client, "-game:7")
        assert app.room("game:7").state is state
        await say(client, "+game:7")
        assert app.room("game:7").state is state
        assert log == ["task 7"]


async def test_a_room_ends_when_its_linger_has_passed(serve):
    app = Symphony()
    log = Log()
    joins_by_message(app)
    rooms = app.rooms("game:{id}", state=Game, linger=0.05)

    @rooms.task
    async def tick(room: Room) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("task ended")

    @rooms.on_empty
    def empty() -> None:
        log.append("empty")

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, "+game:7")
        await say(client, "-game:7")
        assert log == []
        await log.reaches(2)
        await until(lambda: app.room("game:7").state is None)
    assert sorted(log) == ["empty", "task ended"]


async def test_a_rooms_task_runs_once_beside_its_members_and_may_send(serve):
    app = Symphony()
    joins_by_message(app)
    started = Log()

    @app.rooms("game:{id}").task
    async def tick(room: Room, id: str) -> None:
        started.append(id)
        number = 0
        while True:
            await room.send(f"{id} {number}")
            number += 1
            await asyncio.sleep(0.005)

    async with serve(app) as url, connect(f"{url}/") as one, connect(f"{url}/") as two:
        await one.send("+game:7")
        assert {await one.recv() for _ in range(3)} == {"+game:7", "7 0", "7 1"}
        await two.send("+game:7")
        assert (await two.recv()).startswith(("7 ", "+"))
        assert started == ["7"]


async def test_a_rooms_task_that_fails_is_logged_and_the_room_goes_on(serve, caplog):
    app = Symphony()
    log = Log()
    joins_by_message(app)

    @app.rooms("game:{id}").task
    async def tick() -> None:
        raise RuntimeError("out of steam")

    @app.on_error
    def on_error(error: Exception) -> None:
        log.append(str(error))

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, "+game:7")
        await log.reaches(1)
        await say(client, "-game:7")
    assert log == ["out of steam"]
    assert "out of steam" in caplog.text


async def test_an_on_leave_that_fails_at_disconnect_is_logged_and_other_rooms_are_left(serve, caplog):
    app = Symphony()
    log = Log()
    joins_by_message(app)

    @app.rooms("chat:{name}").on_leave
    async def left(name: str) -> None:
        log.append(name)
        raise RuntimeError(f"leaving {name}")

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await say(client, "+chat:a")
            await say(client, "+chat:b")
        await log.reaches(2)
        await until(lambda: app.stats.closed == 1)
        assert app.room("chat:a").sockets == app.room("chat:b").sockets == ()
    assert sorted(log) == ["a", "b"]
    assert "on_leave" in caplog.text


async def test_rooms_that_linger_at_the_end_are_told_that_they_are_empty(serve):
    """Rooms that still lingered when the app stopped lost what `on_empty` would have saved."""
    app = Symphony()
    log = Log()
    joins_by_message(app)

    @app.rooms("game:{id}", state=Game, linger=60).on_empty
    async def save(room: Room, id: str) -> None:
        await asyncio.sleep(0)
        log.append(f"saved {id}")

    @app.on_shutdown
    def close_database() -> None:
        log.append("shutdown")

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, "+game:1")
        await say(client, "-game:1")
        await say(client, "+game:2")
    assert sorted(log[:2]) == ["saved 1", "saved 2"]
    assert log[2:] == ["shutdown"]


async def test_who_comes_while_on_empty_runs_gets_a_new_room_after_it(serve):
    """The state was used again that `on_empty` had saved or closed."""
    app = Symphony()
    log = Log()
    gate = asyncio.Event()
    joins_by_message(app)
    rooms = app.rooms("game:{id}", state=Game)

    @rooms.on_empty
    async def empty(room: Room) -> None:
        log.append(f"empty {room.state.score}")
        await gate.wait()
        log.append(f"still there {room.state.score}")

    async with serve(app) as url, connect(f"{url}/") as client, connect(f"{url}/") as other:
        await say(client, "+game:7")
        app.room("game:7").state.score = 3
        await say(client, "-game:7")
        await log.reaches(1)
        await client.send("+game:7")
        await other.send("+game:7")
        assert app.room("game:7").state.score == 3
        gate.set()
        assert await client.recv() == await other.recv() == "+game:7"
        assert app.room("game:7").state.score == 0
        assert log == ["empty 3", "still there 3"]


async def test_the_most_specific_family_is_a_rooms_own(serve):
    app = Symphony()
    log = Log()
    joins_by_message(app)
    for pattern in ("{rest:path}", "chat:{name}", "chat:lobby", "chat:{id:int}"):

        def joined(room: Room, pattern: str = pattern) -> None:
            log.append(pattern)

        app.rooms(pattern).on_join(joined)

    async with serve(app) as url, connect(f"{url}/") as client:
        for name in ("chat:lobby", "chat:7", "chat:x", "chat:x:y"):
            await say(client, f"+{name}")
    assert log == ["chat:lobby", "chat:{id:int}", "chat:{name}", "{rest:path}"]


async def test_joins_that_race_for_the_last_place_leave_one_outside(serve):
    app = Symphony()
    gate = asyncio.Event()
    rooms = app.rooms("duel:{id}", max_members=1)

    @rooms.authorize
    async def slowly() -> None:
        await gate.wait()

    joins_by_message(app)
    async with serve(app) as url, connect(f"{url}/") as one, connect(f"{url}/") as two:
        await one.send("+duel:1")
        await two.send("+duel:1")
        await (await two.ping())
        gate.set()
        answers = [
            json.loads(message) if message[0] == "{" else message
            for message in (await one.recv(), await two.recv())
        ]
        assert sum(answer == "+duel:1" for answer in answers) == 1
        [error] = [answer for answer in answers if answer != "+duel:1"]
        assert error["data"]["code"] == "room_full"


async def test_a_client_that_goes_while_authorize_thinks_is_not_in_the_room(serve):
    app = Symphony()
    log = Log()
    rooms = app.rooms("chat:{name}")
    began, gate = asyncio.Event(), asyncio.Event()

    @rooms.authorize
    async def slowly() -> None:
        began.set()
        await gate.wait()

    @rooms.on_join
    def joined() -> None:
        log.append("joined")

    joins_by_message(app)
    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.send("+chat:a")
            await began.wait()
        gate.set()
        await until(lambda: app.stats.closed == 1)
        assert app.room("chat:a").sockets == ()
    assert log == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_members": 0}, "max_members must be at least 1, not 0"),
        ({"max_members": "2"}, "max_members must be at least 1, not '2'"),
        ({"max_members": True}, "max_members must be at least 1, not True"),
        ({"linger": -1}, "linger must not be negative, not -1"),
        ({"linger": None}, "linger must be a number of seconds, not None"),
        ({"grace": "10"}, "grace must be a number of seconds, not '10'"),
        ({"grace": True}, "grace must be a number of seconds, not True"),
    ],
)
def test_a_wrong_policy_is_refused_where_it_is_written(options, problem):
    with pytest.raises(ConfigurationError, match=problem):
        Symphony().rooms("chat:{name}", **options)


async def test_several_hooks_of_one_kind_run_in_the_order_of_their_registration(serve):
    app = Symphony()
    log = Log()
    joins_by_message(app)
    rooms = app.rooms("chat:{name}")
    for kind in ("authorize", "on_join", "on_leave", "on_empty"):
        for number in (1, 2, 3):

            async def hook(room: Room, kind: str = kind, number: int = number) -> None:
                # The second would overtake the first if they ran at the same time.
                for _ in range(3 - number):
                    await asyncio.sleep(0)
                log.append(f"{kind} {number}")

            assert getattr(rooms, kind)(hook) is hook

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, "+chat:a")
        await say(client, "-chat:a")
        await log.reaches(12)
    assert log == [
        f"{kind} {n}" for kind in ("authorize", "on_join", "on_leave", "on_empty") for n in (1, 2, 3)
    ]


@pytest.mark.parametrize("refuses", [0, 1, 2])
async def test_a_join_needs_the_consent_of_each_authorize(serve, refuses):
    app = Symphony()
    log = Log()
    joins_by_message(app)
    rooms = app.rooms("chat:{name}")

    @rooms.authorize
    def first(name: str) -> bool:
        log.append("first")
        return refuses != 1

    @rooms.authorize
    async def second(name: str) -> bool | None:
        log.append("second")
        return False if refuses == 2 else None

    @rooms.on_join
    def joined() -> None:
        log.append("joined")

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("+chat:a")
        answer = await client.recv()
        if not refuses:
            assert answer == "+chat:a"
        else:
            assert error_in(answer)["code"] == "forbidden"
            assert app.room("chat:a").sockets == ()
    assert log == [["first", "second", "joined"], ["first"], ["first", "second"]][refuses]


async def test_an_on_join_that_fails_undoes_the_join_and_those_after_it_do_not_run(serve):
    app = Symphony()
    log = Log()
    joins_by_message(app)
    rooms = app.rooms("chat:{name}", state=Game)

    @rooms.on_join
    def first(socket: Socket, room: Room) -> None:
        assert socket in room
        log.append("first")

    @rooms.on_join
    def second() -> None:
        log.append("second")
        raise Reject("conflict", "not now")

    @rooms.on_join
    def third() -> None:
        log.append("third")

    @rooms.on_leave
    def left() -> None:
        log.append("left")

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("+chat:a")
        assert error_in(await client.recv())["message"] == "not now"
        assert app.room("chat:a").sockets == ()
        assert app.room("chat:a").state is None
    assert log == ["first", "second", "left"]


async def test_what_an_on_join_returns_means_nothing(serve):
    """An `on_join` that returned `False` kept those after it from running."""
    app = Symphony()
    log = Log()
    joins_by_message(app)
    rooms = app.rooms("chat:{name}")
    rooms.on_join(lambda: False)
    rooms.on_join(lambda: log.append("second"))

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, "+chat:a")
        assert len(app.room("chat:a").sockets) == 1
    assert log == ["second"]


@pytest.mark.parametrize("kind", ["on_leave", "on_empty"])
async def test_each_hook_of_an_end_runs_and_each_error_is_reported(serve, kind, caplog):
    """Two errors reached `on_error` as one group, which no handler of errors expects."""
    app = Symphony()
    log, errors = Log(), Log()
    joins_by_message(app)
    rooms = app.rooms("chat:{name}", state=Game)

    def failing(number: int) -> None:
        async def hook(room: Room) -> None:
            log.append(number)
            raise LookupError(f"failure {number}")

        getattr(rooms, kind)(hook)

    failing(1)
    getattr(rooms, kind)(lambda: log.append(2))
    failing(3)

    @app.on_error
    def on_error(error: Exception) -> None:
        errors.append((type(error), str(error)))

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await say(client, "+chat:a")
        await errors.reaches(2)
        await until(lambda: app.room("chat:a").state is None)
        assert app.room("chat:a").sockets == ()
    assert log == [1, 2, 3]
    # The first is raised and so reported last, by what called the hooks.
    assert errors == [(LookupError, "failure 3"), (LookupError, "failure 1")]
    assert f"{kind} of 'chat:a'" in caplog.text


async def test_leave_raises_the_first_error_as_it_is_and_the_others_are_reported(serve):
    app = Symphony()
    errors = Log()
    joins_by_message(app)
    rooms = app.rooms("chat:{name}")

    @rooms.on_leave
    def first() -> None:
        raise Reject("conflict", "not without your hat")

    @rooms.on_leave
    def second() -> None:
        raise LookupError("second")

    @app.on_error
    def on_error(error: Exception) -> None:
        errors.append(str(error))

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, "+chat:a")
        await client.send("-chat:a")
        assert error_in(await client.recv())["message"] == "not without your hat"
        assert app.room("chat:a").sockets == ()
        await errors.reaches(1)
    assert errors == ["second"]


async def test_a_cancellation_comes_through_hooks_that_fail(serve):
    """`on_leave` after a time-out raised a group of errors, and `asyncio.timeout` did not see its own."""
    app = Symphony()
    errors, results = Log(), Log()
    rooms = app.rooms("chat:{name}")

    @rooms.on_leave
    def broken() -> None:
        raise LookupError("broken")

    @rooms.on_leave
    async def endless() -> None:
        await asyncio.Event().wait()

    @app.on_error
    def on_error(error: Exception) -> None:
        errors.append(str(error))

    @app.on_message
    async def handle(socket: Socket, message: str) -> None:
        await socket.join("chat:a")
        try:
            async with asyncio.timeout(0.01):
                await socket.leave("chat:a")
        except TimeoutError:
            results.append("too late")

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        await results.reaches(1)
        await errors.reaches(1)
    assert (results, errors) == (["too late"], ["broken"])


async def test_several_tasks_of_a_room_run_together_and_end_together(serve):
    app = Symphony()
    log = Log()
    joins_by_message(app)
    rooms = app.rooms("game:{id}")
    meeting = asyncio.Barrier(2)

    def task(name: str) -> None:
        @rooms.task
        async def run(room: Room) -> None:
            await meeting.wait()
            log.append(f"{name} began")
            try:
                await asyncio.Event().wait()
            finally:
                log.append(f"{name} ended")

    task("tick")
    task("save")
    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, "+game:1")
        await log.reaches(2)
        await say(client, "-game:1")
        await log.reaches(4)
    assert sorted(log[:2]) == ["save began", "tick began"]
    assert sorted(log[2:]) == ["save ended", "tick ended"]


async def test_routers_have_rooms_and_their_prefix_does_not_apply_to_names(serve):
    """A router with rooms that was included under two prefixes was taken for two families of one pattern."""
    app, outer, inner = Symphony(), Router("/api"), Router("/v1")
    log = Log()
    joins_by_message(app)
    for router, pattern in ((app, "app:{id}"), (outer, "outer:{id}"), (inner, "inner:{id}")):

        def joined(room: Room, id: str, pattern: str = pattern) -> None:
            log.append((pattern, id))

        router.rooms(pattern).on_join(joined)
    app.route("/")
    outer.include(inner)
    outer.include(inner, prefix="/again")
    app.include(outer)
    app.include(inner, prefix="/other")

    async with serve(app) as url, connect(f"{url}/") as client:
        for name in ("app:1", "outer:2", "inner:3"):
            await say(client, f"+{name}")
    assert log == [("app:{id}", "1"), ("outer:{id}", "2"), ("inner:{id}", "3")]


@pytest.mark.parametrize("other", ["chat:{name}", "chat:{room}"])
async def test_rooms_that_two_routers_share_are_refused_at_the_start_by_their_pattern(other):
    app, one, two = Symphony(), Router("/one"), Router("/two")
    one.rooms("chat:{name}")
    two.rooms(other)
    one.include(two)
    app.include(one)
    app.on_message(lambda message: message)
    with pytest.raises(ConfigurationError) as caught:
        async with app.lifespan():
            pass
    assert other in str(caught.value)


def test_one_router_has_a_pattern_once():
    router = Router("/one")
    router.rooms("chat:{name}")
    with pytest.raises(ConfigurationError, match=r"There are rooms 'chat:\{name\}' already"):
        router.rooms("chat:{name}")


class Chess(Game): ...


@pytest.mark.parametrize("kind", ["authorize", "on_join", "on_leave", "on_empty", "task"])
async def test_the_annotated_state_of_a_room_is_compared_with_the_familys(kind):
    def wants(state: Any, annotation: Any) -> Symphony:
        app = Symphony()
        app.on_message(lambda message: message)

        async def hook(room: annotation) -> None: ...

        hook.__annotations__["room"] = annotation
        getattr(app.rooms("game:{id}", state=state), kind)(hook)
        return app

    for state, annotation in (
        (Game, Room[Game]),
        (Chess, Room[Game]),
        (Game, Room),
        (Game, Room[Any]),
        (None, Room),
        (lambda: Game(), Room[Game]),
    ):
        async with wants(state, annotation).lifespan():
            pass
    for state, annotation, problem in (
        (None, Room[Game], "wants Room[Game], but the family has no state. Give it state=Game."),
        (Game, Room[Chess], "wants Room[Chess], but the state of the family is Game"),
        (dict, Room[Game], "wants Room[Game], but the state of the family is dict"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            async with wants(state, annotation).lifespan():
                pass
        assert f"{kind} of rooms 'game:{{id}}'" in str(caught.value)
        assert problem in str(caught.value)


@pytest.mark.parametrize("has_on_empty", [False, True])
async def test_on_leave_of_the_last_still_has_the_state_and_comes_before_on_empty(serve, has_on_empty):
    """The room had ended before: its state was `None`, and `on_empty` ran at the same time."""
    app = Symphony()
    log = Log()
    joins_by_message(app)
    rooms = app.rooms("game:{id}", state=Game)

    @rooms.on_leave
    async def left(room: Room[Game]) -> None:
        await asyncio.sleep(0)
        room.state.score += 1
        log.append("left")

    if has_on_empty:

        @rooms.on_empty
        async def empty(room: Room[Game]) -> None:
            log.append(f"empty {room.state.score}")

    async with serve(app) as url:
        async with connect(f"{url}/") as one, connect(f"{url}/") as two:
            await say(one, "+game:1")
            await say(two, "+game:1")
        await log.reaches(2 + has_on_empty)
        await until(lambda: app.room("game:1").state is None)
    assert log == ["left", "left", *(["empty 2"] if has_on_empty else [])]


async def test_who_joins_while_the_last_leaves_keeps_the_room(serve):
    app = Symphony()
    log = Log()
    gate = asyncio.Event()
    joins_by_message(app)
    rooms = app.rooms("game:{id}", state=Game)

    @rooms.on_leave
    async def left() -> None:
        log.append("left")
        await gate.wait()

    @rooms.on_empty
    def empty() -> None:
        log.append("empty")

    async with serve(app) as url, connect(f"{url}/") as one, connect(f"{url}/") as two:
        await say(one, "+game:1")
        state = app.room("game:1").state
        await one.send("-game:1")
        await log.reaches(1)
        await say(two, "+game:1")
        gate.set()
        assert await one.recv() == "-game:1"
        assert app.room("game:1").state is state
        assert log == ["left"]
        await say(two, "-game:1")
        await log.reaches(3)
        await until(lambda: app.room("game:1").state is None)
    assert log == ["left", "left", "empty"]


async def test_an_on_join_that_leaves_again_and_fails_is_undone_only_once(serve):
    app = Symphony()
    log = Log()
    joins_by_message(app)
    rooms = app.rooms("chat:{name}")
    rooms.on_leave(lambda: log.append("left"))

    @rooms.on_join
    async def turned_away(socket: Socket, room: Room) -> None:
        await socket.leave(room.name)
        raise Reject("conflict", "not now")

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("+chat:a")
        assert error_in(await client.recv())["message"] == "not now"
        assert app.room("chat:a").sockets == ()
    assert log == ["left"]
