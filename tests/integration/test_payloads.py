"""What a message handler's payload type makes of a message, and what it sends back."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pydantic
import pytest

from support.clients import Log, closed, connect, error_in, until
from symphony import Close, Reject, Socket, Symphony

CHUNK = "x" * 10_000


class Say(msgspec.Struct, tag="say"):
    text: Annotated[str, msgspec.Meta(max_length=10)]
    times: int = 1


class Wave(msgspec.Struct, tag="wave"):
    hand: Literal["left", "right"]


@dataclass
class Point:
    x: int
    y: int = 0


class Move(TypedDict):
    to: Point
    fast: bool


class Model(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(ge=0)


async def test_str_or_bytes_takes_every_message_as_it_is(serve):
    app = Symphony()

    @app.on_message
    async def echo(message: str | bytes) -> str | bytes:
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        for message in ("", "text", "žluťoučký 🐎", b"", b"\x00\xff", "x" * 70_000, b"y" * 70_000):
            await client.send(message)
            assert await client.recv() == message


async def test_str_refuses_binary_with_1003(serve):
    app = Symphony()
    log = Log()

    @app.on_message
    async def handle(message: str) -> str:
        return message

    @app.on_disconnect
    async def leave(close: Close) -> None:
        log.append((close.code, close.reason))

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("text")
        assert await client.recv() == "text"
        await client.send(b"binary")
        assert await closed(client) == (1003, "this route takes text messages only")
        await log.reaches(1)
    assert log == [(1003, "this route takes text messages only")]


async def test_bytes_refuses_text_with_1003(serve):
    app = Symphony()

    @app.on_message
    async def handle(message: bytes) -> bytes:
        return message

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send(b"binary")
        assert await client.recv() == b"binary"
        await client.send("text")
        assert await closed(client) == (1003, "this route takes binary messages only")


@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        (Say, {"type": "say", "text": "hi"}, Say("hi")),
        (Point, {"x": 1}, Point(1, 0)),
        (Move, {"to": {"x": 1, "y": 2}, "fast": True}, {"to": Point(1, 2), "fast": True}),
        (Say | Wave, {"type": "wave", "hand": "left"}, Wave("left")),
        (int | str, "seven", "seven"),
        (int | None, None, None),
        (list[Point], [{"x": 1}, {"x": 2}], [Point(1), Point(2)]),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (int, 7, 7),
        (bool, True, True),
        (dict, {"any": ["thing"]}, {"any": ["thing"]}),
        (Model, {"name": "bo", "age": 3}, Model(name="bo", age=3)),
        (list[Model], [{"name": "bo", "age": 3}], [Model(name="bo", age=3)]),
    ],
)
async def test_json_becomes_the_type_of_the_payload(serve, kind, message, expected):
    app = Symphony()
    log = Log()

    async def handle(message) -> None:
        log.append(message)

    handle.__annotations__["message"] = kind
    app.on_message(handle)
    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send(json.dumps(message))
        await client.send(json.dumps(message).encode())
        await log.reaches(2)
    assert log == [expected, expected]
    assert type(log[0]) is type(expected)


@pytest.mark.parametrize(
    ("kind", "message", "problem", "path"),
    [
        (Say, "hello", "JSON is malformed: invalid character (byte 0)", "$"),
        (Say, "", "Input data was truncated", "$"),
        (Say, '{"type": "say"}', "Object missing required field `text`", "$"),
        (Say, '{"type": "say", "text": 1}', "Expected `str`, got `int`", "$.text"),
        (Say, '{"type": "say", "text": "12345678901"}', "Expected `str` of length <= 10", "$.text"),
        (Say | Wave, '{"type": "shout"}', "Invalid value 'shout'", "$.type"),
        (Move, '{"to": {"x": "1"}, "fast": true}', "Expected `int`, got `str`", "$.to.x"),
        (list[Point], '[{"x": 1}, {"x": null}]', "Expected `int`, got `null`", "$[1].x"),
        (Model, '{"name": "bo", "age": -1}', "Input should be greater than or equal to 0", "$.age"),
    ],
)
async def test_an_invalid_message_is_answered_with_an_error_and_the_socket_stays(
    serve, kind, message, problem, path
):
    app = Symphony()
    log = Log()

    async def handle(socket: Socket, message) -> str:
        log.append(message)
        return "ok"

    handle.__annotations__["message"] = kind
    app.on_message(handle)

    @app.on_error
    def on_error(error: Exception) -> None:
        log.append(error)

    async with serve(app) as url, connect(f"{url}/") as client:
        for _ in range(2):
            await client.send(message)
            assert error_in(await client.recv()) == {
                "code": "invalid",
                "message": problem,
                "retryable": False,
                "details": {"path": path},
            }
    assert log == []


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("text", "text"),
        (b"bytes", b"bytes"),
        (bytearray(b"array"), b"array"),
        (7, "7"),
        (0, "0"),
        (False, "false"),
        (["a", None], '["a",null]'),
        ({"a": 1.5}, '{"a":1.5}'),
        (Point(1, 2), '{"x":1,"y":2}'),
        (Say("hi"), '{"type":"say","text":"hi","times":1}'),
        (Model(name="bo", age=3), '{"name":"bo","age":3}'),
        ("", ""),
    ],
)
async def test_what_a_handler_returns_is_sent_and_so_is_what_it_sends(serve, value, sent):
    app = Symphony()

    @app.on_message
    async def handle(socket: Socket, message: str) -> Any:
        await socket.send(value)
        return value

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert [await client.recv(), await client.recv()] == [sent, sent]


async def test_none_is_not_sent(serve):
    app = Symphony()

    @app.on_message
    async def handle(message: str) -> str | None:
        return None if message == "quiet" else message

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("quiet")
        await client.send("loud")
        assert await client.recv() == "loud"


async def test_a_result_that_is_not_json_is_an_internal_error_with_the_reason_in_the_log(serve, caplog):
    app = Symphony()

    @app.on_message
    async def handle(message: str) -> Any:
        return object()

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert error_in(await client.recv())["code"] == "internal"
    assert "an object of type object" in caplog.text


async def test_the_items_of_an_async_generator_are_sent_one_by_one(serve):
    app = Symphony()

    @app.on_message
    async def count(message: int) -> AsyncIterator[int | str]:
        for number in range(message):
            yield number
            await asyncio.sleep(0)
        yield "done"

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("3")
        await client.send("0")
        assert [await client.recv() for _ in range(5)] == ["0", "1", "2", "done", "done"]


async def test_a_generator_that_fails_or_refuses_ends_with_an_error(serve):
    app = Symphony()

    @app.on_message
    async def count(message: str) -> AsyncIterator[str]:
        yield "one"
        if message == "refuse":
            raise Reject("too_many", "one is enough")
        raise RuntimeError

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("refuse")
        assert await client.recv() == "one"
        assert error_in(await client.recv())["message"] == "one is enough"
        await client.send("fail")
        assert await client.recv() == "one"
        assert error_in(await client.recv())["code"] == "internal"


async def test_a_generator_is_closed_when_its_socket_has_gone(serve):
    """An endless stream went on after its client had gone, and nothing else ever ran again."""
    app = Symphony()
    log = Log()

    @app.on_message
    async def forever(message: str) -> AsyncIterator[str]:
        try:
            while True:
                yield CHUNK
        finally:
            log.append("closed")

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.send("go")
            for _ in range(10):
                assert await client.recv() == CHUNK
            client.transport.abort()
        await log.reaches(1)
        await until(lambda: app.stats.closed == 1)
    assert app.stats.failed_handlers == 0


async def test_a_connect_handler_that_returns_something_is_an_error_that_says_so(serve, caplog):
    app = Symphony()

    @app.route("/x").on_connect
    async def enter(socket: Socket) -> str:
        await socket.send("open")
        return "hello"

    async with serve(app) as url, connect(f"{url}/x") as client:
        assert await client.recv() == "open"
        assert (await closed(client))[0] == 1011
    assert "returned 'hello'. A connect handler returns nothing" in caplog.text
