"""What was decoded encodes as what was constructed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict

import msgspec
import pytest

from symphony.protocol.codec import encode_json, encode_msgpack
from symphony.protocol.reading import event_readers


@dataclass
class Said:
    text: str
    name: str = "somebody"


@dataclass
class Made:
    text: str
    at: int = 0
    tags: list[str] = field(default_factory=lambda: ["new"])


@dataclass
class Child(Said):
    age: int = 3


@dataclass(slots=True)
class Slotted:
    text: str
    name: str = "somebody"


@dataclass
class Half(Slotted):
    age: int = 3


@dataclass(frozen=True)
class Frozen:
    text: str = "hi"
    age: int = 3


@dataclass(kw_only=True)
class Named:
    name: str = "x"
    text: str


@dataclass
class Nest:
    first: Said
    rest: list[Said] = field(default_factory=list)
    depth: int = 1


@dataclass
class Tree:
    name: str = "leaf"
    children: list[Tree] = field(default_factory=list)
    one: Tree | None = None


@dataclass
class Late:
    text: str
    size: int = 0

    def __post_init__(self) -> None:
        self.size = len(self.text)


class Box(msgspec.Struct):
    said: Said
    kind: str = "box"


class Pair(NamedTuple):
    left: Said
    right: Said


class Keyed(TypedDict):
    said: Said


CASES: list[tuple[Any, Any, Any]] = [
    (Said, {"text": "hi"}, Said("hi")),
    (Made, {"text": "hi"}, Made("hi")),
    (Child, {"text": "hi"}, Child("hi")),
    (Slotted, {"text": "hi"}, Slotted("hi")),
    (Half, {"text": "hi"}, Half("hi")),
    (Frozen, {}, Frozen()),
    (Named, {"text": "hi"}, Named(text="hi")),
    (Nest, {"first": {"text": "a"}, "rest": [{"text": "b"}]}, Nest(Said("a"), [Said("b")])),
    (
        Tree,
        {"children": [{"children": [{}]}], "one": {}},
        Tree("leaf", [Tree("leaf", [Tree()])], Tree()),
    ),
    (Late, {"text": "four"}, Late("four")),
    (Box, {"said": {"text": "hi"}}, Box(Said("hi"))),
    (Pair, [{"text": "a"}, {"text": "b"}], Pair(Said("a"), Said("b"))),
    (Keyed, {"said": {"text": "hi"}}, {"said": Said("hi")}),
    (list[Said], [{"text": "hi"}], [Said("hi")]),
    (dict[str, Said], {"a": {"text": "hi"}}, {"a": Said("hi")}),
    (tuple[int, Said], [1, {"text": "hi"}], (1, Said("hi"))),
    (tuple[Said, ...], [{"text": "hi"}], (Said("hi"),)),
    (set[Frozen], [{}], {Frozen()}),
    (dict[str, list[Said | None]], {"a": [None, {"text": "hi"}]}, {"a": [None, Said("hi")]}),
    (Said | int | list[Said], [{"text": "hi"}], [Said("hi")]),
    (Said | None, {"text": "hi", "name": "Ada"}, Said("hi", "Ada")),
]


@pytest.mark.parametrize("kind", ["json", "msgpack", "plain", "unpacked"])
@pytest.mark.parametrize(("annotation", "data", "constructed"), CASES, ids=lambda case: str(case)[:40])
def test_what_was_decoded_encodes_as_what_was_constructed(
    kind: str, annotation: Any, data: Any, constructed: Any
) -> None:
    """Fields that had taken their default were missing when a dataclass was sent on."""
    given = data
    if kind in ("json", "msgpack"):
        given = (msgspec.json if kind == "json" else msgspec.msgpack).encode(data)
    decoded = event_readers(annotation)[kind](given)
    assert decoded == constructed
    assert encode_json(decoded) == encode_json(constructed)
    assert encode_msgpack(decoded) == encode_msgpack(constructed)
