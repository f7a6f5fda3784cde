"""Message middleware on event routes: it sees events decoded, and what their handlers give."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from types import AsyncGeneratorType, SimpleNamespace
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest

from support.clients import Client, Log, connect
from symphony import Reject, Router, Socket, Symphony
from symphony.protocol.envelopes import Event

CODECS: Mapping[str, Any] = {
    "json": SimpleNamespace(encode=lambda frame: msgspec.json.encode(frame).decode(), decode=json.loads),
    "msgpack": msgspec.msgpack,
}
NOON = datetime(2026, 5, 6, 12, 0, 0, tzinfo=UTC)
GAME = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")


async def say(client: Client, **frame: Any) -> None:
    await client.send(json.dumps(frame))


async def hear(client: Client) -> Any:
    async with asyncio.timeout(5):
        return json.loads(await client.recv())


async def ask(client: Client, event: str, data: Any = None) -> Any:
    """Return the answer to a request."""
    await say(client, event=event, data=data, id=1)
    answer = await hear(client)
    assert answer.pop("reply", None) == 1 or answer.pop("error", None) == 1, answer
    return answer["data"]


class Point(msgspec.Struct):
    x: int
    y: int = 0


@dataclass
class Line:
    start: Point
    end: Point


class Colour(Enum):
    RED = "red"


class Model(pydantic.BaseModel):
    name: str
    born: datetime | None = None


@pytest.mark.parametrize("codec", CODECS)
async def test_middleware_sees_events_decoded_and_what_the_handler_returned(serve, codec):
    app = Symphony()
    log = Log()

    @app.middleware("message")
    async def watch(socket: Socket, message, call_next):
        log.append((message.event, message.data, message.id, message.timeout))
        reply = await call_next(socket, message)
        log.append(reply)
        return reply

    @app.on("game.{id:int}")
    async def play(id: int, data: Point) -> Point:
        return Point(data.y, id)

    speak = CODECS[codec]
    async with serve(app) as url, connect(f"{url}/", subprotocols=[f"symphony.v1.{codec}"]) as client:
        await client.send(speak.encode({"event": "game.7", "data": {"x": 1, "y": 2}, "id": 3, "timeout": 9}))
        assert speak.decode(await client.recv()) == {"reply": 3, "data": {"x": 2, "y": 7}}
        await client.send(speak.encode({"event": "game.8", "data": {"x": 1}}))
        await log.reaches(4)
    assert log == [
        ("game.7", {"x": 1, "y": 2}, 3, 9.0),
        Point(2, 7),
        ("game.8", {"x": 1}, None, None),
        Point(0, 8),
    ]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (Point, {"x": 1}, Point(1)),
        (Line, {"start": {"x": 1}, "end": {"x": 2}}, Line(Point(1), Point(2))),
        (Point | None, None, None),
        (list[int], [1, 2], [1, 2]),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[int], [1, 1], {1}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict[int, str], {1: "a"}, {1: "a"}),
        (dict[UUID, int], {str(GAME): 1}, {GAME: 1}),
        (float, 7, 7.0),
        (bytes, b"\x00\xff", b"\x00\xff"),
        (list[bytes], [b"\x00\xff"], [b"\x00\xff"]),
        (datetime, NOON, NOON),
        (UUID, GAME, GAME),
        (Decimal, Decimal("1.10"), Decimal("1.10")),
        (Colour, "red", Colour.RED),
        (str | bytes, "text", "text"),
        (Model, {"name": "bo", "born": NOON}, Model(name="bo", born=NOON)),
        (list[Model], [{"name": "bo"}], [Model(name="bo")]),
        (Any, {"a": [None, 0.5]}, {"a": [None, 0.5]}),
    ],
)
async def test_a_middleware_that_hands_on_changes_nothing_of_what_a_handler_gets(
    serve, codec, kind, data, expected
):
    app = Symphony()
    log = Log()

    @app.middleware("message")
    async def hand_on(socket: Socket, message, call_next):
        return await call_next(socket, message)

    async def handle(data) -> None:
        log.append(data)

    handle.__annotations__["data"] = kind
    app.on("x")(handle)
    speak = CODECS[codec]
    async with serve(app) as url, connect(f"{url}/", subprotocols=[f"symphony.v1.{codec}"]) as client:
        await client.send(speak.encode({"event": "x", "data": data, "id": 1}))
        assert speak.decode(await client.recv()) == {"reply": 1, "data": None}
    assert log == [expected]
    assert type(log[0]) is type(expected)


async def test_middleware_may_change_the_data_and_the_name(serve):
    app = Symphony()

    @app.middleware("message")
    async def change(socket: Socket, message, call_next):
        if message.event == "old":
            message.event = "new"
        message.data = {"x": message.data["x"] + 1}
        return await call_next(socket, message)

    @app.on("new")
    async def new(data: Point) -> int:
        return data.x

    async with serve(app) as url, connect(f"{url}/") as client:
        assert await ask(client, "old", {"x": 1}) == 2
        assert await ask(client, "new", {"x": 2}) == 3
        error = await ask(client, "newer", {"x": 2})
        assert (error["code"], error["details"]) == ("not_found", {"event": "newer"})


async def test_data_that_a_middleware_spoils_is_invalid_for_the_handler(serve):
    app = Symphony()

    @app.middleware("message")
    async def spoil(socket: Socket, message, call_next):
        message.data = {"x": "no number"}
        return await call_next(socket, message)

    @app.on("x")
    async def handle(data: Point) -> None: ...

    async with serve(app) as url, connect(f"{url}/") as client:
        error = await ask(client, "x", {"x": 1})
        assert (error["code"], error["details"]) == ("invalid", {"path": "$.x"})


async def test_middleware_may_answer_itself_refuse_replace_the_reply_or_catch_an_error(serve):
    app = Symphony()
    handled = Log()

    @app.middleware("message")
    async def guard(socket: Socket, message, call_next):
        match message.event:
            case "cached":
                return {"from": "cache"}
            case "secret":
                raise Reject("forbidden", "not for you", details=message.data)
            case "fails":
                try:
                    return await call_next(socket, message)
                except ZeroDivisionError:
                    return "caught"
        return [await call_next(socket, message)]

    @app.on("*")
    async def handle(event: str) -> Any:
        handled.append(event)
        return 1 / 0 if event == "fails" else event

    async with serve(app) as url, connect(f"{url}/") as client:
        assert await ask(client, "cached") == {"from": "cache"}
        assert (await ask(client, "secret", [1]))["details"] == [1]
        await say(client, event="secret", data=[2])
        told = await hear(client)
        assert (told["event"], told["data"]["details"]) == ("error", [2])
        assert await ask(client, "fails") == "caught"
        assert await ask(client, "plain") == ["plain"]
        await say(client, event="cached")
        await say(client, ping=1)
        assert await hear(client) == {"pong": 1}
    assert handled == ["fails", "plain"]


async def test_a_middleware_that_fails_is_a_failed_handler(serve):
    app = Symphony()

    @app.middleware("message")
    async def broken(socket: Socket, message, call_next):
        raise RuntimeError("broken")

    app.on("x")(lambda: None)
    async with serve(app) as url, connect(f"{url}/") as client:
        assert (await ask(client, "x"))["code"] == "internal"
    assert app.stats.failed_handlers == 1


async def test_the_middleware_of_app_router_and_route_is_around_each_event_in_that_order(serve):
    app, router = Symphony(), Router("/r")
    route = router.route("/x")
    log = Log()

    def tracing(name: str) -> Any:
        async def trace(socket: Socket, message, call_next):
            log.append(name)
            return await call_next(socket, message)

        return trace

    for layer, name in ((route, "route"), (app, "app 1"), (router, "router"), (app, "app 2")):
        layer.middleware("message")(tracing(name))
    app.include(router)
    # The app's handler, within the middleware of the route that it runs on.
    app.on("x")(lambda: log.append("handler"))
    async with serve(app) as url, connect(f"{url}/r/x") as client:
        await ask(client, "x")
    assert log == ["app 1", "app 2", "router", "route", "handler"]


async def test_middleware_sees_nothing_of_what_is_no_event(serve):
    app = Symphony()
    log = Log()

    @app.middleware("message")
    async def watch(socket: Socket, message, call_next):
        log.append(message.event)
        return await call_next(socket, message)

    @app.on("ask")
    async def ask_back(socket: Socket) -> Any:
        return await socket.request("q")

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="ask", id=1)
        await say(client, reply=(await hear(client))["id"], data="x")
        assert await hear(client) == {"reply": 1, "data": "x"}
        for frame in ({"event": "error"}, {"cancel": 1}, {"ping": 1}):
            await say(client, **frame)
        assert await hear(client) == {"pong": 1}
        await client.send("garbage")
        assert (await hear(client))["event"] == "error"
    assert log == ["ask"]


async def test_the_reply_of_a_streaming_handler_is_its_generator_which_middleware_may_wrap(serve):
    app = Symphony()
    closed = Log()

    async def doubled(items: AsyncIterator[int]) -> AsyncIterator[int]:
        async for item in items:
            yield item * 2

    @app.middleware("message")
    async def double(socket: Socket, message, call_next):
        reply = await call_next(socket, message)
        assert isinstance(reply, AsyncGeneratorType)
        return doubled(reply) if message.data == 3 else reply

    @app.on("count")
    async def count(data: int) -> AsyncIterator[int]:
        try:
            for number in range(data):
                yield number
        finally:
            closed.append(data)

    async with serve(app) as url, connect(f"{url}/") as client:
        for data, items in ((2, [0, 1]), (3, [0, 2, 4])):
            await say(client, event="count", data=data, id=1)
            assert [await hear(client) for _ in items] == [{"item": 1, "data": item} for item in items]
            assert await hear(client) == {"end": 1}
    assert closed == [2, 3]


async def test_a_request_is_cancelled_in_its_middleware_too(serve):
    app = Symphony()
    log = Log()

    @app.middleware("message")
    async def wait(socket: Socket, message, call_next):
        try:
            log.append("begin")
            await asyncio.Event().wait()
        finally:
            log.append("cancelled")

    app.on("x")(lambda: None)
    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="x", id=1)
        await log.reaches(1)
        await say(client, cancel=1)
        assert (await hear(client))["data"]["code"] == "cancelled"
    assert log == ["begin", "cancelled"]


@pytest.mark.parametrize("depth", [700, 990])
async def test_data_too_deep_to_be_decoded_for_middleware_is_invalid_or_handled(serve, depth):
    app = Symphony()

    @app.middleware("message")
    async def hand_on(socket: Socket, message, call_next):
        return await call_next(socket, message)

    app.on("x")(lambda: "handled")
    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send('{"event":"x","id":1,"data":' + "[" * depth + "]" * depth + "}")
        answer = await hear(client)
        assert answer["data"] == "handled" or answer["data"]["code"] == "invalid"
        assert await ask(client, "x") == "handled"


async def test_middleware_may_hand_on_another_event_and_more_than_once(serve):
    app = Symphony()

    @app.middleware("message")
    async def each(socket: Socket, message, call_next):
        return [await call_next(socket, Event("add", number)) for number in message.data]

    @app.on("add")
    async def add(data: int) -> int:
        return data + 1

    async with serve(app) as url, connect(f"{url}/") as client:
        assert await ask(client, "each", [1, 2]) == [2, 3]


async def test_middleware_may_answer_a_stream_with_a_reply_and_a_request_with_a_stream(serve):
    app = Symphony()

    async def letters(word: str) -> AsyncIterator[str]:
        for letter in word:
            yield letter

    @app.middleware("message")
    async def swap(socket: Socket, message, call_next):
        result = await call_next(socket, message)
        return letters(result) if isinstance(result, str) else [item async for item in result]

    @app.on("count")
    async def count() -> AsyncIterator[int]:
        yield 1
        yield 2

    app.on("word")(lambda: "ab")
    async with serve(app) as url, connect(f"{url}/") as client:
        assert await ask(client, "count") == [1, 2]
        await say(client, event="word", id=2)
        assert [await hear(client) for _ in range(3)] == [
            {"item": 2, "data": "a"},
            {"item": 2, "data": "b"},
            {"end": 2},
        ]
        await say(client, event="word")
        assert (await hear(client))["data"]["code"] == "request_required"


async def test_data_that_cannot_be_decoded_is_invalid_and_comes_to_no_middleware(serve):
    app = Symphony()
    log = Log()

    @app.middleware("message")
    async def watch(socket: Socket, message, call_next):
        log.append(message)
        return await call_next(socket, message)

    app.on("x")(lambda: None)
    async with serve(app) as url, connect(f"{url}/", subprotocols=["symphony.v1.msgpack"]) as client:
        # Text that is not UTF-8, a map as a key, and an instant beyond all calendars.
        for data in (b"\xa1\xff", b"\x81\x80\x01", b"\xc7\x0c\xff\x00\x00\x00\x00\x7f" + b"\xff" * 7):
            await client.send(b"\x83\xa5event\xa1x\xa2id\x01\xa4data" + data)
            answer = msgspec.msgpack.decode(await client.recv())
            assert (answer["error"], answer["data"]["code"]) == (1, "invalid")
    assert log == []
