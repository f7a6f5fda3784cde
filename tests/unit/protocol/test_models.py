"""pydantic models follow the rules of all data, in both codecs."""

from __future__ import annotations

import datetime
import enum
import ipaddress
import uuid
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest

from symphony.errors import Reject
from symphony.protocol.codec import encode_json, encode_msgpack
from symphony.protocol.reading import event_readers, guarded

PNG = b"\x89PNG\xff"


class File(pydantic.BaseModel):
    content: bytes
    name: str = "x"


class Folder(pydantic.BaseModel):
    files: list[File]
    by_name: dict[str, bytes] = {}
    thumbnail: bytes | None = None
    extra: Any = None


class Root(pydantic.RootModel[list[bytes]]):
    pass


class Open(pydantic.BaseModel, extra="allow"):
    pass


class Hex(pydantic.BaseModel, ser_json_bytes="hex", val_json_bytes="hex"):
    content: bytes


@pydantic.dataclasses.dataclass
class Blob:
    content: bytes


class Wrapper(msgspec.Struct):
    file: File


MODELS: list[tuple[Any, Any]] = [
    (File, File(content=PNG)),
    (Folder, Folder(files=[File(content=PNG)], by_name={"a": PNG}, thumbnail=PNG)),
    (Root, Root([PNG, b"", b"text"])),
    (Hex, Hex(content=PNG)),
    (Blob, Blob(PNG)),
    (list[File], [File(content=PNG)]),
    (int | File, File(content=PNG)),
    (dict[str, File | None], {"a": None, "b": File(content=PNG)}),
    (Wrapper, Wrapper(File(content=PNG))),
]


@pytest.mark.parametrize(("annotation", "model"), MODELS, ids=lambda case: str(case)[:30])
def test_bytes_are_base64_in_json_and_binary_in_messagepack(annotation: Any, model: Any) -> None:
    """They were UTF-8 text in both, and an error if they were not UTF-8."""
    text, packed = encode_json(model), encode_msgpack(model)
    assert msgspec.to_builtins(PNG) in text.decode()
    assert PNG in packed
    readers = event_readers(annotation)
    assert readers["json"](text) == model
    assert readers["msgpack"](packed) == model
    assert readers["plain"](msgspec.json.decode(text)) == model
    assert readers["unpacked"](msgspec.msgpack.decode(packed)) == model


@pytest.mark.parametrize("model", [Folder(files=[], extra={"deep": [PNG]}), Open(any=[PNG]), Open(b=PNG)])
def test_bytes_in_untyped_fields_are_found(model: Any) -> None:
    assert msgspec.to_builtins(PNG) in encode_json(model).decode()
    assert PNG in encode_msgpack(model)


def test_a_field_that_is_serialized_for_json_alone_is_kept() -> None:
    class Masked(pydantic.BaseModel):
        card: str
        scan: bytes

        @pydantic.field_serializer("card", when_used="json")
        def mask(self, card: str) -> str:
            return "****" + card[-2:]

    masked = Masked(card="1234", scan=PNG)
    assert msgspec.json.decode(encode_json(masked)) == {"card": "****34", "scan": msgspec.to_builtins(PNG)}
    assert msgspec.msgpack.decode(encode_msgpack(masked)) == {"card": "****34", "scan": PNG}


class Mood(enum.Enum):
    calm = "calm"


class Everything(pydantic.BaseModel, strict=True):
    day: datetime.date
    at: datetime.datetime
    after: datetime.timedelta
    id: uuid.UUID
    mood: Mood
    price: Decimal
    pair: tuple[int, str]
    tags: set[str]
    by_number: dict[int, str]
    content: bytes
    path: PurePosixPath
    address: ipaddress.IPv4Address
    secret: pydantic.SecretStr = pydantic.SecretStr("x")


EVERYTHING = Everything(
    day=datetime.date(2026, 1, 2),
    at=datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC),
    after=datetime.timedelta(minutes=90),
    id=uuid.UUID(int=5),
    mood=Mood.calm,
    price=Decimal("1.50"),
    pair=(1, "a"),
    tags={"a"},
    by_number={1: "a"},
    content=PNG,
    path=PurePosixPath("/a"),
    address=ipaddress.IPv4Address("10.0.0.1"),
    secret=pydantic.SecretStr("**********"),
)


@pytest.mark.parametrize("kind", ["json", "msgpack", "plain", "unpacked"])
@pytest.mark.parametrize("annotation", [Everything, list[Everything], Everything | int])
def test_a_model_in_strict_mode_is_read_from_both_codecs(annotation: Any, kind: str) -> None:
    """In MessagePack, no text was accepted for a date, a UUID or an enum."""
    value = [EVERYTHING] if annotation == list[Everything] else EVERYTHING
    data: Any = encode_json(value) if kind in ("json", "plain") else encode_msgpack(value)
    if kind == "plain":
        data = msgspec.json.decode(data)
    elif kind == "unpacked":
        data = msgspec.msgpack.decode(data)
    assert event_readers(annotation)[kind](data) == value


@pytest.mark.parametrize("kind", ["json", "msgpack"])
@pytest.mark.parametrize("wrong", [{"content": 1}, {}, {"content": [1]}])
def test_what_does_not_fit_is_refused(kind: str, wrong: Any) -> None:
    encode = msgspec.json.encode if kind == "json" else msgspec.msgpack.encode
    with pytest.raises(Reject) as caught:
        event_readers(File)[kind](encode(wrong))
    assert caught.value.details["path"] == "$.content"


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, pydantic.Field(gt=0)]


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    name: str


class Shelter(msgspec.Struct):
    pets: list[Cat | None]


@pytest.mark.parametrize("kind", ["json", "msgpack", "plain", "unpacked"])
def test_a_model_in_a_struct_says_where_it_is_wrong(kind: str) -> None:
    data: Any = {"pets": [None, {"kind": "cat", "lives": 0}]}
    if kind in ("json", "msgpack"):
        data = (msgspec.json if kind == "json" else msgspec.msgpack).encode(data)
    with pytest.raises(Reject) as caught:
        guarded(event_readers(Shelter)[kind])(data)
    assert caught.value.message == "Input should be greater than 0"
    assert caught.value.details["path"] == "$.pets[1].lives"
