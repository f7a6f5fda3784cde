from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from symphony.protocol.envelopes import (
    Cancel,
    End,
    Error,
    Event,
    Grant,
    Item,
    MalformedError,
    Ping,
    Pong,
    Reply,
    Retry,
)
from symphony.protocol.v1 import JSON, MAX_CREDIT, MAX_ID, MAX_TIMEOUT, MSGPACK, V1

ENCODE = {JSON: json.dumps, MSGPACK: msgspec.msgpack.encode}
READ = {JSON: msgspec.json.decode, MSGPACK: msgspec.msgpack.decode}
both = pytest.mark.parametrize("protocol", [JSON, MSGPACK], ids=["json", "msgpack"])


def decode(protocol: V1, frame: Any) -> Any:
    """Decode a frame, and its data."""
    envelope = protocol.decode(ENCODE[protocol](frame))
    if hasattr(envelope, "data"):
        assert type(envelope.data) is msgspec.Raw
        envelope.data = READ[protocol](envelope.data)
    # Of the subclass that decodes quickly, or of `Event` itself.
    if isinstance(envelope, Event):
        return Event(envelope.event, envelope.data, envelope.id, envelope.timeout, envelope.credit)
    return envelope


@both
@pytest.mark.parametrize(
    ("frame", "envelope"),
    [
        ({"event": "a"}, Event("a", None)),
        ({"event": "a", "data": [1], "id": 0, "timeout": 1, "credit": 0}, Event("a", [1], 0, 1.0, 0)),
        (
            {"event": "a" * 256, "id": MAX_ID, "timeout": MAX_TIMEOUT, "credit": MAX_CREDIT},
            Event("a" * 256, None, MAX_ID, float(MAX_TIMEOUT), MAX_CREDIT),
        ),
        ({"event": "😀" * 256}, Event("😀" * 256, None)),
        ({"event": "a", "id": None, "timeout": None, "credit": None}, Event("a", None)),
        ({"event": "a", "unknown": {}, "join": 1}, Event("a", None)),
        ({"reply": 0}, Reply(0, None)),
        ({"event": None, "reply": 1, "data": None}, Reply(1, None)),
        ({"error": 1, "data": {}}, Error(1, {})),
        ({"item": 1, "data": 2}, Item(1, 2)),
        ({"end": 0}, End(0)),
        ({"grant": 0, "credit": 1}, Grant(0, 1)),
        ({"cancel": 0}, Cancel(0)),
        ({"ping": 0}, Ping(0)),
        ({"pong": 0}, Pong(0)),
        ({"retry": 0}, Retry(0.0)),
        # The first kind of the table counts.
        ({"ping": 1, "cancel": 2, "reply": 3, "event": "a"}, Event("a", None)),
        ({"pong": 1, "ping": 2, "cancel": 3, "grant": 4, "credit": 1}, Grant(4, 1)),
        ({"retry": 1, "pong": 2, "ping": 3, "cancel": 4, "end": 5, "item": 6}, Item(6, None)),
        ({"error": 1, "reply": 2}, Reply(2, None)),
    ],
)
@pytest.mark.within(
    "protocol.v1frames.MAX_ID",
    "protocol.v1frames.MAX_CREDIT",
    "protocol.v1frames.MAX_NAME",
    "protocol.v1frames.MAX_TIMEOUT",
)
def test_a_frame_is_of_the_first_kind_that_it_has(protocol: V1, frame: Any, envelope: Any) -> None:
    assert decode(protocol, frame) == envelope


@both
@pytest.mark.parametrize(
    ("frame", "path", "id"),
    [
        ({}, "$", None),
        ([], "$", None),
        ("event", "$", None),
        ({"data": 1, "id": 5}, "$", None),
        ({"event": ""}, "$.event", None),
        ({"event": "a" * 257, "id": 5}, "$.event", 5),
        ({"event": 1, "id": 5}, "$.event", 5),
        ({"event": "a", "id": -1}, "$.id", None),
        ({"event": "a", "id": MAX_ID + 1}, "$.id", None),
        ({"event": "a", "id": "1"}, "$.id", None),
        ({"event": "a", "id": True}, "$.id", None),
        ({"event": "a", "id": 5, "timeout": 0}, "$.timeout", 5),
        ({"event": "a", "id": 5, "timeout": MAX_TIMEOUT + 1}, "$.timeout", 5),
        ({"event": "a", "id": 5, "timeout": "1"}, "$.timeout", 5),
        ({"event": "a", "id": 5, "credit": -1}, "$.credit", 5),
        ({"event": "a", "id": 5, "credit": MAX_CREDIT + 1}, "$.credit", 5),
        ({"event": "a", "id": 5, "credit": 1.5}, "$.credit", 5),
        ({"reply": 1, "timeout": 0}, "$.timeout", None),
        ({"reply": -1}, "$.reply", None),
        ({"grant": 1}, "$.credit", None),
        ({"grant": 1, "credit": 0}, "$.credit", None),
        ({"grant": 1, "credit": None}, "$.credit", None),
        ({"retry": -1}, "$.retry", None),
        ({"reply": None}, "$", None),
    ],
)
@pytest.mark.beyond(
    "protocol.v1frames.MAX_ID",
    "protocol.v1frames.MAX_CREDIT",
    "protocol.v1frames.MAX_NAME",
    "protocol.v1frames.MAX_TIMEOUT",
)
def test_what_is_no_frame_is_malformed_with_path_and_id(
    protocol: V1, frame: Any, path: str, id: int | None
) -> None:
    with pytest.raises(MalformedError) as caught:
        protocol.decode(ENCODE[protocol](frame))
    assert (caught.value.code, caught.value.details, caught.value.id) == ("invalid", {"path": path}, id)


@pytest.mark.parametrize(
    ("protocol", "message"), [(JSON, b'{"event":"a"}'), (MSGPACK, '{"event":"a"}')], ids=["json", "msgpack"]
)
def test_the_other_kind_of_message_is_malformed(protocol: V1, message: Any) -> None:
    with pytest.raises(MalformedError, match="this connection speaks") as caught:
        protocol.decode(message)
    assert caught.value.details == {"path": "$"}


@both
@pytest.mark.parametrize("frame", [{"event": "a", "timeout": float("nan")}, {"retry": float("nan")}])
def test_seconds_that_are_no_number_are_malformed(protocol: V1, frame: Any) -> None:
    with pytest.raises(MalformedError):
        protocol.decode(ENCODE[protocol](frame))


@both
@pytest.mark.parametrize(
    ("envelope", "frame"),
    [
        (Event("a", None), {"event": "a", "data": None}),
        (Event("a", 1, 0, 2.5, 0), {"event": "a", "data": 1, "id": 0, "timeout": 2.5, "credit": 0}),
        (Reply(0, None), {"reply": 0, "data": None}),
        (Error(1, {"code": "x"}), {"error": 1, "data": {"code": "x"}}),
        (Item(1, []), {"item": 1, "data": []}),
        (End(1), {"end": 1}),
        (Grant(1, 2), {"grant": 1, "credit": 2}),
        (Cancel(1), {"cancel": 1}),
        (Ping(1), {"ping": 1}),
        (Pong(1), {"pong": 1}),
        (Retry(1.5), {"retry": 1.5}),
    ],
)
def test_an_envelope_is_encoded_as_its_fields(protocol: V1, envelope: Any, frame: Any) -> None:
    message = protocol.encode(envelope)
    assert type(message) is protocol.kind
    assert READ[protocol](message) == frame
    assert decode(protocol, frame) == envelope


@both
@pytest.mark.parametrize("data", [object(), {"a": [object()]}, 1j])
def test_data_that_cannot_be_encoded_is_a_type_error(protocol: V1, data: Any) -> None:
    with pytest.raises(TypeError):
        protocol.encode(Event("a", data))


def test_an_integer_above_64_bits_is_a_type_error_in_messagepack() -> None:
    with pytest.raises(TypeError):
        MSGPACK.encode(Event("a", 2**70))
