from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Any, NewType, TypedDict

import msgspec
import pydantic
import pytest

from symphony.errors import ConfigurationError, ProtocolError, Reject
from symphony.protocol.reading import event_readers
from symphony.routing.payload import payload_reader

Text = NewType("Text", str)


class Say(msgspec.Struct):
    text: str
    mood: str = "calm"


class Stop(msgspec.Struct, tag=True):
    pass


class Go(msgspec.Struct, tag=True):
    speed: int


class Node(msgspec.Struct):
    children: list[Node] = []


@dataclass
class Point:
    x: int
    y: int


class Move(TypedDict):
    to: list[int]


class Order(pydantic.BaseModel):
    items: list[int]


@pydantic.dataclasses.dataclass
class Priced:
    price: Annotated[int, pydantic.Field(gt=0)]


@dataclass
class Basket:
    order: Order


class Foreign:
    pass


def read(annotation: Any, message: str | bytes) -> Any:
    reader = payload_reader(annotation)
    assert reader is not None
    return reader(message)


def refusal(annotation: Any, message: str | bytes) -> Reject:
    with pytest.raises(Reject) as caught:
        read(annotation, message)
    assert caught.value.code == "invalid"
    return caught.value


@pytest.mark.parametrize(
    "annotation",
    [str | bytes, bytes | str, Any, object, inspect.Parameter.empty, Annotated[str | bytes, "doc"]],
)
def test_a_handler_of_any_message_gets_it_unchanged(annotation: Any) -> None:
    assert payload_reader(annotation) is None


@pytest.mark.parametrize("annotation", [str, Text, Annotated[str, "doc"]])
def test_str_takes_text_only(annotation: Any) -> None:
    assert read(annotation, '{"x": 1}') == '{"x": 1}'
    with pytest.raises(ProtocolError) as caught:
        read(annotation, b"abc")
    assert (caught.value.code, caught.value.reason) == (1003, "this route takes text messages only")


def test_bytes_takes_binary_only() -> None:
    assert read(bytes, b"abc") == b"abc"
    with pytest.raises(ProtocolError) as caught:
        read(bytes, "abc")
    assert (caught.value.code, caught.value.reason) == (1003, "this route takes binary messages only")


def test_text_may_have_bounds() -> None:
    short = Annotated[str, msgspec.Meta(max_length=3)]
    assert read(short, "abc") == "abc"
    error = refusal(short, "abcd")
    assert (error.message, error.details) == ("Expected `str` of length <= 3", {"path": "$"})


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Annotated[str | bytes, msgspec.Meta(max_length=3)], "use str or bytes"),
        (Annotated[str, pydantic.Field(max_length=3)], "with msgspec.Meta, not with pydantic's Field"),
    ],
)
def test_bounds_that_cannot_be_checked_are_an_error(annotation: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        payload_reader(annotation)


@pytest.mark.parametrize(
    ("annotation", "message", "value"),
    [
        (Say, '{"text": "hi"}', Say("hi")),
        (Point, '{"x": 1, "y": 2}', Point(1, 2)),
        (Move, '{"to": [1, 2]}', {"to": [1, 2]}),
        (int, "5", 5),
        (dict, '{"a": 1}', {"a": 1}),
        (list[int], "[1, 2]", [1, 2]),
        (str | int, '"a"', "a"),
        (str | None, "null", None),
        (Stop | Go, '{"type": "Go", "speed": 3}', Go(3)),
        (Annotated[int, msgspec.Meta(ge=0)], "0", 0),
        (Node, '{"children": [{}]}', Node([Node([])])),
        (Order, '{"items": [1]}', Order(items=[1])),
        (list[Order], '[{"items": []}]', [Order(items=[])]),
        (Order | Point, '{"x": 1, "y": 2}', Point(1, 2)),
        (Priced, '{"price": 1}', Priced(1)),
        (Basket, '{"order": {"items": [1]}}', Basket(Order(items=[1]))),
        (Annotated[int, pydantic.Field(gt=0)], "1", 1),
    ],
)
def test_json_becomes_the_type_from_text_and_binary_alike(annotation: Any, message: str, value: Any) -> None:
    assert read(annotation, message) == value
    assert read(annotation, message.encode()) == value


@pytest.mark.parametrize(
    ("annotation", "message", "reason", "path"),
    [
        (Say, '{"text": 5}', "Expected `str`, got `int`", "$.text"),
        (Say, "{}", "Object missing required field `text`", "$"),
        (Say, "[]", "Expected `object`, got `array`", "$"),
        (Say, '{"text"', "Input data was truncated", "$"),
        (Say, "", "Input data was truncated", "$"),
        (Say, "hello", "JSON is malformed: invalid character (byte 0)", "$"),
        (list[Say], '[{"text": "a"}, {"text": null}]', "Expected `str`, got `null`", "$[1].text"),
        (dict[str, int], '{"a": "b"}', "Expected `int`, got `str`", "$[...]"),
        (dict[int, int], '{"a": 1}', "Expected `int`, got `str`", "$"),
        (Annotated[int, msgspec.Meta(ge=0)], "-1", "Expected `int` >= 0", "$"),
        (float, "1e999", "Number out of range", "$"),
        (
            Order,
            '{"items": ["a"]}',
            "Input should be a valid integer, unable to parse string as an integer",
            "$.items[0]",
        ),
        (Order, "{}", "Field required", "$.items"),
        (Priced, '{"price": 0}', "Input should be greater than 0", "$.price"),
        (Annotated[int, pydantic.Field(gt=0)], "0", "Input should be greater than 0", "$"),
    ],
)
def test_invalid_json_is_refused_with_reason_and_path(
    annotation: Any, message: str, reason: str, path: str
) -> None:
    error = refusal(annotation, message)
    assert error.message == reason
    assert error.details == {"path": path}


def test_malformed_json_for_pydantic_is_refused() -> None:
    error = refusal(Order, "{")
    assert error.message.startswith("Invalid JSON")
    assert error.details == {"path": "$"}


def test_binary_that_is_not_utf8_is_refused() -> None:
    assert refusal(Say, b'{"text": "\xff"}').message == "text that is not valid UTF-8"


@pytest.mark.parametrize("annotation", [Any | None, list, Node, Order])
def test_json_nested_too_deeply_is_refused(annotation: Any) -> None:
    opening = '{"children": [' if annotation is Node else '{"items":' if annotation is Order else "["
    refusal(annotation, opening * 200_000)


def test_a_refusal_does_not_send_a_long_message_back() -> None:
    strict = msgspec.defstruct("Strict", [("a", int)], forbid_unknown_fields=True)
    error = refusal(strict, '{"' + "x" * 10_000 + '": 1}')
    assert len(error.message) < 300


@pytest.mark.parametrize("annotation", [Foreign, list[Foreign], dict[str, Foreign | None]])
def test_a_class_that_json_does_not_give_is_an_error(annotation: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        payload_reader(annotation)
    assert str(caught.value) == (
        f"{Foreign!r} cannot be decoded from JSON; a payload is a msgspec Struct, a dataclass, a TypedDict, "
        "a pydantic model, a builtin type, or a combination of these"
    )


def test_a_union_that_cannot_be_told_apart_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="may not contain more than one"):
        payload_reader(Point | Say)


def test_a_field_whose_annotation_does_not_resolve_is_an_error() -> None:
    @dataclass
    class Broken:
        field: Nowhere  # noqa: F821  # pyright: ignore

    with pytest.raises(ConfigurationError, match="name 'Nowhere' is not defined"):
        payload_reader(Broken)


def test_a_model_that_pydantic_cannot_build_is_an_error() -> None:
    class Broken(pydantic.BaseModel):
        field: Nowhere  # noqa: F821  # pyright: ignore

    with pytest.raises(ConfigurationError, match="Nowhere"):
        payload_reader(Broken)
    with pytest.raises(ConfigurationError, match=r"Unable to generate pydantic-core schema for .*Foreign"):
        payload_reader(Order | Foreign)


def test_without_pydantic_its_bounds_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(ConfigurationError, match="needs pydantic 2, which is not installed"):
        payload_reader(Order)


def test_pydantic_is_not_imported_where_no_payload_is_a_model() -> None:
    code = (
        "import sys, msgspec; from symphony.routing.payload import payload_reader; "
        "payload_reader(msgspec.defstruct('Say', ['text'])); sys.exit('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Address(pydantic.BaseModel):
    street: str
    number: int
    tags: list[int] = []


@pytest.mark.parametrize("kind", ["json", "msgpack", "plain", "unpacked"])
def test_all_that_pydantic_finds_is_reported(kind: str) -> None:
    """A form with two wrong fields was told of one."""
    data: Any = {"number": "x", "tags": ["a", 1]}
    if kind in ("json", "msgpack"):
        data = (msgspec.json if kind == "json" else msgspec.msgpack).encode(data)
    with pytest.raises(Reject) as caught:
        event_readers(Address)[kind](data)
    integer = "Input should be a valid integer, unable to parse string as an integer"
    assert caught.value.message == "Field required"
    assert caught.value.details == {
        "path": "$.street",
        "errors": [
            {"path": "$.street", "message": "Field required"},
            {"path": "$.number", "message": integer},
            {"path": "$.tags[0]", "message": integer},
        ],
    }


def test_at_most_20_errors_are_reported() -> None:
    error = refusal(Order, msgspec.json.encode({"items": ["x"] * 1000}).decode())
    assert [each["path"] for each in error.details["errors"]] == [f"$.items[{n}]" for n in range(20)]
