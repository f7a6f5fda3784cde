"""Middleware around the three stages: order, and everything it may do."""

import asyncio
import json
import re

import pytest

from support.clients import Log, closed, connect, error_in, refused, until
from symphony import Close, ConfigurationError, Identity, Reject, Router, Socket, Symphony


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
