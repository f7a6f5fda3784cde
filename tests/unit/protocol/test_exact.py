"""Nothing is sent that would arrive as something else."""

from __future__ import annotations

import datetime
import enum
import math
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest

from symphony.protocol.codec import encode_json, encode_msgpack, to_message
from symphony.protocol.envelopes import Error, Event, Item, Reply
from symphony.protocol.jsonrpc import JsonRpc
from symphony.protocol.unencodable import UnencodableError
from symphony.protocol.v1 import JSON, MSGPACK


class Struct(msgspec.Struct):
    value: Any
    note: str | None = None


@dataclass
class Data:
    value: Any
    note: str | None = None


class Model(pydantic.BaseModel):
    value: Any
    note: str | None = None


class Size(enum.IntEnum):
    huge = 2**60


WRAPS: list[Any] = [
    lambda value: value,
    lambda value: [1, None, value],
    lambda value: {"a": None, "b": {"c": (value,)}},
    Struct,
    Data,
    lambda value: Model(value=value),
    lambda value: [Struct([Data({"deep": value})])],
]
# pydantic writes all keys as text.
NOT_MODELS = [*WRAPS[:5], WRAPS[6]]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=["json", "msgpack"])
@pytest.mark.parametrize("envelope", [lambda v: Reply(1, v), lambda v: Item(1, v), lambda v: Event("e", v)])
def test_nan_and_infinity_are_an_error_at_the_sender(
    codec: Any, number: float, wrap: Any, envelope: Any
) -> None:
    with pytest.raises(UnencodableError, match="send None instead"):
        codec.encode(envelope(wrap(number)))


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**63, 2**64 - 1, 2**64, 10**400, Size.huge])
@pytest.mark.beyond("protocol.exact.MAX_INTEGER")
def test_integers_beyond_2_to_the_53_are_an_error_in_json(number: int, wrap: Any) -> None:
    with pytest.raises(UnencodableError, match="In JSON, integers are exact up to 2\\^53"):
        JSON.encode(Reply(1, wrap(number)))
    with pytest.raises(UnencodableError):
        to_message(wrap(number))


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("number", [2**53 + 1, 2**64 - 1, -(2**63)])
def test_messagepack_has_integers_of_64_bits(number: int, wrap: Any) -> None:
    packed = MSGPACK.encode(Reply(1, wrap(number)))
    assert number in _leaves(msgspec.msgpack.decode(packed))


def test_messagepack_refuses_longer_ones() -> None:
    with pytest.raises(UnencodableError):
        MSGPACK.encode(Reply(1, [2**64]))


def test_the_error_says_where() -> None:
    with pytest.raises(UnencodableError, match=r"the number nan \(at \$\.points\[1\]\.x\)"):
        JSON.encode(Event("move", {"points": [{"x": 1.5}, {"x": math.nan}]}))


@pytest.mark.parametrize(
    "data",
    [
        2**53,
        -(2**53),
        1e300,
        -1.7976931348623157e308,
        5e-324,
        "null",
        "9999999999999999999999",
        {"null": None, "9007199254740993": 1},
        [None, 0.1234567890123456789, "NaN"],
        {2**63: "a key is text in JSON"},
        uuid.UUID(int=2**127),
        Decimal("12345678901234567890.5"),
        {"id": 1234567890123456, "at": 1764463639.123456},
        b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00null",
        [b"\xcb\xff", "\x7f", None],
    ],
    ids=str,
)
@pytest.mark.within("protocol.exact.MAX_INTEGER")
def test_what_only_looks_like_a_fault_is_sent(data: Any) -> None:
    assert encode_json(data) == msgspec.json.encode(data)
    assert encode_msgpack(data) == msgspec.msgpack.encode(data)


KEYS = [
    (1.5, "1.5"),
    (b"\xff\x00", "/wA="),
    (datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "2026-01-02T00:00:00Z"),
    (uuid.UUID(int=5), str(uuid.UUID(int=5))),
    (Decimal("1.50"), "1.50"),
    (datetime.date(2026, 1, 2), "2026-01-02"),
]


@pytest.mark.parametrize("wrap", NOT_MODELS)
@pytest.mark.parametrize(("key", "text"), KEYS, ids=lambda key: str(key))
def test_keys_are_text_in_both_codecs(key: Any, text: str, wrap: Any) -> None:
    """MessagePack wrote floats, bytes and instants as keys, which JavaScript could not read."""
    packed = msgspec.msgpack.decode(encode_msgpack(wrap({key: 7})))
    unpacked = msgspec.json.decode(encode_json(wrap({key: 7})))
    assert _maps(packed) == _maps(unpacked)
    assert {text: 7} in _maps(packed)


@pytest.mark.parametrize("wrap", NOT_MODELS)
def test_integers_stay_integers_as_keys_of_messagepack(wrap: Any) -> None:
    assert {1: 7} in _maps(msgspec.msgpack.decode(encode_msgpack(wrap({1: 7}))))
    assert {"1": 7} in _maps(msgspec.json.decode(encode_json(wrap({1: 7}))))


@pytest.mark.parametrize("key", [None, True, (1, 2), frozenset((1,))])
@pytest.mark.parametrize("wrap", [WRAPS[0], WRAPS[2], Struct, Data])
@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=["json", "msgpack"])
def test_keys_that_json_does_not_have_are_refused_by_both(codec: Any, wrap: Any, key: Any) -> None:
    with pytest.raises(UnencodableError):
        codec.encode(Reply(1, wrap({key: 7})))


def test_json_rpc_refuses_the_same() -> None:
    protocol = JsonRpc()
    for value in (math.nan, [2**60], {"a": -math.inf}):
        with pytest.raises(UnencodableError):
            protocol.encode(Event("tell", value))
        call: Any = protocol.decode('{"jsonrpc": "2.0", "method": "m", "id": 1}')
        with pytest.raises(UnencodableError):
            protocol.encode(Reply(call.id, value))
        assert protocol.encode(
            Error(call.id, {"code": "x", "message": "", "retryable": False, "details": None})
        )


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _leaves(item)]
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, list) else [value]


def _maps(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [value, *(found for item in value.values() for found in _maps(item))]
    return [found for item in value for found in _maps(item)] if isinstance(value, list) else []
