"""Handlers, compiled once; without a connection."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypedDict

import msgspec
import pydantic
import pytest
from msgspec import Raw

from symphony.client.handlers import Handler, Handlers
from symphony.client.payload import MAX_ELEMENTS, Decoding, InvalidError, snapshot, to_json_text
from symphony.errors import ConfigurationError


class Said(msgspec.Struct):
    text: str
    at: datetime | None = None


@dataclass
class Moved:
    x: int


class Noticed(TypedDict):
    n: int


class Model(pydantic.BaseModel):
    n: int


JSON = Decoding("json")


def called(function: Any, data: Any, *, event: str = "said", kind: Any = "json") -> Any:
    return Handler(event, function).call(event, snapshot(data, kind), Decoding(kind))


@pytest.mark.parametrize("kind", ["json", "msgpack"])
def test_data_becomes_what_the_annotation_says(kind: Any) -> None:
    def said(data: Said) -> Any:
        return data

    def moved(data: Moved) -> Any:
        return data

    def noticed(data: Noticed) -> Any:
        return data

    def modelled(data: Model) -> Any:
        return data

    def bounded(data: Annotated[int, msgspec.Meta(ge=3)]) -> Any:
        return data

    at = datetime(2026, 11, 24, tzinfo=UTC)
    assert called(said, {"text": "a", "at": at}, kind=kind) == Said("a", at)
    assert called(moved, {"x": 1}, kind=kind) == Moved(1)
    assert called(noticed, {"n": 1}, kind=kind) == {"n": 1}
    assert called(modelled, {"n": 1}, kind=kind) == Model(n=1)
    assert called(bounded, 3, kind=kind) == 3
    for function, wrong, path in (
        (said, {"text": 1}, "$.text"),
        (modelled, {"n": "x"}, "$.n"),
        (bounded, 2, "$"),
    ):
        with pytest.raises(InvalidError) as caught:
            called(function, wrong, kind=kind)
        assert caught.value.details == {"path": path}


def test_without_an_annotation_it_is_plain_values() -> None:
    assert called(lambda data: data, {"a": [1, None]}) == {"a": [1, None]}


def test_bytes_are_base64_in_json_and_themselves_in_messagepack() -> None:
    def take(data: bytes) -> Any:
        return data

    assert called(take, b"\x00\xff") == b"\x00\xff"
    assert called(take, b"\x00\xff", kind="msgpack") == b"\x00\xff"
    assert called(lambda data: data, b"\x00\xff") == "AP8="


def test_text_or_bytes_is_whatever_comes() -> None:
    assert called(take_both, "hi", event="message") == "hi"
    assert called(take_both, b"hi", event="message", kind="msgpack") == b"hi"


def test_a_handler_may_take_nothing() -> None:
    assert called(lambda: "done", 1) == "done"


def test_further_parameters_may_have_defaults() -> None:
    def take(data: int, more: int = 7, *, other: int = 8) -> Any:
        return data, more, other

    assert called(take, 1) == (1, 7, 8)
    assert called(lambda *arguments: arguments, 1) == (1,)
    assert called(lambda *arguments, **named: arguments, 1, event="*") == ("*", 1)


def test_a_catch_all_takes_event_and_data() -> None:
    def take(event: str, data: int) -> Any:
        return event, data

    handler = Handler("*", take)
    assert handler.call("said", snapshot(1, "json"), JSON) == ("said", 1)
    with pytest.raises(InvalidError):
        handler.call("said", snapshot("x", "json"), JSON)


def test_methods_partials_and_objects_are_handlers_too() -> None:
    class Room:
        def said(self, data: Said) -> Any:
            return data

        def __call__(self, data: Said) -> Any:
            return data

    def take(prefix: str, data: Said) -> Any:
        return prefix, data

    assert called(Room().said, {"text": "a"}) == Said("a")
    assert called(Room(), {"text": "a"}) == Said("a")
    assert called(functools.partial(take, "p"), {"text": "a"}) == ("p", Said("a"))


def test_a_local_class_is_found_if_the_body_uses_it() -> None:
    class Local(msgspec.Struct):
        n: int

    def take(data: Local) -> Any:
        assert isinstance(data, Local)
        return data.n

    assert called(take, {"n": 1}) == 1


def undefined(data: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
    pass


def two(a: int, b: int) -> None:
    pass


def keyword(data: int, *, needed: int) -> None:
    pass


def foreign(data: type(lambda: None)) -> None:  # type: ignore[valid-type]
    pass


@pytest.mark.parametrize(
    ("event", "function", "says"),
    [
        ("said", undefined, r"undefined, parameter 'data': its annotation 'Nowhere' cannot be resolved"),
        ("said", two, r"two: a handler of 'said' is called with \(data\), or without arguments"),
        ("said", keyword, r"keyword: a handler of 'said' is called with \(data\)"),
        ("*", undefined, r"undefined: a handler of '\*' is called with \(event, data\)"),
        ("said", foreign, r"foreign: .*cannot be decoded from JSON; a payload is a msgspec Struct"),
        ("said", 3, "A handler must be a function, not 3"),
        ("said", dict.get, "get: a handler of 'said'"),
    ],
)
def test_mistakes_are_found_at_registration(event: str, function: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Handlers().add(event, function)


def test_what_is_nested_too_deeply_does_not_fit() -> None:
    deep = Raw(b"[" * 50_000 + b"]" * 50_000)
    with pytest.raises(InvalidError, match="nested too deeply"):
        Handler("said", lambda data: data).call("said", deep, JSON)


def test_text_that_is_not_utf8_does_not_fit() -> None:
    with pytest.raises(InvalidError):
        Handler("said", lambda data: data).call("said", Raw(b'"\xff"'), JSON)


def test_a_type_that_cannot_be_hashed_is_a_type_too() -> None:
    def take(data: Annotated[int, {"unit": "m"}]) -> Any:
        return data

    assert called(take, 1) == 1


@pytest.mark.parametrize("event", ["", "x" * 257])
def test_a_name_is_1_to_256_characters(event: Any) -> None:
    with pytest.raises(ValueError, match="1 to 256 characters"):
        Handlers().add(event, print)


def test_an_events_own_handlers_come_in_order_and_go_before_the_catch_all() -> None:
    handlers = Handlers()
    first, second = (lambda: 1), (lambda: 2)
    handlers.add("*", lambda event, data: 0)
    handlers.add("said", first)
    handlers.add("said", second)
    assert [handler.function for handler in handlers.of("said")] == [first, second]
    assert len(handlers.of("other")) == 1
    handlers.remove("said", first)
    handlers.remove("said", first)
    handlers.remove("said", second)
    assert handlers.of("said") == handlers.of("other")


def test_what_is_snapshot_can_still_become_json() -> None:
    assert to_json_text(snapshot({"a": b"\xff"}, "msgpack"), "msgpack") == '{"a":"/w=="}'
    assert to_json_text(snapshot({"a": [1]}, "json"), "json") == '{"a":[1]}'


def take_text(message: str) -> Any:
    return message


def take_both(message: str | bytes) -> Any:
    return message


def take_either(message: str | Said) -> Any:
    return message


def take_said(message: Said) -> Any:
    return message


@pytest.mark.parametrize(
    ("function", "message", "value"),
    [
        (take_text, "hi", "hi"),
        (take_both, b"hi", b"hi"),
        (lambda message: message, '{"text":"a"}', '{"text":"a"}'),
        (take_said, '{"text":"a"}', Said("a")),
        (take_said, b'{"text":"a"}', Said("a")),
        (take_either, '{"text":"a"}', Said("a")),
        (take_either, '"a"', "a"),
        (lambda: 5, "x", 5),
    ],
)
def test_a_raw_message_stays_unless_a_type_is_asked_for(function: Any, message: Any, value: Any) -> None:
    assert Handler("message", function).call_with_message("message", message, MAX_ELEMENTS) == value


def test_a_raw_message_that_does_not_fit() -> None:
    with pytest.raises(InvalidError):
        Handler("message", take_said).call_with_message("message", "hello", MAX_ELEMENTS)


@pytest.mark.parametrize("name", [5, None, b"said", print, lambda data: None])
def test_a_name_that_is_not_text_is_refused_with_what_to_write(name: Any) -> None:
    """A function was told that it has not 1 to 256 characters: `@client.on` without a name."""
    with pytest.raises(TypeError, match="The name of an event is text, not ") as caught:
        Handlers().add(name, lambda data: None)
    assert ("Write @client.on('said')." in str(caught.value)) is callable(name)
