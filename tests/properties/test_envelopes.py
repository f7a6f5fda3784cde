"""Whatever a client sends is an envelope of the right types, or malformed; and the connection goes on."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.clients import connect
from support.servers import serve_natively
from support.sizes import size
from symphony import Symphony
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
from symphony.protocol.jsonrpc import JsonRpc
from symphony.protocol.reading import UNREADABLE, event_readers
from symphony.protocol.v1 import JSON, MAX_CREDIT, MAX_ID, MAX_NAME, MAX_TIMEOUT, MSGPACK, V1, TypedV1
from symphony.testing import TestClient

READ = event_readers(Any)
FIELDS = (
    *("event", "data", "id", "timeout", "credit", "reply", "error", "item"),
    *("end", "grant", "cancel", "ping", "pong", "retry"),
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from([-1, 0, 1, MAX_ID, MAX_ID + 1, MAX_CREDIT, MAX_CREDIT + 1])
    | st.floats()
    | st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)
packable = st.recursive(
    scalars | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars, inner, max_size=4),
    max_leaves=10,
)
ids = st.integers(0, 5) | values
frames = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(FIELDS, ids)
    | {"event": st.sampled_from(["echo", "count", "error", "", "x" * 257]) | values, "data": values},
)
calls = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "1.0", 2.0]),
        "method": st.sampled_from(["echo", ""]) | values,
        "params": values,
        "id": values,
        "result": values,
        "error": values,
    },
)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Draw what is nearly a frame: bytes cut out, put in or exchanged."""
    text = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(text)))
        end = draw(st.integers(begin, min(len(text), begin + 4)))
        text[begin:end] = draw(st.binary(max_size=4) | st.sampled_from([b'"', b"{", b"}", b"[", b",", b"9"]))
    return bytes(text)


packed_frames = st.builds(msgspec.msgpack.encode, frames)
json_frames = st.builds(lambda frame: json.dumps(frame).encode(), frames)
texts = (
    st.text()
    | st.text(st.characters())  # surrogates too
    | st.builds(json.dumps, values)
    | st.builds(json.dumps, frames)
    | damaged(json_frames).map(lambda text: text.decode(errors="replace"))
)
binaries = st.binary() | st.builds(msgspec.msgpack.encode, packable) | packed_frames | damaged(packed_frames)
deep_text = '{"event":"echo","data":' + "[" * 100_000
deep_bytes = msgspec.msgpack.encode({"event": "echo"})[:1] + b"\xa4data" + b"\x91" * 100_000


def is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_ID


def is_seconds(value: Any, least: float, most: float) -> bool:
    return type(value) is float and not math.isnan(value) and least <= value <= most


def check(envelope: Any, *, kind: str) -> None:
    match envelope:
        case Event(event, data, id, timeout, credit):
            assert type(event) is str
            assert 1 <= len(event) <= MAX_NAME
            assert id is None or is_id(id)
            assert timeout is None or (is_seconds(timeout, 0, MAX_TIMEOUT) and timeout > 0)
            assert credit is None or (type(credit) is int and 0 <= credit <= MAX_CREDIT)
            readable(data, kind)
        case Reply(id, data) | Error(id, data) | Item(id, data):
            assert is_id(id)
            readable(data, kind)
        case Grant(id, credit):
            assert is_id(id)
            assert type(credit) is int
            assert 1 <= credit <= MAX_CREDIT
        case End(id) | Cancel(id) | Ping(id) | Pong(id):
            assert is_id(id)
        case Retry(seconds):
            assert is_seconds(seconds, 0, math.inf)
        case _:
            pytest.fail(f"no envelope: {envelope!r}")


def readable(data: Any, kind: str) -> None:
    assert type(data) is msgspec.Raw
    with suppress(UNREADABLE):
        READ[kind](data)


class Move(msgspec.Struct):
    x: int
    y: float = 0


TYPES = {"move": Move, "any": Any, "maybe": int | None, "raw": msgspec.Raw}
typed_frames = st.fixed_dictionaries(
    {"event": st.sampled_from([*TYPES, "other"]) | values},
    optional=dict.fromkeys(FIELDS[2:], ids)
    | {"data": values | st.builds(lambda x, y: {"x": x, "y": y}, scalars, scalars)},
)


@pytest.mark.parametrize("types", [TYPES, {"maybe": int | None}], ids=["several", "one"])
@pytest.mark.parametrize("protocol", [JSON, MSGPACK], ids=["json", "msgpack"])
@given(frame=typed_frames | frames, backwards=st.booleans())
@example(frame={"reply": 1, "data": 2}, backwards=False)
def test_what_is_decoded_in_one_pass_is_what_two_would_give(
    protocol: V1, types: dict[str, Any], frame: dict[str, Any], backwards: bool
) -> None:
    """An event whose data fits is the same either way; everything else is left to the long way."""
    module: Any = msgspec.json if protocol is JSON else msgspec.msgpack
    typed = TypedV1(protocol.payload, types)  # type: ignore[arg-type]
    pairs = sorted(frame.items(), reverse=backwards)
    message = json.dumps(dict(pairs)) if protocol is JSON else msgspec.msgpack.encode(dict(pairs))
    try:
        said = typed.decode_event(message)
    except UNREADABLE:
        said = None
    try:
        event = protocol.decode(message)
    except MalformedError:
        event = None
    if not isinstance(event, Event) or event.event not in (*types, "error"):
        assert said is None
        return
    kind = types.get(event.event, msgspec.Raw)
    try:
        data = event.data if kind is msgspec.Raw else module.decode(event.data, type=kind)
    except UNREADABLE:
        assert said is None
        return
    if said is None:
        assert "data" not in frame
        return
    assert (said.event, said.id, said.timeout, said.credit) == (
        event.event,
        event.id,
        event.timeout,
        event.credit,
    )
    assert repr(said.data) == repr(data) or bytes(said.data) == bytes(event.data)


def decode(protocol: V1, message: Any) -> None:
    try:
        envelope = protocol.decode(message)
    except MalformedError as error:
        tellable(error, is_id)
    else:
        check(envelope, kind=protocol.payload)


def tellable(error: MalformedError, is_id: Any) -> None:
    assert error.code == "invalid"
    assert set(error.details) == {"path"}
    assert len(error.details["path"]) < 300
    assert len(error.message) < 300
    assert error.id is None or is_id(error.id)
    # And it can be said to whoever it is about.
    JSON.encode(Event("error", error.payload()))
    MSGPACK.encode(Event("error", error.payload()))


@settings(deadline=None, max_examples=size(100, full=1000))
@given(texts | binaries)
@example(deep_text)
@example('{"ping":"' + "x" * 100_000 + '"}')
@example('{"\ud800":1}')
@example('{"event":"\ud800"}')
@example('{"event":"a","retry":1e999}')
@example('{"retry":1e999}')
@example('{"event":"a","timeout":1e-999}')
@example('{"event":"a","id":1.0}')
@example('{"event":"a","event":1}')
def test_json_is_an_envelope_or_malformed(message: str | bytes) -> None:
    decode(JSON, message)


@settings(deadline=None, max_examples=size(100, full=1000))
@given(binaries | texts)
@example(deep_bytes)
@example(b"\x81\xa5event\xa1\xff")
@example(b"\x81\xa1\xff\x01")
@example(msgspec.msgpack.encode({"retry": math.nan}))
@example(msgspec.msgpack.encode({"event": "a", "timeout": math.nan}))
@example(msgspec.msgpack.encode({"event": "a", "timeout": math.inf}))
@example(msgspec.msgpack.encode({"event": "a", "id": 1.0}))
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\x81\xa5event\xdb\xff\xff\xff\xff")
def test_messagepack_is_an_envelope_or_malformed(message: str | bytes) -> None:
    decode(MSGPACK, message)


@settings(deadline=None, max_examples=size(75, full=750))
@given(st.sampled_from(FIELDS), values)
@example("timeout", math.nan)
@example("retry", math.inf)
def test_one_field_of_any_type_is_an_envelope_or_malformed(name: str, value: Any) -> None:
    decode(MSGPACK, msgspec.msgpack.encode({name: value}))
    decode(MSGPACK, msgspec.msgpack.encode({"event": "a", name: value}))
    decode(JSON, json.dumps({name: value}))
    decode(JSON, json.dumps({"event": "a", name: value}))


@settings(deadline=None, max_examples=size(100, full=1000))
@given(
    st.text()
    | st.binary()
    | st.builds(json.dumps, calls | st.lists(calls | values, max_size=4) | values)
    | damaged(st.builds(lambda call: json.dumps(call).encode(), calls))
)
@example('{"jsonrpc":"2.0","method":"a","id":' + "[" * 100_000)
@example("[" * 100_000)
@example('{"jsonrpc":"2.0","method":"a","id":1e999}')
@example(b'{"jsonrpc":"2.0","method":"a","id":"\xff"}')
@example(b'{"jsonrpc":"2.0","result":1,"id":"\xff"}')
@example(b'[{"jsonrpc":"2.0","method":"\xff"}]')
@example('{"jsonrpc":"2.0","result":1,"id":true}')
@example('{"jsonrpc":"2.0","result":1,"id":' + "9" * 5000 + "}")
def test_json_rpc_is_envelopes_or_malformed(message: str | bytes) -> None:
    protocol = JsonRpc()
    try:
        said = protocol.decode(message)
    except MalformedError as error:
        said = [error]
    parts: Sequence[Any] = said if isinstance(said, Sequence) else [said]
    answers = []
    for part in parts:
        if isinstance(part, MalformedError):
            tellable(part, lambda id: type(id) is int)
            answers.append(protocol.encode(Error(part.id, part.payload())))
        elif isinstance(part, Event):
            assert type(part.event) is str
            assert part.event
            readable(part.data, "json")
            assert part.id is None or type(part.id) is int
            if part.id is not None:
                answers.append(protocol.encode(Reply(part.id, None)))
        else:
            assert type(part) in (Reply, Error)
            assert type(msgspec.structs.astuple(part)[0]) is int
            readable(part.data, "json")
    # Each call is answered, and a batch by one message.
    assert len([answer for answer in answers if answer is not None]) == (1 if answers else 0)
    assert protocol._calls == {}


def an_app() -> Symphony:
    app = Symphony()

    @app.on("echo")
    async def echo(data: Any) -> Any:
        await asyncio.sleep(0)
        return data

    @app.on("count")
    async def count() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    return app


@settings(deadline=None, max_examples=size(15, full=125))
@given(
    st.lists(
        st.text()
        | st.binary()
        | st.builds(json.dumps, frames | values)
        | damaged(json_frames).map(lambda text: text.decode(errors="replace"))
        | packed_frames,
        min_size=1,
        max_size=30,
    )
)
@example([deep_text])
def test_after_any_garbage_a_ping_is_answered_in_json(garbage: list[str | bytes]) -> None:
    async def say() -> None:
        async with TestClient(an_app()) as client, client.connect("/", protocol="raw") as connection:
            for message in garbage:
                await connection.send(message)
            await connection.send('{"ping":123456789}')
            while await connection.receive_json(timeout=5) != {"pong": 123456789}:
                pass

    asyncio.run(say())


@settings(deadline=None, max_examples=size(15, full=125))
@given(st.lists(st.text() | binaries, min_size=1, max_size=30))
@example([deep_bytes])
@example([msgspec.msgpack.encode({"event": "echo", "id": 1, "timeout": math.nan})])
def test_after_any_garbage_a_ping_is_answered_in_messagepack(garbage: list[str | bytes]) -> None:
    async def say() -> None:
        offer = {"protocol": "raw", "subprotocols": ["symphony.v1.msgpack"]}
        async with TestClient(an_app()) as client, client.connect("/", **offer) as connection:
            for message in garbage:
                await connection.send(message)
            await connection.send(msgspec.msgpack.encode({"ping": 123456789}))
            while msgspec.msgpack.decode(await connection.receive_bytes(timeout=5)) != {"pong": 123456789}:
                pass

    asyncio.run(say())


@settings(deadline=None, max_examples=size(15, full=125))
@given(st.lists(st.text() | st.builds(json.dumps, frames | values) | binaries, min_size=1, max_size=30))
@example([deep_text, deep_bytes, "", b""])
def test_after_any_garbage_over_a_network_a_ping_is_answered_and_others_heard_nothing(
    garbage: list[str | bytes],
) -> None:
    async def say() -> None:
        app = an_app()
        async with serve_natively(app) as url, AsyncExitStack() as stack:
            other, *clients = [
                await stack.enter_async_context(connect(f"{url}/", subprotocols=[protocol.subprotocol]))
                for protocol in (JSON, JSON, MSGPACK)
            ]
            for client, protocol in zip(clients, (JSON, MSGPACK), strict=True):
                for message in garbage:
                    await client.send(message)
                await client.send(protocol.encode(Ping(123456789)))
                while await client.recv() != protocol.encode(Pong(123456789)):
                    pass
            await other.send(JSON.encode(Ping(1)))
            assert await other.recv() == JSON.encode(Pong(1))
        assert app.stats.failed_handlers == app.stats.dropped_frames == 0

    asyncio.run(say())


@settings(deadline=None, max_examples=size(15, full=125))
@given(
    st.lists(
        st.text() | st.builds(json.dumps, calls | st.lists(calls, max_size=4) | values),
        min_size=1,
        max_size=30,
    )
)
def test_after_any_garbage_a_call_is_answered_in_json_rpc(garbage: list[str]) -> None:
    async def say() -> None:
        app = Symphony()

        @app.route("/", protocol=JsonRpc).on("echo")
        async def echo(data: Any) -> Any:
            return data

        async with TestClient(app) as client, client.connect("/", protocol="raw") as connection:
            for message in garbage:
                await connection.send(message)
            await connection.send('{"jsonrpc":"2.0","method":"echo","params":[7],"id":"the last"}')
            last = {"jsonrpc": "2.0", "result": [7], "id": "the last"}
            while await connection.receive_json(timeout=5) != last:
                pass

    asyncio.run(say())
