"""Message middleware around events: what it sees, and everything it may do."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import msgspec
import pydantic
import pytest

from support.clients import Log, connect
from symphony import Reject, Router, Socket, Symphony
from symphony.protocol.envelopes import Event

CODECS = {"json": lambda value: json.dumps(value), "msgpack": msgspec.msgpack.encode}


async def ask(client, codec: str, **frame: Any) -> Any:
    await client.send(CODECS[codec](frame))
    return await hear(client)


async def hear(client) -> Any:
    message = await client.recv()
    return json.loads(message) if isinstance(message, str) else msgspec.msgpack.decode(message)


def speaking(url: str, codec: str = "json"):
    return connect(f"{url}/", subprotocols=[f"symphony.v1.{codec}"])


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Model(pydantic.BaseModel):
    name: str


@dataclass
class Pair:
    left: int
    right: str


class Color(Enum):
    RED = "red"


@pytest.mark.parametrize("codec", CODECS)
async def test_it_sees_the_event_with_plain_data(serve, codec):
    app, log = Symphony(), Log()

    @app.middleware("message")
    async def look(socket: Socket, event: Event, call_next):
        log.append((event.event, event.data, event.id, event.timeout))
        assert isinstance(event, Event)
        return await call_next(socket, event)

    @app.on("move")
    async def move(point: Point) -> int:
        assert type(point) is Point
        return point.x

    async with serve(app) as url, speaking(url, codec) as client:
        data = {"x": 1, "z": [None, "ü", 1.5]}
        assert await ask(client, codec, event="move", data=data, id=3, timeout=5) == {"reply": 3, "data": 1}
        await client.send(CODECS[codec]({"event": "move"}))
        assert (await hear(client))["event"] == "error"
    assert log == [("move", data, 3, 5.0), ("move", None, None, None)]


@pytest.mark.parametrize(
    ("kind", "json_data", "expected"),
    [
        (Any, {"a": [1, None, "x"]}, {"a": [1, None, "x"]}),
        (Point, {"x": 1}, Point(1)),
        (Point | None, None, None),
        (list[Point], [{"x": 1}], [Point(1)]),
        (Pair, {"left": 1, "right": "r"}, Pair(1, "r")),
        (Model, {"name": "bo"}, Model(name="bo")),
        (list[Model], [{"name": "bo"}], [Model(name="bo")]),
        (float, 1, 1.0),
        (bytes, "AP8=", b"\x00\xff"),
        (datetime, "2025-01-31T12:00:00Z", datetime(2025, 1, 31, 12, tzinfo=UTC)),
        (date, "2025-01-31", date(2025, 1, 31)),
        (timedelta, "PT1S", timedelta(seconds=1)),
        (UUID, "12345678-1234-5678-1234-567812345678", UUID("12345678-1234-5678-1234-567812345678")),
        (Decimal, "1.10", Decimal("1.10")),
        (Color, "red", Color.RED),
        (Literal["a", "b"], "b", "b"),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[int], [1, 2], {1, 2}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict[int, str], {"1": "a"}, {1: "a"}),
        (dict[UUID, int], {f"{UUID(int=7)}": 1}, {UUID(int=7): 1}),
    ],
)
@pytest.mark.parametrize("around", [False, True])
async def test_one_that_only_calls_on_changes_nothing_for_the_handler(
    serve, around, kind, json_data, expected
):
    app, log = Symphony(), Log()

    async def call_on(socket: Socket, event: Event, call_next):
        return await call_next(socket, event)

    if around:
        app.middleware("message")(call_on)

    @app.on("take")
    async def take(data: kind) -> str:
        log.append(data)
        return "ok"

    async with serve(app) as url, speaking(url) as client:
        assert await ask(client, "json", event="take", data=json_data, id=1) == {"reply": 1, "data": "ok"}
    assert log == [expected]
    assert type(log[0]) is type(expected)


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (bytes, b"\x00\xff"),
        (dict[int, str], {1: "a"}),
        (datetime, datetime(2025, 1, 31, 12, tzinfo=UTC)),
        (int, 2**64 - 1),
    ],
)
async def test_so_in_messagepack(serve, around, kind, data):
    app, log = Symphony(), Log()

    async def call_on(socket: Socket, event: Event, call_next):
        return await call_next(socket, event)

    if around:
        app.middleware("message")(call_on)

    @app.on("take")
    async def take(data: kind) -> str:
        log.append(data)
        return "ok"

    async with serve(app) as url, speaking(url, "msgpack") as client:
        assert await ask(client, "msgpack", event="take", data=data, id=1) == {"reply": 1, "data": "ok"}
    assert log == [data]


@pytest.mark.parametrize("codec", CODECS)
async def test_it_may_change_the_data_and_the_name(serve, codec):
    app = Symphony()

    @app.middleware("message")
    async def change(socket: Socket, event: Event, call_next):
        if event.event == "old":
            event.event = "new"
        event.data = {"x": event.data["x"] * 2}
        return await call_next(socket, event)

    @app.on("new")
    async def new(point: Point) -> Point:
        return point

    async with serve(app) as url, speaking(url, codec) as client:
        answer = await ask(client, codec, event="old", data={"x": 4}, id=1)
        assert answer == {"reply": 1, "data": {"x": 8, "y": 0}}


async def test_it_may_call_on_with_another_event(serve):
    app = Symphony()

    @app.middleware("message")
    async def change(socket: Socket, event: Event, call_next):
        return [await call_next(socket, Event("add", n)) for n in event.data]

    @app.on("add")
    async def add(n: int) -> int:
        return n + 1

    async with serve(app) as url, speaking(url) as client:
        assert await ask(client, "json", event="each", data=[1, 2], id=1) == {"reply": 1, "data": [2, 3]}


async def test_what_it_changes_data_to_is_read_as_the_clients_would_be(serve):
    app = Symphony()

    @app.middleware("message")
    async def change(socket: Socket, event: Event, call_next):
        event.data = {"x": "no number"}
        return await call_next(socket, event)

    app.on("move")(lambda point: point)

    @app.on("typed")
    async def typed(point: Point) -> None: ...

    async with serve(app) as url, speaking(url) as client:
        answer = await ask(client, "json", event="typed", data={"x": 1}, id=1)
        assert (answer["error"], answer["data"]["code"]) == (1, "invalid")
        assert answer["data"]["details"] == {"path": "$.x"}


async def test_it_may_answer_itself_also_for_events_without_a_handler(serve):
    app, log = Symphony(), Log()

    @app.middleware("message")
    async def answer(socket: Socket, event: Event, call_next):
        return ["mine", event.data]

    app.on("say")(log.append)
    async with serve(app) as url, speaking(url) as client:
        assert await ask(client, "json", event="say", data=1, id=1) == {"reply": 1, "data": ["mine", 1]}
        assert await ask(client, "json", event="none", id=2) == {"reply": 2, "data": ["mine", None]}
        # Who did not ask gets no answer.
        await client.send('{"event":"say"}')
        assert await ask(client, "json", ping=1) == {"pong": 1}
    assert log == []


async def test_it_may_refuse(serve):
    app, log = Symphony(), Log()

    @app.middleware("message")
    async def guard(socket: Socket, event: Event, call_next):
        raise Reject("forbidden", "not you", details={"event": event.event})

    app.on("say")(log.append)
    error = {"code": "forbidden", "message": "not you", "retryable": False, "details": {"event": "say"}}
    async with serve(app) as url, speaking(url) as client:
        assert await ask(client, "json", event="say", id=1) == {"error": 1, "data": error}
        assert await ask(client, "json", event="say") == {"event": "error", "data": error}
    assert log == []


async def test_it_sees_the_reply_and_what_the_handler_raises_and_may_give_another(serve):
    app = Symphony()

    @app.middleware("message")
    async def change(socket: Socket, event: Event, call_next):
        try:
            reply = await call_next(socket, event)
        except (LookupError, Reject) as error:
            return ["caught", type(error).__name__]
        return ["seen", reply.x]

    @app.on("move")
    async def move(point: Point) -> Point:
        return point

    @app.on("fail")
    async def fail() -> None:
        raise LookupError

    async with serve(app) as url, speaking(url) as client:
        assert (await ask(client, "json", event="move", data={"x": 7}, id=1))["data"] == ["seen", 7]
        assert (await ask(client, "json", event="fail", id=1))["data"] == ["caught", "LookupError"]
        assert (await ask(client, "json", event="move", data=5, id=1))["data"] == ["caught", "Reject"]
        assert (await ask(client, "json", event="none", id=1))["data"] == ["caught", "Reject"]


async def test_data_that_is_not_even_text_is_invalid_and_comes_to_no_middleware(serve):
    app, log = Symphony(), Log()

    @app.middleware("message")
    async def look(socket: Socket, event: Event, call_next):
        log.append(event.event)
        return await call_next(socket, event)

    app.on("say")(lambda data: data)
    async with serve(app) as url, speaking(url, "msgpack") as client:
        await client.send(b"\x83\xa5event\xa3say\xa2id\x01\xa4data\xa1\xff")
        answer = await hear(client)
        assert (answer["error"], answer["data"]["code"]) == (1, "invalid")
    assert log == []


@pytest.mark.parametrize("codec", CODECS)
async def test_a_stream_comes_through_and_may_be_wrapped_in_another(serve, codec):
    app = Symphony()

    @app.middleware("message")
    async def wrap(socket: Socket, event: Event, call_next):
        items = await call_next(socket, event)
        return doubled(items) if event.data == "double" else items

    async def doubled(items: AsyncIterator[int]) -> AsyncIterator[int]:
        async for item in items:
            yield item * 2

    @app.on("count")
    async def count() -> AsyncIterator[int]:
        yield 1
        yield 2

    async with serve(app) as url, speaking(url, codec) as client:
        for data, items in [("double", [2, 4]), (None, [1, 2])]:
            first = await ask(client, codec, event="count", data=data, id=1)
            assert [first, await hear(client), await hear(client)] == [
                *({"item": 1, "data": item} for item in items),
                {"end": 1},
            ]
        await client.send(CODECS[codec]({"event": "count"}))
        assert (await hear(client))["data"]["code"] == "request_required"


async def test_it_may_answer_a_stream_with_a_reply_and_a_request_with_a_stream(serve):
    app = Symphony()

    @app.middleware("message")
    async def change(socket: Socket, event: Event, call_next):
        result = await call_next(socket, event)
        if event.event == "count":
            return [item async for item in result]
        return letters(result)

    async def letters(word: str) -> AsyncIterator[str]:
        for letter in word:
            yield letter

    @app.on("count")
    async def count() -> AsyncIterator[int]:
        yield 1
        yield 2

    app.on("word")(lambda data: "ab")
    async with serve(app) as url, speaking(url) as client:
        assert await ask(client, "json", event="count", id=1) == {"reply": 1, "data": [1, 2]}
        assert await ask(client, "json", event="word", id=2) == {"item": 2, "data": "a"}
        assert [await hear(client), await hear(client)] == [{"item": 2, "data": "b"}, {"end": 2}]


async def test_the_app_is_around_the_router_and_the_router_around_the_route(serve):
    app, router, log = Symphony(), Router("/r"), Log()
    route = router.route("/x")

    def tracing(name: str):
        async def trace(socket: Socket, event: Event, call_next):
            log.append(f"{name} {event.data}")
            event.data += 1
            reply = await call_next(socket, event)
            log.append(f"{name} answers")
            return [name, *reply]

        return trace

    route.middleware("message")(tracing("route"))
    router.middleware("message")(tracing("router"))
    app.middleware("message")(tracing("app"))

    # The handler is the app's: the middleware is that of where the client is all the same.
    @app.on("say")
    async def say(data: int) -> list[int]:
        return [data]

    app.include(router)
    async with serve(app) as url, connect(f"{url}/r/x") as client:
        answer = await ask(client, "json", event="say", data=0, id=1)
        assert answer == {"reply": 1, "data": ["app", "router", "route", 3]}
    assert log == ["app 0", "router 1", "route 2", "route answers", "router answers", "app answers"]


async def test_pings_answers_and_malformed_frames_come_to_no_middleware(serve):
    app, log = Symphony(), Log()

    @app.middleware("message")
    async def look(socket: Socket, event: Event, call_next):
        log.append(event.event)
        return await call_next(socket, event)

    @app.on("ask")
    async def asks(socket: Socket) -> Any:
        return await socket.request("q")

    async with serve(app) as url, speaking(url) as client:
        assert await ask(client, "json", ping=1) == {"pong": 1}
        assert (await ask(client, "json", nothing=1))["data"]["code"] == "invalid"
        id = (await ask(client, "json", event="ask", id=1))["id"]
        assert await ask(client, "json", reply=id, data="a") == {"reply": 1, "data": "a"}
        await client.send('{"event":"error","data":{}}')
        assert await ask(client, "json", ping=2) == {"pong": 2}
    assert log == ["ask"]
