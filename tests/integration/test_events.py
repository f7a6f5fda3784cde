"""Events with data of every type, what a handler answers, and how errors are told."""

import asyncio
import gc
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from types import SimpleNamespace
from typing import Annotated, Any, Literal, NewType, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest

from support.clients import Client, Log, connect, until
from symphony import Reject, Socket, Symphony

CODECS: Mapping[str, Any] = {
    "json": SimpleNamespace(encode=lambda frame: msgspec.json.encode(frame).decode(), decode=json.loads),
    "msgpack": msgspec.msgpack,
}


class Peer:
    """A client of one of the codecs."""

    def __init__(self, client: Client, codec: str) -> None:
        self.client = client
        self.codec = CODECS[codec]

    async def say(self, **frame: Any) -> None:
        await self.client.send(self.codec.encode(frame))

    async def hear(self) -> Any:
        async with asyncio.timeout(5):
            return self.codec.decode(await self.client.recv())

    async def ask(self, event: str, data: Any = None) -> Any:
        """Return the data of the answer to a request; an error's is a `dict` with a `code`."""
        await self.say(event=event, data=data, id=1)
        answer = await self.hear()
        [kind] = answer.keys() & {"reply", "error"}
        assert answer.pop(kind) == 1
        assert set(answer) == {"data"}
        return answer["data"]


def peer(url: str, codec: str) -> Any:
    return connect(f"{url}/", subprotocols=[f"symphony.v1.{codec}"], max_size=None)


class Say(msgspec.Struct, tag="say"):
    text: Annotated[str, msgspec.Meta(max_length=10)]
    times: int = 1


class Wave(msgspec.Struct, tag="wave"):
    hand: Literal["left", "right"]


class Colour(Enum):
    RED = "red"


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


class Born(pydantic.BaseModel):
    on: date


class Team(pydantic.BaseModel):
    leader: Model
    members: list[Model] = []


Name = NewType("Name", str)
NOON = datetime(2026, 5, 6, 12, 0, 0, tzinfo=UTC)
GAME = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")


def errors_of(app: Symphony) -> Log:
    """Return where the app's own failures come in."""
    log = Log()

    @app.on_error
    def on_error(error: Exception) -> None:
        log.append(error)

    return log


def app_taking(kind: Any, log: Log) -> Symphony:
    """Make an app whose event `x` takes data of a type."""
    app = Symphony()

    async def handle(data) -> None:
        log.append(data)

    handle.__annotations__["data"] = kind
    app.on("x")(handle)
    return app


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (Say, {"type": "say", "text": "hi", "more": 1}, Say("hi")),
        (Point, {"x": 1}, Point(1, 0)),
        (Move, {"to": {"x": 1, "y": 2}, "fast": True}, {"to": Point(1, 2), "fast": True}),
        (Say | Wave, {"type": "wave", "hand": "left"}, Wave("left")),
        (Say | None, None, None),
        (int | str, "seven", "seven"),
        (list[Point], [{"x": 1}, {"x": 2}], [Point(1), Point(2)]),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict[int, str], {1: "a"}, {1: "a"}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[int], [1, 2, 1], {1, 2}),
        (int, 7, 7),
        (float, 7, 7.0),
        (bool, True, True),
        (str, "", ""),
        (Name, "bo", "bo"),
        (bytes, b"\x00\xff", b"\x00\xff"),
        (bytearray, b"\x00\xff", bytearray(b"\x00\xff")),
        (None, None, None),
        (datetime, NOON, NOON),
        (date, date(2026, 5, 6), date(2026, 5, 6)),
        (UUID, GAME, GAME),
        (Decimal, Decimal("1.10"), Decimal("1.10")),
        (Colour, "red", Colour.RED),
        (Literal["a", 1], 1, 1),
        (Any, {"a": [1, None, {"b": 0.5}]}, {"a": [1, None, {"b": 0.5}]}),
        (object, "x", "x"),
        (Model, {"name": "bo", "age": 3}, Model(name="bo", age=3)),
        (Team, {"leader": {"name": "bo", "age": 3}}, Team(leader=Model(name="bo", age=3))),
        (list[Model], [{"name": "bo", "age": 3}], [Model(name="bo", age=3)]),
        (Born, {"on": date(2026, 5, 6)}, Born(on="2026-05-06")),
        (Annotated[int, pydantic.Field(gt=0)], 7, 7),
    ],
)  # fmt: skip
async def test_data_becomes_the_type_of_the_payload(serve, codec, kind, data, expected):
    log = Log()
    async with serve(app_taking(kind, log)) as url, peer(url, codec) as client:
        one = Peer(client, codec)
        assert await one.ask("x", data) is None
        await one.say(event="x", data=data)
        await log.reaches(2)
    assert log == [expected, expected]
    assert type(log[0]) is type(expected)


@pytest.mark.parametrize("codec", CODECS)
async def test_str_or_bytes_takes_both_where_the_codec_tells_them_apart(serve, codec):
    log = Log()
    async with serve(app_taking(str | bytes, log)) as url, peer(url, codec) as client:
        one = Peer(client, codec)
        for data in ("text", b"bytes"):
            assert await one.ask("x", data) is None
        error = await one.ask("x", 7)
        assert (error["code"], error["details"]) == ("invalid", {"path": "$"})
    # In JSON bytes are text in base64: nothing tells them apart.
    assert log == ["text", b64encode(b"bytes").decode() if codec == "json" else b"bytes"]


@pytest.mark.parametrize("codec", CODECS)
async def test_a_handler_without_a_payload_or_without_a_type_takes_whatever_comes(serve, codec):
    app = Symphony()
    app.on("nothing")(lambda: "nothing")
    app.on("untyped")(lambda data: data)
    app.on("default")(lambda data=5: data)
    async with serve(app) as url, peer(url, codec) as client:
        one = Peer(client, codec)
        for data in (None, 1, [1], {"a": "b"}):
            assert await one.ask("nothing", data) == "nothing"
            assert await one.ask("untyped", data) == data
            assert await one.ask("default", data) == data


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("kind", "data", "problem", "path"),
    [
        (Say, None, "Expected `object`, got `null`", "$"),
        (Say, "hello", "Expected `object`, got `str`", "$"),
        (Say, {"type": "say"}, "Object missing required field `text`", "$"),
        (Say, {"type": "say", "text": 1}, "Expected `str`, got `int`", "$.text"),
        (Say, {"type": "say", "text": "12345678901"}, "Expected `str` of length <= 10", "$.text"),
        (Say | Wave, {"type": "shout"}, "Invalid value 'shout'", "$.type"),
        (Wave, {"type": "wave", "hand": "both"}, "Invalid enum value 'both'", "$.hand"),
        (Move, {"to": {"x": "1"}, "fast": True}, "Expected `int`, got `str`", "$.to.x"),
        (list[Point], [{"x": 1}, {"x": None}], "Expected `int`, got `null`", "$[1].x"),
        (int, True, "Expected `int`, got `bool`", "$"),
        (int, 1.5, "Expected `int`, got `float`", "$"),
        (str, 1, "Expected `str`, got `int`", "$"),
        (None, 1, "Expected `null`, got `int`", "$"),
        (Model, {"name": "bo", "age": -1}, "Input should be greater than or equal to 0", "$.age"),
        (Team, {"leader": {"name": "bo", "age": 1}, "members": [{"name": 1, "age": 1}]},
         "Input should be a valid string", "$.members[0].name"),
    ],
)  # fmt: skip
async def test_invalid_data_is_answered_with_the_path_and_the_handler_is_not_called(
    serve, codec, kind, data, problem, path
):
    log = Log()
    app = app_taking(kind, log)
    errors = errors_of(app)
    if codec == "msgpack":
        problem = problem.replace("got `null`", "got `None`")
    expected = {"code": "invalid", "message": problem, "retryable": False, "details": {"path": path}}
    async with serve(app) as url, peer(url, codec) as client:
        one = Peer(client, codec)
        assert await one.ask("x", data) == expected
        await one.say(event="x", data=data)
        assert await one.hear() == {"event": "error", "data": expected}
    assert log == errors == []


WHO: ContextVar[str] = ContextVar("WHO")


class Word(msgspec.Struct):
    """Its class has code of the app's own."""

    text: str
    by: str = ""

    def __post_init__(self) -> None:
        if self.text == "key":
            raise KeyError(self.text)
        if self.text == "sold":
            raise Reject("shop.sold_out", "no more")
        self.by = WHO.get()


class Colour(Enum):
    RED = "red"

    @staticmethod
    def _missing_(value: object) -> "Colour":
        return {"rot": Colour.RED}[str(value)]


@pytest.mark.parametrize("codec", CODECS)
async def test_code_in_the_type_of_a_payload_runs_in_its_turn_and_may_fail_like_a_handler(
    serve, caplog, codec
):
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        WHO.set("ada")

    @app.on("word")
    async def word(data: list[Word]) -> list[str]:
        return [data[0].text, data[0].by]

    @app.on("colour")
    async def colour(data: Colour) -> str:
        return data.name

    async with serve(app) as url, peer(url, codec) as client:
        ada = Peer(client, codec)
        assert await ada.ask("word", [{"text": "hi"}]) == ["hi", "ada"]
        assert (await ada.ask("word", [{"text": "sold"}]))["code"] == "shop.sold_out"
        assert (await ada.ask("word", [{"text": "key"}]))["code"] == "internal"
        assert (await ada.ask("word", [{"text": 7}]))["code"] == "invalid"
        assert await ada.ask("colour", "rot") == "RED"
        assert (await ada.ask("colour", "vert"))["code"] == "invalid"
        assert await ada.ask("word", [{"text": "still here"}]) == ["still here", "ada"]
    assert "KeyError: 'key'" in caplog.text


async def test_what_waits_for_its_turn_waits_as_it_came(serve):
    """Decoded it may be many times as large: what waits is bounded by its size on the way."""
    app = Symphony()
    go_on = asyncio.Event()
    handled: list[Any] = []

    class Path(msgspec.Struct):
        steps: list[int]

    @app.on("walk")
    async def walk(data: Path) -> None:
        handled.append(data)
        await go_on.wait()

    async with serve(app) as url, peer(url, "json") as client:
        ada = Peer(client, "json")
        for step in range(5):
            await ada.say(event="walk", data={"steps": [step]})
        await ada.say(ping=1)
        assert await ada.hear() == {"pong": 1}
        assert sum(type(one) is Path for one in gc.get_objects()) == 1
        go_on.set()
        await until(lambda: len(handled) == 5)
    assert [path.steps for path in handled] == [[0], [1], [2], [3], [4]]


async def test_a_long_value_that_does_not_fit_is_not_told_back_in_full(serve):
    log = Log()
    async with serve(app_taking(Wave, log)) as url, peer(url, "json") as client:
        one = Peer(client, "json")
        error = await one.ask("x", {"type": "wave", "hand": "<" * 100_000})
        assert error["code"] == "invalid"
        assert len(error["message"]) <= 201
        error = await one.ask("x", {"type": "wave", "y" * 100_000: 1})
        assert len(json.dumps(error)) < 1000


# What a handler answers


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("value", "in_json", "in_msgpack"),
    [
        (None, None, ...),
        (False, False, ...),
        (0, 0, ...),
        ("", "", ...),
        ([], [], ...),
        (0.5, 0.5, ...),
        ("text", "text", ...),
        ((1, "a"), [1, "a"], ...),
        ({"a": {"b": None}}, {"a": {"b": None}}, ...),
        (b"\x00\xff", "AP8=", b"\x00\xff"),
        (bytearray(b"\x00\xff"), "AP8=", b"\x00\xff"),
        (NOON, "2026-05-06T12:00:00Z", NOON),
        (date(2026, 5, 6), "2026-05-06", ...),
        (GAME, str(GAME), ...),
        (Decimal("1.10"), "1.10", ...),
        (Colour.RED, "red", ...),
        (Point(1, 2), {"x": 1, "y": 2}, ...),
        (Say("hi"), {"type": "say", "text": "hi", "times": 1}, ...),
        ([Point(1), [NOON]], [{"x": 1, "y": 0}, ["2026-05-06T12:00:00Z"]], [{"x": 1, "y": 0}, [NOON]]),
        (Model(name="bo", age=3), {"name": "bo", "age": 3}, ...),
        ({"who": [Born(on="2026-05-06"), Point(1)]}, {"who": [{"on": "2026-05-06"}, {"x": 1, "y": 0}]}, ...),
    ],
)  # fmt: skip
async def test_what_a_handler_returns_is_the_reply_and_what_it_emits_the_data(
    serve, codec, value, in_json, in_msgpack
):
    app = Symphony()

    @app.on("x")
    async def handle(socket: Socket) -> Any:
        await socket.emit("y", value)
        await socket.send(value)
        return value

    expected = in_json if codec == "json" or in_msgpack is ... else in_msgpack
    async with serve(app) as url, peer(url, codec) as client:
        one = Peer(client, codec)
        await one.say(event="x", id=0)
        assert [await one.hear() for _ in range(3)] == [
            {"event": "y", "data": expected},
            {"event": "message", "data": expected},
            {"reply": 0, "data": expected},
        ]


@pytest.mark.parametrize("codec", CODECS)
async def test_without_an_id_nothing_is_answered_whatever_a_handler_returns(serve, codec):
    app = Symphony()
    handled = Log()

    @app.on("x")
    async def handle(data: Any) -> Any:
        handled.append(data)
        return object() if data == "not encodable" else data

    async with serve(app) as url, peer(url, codec) as client:
        one = Peer(client, codec)
        for data in (None, 1, "not encodable"):
            await one.say(event="x", data=data)
        await handled.reaches(3)
        await one.say(ping=1)
        assert await one.hear() == {"pong": 1}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("value", [object(), [1, {"a": Symphony}], {"a": lambda: 1}, "\ud800", {(): 1j}])
async def test_a_reply_that_cannot_be_encoded_is_internal_and_the_reason_is_in_the_log(
    serve, caplog, codec, value
):
    app = Symphony()
    errors = errors_of(app)
    app.on("x")(lambda: value)
    app.on("y")(lambda: 7)
    async with serve(app) as url, peer(url, codec) as client:
        one = Peer(client, codec)
        assert await one.ask("x") == {
            "code": "internal",
            "message": "the server failed to handle the event",
            "retryable": True,
            "details": None,
        }
        assert await one.ask("y") == 7
        await errors.reaches(1)
    assert "The handler of the event 'x' of " in caplog.text
    assert app.stats.failed_handlers == 1


# Errors


@pytest.mark.parametrize("codec", CODECS)
async def test_an_error_answers_the_request_or_is_an_event_where_there_was_none(serve, caplog, codec):
    app = Symphony()
    errors = errors_of(app)

    @app.on("refuse")
    async def refuse(data: Any) -> None:
        raise Reject("shop.sold_out", "come back tomorrow", details={"left": data}, retryable=True)

    @app.on("fail")
    async def fail() -> None:
        raise ValueError("the password is 1234")

    sold_out = {
        "code": "shop.sold_out",
        "message": "come back tomorrow",
        "retryable": True,
        "details": {"left": [0]},
    }
    async with serve(app) as url, peer(url, codec) as client:
        one = Peer(client, codec)
        assert await one.ask("refuse", [0]) == sold_out
        await one.say(event="refuse", data=[0])
        assert await one.hear() == {"event": "error", "data": sold_out}
        assert errors == []
        internal = await one.ask("fail")
        assert internal["code"] == "internal"
        assert "1234" not in str(internal)
        await one.say(event="fail")
        assert await one.hear() == {"event": "error", "data": internal}
        await errors.reaches(2)
    assert [str(error) for error in errors] == ["the password is 1234"] * 2
    failures = [record for record in caplog.records if record.levelname == "ERROR"]
    assert ["event 'fail'" in record.getMessage() for record in failures] == [True, True]
    assert [record.exc_info[1] for record in failures] == errors


@pytest.mark.parametrize("codec", CODECS)
async def test_details_that_cannot_be_encoded_do_not_lose_the_answer(serve, codec):
    app = Symphony()
    errors = errors_of(app)

    @app.on("x")
    async def handle(data: int) -> None:
        raise Reject("shop.closed", "\ud800" if data else "", details=None if data else object())

    async with serve(app) as url, peer(url, codec) as client:
        one = Peer(client, codec)
        for data in (0, 1):
            assert (await one.ask("x", data))["code"] == "internal"
        await errors.reaches(2)


async def test_data_as_deep_as_the_parser_takes_comes_back_or_is_refused(serve):
    app = Symphony()
    app.on("x")(lambda data: data)
    app.on("y")(lambda: None)
    async with serve(app) as url:
        for codec, (opening, end) in {"json": ("[", "]"), "msgpack": (b"\x91", b"")}.items():
            head = (
                '{"id":1,"event":"x","data":' if codec == "json" else b"\x83\xa2id\x01\xa5event\xa1x\xa4data"
            )
            middle, tail = ("[]", "}") if codec == "json" else (b"\x90", b"")
            async with peer(url, codec) as client:
                one = Peer(client, codec)
                for depth in (200, 700, 950, 1_000, 5_000, 200_000):
                    await client.send(head + opening * depth + middle + end * depth + tail)
                    answer = await client.recv()
                    said = answer if isinstance(answer, str) else answer.decode("latin-1")
                    assert depth > 200 or "reply" in said
                    assert "reply" in said or "nested too deeply" in said or "internal" in said
                    assert await one.ask("y") is None
    await until(lambda: app.stats.closed == 2)


# What is wrong with a frame


REFUSED = [
    ("{", "invalid", {"path": "$"}),
    ("", "invalid", {"path": "$"}),
    ("[]", "invalid", {"path": "$"}),
    ("{}", "invalid", {"path": "$"}),
    ("[" * 100_000, "invalid", {"path": "$"}),
    ({"shout": 1}, "invalid", {"path": "$"}),
    ({"event": 5}, "invalid", {"path": "$.event"}),
    ({"event": "x", "id": -1}, "invalid", {"path": "$.id"}),
    ({"event": "x", "id": 2**53}, "invalid", {"path": "$.id"}),
    ({"event": "x", "id": "1"}, "invalid", {"path": "$.id"}),
    ({"event": "x", "timeout": 0, "id": 1}, "invalid", {"path": "$.timeout"}),
    ({"event": "x", "credit": -1, "id": 1}, "invalid", {"path": "$.credit"}),
    ({"event": "x", "credit": 2**31, "id": 1}, "invalid", {"path": "$.credit"}),
    ({"grant": 1}, "invalid", {"path": "$.credit"}),
    ({"grant": 1, "credit": 0}, "invalid", {"path": "$.credit"}),
    (b"binary", "invalid", {"path": "$"}),
    ({"event": "nowhere"}, "not_found", {"event": "nowhere"}),
    ({"event": "nowhere", "id": 1}, "not_found", {"event": "nowhere"}),
    ({"event": "int", "data": "x"}, "invalid", {"path": "$"}),
    ({"event": "int", "data": "x", "id": 1}, "invalid", {"path": "$"}),
    ({"event": "stream"}, "request_required", {"event": "stream"}),
    ({"reply": 1}, "not_found", {"id": 1}),
    ({"error": 1, "data": {"code": "forbidden"}}, "not_found", {"id": 1}),
    ({"cancel": 9}, "not_found", {"id": 9}),
    ({"grant": 9, "credit": 1}, "not_found", {"id": 9}),
    ({"item": 1, "data": 1}, "invalid", {"path": "$"}),
    ({"end": 1}, "invalid", {"path": "$"}),
    ({"pong": 1}, "invalid", {"path": "$"}),
    ({"retry": 1}, "invalid", {"path": "$"}),
    ({"event": "fail"}, "internal", None),
    ({"event": "fail", "id": 1}, "internal", None),
    ({"event": "refuse", "id": 1}, "conflict", ["details"]),
]


async def test_every_wrong_frame_gets_its_error_and_the_socket_and_all_others_stay_usable(serve):
    app = Symphony()

    @app.on("int")
    async def take(data: int) -> int:
        return data

    @app.on("stream")
    async def stream() -> AsyncIterator[int]:
        yield 0

    @app.on("fail")
    async def fail() -> None:
        raise ZeroDivisionError

    @app.on("refuse")
    async def refuse() -> None:
        raise Reject("conflict", details=["details"])

    async with serve(app) as url, peer(url, "json") as client, peer(url, "msgpack") as other:
        one, two = Peer(client, "json"), Peer(other, "msgpack")
        for frame, code, details in REFUSED:
            await client.send(json.dumps(frame) if isinstance(frame, dict) else frame)
            answer = await one.hear()
            data = answer.pop("data")
            assert (data["code"], data["details"]) == (code, details), frame
            is_request = isinstance(frame, dict) and frame.get("id") == 1
            assert answer == ({"error": 1} if is_request else {"event": "error"}), frame
            assert [await one.ask("int", 7), await two.ask("int", 7)] == [7, 7]
    assert app.stats.failed_handlers == 2
