"""Middleware around the three stages: order, and everything it may do."""

import asyncio
import functools
import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest

from support.clients import Log, closed, connect, error_in, refused, until
from symphony import (
    Close,
    ConfigurationError,
    Depends,
    Handshake,
    Identity,
    Query,
    Reject,
    Room,
    Router,
    Socket,
    Symphony,
)


class Tracing:
    """The class form: a method for each stage it is interested in."""

    def __init__(self, log: Log, name: str) -> None:
        self.log = log
        self.name = name

    async def connect(self, socket: Socket, call_next) -> None:
        self.log.append(f"{self.name} connect")
        await call_next(socket)
        self.log.append(f"{self.name} connected")

    async def message(self, socket: Socket, message: str, call_next):
        self.log.append(f"{self.name} message")
        reply = await call_next(socket, message)
        self.log.append(f"{self.name} replied")
        return reply

    async def disconnect(self, socket: Socket, close: Close, call_next) -> None:
        self.log.append(f"{self.name} disconnect")
        await call_next(socket, close)
        self.log.append(f"{self.name} disconnected")


async def test_the_first_registered_is_outermost_and_the_app_is_around_router_and_route(serve):
    log = Log()
    app, router = Symphony(), Router("/r")
    route = router.route("/x")
    route.middleware(Tracing(log, "route"))
    router.middleware(Tracing(log, "router"))
    app.middleware(Tracing(log, "app 1"))
    app.middleware(Tracing(log, "app 2"))

    @route.on_connect
    async def enter() -> None:
        log.append("enter")

    @route.on_message
    async def handle(message: str) -> str:
        log.append("handle")
        return message

    @route.on_disconnect
    async def leave() -> None:
        log.append("leave")

    app.include(router)

    def onion(before: str, inside: str, after: str) -> list[str]:
        names = ["app 1", "app 2", "router", "route"]
        return [f"{name} {before}" for name in names] + [inside] + [f"{n} {after}" for n in names[::-1]]

    async with serve(app) as url:
        async with connect(f"{url}/r/x") as client:
            await client.send("x")
            assert await client.recv() == "x"
            assert log == onion("connect", "enter", "connected") + onion("message", "handle", "replied")
            log.clear()
        await log.reaches(9)
    assert log == onion("disconnect", "leave", "disconnected")


async def test_middleware_runs_where_there_is_no_handler(serve):
    log = Log()
    app = Symphony()
    app.middleware(Tracing(log, "app"))

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.send("x")
            assert error_in(await client.recv())["message"] == "this route takes no messages"
        await log.reaches(5)
    assert log == [
        "app connect",
        "app connected",
        "app message",
        "app disconnect",
        "app disconnected",
    ]


async def test_middleware_of_one_route_does_not_run_on_another(serve):
    log = Log()
    app = Symphony()
    app.route("/a").middleware(Tracing(log, "a"))
    app.route("/b")
    async with serve(app) as url:
        async with connect(f"{url}/b"):
            pass
        await until(lambda: app.stats.closed == 1)
    assert log == []


async def test_connect_middleware_may_log_in_and_set_state_before_the_handler(serve):
    app = Symphony()

    @app.middleware("connect")
    async def authenticate(socket: Socket, call_next) -> None:
        socket.login(Identity(socket.handshake.query_params["user"], {"name": "Ann"}))
        socket.state.started = True
        await call_next(socket)

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.send([socket.user.id, socket.user.info["name"], socket.state.started])

    async with serve(app) as url, connect(f"{url}/?user=42") as client:
        assert json.loads(await client.recv()) == ["42", "Ann", True]


async def test_connect_middleware_may_refuse_with_an_http_answer(serve):
    log = Log()
    app = Symphony()

    @app.middleware("connect")
    async def authenticate(socket: Socket, call_next) -> None:
        if "authorization" not in socket.handshake.headers:
            raise Reject("unauthorized", "who are you?", headers={"WWW-Authenticate": "Bearer"})
        await call_next(socket)

    @app.on_connect
    async def enter() -> None:
        log.append("enter")

    async with serve(app) as url:
        refusal = await refused(f"{url}/")
        assert (refusal.status, refusal.message) == (401, "who are you?")
        assert refusal.headers["WWW-Authenticate"] == "Bearer"
        assert log == []
        async with connect(f"{url}/", additional_headers={"Authorization": "Bearer x"}):
            await log.reaches(1)


async def test_connect_middleware_that_does_not_call_on_answers_itself(serve):
    log = Log()
    app = Symphony()

    @app.middleware("connect")
    async def maintenance(socket: Socket, call_next) -> None:
        await socket.send("back at noon")
        await socket.close(4001, "maintenance")

    @app.on_connect
    async def enter() -> None:
        log.append("enter")

    @app.on_disconnect
    async def leave() -> None:
        log.append("leave")

    async with serve(app) as url, connect(f"{url}/") as client:
        assert await client.recv() == "back at noon"
        assert await closed(client) == (4001, "maintenance")
        await until(lambda: app.stats.closed == 1)
    # It opened, so it is seen off; the connect handler never ran.
    assert log == ["leave"]


async def test_connect_middleware_that_catches_a_failure_of_the_handler_lets_the_socket_open(serve):
    app = Symphony()

    @app.middleware("connect")
    async def forgive(socket: Socket, call_next) -> None:
        try:
            await call_next(socket)
        except RuntimeError as error:
            await socket.send(f"never mind: {error}")

    @app.on_connect
    async def enter() -> None:
        raise RuntimeError("oops")

    async with serve(app) as url, connect(f"{url}/") as client:
        assert await client.recv() == "never mind: oops"


async def test_message_middleware_may_change_message_and_reply(serve):
    app = Symphony()

    @app.middleware("message")
    async def shout(socket: Socket, message: str, call_next):
        reply = await call_next(socket, message.strip().upper())
        return f"<{reply}>"

    @app.on_message
    async def echo(message: str) -> str:
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("  hi ")
        assert await client.recv() == "<HI>"


async def test_message_middleware_sees_the_message_as_it_came_and_the_reply_as_it_was_returned(serve):
    log = Log()
    app = Symphony()

    @app.middleware("message")
    async def watch(socket: Socket, message, call_next):
        log.append(message)
        reply = await call_next(socket, message)
        log.append(reply)
        return reply

    @app.on_message
    async def add(message: list[int]) -> dict[str, int]:
        return {"sum": sum(message)}

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("[1,2]")
        assert await client.recv() == '{"sum":3}'
    assert log == ["[1,2]", {"sum": 3}]


async def test_message_middleware_may_answer_itself_refuse_or_stop(serve):
    log = Log()
    app = Symphony()

    @app.middleware("message")
    async def filtered(socket: Socket, message: str, call_next):
        if message == "ping":
            return "pong"
        if message == "bad":
            raise Reject("invalid", "mind your words")
        if message == "drop":
            return None
        return await call_next(socket, message)

    @app.on_message
    async def echo(message: str) -> str:
        log.append(message)
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        for message in ("ping", "bad", "drop", "good"):
            await client.send(message)
        assert await client.recv() == "pong"
        assert error_in(await client.recv())["message"] == "mind your words"
        assert await client.recv() == "good"
    assert log == ["good"]


async def test_message_middleware_may_catch_what_handler_and_payload_raise(serve):
    app = Symphony()

    @app.middleware("message")
    async def explain(socket: Socket, message: str, call_next):
        try:
            return await call_next(socket, message)
        except Reject as refusal:
            return f"refused: {refusal.code}"
        except ZeroDivisionError:
            return "not by zero"

    @app.on_message
    async def divide(message: int) -> float:
        return 1 / message

    async with serve(app) as url, connect(f"{url}/") as client:
        for message, answer in (("2", "0.5"), ("0", "not by zero"), ("x", "refused: invalid")):
            await client.send(message)
            assert await client.recv() == answer


async def test_message_middleware_works_around_plain_and_streaming_handlers(serve):
    app = Symphony()

    @app.middleware("message")
    async def wait(socket: Socket, message: str, call_next):
        await asyncio.sleep(0)
        return await call_next(socket, message)

    @app.route("/plain").on_message
    def plain(message: str) -> str:
        return message

    @app.route("/stream").on_message
    async def stream(message: str):
        for character in message:
            yield character

    async with serve(app) as url, connect(f"{url}/plain") as one, connect(f"{url}/stream") as two:
        await one.send("ab")
        assert await one.recv() == "ab"
        await two.send("ab")
        assert [await two.recv(), await two.recv()] == ["a", "b"]


async def test_a_middleware_that_fails_is_a_failed_handler(serve):
    log = Log()
    app = Symphony()

    @app.middleware("message")
    async def broken(socket: Socket, message: str, call_next):
        raise RuntimeError("broken")

    @app.on_message
    async def echo(message: str) -> str:
        return message

    @app.on_error
    def on_error(error: Exception) -> None:
        log.append(str(error))

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert error_in(await client.recv())["code"] == "internal"
        await log.reaches(1)
    assert log == ["broken"]


async def test_disconnect_middleware_may_change_the_close_and_stop_the_handler(serve):
    log = Log()
    app = Symphony()

    @app.middleware("disconnect")
    async def rewrite(socket: Socket, close: Close, call_next) -> None:
        if close.code == 4001:
            await call_next(socket, close._replace(reason="rewritten"))

    @app.on_disconnect
    async def leave(close: Close) -> None:
        log.append(close.reason)

    async with serve(app) as url:
        for code in (4000, 4001):
            async with connect(f"{url}/") as client:
                await client.close(code, "original")
        await until(lambda: app.stats.closed == 2)
    assert log == ["rewritten"]


def test_a_middleware_of_the_wrong_shape_is_refused_where_it_is_registered():
    app = Symphony()

    with pytest.raises(ConfigurationError, match=r"must take \(socket, message, call_next\)"):

        @app.middleware("message")
        async def two(socket, call_next): ...

    with pytest.raises(ConfigurationError, match=re.escape("`async def plain(socket, call_next)`")):

        @app.middleware("connect")
        def plain(socket, call_next): ...

    with pytest.raises(
        ConfigurationError,
        match="no middleware stage 'close'; the stages are connect, message, disconnect",
    ):
        app.middleware("close")

    with pytest.raises(ConfigurationError, match="it has none of the methods connect, message, disconnect"):
        app.middleware(object())

    async def bare(socket, call_next): ...

    for given in (bare, app.route("/x").on("say"), len):
        with pytest.raises(
            ConfigurationError,
            match=re.escape(
                f"The middleware {given.__qualname__} has no stage. Write the name of one: "
                'middleware("connect") or middleware("message") or middleware("disconnect").'
            ),
        ):
            app.middleware(given)


class Db:
    """A resource with a life that can be watched."""

    def __init__(self) -> None:
        self.open = True


def database(log: Log, **options: Any) -> Any:
    """Make a dependency whose begin, end and error are logged."""

    async def db() -> AsyncIterator[Db]:
        db = Db()
        log.append("open")
        try:
            yield db
        except BaseException as error:
            log.append(f"failed: {error}")
            raise
        finally:
            db.open = False
            log.append("closed")

    return Annotated[Db, Depends(db, **options)]


async def test_middleware_of_each_stage_takes_a_dependency_after_its_arguments(serve):
    log = Log()
    DB = database(log)
    app = Symphony()

    @app.middleware("connect")
    async def connecting(socket: Socket, call_next, db: DB) -> None:
        log.append(f"connect {db.open}")
        await call_next(socket)

    @app.middleware("message")
    async def message(socket: Socket, message, call_next, db: DB):
        log.append(f"message {db.open}")
        return await call_next(socket, message)

    @app.middleware("disconnect")
    async def disconnect(socket: Socket, close: Close, call_next, db: DB) -> None:
        log.append(f"disconnect {db.open}")
        await call_next(socket, close)

    @app.on_message
    async def handle(message: str) -> str:
        log.append("handler")
        return message

    @app.on_disconnect
    async def leave() -> None:
        log.append("leave")

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.send("x")
            assert await client.recv() == "x"
        await log.reaches(11)
    assert log == [
        *("open", "connect True", "closed"),
        *("open", "message True", "handler", "closed"),
        *("open", "disconnect True", "leave", "closed"),
    ]


async def test_path_query_handshake_and_defaults_are_filled_by_position_or_name(serve):
    app = Symphony()
    seen = Log()
    route = app.route("/rooms/{room}/{number:int}")

    @route.middleware("message")
    async def look(
        socket: Socket,
        message,
        call_next,
        number: int,
        token: Annotated[str, Query()],
        page: Annotated[int, Query()] = 1,
        limit: int = 7,
        *,
        room: str,
        handshake: Handshake,
        more: Annotated[list[str], Query(alias="tag")] = (),  # type: ignore[assignment]
        flag: bool = True,
    ):
        seen.append((room, number, token, page, limit, handshake is socket.handshake, list(more), flag))
        return await call_next(socket, message)

    @route.on_message
    async def echo(message: str) -> str:
        return message

    async with serve(app) as url:
        for query in ("token=a", "token=b&page=3&tag=x&tag=y&limit=9"):
            async with connect(f"{url}/rooms/lobby/7?{query}") as client:
                await client.send("x")
                assert await client.recv() == "x"
    assert seen == [
        ("lobby", 7, "a", 1, 7, True, [], True),
        # `limit` has no mark, so that a client cannot set it.
        ("lobby", 7, "b", 3, 7, True, ["x", "y"], True),
    ]


async def test_a_query_parameter_that_is_missing_or_wrong_refuses_the_handshake(serve):
    app = Symphony()

    @app.middleware("connect")
    async def paged(socket: Socket, call_next, page: Annotated[int, Query()]) -> None:
        await call_next(socket)

    app.on_message(lambda message: message)
    async with serve(app) as url:
        for query in ("", "?page=x"):
            refusal = await refused(f"{url}/{query}")
            assert (refusal.status, refusal.code) == (400, "invalid")
            assert "page" in refusal.message
        async with connect(f"{url}/?page=2"):
            pass


async def test_an_app_middleware_has_its_default_on_routes_without_the_parameter(serve):
    app = Symphony()
    log = Log()

    @app.middleware("connect")
    async def look(socket: Socket, call_next, room: str = "none") -> None:
        log.append(room)
        await call_next(socket)

    app.route("/rooms/{room}").on_message(lambda message: message)
    app.route("/other").on_message(lambda message: message)
    async with serve(app) as url:
        for path in ("/rooms/lobby", "/other"):
            async with connect(f"{url}{path}"):
                pass
    assert log == ["lobby", "none"]


async def test_a_dependency_of_middleware_sees_what_the_handler_raises(serve):
    log = Log()
    DB = database(log)
    app = Symphony()

    @app.middleware("message")
    async def transaction(socket: Socket, message, call_next, db: DB):
        return await call_next(socket, message)

    @app.on_message
    async def handle(message: str) -> str:
        if message == "reject":
            raise Reject("invalid", "no")
        if message == "break":
            raise RuntimeError("broken")
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        for message in ("fine", "reject", "break"):
            await client.send(message)
            await client.recv()
    assert log == [
        *("open", "closed"),
        *("open", "failed: invalid: no", "closed"),
        *("open", "failed: broken", "closed"),
    ]


async def test_a_dependency_of_middleware_may_refuse_and_the_handler_does_not_run(serve):
    app = Symphony()
    log = Log()

    async def user(handshake: Handshake) -> str:
        if (name := handshake.query_params.get("user")) is None:
            raise Reject("unauthorized", "please sign in")
        return name

    @app.middleware("connect")
    async def sign_in(socket: Socket, call_next, name: Annotated[str, Depends(user)]) -> None:
        socket.login(Identity(name))
        await call_next(socket)

    @app.on_connect
    async def enter(socket: Socket) -> None:
        log.append(socket.user.id)

    async with serve(app) as url:
        refusal = await refused(f"{url}/")
        assert (refusal.status, refusal.message) == (401, "please sign in")
        async with connect(f"{url}/?user=ann"):
            await log.reaches(1)
    assert log == ["ann"]


async def test_a_dependency_of_the_socket_is_shared_by_middleware_and_handlers(serve):
    log = Log()
    DB = database(log, scope="socket")
    app = Symphony()
    seen: list[Db] = []

    @app.middleware("connect")
    async def connecting(socket: Socket, call_next, db: DB) -> None:
        seen.append(db)
        await call_next(socket)

    @app.middleware("message")
    async def message(socket: Socket, message, call_next, db: DB):
        seen.append(db)
        return await call_next(socket, message)

    @app.on_message
    async def handle(message: str, db: DB) -> bool:
        seen.append(db)
        return db.open

    @app.on_disconnect
    async def leave(db: DB) -> None:
        seen.append(db)

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.send("x")
            assert await client.recv() == "true"
            assert log == ["open"]
        await log.reaches(2)
    assert log == ["open", "closed"]
    assert len(seen) == 4
    assert len(set(map(id, seen))) == 1


async def test_overrides_replace_the_dependencies_of_middleware(serve):
    app = Symphony()

    def real() -> str:
        return "real"

    @app.middleware("message")
    async def look(socket: Socket, message, call_next, which: Annotated[str, Depends(real)]):
        return f"{which} {await call_next(socket, message)}"

    @app.on_message
    async def echo(message: str) -> str:
        return message

    app.overrides[real] = lambda: "fake"
    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await client.recv() == "fake x"


async def test_on_an_event_route_a_dependency_is_open_for_a_handler_but_closed_for_its_stream(serve):
    log = Log()
    DB = database(log)
    app = Symphony()

    @app.middleware("message")
    async def transaction(socket: Socket, event, call_next, db: DB):
        return await call_next(socket, event)

    @app.on("once")
    async def once(data: str) -> str:
        log.append("once")
        return data

    @app.on("stream")
    async def stream(data: str) -> AsyncIterator[str]:
        log.append("stream")
        yield data

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send(json.dumps({"event": "once", "data": "x", "id": 1}))
        assert json.loads(await client.recv()) == {"reply": 1, "data": "x"}
        await client.send(json.dumps({"event": "stream", "data": "x", "id": 2}))
        assert json.loads(await client.recv()) == {"item": 2, "data": "x"}
        assert json.loads(await client.recv()) == {"end": 2}
    assert log == ["open", "once", "closed", "open", "closed", "stream"]


async def test_the_methods_of_a_middleware_object_take_dependencies_too(serve):
    log = Log()
    DB = database(log)

    class Auditing:
        async def connect(self, socket: Socket, call_next, room: str, db: DB) -> None:
            log.append(f"connect {room}")
            await call_next(socket)

        async def message(self, socket: Socket, message, call_next, *, db: DB, room: str):
            log.append(f"message {room}")
            return await call_next(socket, message)

    app = Symphony()
    route = app.route("/{room}")
    route.middleware(Auditing())
    route.on_message(lambda message: message)
    async with serve(app) as url, connect(f"{url}/lobby") as client:
        await client.send("x")
        assert await client.recv() == "x"
    assert log == ["open", "connect lobby", "closed", "open", "message lobby", "closed"]


async def test_decorated_middleware_is_filled_as_what_is_inside(serve):
    app = Symphony()
    log = Log()

    def logged(function):
        @functools.wraps(function)
        async def wrapper(*args, **kwargs):
            log.append((len(args), sorted(kwargs)))
            return await function(*args, **kwargs)

        return wrapper

    @app.middleware("message")
    @logged
    async def inner(socket: Socket, message, call_next, room: str, *, handshake: Handshake):
        log.append(room)
        return await call_next(socket, message)

    @app.middleware("message")
    async def bare(*args):
        *given, call_next = args
        log.append(len(given))
        return await call_next(*given)

    @app.middleware("message")
    async def rest(socket: Socket, *args, **kwargs):
        assert kwargs == {}
        return await args[-1](socket, *args[:-1])

    app.route("/{room}").on_message(lambda message: message)
    async with serve(app) as url, connect(f"{url}/lobby") as client:
        await client.send("x")
        assert await client.recv() == "x"
    assert log == [(4, ["handshake"]), "lobby", 2]


async def refusal_to_start(app: Symphony) -> str:
    with pytest.raises(ConfigurationError) as caught:
        async with app.lifespan():
            pass
    return str(caught.value)


async def test_a_parameter_that_nothing_fills_is_named_at_the_start():
    async def unknown(socket: Socket, message, call_next, limit: int): ...

    async def keyword(socket: Socket, message, call_next, *, limit: int): ...

    async def room(socket: Socket, message, call_next, limit: Room): ...

    async def close(socket: Socket, message, call_next, limit: Close): ...

    async def foreign(socket: Socket, message, call_next, number: str): ...

    async def mixed(socket: Socket, message, call_next, limit: Annotated[int, Query()], **options): ...

    for middleware, problem in (
        (unknown, "nothing fills it"),
        (keyword, "nothing fills it"),
        (room, "a Room is for the hooks of app.rooms()"),
        (close, "only a disconnect handler has a Close"),
        (foreign, "{number:int} in the pattern gives int"),
        # `limit` was never filled, and the first message failed.
        (mixed, "**options cannot be filled"),
    ):
        app = Symphony()
        app.route("/{number:int}").middleware("message")(middleware)
        error = await refusal_to_start(app)
        assert f"message stage of route '/{{number:int}}': middleware {__name__}." in error
        assert middleware.__name__ in error
        assert problem in error
        if middleware is not mixed:
            assert "parameter 'limit'" in error or "parameter 'number'" in error


async def test_the_state_of_the_route_is_checked_in_middleware():
    class State: ...

    async def also(socket: Socket, call_next, again: Socket[State]): ...

    app = Symphony()
    app.route("/").middleware("connect")(also)
    assert "wants Socket[State], but the route has no state" in await refusal_to_start(app)


def test_what_is_given_must_come_first_and_in_its_order():
    """With a dependency before it, `call_next` was filled with something else, or by nothing."""
    app = Symphony()

    async def early(socket, db, call_next): ...

    async def swapped(socket, call_next, message): ...

    async def event_less(socket, call_next, message, db): ...

    for stage, wrong in (
        ("connect", early),
        ("message", swapped),
        ("message", event_less),
        ("disconnect", swapped),
    ):
        with pytest.raises(ConfigurationError, match=r"first. Dependencies and other parameters come after"):
            app.middleware(stage)(wrong)
