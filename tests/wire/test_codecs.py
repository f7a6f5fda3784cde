"""`symphony.protocol.v1` against `envelopes.json` and `malformed.json`."""

from typing import Any

import msgspec
import pytest

from symphony.errors import Reject
from symphony.protocol.envelopes import (
    Cancel,
    End,
    Envelope,
    Error,
    Event,
    Grant,
    Item,
    Ping,
    Pong,
    Reply,
    Retry,
)
from symphony.protocol.v1 import JSON, MSGPACK
from wire.vectors import joined, load, message, plain, same

CODECS = {"json": JSON, "msgpack": MSGPACK}
KINDS = {
    "event": Event,
    "reply": Reply,
    "error": Error,
    "item": Item,
    "end": End,
    "grant": Grant,
    "cancel": Cancel,
    "ping": Ping,
    "pong": Pong,
    "retry": Retry,
}
FIRST = {"event": "event", "ping": "number", "pong": "number", "retry": "seconds"}
ENVELOPES = load("envelopes.json")
MALFORMED = load("malformed.json")


def cases(vectors: list[dict[str, Any]]) -> list[Any]:
    return [
        pytest.param(vector, codec, id=f"{codec}: {vector['name']}")
        for vector in vectors
        for codec in CODECS
        if codec in vector
    ]


def envelope(meaning: dict[str, Any]) -> Envelope:
    kind = meaning["kind"]
    rest = {name: plain(meaning[name]) for name in ("data", "timeout", "credit") if name in meaning}
    if kind == "event" and "id" in meaning:
        rest["id"] = meaning["id"]
    return KINDS[kind](meaning[FIRST.get(kind, "id")], **rest)


def meaning(envelope: Envelope, codec: str) -> dict[str, Any]:
    """Return what was decoded, as `envelopes.json` would have it."""
    module = msgspec.json if codec == "json" else msgspec.msgpack
    kind = "event" if isinstance(envelope, Event) else type(envelope).__name__.lower()
    said = {FIRST.get(kind, "id") if name == kind else name: value for name, value in _fields(envelope)}
    if "data" in said:
        said["data"] = module.decode(said["data"])
    return {"kind": kind} | said


def _fields(envelope: Envelope) -> list[tuple[str, Any]]:
    fields = [(name, getattr(envelope, name)) for name in envelope.__struct_fields__]
    return [(name, value) for name, value in fields if value is not None]


@pytest.mark.parametrize(("vector", "codec"), cases(ENVELOPES["encode"]))
def test_an_envelope_is_written_as_the_protocol_has_it(vector: dict[str, Any], codec: str) -> None:
    assert CODECS[codec].encode(envelope(vector["envelope"])) == message(vector, codec)


@pytest.mark.parametrize(("vector", "codec"), cases([*ENVELOPES["decode"], *ENVELOPES["encode"]]))
def test_an_envelope_is_read_in_every_spelling(vector: dict[str, Any], codec: str) -> None:
    meant = plain(vector["envelope"])
    found = meaning(CODECS[codec].decode(message(vector, codec)), codec)
    assert set(found) == set(meant)
    assert all(same(meant[name], found[name]) for name in meant), found


@pytest.mark.parametrize(("vector", "codec"), cases(MALFORMED["refused"]))
def test_what_is_no_envelope_is_refused(vector: dict[str, Any], codec: str) -> None:
    with pytest.raises(Reject) as refused:
        CODECS[codec].decode(message(vector, codec))
    assert refused.value.code == vector["code"]
    assert refused.value.message
    assert refused.value.details["path"] == vector.get("path", refused.value.details["path"])
    assert refused.value.id == vector.get("id")


@pytest.mark.parametrize("vector", MALFORMED["wrong_message"], ids=lambda vector: vector["name"])
def test_a_message_of_the_other_kind_is_refused(vector: dict[str, Any]) -> None:
    said = joined(vector["text"]) if "text" in vector else bytes.fromhex(joined(vector["binary"]))
    with pytest.raises(Reject) as refused:
        CODECS[vector["spoken"]].decode(said)
    assert refused.value.code == vector["code"]
    assert refused.value.id is None
