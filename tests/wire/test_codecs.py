"""`symphony.protocol.v1` against `envelopes.json` and `malformed.json`."""

from typing import Any

import msgspec
import pytest

from symphony.errors import Reject
from symphony.protocol.envelopes import (
    Cancel,
    Dropped,
    End,
    Envelope,
    Error,
    Event,
    Grant,
    Item,
    Join,
    Joined,
    Leave,
    Left,
    Lost,
    Ping,
    Pong,
    Presence,
    Publish,
    Published,
    ReadCount,
    ReadHistory,
    ReadPresence,
    Reply,
    Retry,
)
from symphony.protocol.positions import Position
from symphony.protocol.rosters import MembersDiff, MembersState
from symphony.protocol.v1 import JSON, MSGPACK, V1
from wire.vectors import joined, load, message, plain, same

CODECS = {"json": JSON, "msgpack": MSGPACK}
FROM_SERVERS = {codec: V1(codec, publications=True) for codec in ("json", "msgpack")}
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
    "dropped": Dropped,
    "join": Join,
    "leave": Leave,
    "publish": Publish,
    "history": ReadHistory,
    "joined": Joined,
    "left": Left,
    "lost": Lost,
    "presence": Presence,
    "count": ReadCount,
}
OF_ROOMS = dict.fromkeys(("join", "leave", "history", "joined", "left", "lost", "presence", "count"), "room")
FIRST = {
    "event": "event",
    "publish": "event",
    "ping": "number",
    "pong": "number",
    "retry": "seconds",
    **OF_ROOMS,
}
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
    first = FIRST.get(kind, "id")
    rest = {
        name: _field(name, plain(value)) for name, value in meaning.items() if name not in ("kind", first)
    }
    if kind == "event" and "room" in meaning:
        return Published(meaning[first], **rest)
    if kind == "presence" and "id" in meaning:
        return ReadPresence(meaning[first], **rest)
    return KINDS[kind](meaning[first], **rest)


def _field(name: str, value: Any) -> Any:
    if name in ("members", "diff"):
        return msgspec.convert(value, MembersState if name == "members" else MembersDiff)
    return (
        Position(**value)
        if name in ("since", "position", "replaces", "before") and isinstance(value, dict)
        else value
    )


def meaning(envelope: Envelope, codec: str) -> dict[str, Any]:
    """Return what was decoded, as `envelopes.json` would have it."""
    module = msgspec.json if codec == "json" else msgspec.msgpack
    kind = type(envelope).__name__.lower().removeprefix("read")
    if isinstance(envelope, Event) and not isinstance(envelope, Publish):
        kind = "event"
    said = {FIRST.get(kind, "id") if name == kind else name: value for name, value in _fields(envelope)}
    for name in ("data", "snapshot"):
        if name in said:
            said[name] = module.decode(said[name])
    for name in ("members", "diff"):
        if name in said:
            said[name] = msgspec.to_builtins(said[name])
    for name in ("since", "position", "replaces", "before"):
        if isinstance(said.get(name), Position):
            said[name] = msgspec.structs.asdict(said[name])
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
    readers = [CODECS[codec]] if vector["from"] == "client" else [FROM_SERVERS[codec]]
    if vector["from"] == "both":
        readers.append(CODECS[codec])
    for reader in readers:
        found = meaning(reader.decode(message(vector, codec)), codec)
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
