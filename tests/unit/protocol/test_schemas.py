"""pydantic's validators: what they accept does not depend on size, and what faults cost is bounded."""

from __future__ import annotations

from typing import Any

import msgspec
import pydantic
import pytest

from symphony.errors import Reject
from symphony.protocol.bounds import SMALL
from symphony.protocol.codec import encode_json, encode_msgpack
from symphony.protocol.invalid import MAX_EXAMINED
from symphony.protocol.reading import event_readers
from symphony.protocol.schemas import Validators
from unit.protocol.test_models import EVERYTHING, MODELS, Everything

KINDS = ["json", "msgpack", "plain", "unpacked"]
BYTES = b"\x89PNG\xff"


def encoded(value: Any, kind: str) -> Any:
    if kind in ("json", "msgpack"):
        return (msgspec.json if kind == "json" else msgspec.msgpack).encode(value)
    return value


def refusal(annotation: Any, value: Any, kind: str) -> Reject:
    with pytest.raises(Reject) as caught:
        event_readers(annotation)[kind](encoded(value, kind))
    return caught.value


class Lax(Everything, strict=False):
    pass


class Node(pydantic.BaseModel):
    value: int
    left: Node | None = None
    right: Node | None = None


@pytest.mark.parametrize(
    ("annotation", "model"),
    [
        *MODELS,
        (Everything, EVERYTHING),
        (list[Everything], [EVERYTHING]),
        (Everything | int, EVERYTHING),
        (Lax, Lax(**dict(EVERYTHING))),
        (Node, Node(value=1, left=Node(value=2))),
    ],
    ids=lambda case: str(case)[:30],
)
def test_large_json_is_read_like_small_json(annotation: Any, model: Any) -> None:
    text = encode_json(model)
    read = event_readers(annotation)["json"]
    assert read(text + b" " * SMALL) == read(text) == model


@pytest.mark.parametrize("size", [0, SMALL])
@pytest.mark.parametrize(
    "wrong", ['{"n": "1"}', '{"n": true}', '{"n": 1.5}', "{}", "[", '{"n": 1, "n": "1"}']
)
def test_large_json_is_refused_like_small_json(wrong: str, size: int) -> None:
    class Strict(pydantic.BaseModel, strict=True):
        n: int

    with pytest.raises(Reject):
        event_readers(Strict)["json"](wrong + " " * size)


class Named(pydantic.BaseModel):
    type: str
    config: bytes = b""
    default: bytes = b""
    metadata: bytes = b""
    cls: int = 0
    fields: list[int] = []
    strict: bool = False


@pytest.mark.parametrize("kind", ["json", "msgpack"])
def test_fields_may_have_the_names_that_schemas_use(kind: str) -> None:
    """A model with a field `type` stopped the app from starting."""
    model = Named(type="a", config=BYTES, default=BYTES, metadata=BYTES, cls=1, fields=[1], strict=True)
    data = encode_json(model) if kind == "json" else encode_msgpack(model)
    assert event_readers(Named)[kind](data) == model
    in_json = msgspec.json.decode(encode_json(model))
    assert in_json["config"] == in_json["default"] == in_json["metadata"] == msgspec.to_builtins(BYTES)


class Item(pydantic.BaseModel):
    a: int
    b: int


class Refused(pydantic.BaseModel, extra="forbid"):
    pass


class Counted(pydantic.BaseModel):
    n: int

    @pydantic.field_validator("n", mode="before")
    @classmethod
    def count(cls, value: Any) -> Any:
        counts.append(value)
        return value


counts: list[Any] = []
FAULTY = [
    (list[Counted], [{"n": "x"}] * 20_000),
    (tuple[Counted, ...], [{"n": "x"}] * 20_000),
    (dict[str, Counted], {str(n): {"n": "x"} for n in range(20_000)}),
    (dict[str, list[Counted]], {str(n): [{"n": "x"}] for n in range(20_000)}),
    (pydantic.RootModel[list[Counted]], [{"n": "x"}] * 20_000),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("annotation", "data"), FAULTY, ids=lambda case: str(case)[:30])
def test_validation_ends_at_the_first_faulty_item_of_much_data(annotation: Any, data: Any, kind: str) -> None:
    """For 90,000 faults the event loop stood still for 0.4 s."""
    counts.clear()
    error = refusal(annotation, data, kind)
    assert error.details["path"].endswith(".n")
    assert error.message.startswith("Input should be a valid integer")
    assert len(counts) <= 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("annotation", "data"), FAULTY, ids=lambda case: str(case)[:30])
@pytest.mark.within("protocol.invalid._MAX_FAULTS")
def test_all_faults_of_little_data_are_found(annotation: Any, data: Any, kind: str) -> None:
    few = data[:3] if isinstance(data, list) else dict(list(data.items())[:3])
    assert len(refusal(annotation, few, kind).details["errors"]) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [30, 3_000])
@pytest.mark.beyond("protocol.invalid._MAX_FAULTS")
def test_the_more_fields_a_model_has_the_less_data_is_searched_for_all_faults(kind: str, count: int) -> None:
    fields: Any = {f"f{n}": (int, ...) for n in range(count)}
    wide = pydantic.create_model("Wide", **fields)
    items = [{}] * (SMALL // 4)
    if count <= MAX_EXAMINED:
        assert refusal(list[wide], items, kind).details["errors"][-1]["path"] == "$[0].f19"
    else:
        assert refusal(list[wide], items, kind).details == {"path": "$"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.within("protocol.invalid.MAX_EXAMINED")
@pytest.mark.beyond("protocol.invalid.MAX_EXAMINED")
def test_too_many_faults_are_counted_and_not_named(kind: str) -> None:
    some = {f"k{n}": 1 for n in range(MAX_EXAMINED)}
    assert refusal(Refused, some, kind).details["path"] == "$.k0"
    error = refusal(Refused, {**some, "more": 1}, kind)
    assert error.message == "1,001 faults"
    assert error.details == {"path": "$"}


@pytest.mark.parametrize(
    "data", [{"x": [0] * 3_000}, {"x": "a" * 5_000}, {"x": {str(n): n for n in range(2_000)}}]
)
@pytest.mark.parametrize("strict", [False, True])
def test_a_fault_in_large_json_keeps_no_copy_of_it(data: Any, strict: bool) -> None:
    """For each missing field, all of the object was copied: 0.5 s for 30 fields and 400 KB."""
    model = pydantic.create_model(
        "Model", __config__={"strict": strict}, a=(int, ...), b=(int, ...), c=(int, ...)
    )
    with pytest.raises(pydantic.ValidationError) as caught:
        Validators(pydantic.TypeAdapter(model).core_schema).of_json(msgspec.json.encode(data))
    first, *others = (fault["input"] for fault in caught.value.errors())
    assert first == data
    assert len(others) == 2
    assert all(other is first for other in others)
