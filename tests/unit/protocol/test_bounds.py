"""Decoding is linear, whatever keys a peer chooses."""

from __future__ import annotations

import enum
import gc
import struct
import uuid
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal

import msgspec
import pydantic
import pytest

from symphony.errors import Reject
from symphony.protocol.bounds import (
    MAX_HASHED,
    MAX_HASHED_NUMBERS,
    SMALL,
    calm,
    check_elements,
    check_hashed,
    hashed,
)
from symphony.protocol.reading import event_readers, guarded

P = 2**61 - 1


class Colour(enum.Enum):
    red = "red"


class Holder(msgspec.Struct):
    inside: list[set[tuple[int, int]]]


@dataclass(frozen=True)
class Cell:
    x: int
    y: int


class Model(pydantic.BaseModel):
    cells: set[tuple[int, int]]


class Counts(pydantic.BaseModel):
    counts: dict[int, int]


class Around(msgspec.Struct):
    model: Model


class AroundCounts(msgspec.Struct):
    inside: Counts


@pytest.mark.parametrize(
    ("annotation", "what"),
    [
        (Any, None),
        (dict[str, Any], None),
        (list[int], None),
        (set[str], None),
        (set[bytes], None),
        (set[date], None),
        (dict[str, set[float]], "numbers"),
        (set[datetime], "numbers"),
        (set[time | None], "numbers"),
        (dict[str | float, int], "numbers"),
        (set[timedelta], "numbers"),
        (dict[str, dict[float, set[int]]], "integers"),
        (dict[int, set[tuple[float, ...]]], "others"),
        (set[Colour | None], None),
        (set[Literal["a"]], None),
        (set[int], "integers"),
        (dict[int, str], "integers"),
        (list[frozenset[int | str]], "integers"),
        (set[tuple[int, int]], "others"),
        (set[Cell], "others"),
        (set[uuid.UUID], "others"),
        (dict[uuid.UUID, int], "others"),
        (dict[Decimal, int], "others"),
        (Holder, "others"),
        (dict[str, set[frozenset[int]]], "others"),
    ],
)
def test_types_whose_hashes_a_peer_can_choose_are_found(annotation: Any, what: Any) -> None:
    assert hashed(msgspec.inspect.type_info(annotation)) == what


def encoded(kind: str, data: Any) -> Any:
    if kind in ("json", "msgpack"):
        return (msgspec.json if kind == "json" else msgspec.msgpack).encode(data)
    return data


@pytest.mark.parametrize("kind", ["json", "msgpack", "plain", "unpacked"])
@pytest.mark.parametrize(
    ("annotation", "many"),
    [
        (set[tuple[int, int]], [[n, n] for n in range(MAX_HASHED)]),
        (set[Cell], [{"x": n, "y": n} for n in range(MAX_HASHED)]),
        (set[uuid.UUID], [str(uuid.UUID(int=n * P)) for n in range(MAX_HASHED + 1)]),
        (dict[uuid.UUID, int], {str(uuid.UUID(int=n * P)): n for n in range(MAX_HASHED)}),
        (Holder, {"inside": [[[n, n]] for n in range(MAX_HASHED)]}),
        (Model, {"cells": [[n, n] for n in range(MAX_HASHED)]}),
        (Around, {"model": {"cells": [[n, n] for n in range(MAX_HASHED)]}}),
    ],
)
@pytest.mark.within("protocol.bounds.MAX_HASHED")
@pytest.mark.beyond("protocol.bounds.MAX_HASHED")
def test_more_keys_than_that_are_refused(annotation: Any, many: Any, kind: str) -> None:
    """7,000 tuples with one hash held the loop for seconds."""
    read = guarded(event_readers(annotation)[kind])
    with pytest.raises(Reject, match="more than 1,000 elements in one message"):
        read(encoded(kind, many))
    assert read(encoded(kind, _few(many)))


def _few(many: Any) -> Any:
    if isinstance(many, list):
        return many[:50]
    if isinstance(many, dict):
        return {key: _few(item) for key, item in list(many.items())[:50]}
    return many


MANY = range(MAX_HASHED_NUMBERS + 1)


@pytest.mark.parametrize("kind", ["json", "msgpack", "plain", "unpacked"])
@pytest.mark.parametrize(
    ("annotation", "many"),
    [
        (set[int], [*MANY]),
        (set[float], [n + 0.5 for n in MANY]),
        (frozenset[int | str], [*MANY]),
        (set[timedelta], [f"PT{n}S" for n in MANY]),
        (dict[int, int], dict.fromkeys(MANY, 0)),
        (dict[str, set[int]], {"a": [*MANY]}),
        (Counts, {"counts": {str(n): n for n in MANY}}),
        (AroundCounts, {"inside": {"counts": {str(n): n for n in MANY}}}),
    ],
)
@pytest.mark.beyond("protocol.bounds.MAX_HASHED_NUMBERS")
def test_more_numbers_than_that_are_refused(annotation: Any, many: Any, kind: str) -> None:
    """Small numbers can collide in a dict, too: 43,600 of them held the loop for seconds."""
    read = guarded(event_readers(annotation)[kind])
    with pytest.raises(Reject, match="more than 10,000 elements in one message"):
        read(encoded(kind, many))
    assert read(encoded(kind, _few(many)))


@pytest.mark.parametrize("kind", ["json", "msgpack"])
@pytest.mark.parametrize("annotation", [dict[float, int], dict[int, int], pydantic.TypeAdapter])
def test_numbers_as_keys_have_the_same_bound(annotation: Any, kind: str) -> None:
    if annotation is pydantic.TypeAdapter:
        annotation = dict[str, dict[int, Counts]]
        data: Any = {"a": {n if kind == "msgpack" else str(n): {"counts": {}} for n in MANY}}
    elif annotation == dict[float, int] or kind == "json":
        data = {str(n): n for n in MANY}
    else:
        data = {n: n for n in MANY}
    with pytest.raises(Reject, match="more than 10,000 elements in one message"):
        guarded(event_readers(annotation)[kind])(encoded(kind, data))


@pytest.mark.parametrize("annotation", [Any, dict, dict[str, Any], list[Any], object])
@pytest.mark.within("protocol.bounds.MAX_HASHED_NUMBERS")
@pytest.mark.beyond("protocol.bounds.MAX_HASHED_NUMBERS")
def test_untyped_messagepack_has_few_integers_as_keys(annotation: Any) -> None:
    def data(number: int) -> Any:
        # In one map, and spread over several.
        parts = [dict.fromkeys(range(number // 2), 0), {n * 7: "x" for n in range(number - number // 2)}]
        return parts if annotation == list[Any] else {"parts": parts}

    read = guarded(event_readers(annotation)["msgpack"])
    with pytest.raises(Reject, match="more than 10,000 keys that are not text in one message"):
        read(encoded("msgpack", data(MAX_HASHED_NUMBERS + 1)))
    assert read(encoded("msgpack", data(MAX_HASHED_NUMBERS))) == data(MAX_HASHED_NUMBERS)


def test_equal_keys_count_as_often_as_they_are_sent() -> None:
    number = MAX_HASHED_NUMBERS + 1
    with pytest.raises(Reject, match="keys that are not text"):
        event_readers(Any)["msgpack"](b"\xdf" + struct.pack(">I", number) + b"\x01\x02" * number)


def test_untyped_data_has_any_number_of_texts_and_items() -> None:
    data = {"texts": {f"k{n}": n for n in MANY}, "items": [*MANY], "floats": [n / 4 for n in MANY]}
    for kind in ("json", "msgpack"):
        assert event_readers(Any)[kind](encoded(kind, data)) == data


UNENDED = {
    "escaped quotes": b'"' + b'\\"' * 400_000,
    "escaped quotes and a backslash": b'"' + b'\\"' * 400_000 + b"\\",
    "backslashes": b'"' + b"\\" * 800_001,
    "texts": b'"a' * 400_001,
    "escaped quotes and spaces": b'"' + b'\\" ' * 300_000,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("end", UNENDED.values(), ids=UNENDED)
def test_a_text_without_an_end_is_read_once(end: bytes) -> None:
    """It took minutes, because each quote in it was tried as the beginning of a text."""
    with pytest.raises(Reject, match="elements"):
        check_elements(b"[" + b"1," * 100_001 + end, 100_000, is_json=True)
    check_elements(b'["' + b"," * 100_001 + b'",' + end, 100_000, is_json=True)
    # The long integer makes the check of hashed keys look at the texts, too.
    with pytest.raises(Reject, match="an integer of more than 64 bits"):
        check_hashed(b"[" + b"1" * 30 + b"," + end, "integers", is_json=True)


@pytest.mark.parametrize(
    ("annotation", "data"),
    [
        (set[int], [n * P**2 for n in range(1, 9000)]),
        (dict[int, int], {str(n * P**2): 0 for n in range(1, 100)}),
        (list[set[int]], [[10**400], ["x" * 300]]),
    ],
)
def test_json_has_no_larger_integers_where_they_are_hashed(annotation: Any, data: Any) -> None:
    text = msgspec.json.encode(data)
    with pytest.raises(Reject, match="an integer of more than 64 bits"):
        guarded(event_readers(annotation)["json"])(text)


def test_integers_of_64_bits_and_long_texts_are_accepted() -> None:
    numbers = [2**64 - 1 - n for n in range(200)]
    assert event_readers(set[int])["json"](msgspec.json.encode(numbers)) == set(numbers)
    digits = {"1": ["9" * 500, 'an "1": 123456789012345678901234567890']}
    assert event_readers(dict[int, list[str]])["json"](msgspec.json.encode(digits)) == {1: digits["1"]}


@pytest.mark.parametrize("padding", [0, 1000])
@pytest.mark.parametrize("key", [1.5, None, True, b"x", (1, 2), (1, (2,))])
@pytest.mark.parametrize("annotation", [Any, dict, dict[str, Any], list[Any], dict[str, list[Any]]])
def test_untyped_messagepack_has_text_and_integers_as_keys(annotation: Any, key: Any, padding: int) -> None:
    odd: Any = {key: 1}
    data: Any = (
        {"a": [{"b": odd}], "c": ["x" * padding]} if annotation != list[Any] else [[odd], "x" * padding]
    )
    with pytest.raises(Reject, match="a key that is neither text nor an integer"):
        guarded(event_readers(annotation)["msgpack"])(msgspec.msgpack.encode(data))


@pytest.mark.parametrize("padding", [0, 1000])
def test_text_and_integers_are_accepted(padding: int) -> None:
    data = {"a": {1: 2, -5: [None, 1.5, b"x", True], 2**63: "y" * 40, -(2**40): {}}, "p": "x" * padding}
    assert event_readers(Any)["msgpack"](msgspec.msgpack.encode(data)) == data


@pytest.mark.parametrize("is_json", [True, False])
@pytest.mark.parametrize(
    "data",
    [
        [[]] * 100,
        [{}] * 100,
        {str(n): None for n in range(60)},
        [["x" * 70000, b"y" * 300, 1.5, 2**40]] * 25,
        [{"a": {"b": [1, 2, 3]}}] * 20,
    ],
)
def test_elements_are_counted(data: Any, is_json: bool) -> None:
    message = (msgspec.json if is_json else msgspec.msgpack).encode(data)
    check_elements(message, 205, is_json=is_json)
    with pytest.raises(Reject, match="more than 50 elements"):
        check_elements(message, 50, is_json=is_json)


def test_commas_in_text_are_no_elements() -> None:
    check_elements(msgspec.json.encode(['a,[{:\\",,' * 1000, "b"]).decode(), 10, is_json=True)


@pytest.mark.parametrize("message", [b"\xdf\xff\xff\xff\xff", b"\xc9\xff", b"\x91" * 300, b"", b"\xc1" * 60])
def test_malformed_messagepack_ends_the_count(message: bytes) -> None:
    check_elements(message, 400, is_json=False)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_does_not_run_in_a_large_decode(enabled: bool) -> None:
    seen: list[bool] = []

    def read(data: Any) -> None:
        seen.append(gc.isenabled())

    (gc.enable if enabled else gc.disable)()
    try:
        calm(read)(msgspec.Raw(b"x" * (SMALL + 1)))
        assert gc.isenabled() == enabled
        calm(read)(msgspec.Raw(b"x"))
        assert seen == [False, enabled]
    finally:
        gc.enable()
