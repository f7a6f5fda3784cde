"""`@app.check`: what is asked about each message before it is decoded or waits."""

import asyncio
import functools
import json
import weakref
from collections import Counter
from typing import Any

import msgspec
import pytest

from support.clients import Client, Log, closed, connect, error_in, until
from support.servers import serve_natively
from symphony import CallNext, ConfigurationError, Reject, Router, Socket, Symphony


async def say(client: Client, **frame: Any) -> None:
    await client.send(json.dumps(frame))


async def hear(client: Client) -> Any:
    return json.loads(await client.recv())


async def test_the_checks_of_app_routers_and_route_run_in_that_order(serve):
    app, outer, inner = Symphony(), Router(), Router("/api")
    log = Log()
    route = inner.route("/chat")
    for layer, name in ((route, "route"), (inner, "inner"), (outer, "outer"), (app, "app 1"), (app, "app 2")):
        layer.check(lambda socket, message, name=name: log.append(name))

    @route.on_message
    async def handle(message: str) -> str:
        log.append("handler")
        return message

    app.route("/other").on_message(lambda message: message)
    outer.include(inner)
    app.include(outer)
    async with serve(app) as url:
        async with connect(f"{url}/api/chat") as client:
            await client.send("x")
            assert await client.recv() == "x"
        assert log == ["app 1", "app 2", "outer", "inner", "route", "handler"]
        log.clear()
        async with connect(f"{url}/other") as client:
            await client.send("x")
            assert await client.recv() == "x"
    assert log == ["app 1", "app 2"]


async def test_a_check_gets_the_socket_and_the_message_as_it_came(serve):
    app = Symphony()
    log = Log()

    @app.check
    def look(socket: Socket, message: str | bytes) -> None:
        log.append((socket.params["name"], message))

    @app.route("/raw/{name}").on_message
    async def handle(message: list[int]) -> int:
        return sum(message)

    async with serve(app) as url, connect(f"{url}/raw/ann") as client:
        for message in ("[1,2]", "no JSON", b"[3]"):
            await client.send(message)
        assert await client.recv() == "3"
        assert error_in(await client.recv())["code"] == "invalid"
        await log.reaches(3)
    assert log == [("ann", "[1,2]"), ("ann", "no JSON"), ("ann", b"[3]")]


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_on_an_event_route_a_check_sees_what_is_no_event_either(serve, codec):
    app = Symphony()
    log = Log()
    encode = (lambda frame: json.dumps(frame)) if codec == "json" else msgspec.msgpack.encode

    @app.check
    def look(socket: Socket, message: str | bytes) -> None:
        log.append(message)

    @app.on("say")
    async def handle(data: str) -> str:
        return data

    frame = encode({"event": "say", "data": "hi", "id": 1})
    nonsense = "no JSON" if codec == "json" else b"\xc1"
    async with serve(app) as url, connect(f"{url}/", subprotocols=[f"symphony.v1.{codec}"]) as client:
        await client.send(frame)
        await client.recv()
        await client.send(nonsense)
        await log.reaches(2)
    assert log == [frame, nonsense]


async def test_a_reject_refuses_the_message_and_tells_the_sender_of_a_raw_message(serve):
    app = Symphony()
    log = Log()

    @app.check
    def short(socket: Socket, message: str) -> None:
        if len(message) > 5:
            raise Reject("shop.too_long", "at most 5", details={"limit": 5}, retry_after=2)

    @app.on_message
    async def handle(message: str) -> str:
        log.append(message)
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("much too long")
        await client.send("short")
        error = error_in(await client.recv())
        assert (error["code"], error["message"], error["details"]) == (
            "shop.too_long",
            "at most 5",
            {"limit": 5},
        )
        assert await client.recv() == "short"
    assert log == ["short"]
    assert app.stats.failed_handlers == 0


async def test_a_refused_request_is_answered_with_an_error_event_and_the_next_one_works(serve):
    app = Symphony()

    @app.check
    def no_shouting(socket: Socket, message: str) -> None:
        if "HELLO" in message:
            raise Reject("invalid", "please do not shout")

    @app.on("say")
    async def handle(data: str) -> str:
        return data

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="say", data="HELLO", id=1)
        refusal = await hear(client)
        assert refusal["event"] == "error"
        assert "error" not in refusal
        assert refusal["data"]["message"] == "please do not shout"
        # The id was never seen, so that the client may use it again.
        await say(client, event="say", data="hello", id=1)
        assert await hear(client) == {"reply": 1, "data": "hello"}


@pytest.mark.parametrize("kind", ["raw", "events"])
async def test_another_exception_is_reported_and_the_sender_told_internal(serve, kind, caplog):
    app = Symphony()
    log = Log()

    @app.check
    def broken(socket: Socket, message: str) -> None:
        if "secret" in message:
            raise LookupError("a secret of the server's")

    @app.on_error
    def on_error(socket: Socket, error: Exception) -> None:
        log.append((socket.route, str(error)))

    if kind == "raw":
        app.route("/x").on_message(lambda message: message)
    else:
        app.route("/x").on("say")(lambda data: data)

    async with serve(app) as url, connect(f"{url}/x") as client:
        await say(client, event="say", data="secret", id=1)
        error = error_in(await client.recv())
        assert (error["code"], error["message"]) == ("internal", "the server failed to check the message")
        await log.reaches(1)
        await say(client, event="say", data="hello", id=2)
        assert "hello" in await client.recv()
    assert log == [("/x", "a secret of the server's")]
    assert "a secret of the server's" in caplog.text
    assert app.stats.failed_handlers == 1


async def test_the_first_check_that_refuses_is_the_last_that_is_asked(serve):
    app = Symphony()
    log = Log()

    @app.check
    def first(socket: Socket, message: str) -> None:
        log.append("first")
        raise Reject("forbidden", "no")

    @app.check
    def second(socket: Socket, message: str) -> None:
        log.append("second")

    app.on_message(lambda message: message)
    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert error_in(await client.recv())["code"] == "forbidden"
    assert log == ["first"]


async def test_a_message_is_checked_when_it_comes_and_not_when_its_turn_comes(serve):
    app = Symphony()
    log = Log()
    gate = asyncio.Event()

    @app.check
    def check(socket: Socket, message: str) -> None:
        log.append(f"check {message}")
        if message == "bad":
            raise Reject("invalid", "bad")

    @app.on_message
    async def handle(message: str) -> str:
        await gate.wait()
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        for message in ("one", "two", "bad"):
            await client.send(message)
        # The refusal overtakes the answers to what waits.
        assert error_in(await client.recv())["message"] == "bad"
        assert log == ["check one", "check two", "check bad"]
        gate.set()
        assert [await client.recv(), await client.recv()] == ["one", "two"]


async def test_a_rate_limit_that_counts_refuses_what_is_too_much_for_each_socket(serve):
    app = Symphony()
    arrived = Counter[str]()

    @app.check
    def limit(socket: Socket, message: str | bytes) -> None:
        arrived[socket.id] += 1
        if arrived[socket.id] > 3:
            raise Reject("too_many", "slow down", retry_after=1)

    @app.on_message
    async def handle(message: str) -> str:
        return message

    async with serve(app) as url, connect(f"{url}/") as one, connect(f"{url}/") as two:
        for number in range(5):
            await one.send(str(number))
        answers = sorted([await one.recv() for _ in range(5)])
        assert answers[:3] == ["0", "1", "2"]
        assert [error_in(answer)["code"] for answer in answers[3:]] == ["too_many"] * 2
        await two.send("mine")
        assert await two.recv() == "mine"
        arrived.clear()
        await one.send("again")
        assert await one.recv() == "again"


async def test_a_check_may_close_the_socket(serve):
    app = Symphony()

    @app.check
    def close(socket: Socket, message: str) -> None:
        socket.close(4008, "too much")
        raise Reject("too_many")

    app.on_message(lambda message: message)
    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await closed(client) == (4008, "too much")


@pytest.mark.parametrize("kind", ["raw", "events"])
async def test_without_checks_the_transport_calls_lane_or_exchange_itself(serve, kind):
    app = Symphony()
    if kind == "raw":
        app.on_message(lambda message: message)
    else:
        app.on("say")(lambda data: data)

    async with serve(app) as url, connect(f"{url}/"):
        await until(lambda: app.everyone.sockets)
        [socket] = app.everyone.sockets
        session: Any = socket._session
        serving = session._serving
        method = serving._lane.deliver if kind == "raw" else serving._exchange.received
        assert session.received == method


@pytest.mark.parametrize("kind", ["raw", "events"])
async def test_a_socket_with_checks_is_freed_as_soon_as_it_has_gone(kind):
    app = Symphony()
    born: list[weakref.ref[Any]] = []
    app.route("/x", state=type("State", (), {}))
    [(_, route, _)] = app._all_routes()

    @route.check
    def look(socket: Socket, message: str) -> None:
        born.append(weakref.ref(socket.state))

    if kind == "raw":
        route.on_message(lambda message: message)
    else:
        route.on("say")(lambda data: data)

    async with serve_natively(app) as url:
        async with connect(f"{url}/x") as client:
            await say(client, event="say", data="x", id=1)
            await client.recv()
        await until(lambda: app.stats.closed == 1)
        await until(lambda: born[0]() is None)


class Callable:
    def __call__(self, socket: Socket, message: str) -> None: ...

    def method(self, socket: Socket, message: str) -> None: ...


def with_options(limit: int, socket: Socket, message: str) -> None: ...


@pytest.mark.parametrize(
    "check",
    [
        Callable(),
        Callable().method,
        functools.partial(with_options, 3),
        lambda *anything: None,
        lambda socket, message, limit=3: None,
    ],
)
def test_whatever_can_be_called_with_socket_and_message_is_a_check(check):
    app = Symphony()
    assert app.check(check) is check
    assert app.checks == [check]


def test_what_is_no_plain_function_of_socket_and_message_is_refused():
    async def later(socket: Socket, message: str) -> None: ...

    def yields(socket: Socket, message: str):
        yield

    async def streams(socket: Socket, message: str):
        yield

    class Later:
        async def __call__(self, socket: Socket, message: str) -> None: ...

    for wrong in (later, yields, streams, Later(), functools.partial(later), "later"):
        with pytest.raises(ConfigurationError, match=r"@app.check decorates a plain function"):
            Symphony().check(wrong)

    def too_few(message: str) -> None: ...

    def too_many(socket: Socket, message: str, db: Any) -> None: ...

    for wrong in (too_few, too_many):
        with pytest.raises(ConfigurationError, match=rf"{wrong.__name__} must take \(socket, message\)"):
            Symphony().check(wrong)


@pytest.mark.parametrize(
    "text", ['{"join":"chat:a","id":1}', '{"leave":"chat:a","id":1}', '{"join":"chat:a","since":"start"}']
)
async def test_a_check_sees_what_a_client_asks_of_rooms_and_can_refuse_it(serve, text: str):
    """Message middleware does not see it, so a check is the place for a limit."""
    app = Symphony()
    app.rooms("chat:{name}", history=10, client_join=True)
    seen, handled = Log(), Log()

    @app.check
    def check(socket: Socket, message: str | bytes) -> None:
        seen.append(message)
        raise Reject("too_many", "slow down")

    @app.middleware("message")
    async def see(socket: Socket, message: Any, call_next: CallNext) -> Any:
        handled.append(message)
        return await call_next(socket, message)

    @app.on("say")
    async def say(socket: Socket) -> None: ...

    async with serve(app) as url, connect(url, subprotocols=["symphony.v1"]) as client:
        await client.send(text)
        error = json.loads(await client.recv())
        assert (error["event"], error["data"]["code"]) == ("error", "too_many")
        assert list(seen) == [text]
        assert list(handled) == []
        assert len(app._core.node.rooms) == 0
