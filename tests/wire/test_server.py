"""The server against the vectors that are about servers, over two transports and in both codecs."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from support.clients import closed, connect, refused
from support.servers import serve_natively
from symphony import Limits
from symphony.testing import HandshakeRefusedError, TestClient
from wire.app import make_app
from wire.peers import OFFERS, SERVERS, Peer, Served
from wire.vectors import Ids, decoded, encoded, fits, joined, load, message, named

MALFORMED = load("malformed.json")
HANDSHAKE = load("handshake.json")


@pytest.mark.parametrize(
    "conversation", load("server.json")["conversations"], ids=lambda conversation: conversation["name"]
)
@pytest.mark.parametrize("transport", SERVERS)
async def test_a_conversation(transport: str, conversation: dict[str, Any]) -> None:
    limits = Limits(**conversation["limits"]) if "limits" in conversation else None
    codecs = conversation.get("codecs", ("json", "msgpack"))
    # The codecs share a server, unless the conversation stops it or leaves something in its rooms.
    alone = {"server": "stops"} in conversation["steps"] or _is_about_rooms(conversation["steps"])
    shares = [[codec] for codec in codecs] if alone else [codecs]
    for share in shares:
        async with SERVERS[transport](limits) as server:
            for codec in share:
                offers = (*OFFERS[codec], *conversation.get("offers", ()))
                async with server.connect("/", offers) as peer, AsyncExitStack() as stack:

                    async def further() -> Peer:
                        return await stack.enter_async_context(server.connect("/", offers))  # noqa: B023

                    try:
                        spoken = "json" if codec == "plain" else codec
                        await hold(conversation["steps"], server, peer, spoken, further)
                    except BaseException as error:
                        error.add_note(f"in the codec {codec}")
                        raise


async def hold(
    steps: list[dict[str, Any]],
    server: Served,
    first: Peer,
    codec: str,
    further: Callable[[], Awaitable[Peer]] | None = None,
) -> None:
    """Hold a conversation, step by step."""
    ids: Ids = {}
    # What came before its step, for each peer: members are told about after a moment, which may
    # be over before an answer that stands first here.
    told: dict[str, list[dict[str, Any]]] = {}
    stopping: asyncio.Task[None] | None = None
    peers = {"": first}
    for step in steps:
        name = step.get("on", "")
        if name not in peers:
            assert further is not None
            peers[name] = await further()
        peer = peers[name]
        match step:
            case {"send": envelope}:
                await peer.send(encoded(named(ids, envelope), codec))
            case {"send_text": text}:
                await peer.send(joined(text))
            case {"send_binary": digits}:
                await peer.send(bytes.fromhex(joined(digits)))
            case {"receive": envelope}:
                early = told.setdefault(name, [])
                found = next((came for came in early if fits(envelope, came, ids)), None)
                if found is not None:
                    early.remove(found)
                    continue
                came = decoded(await peer.receive(), codec)
                while _tells_members(came) and not fits(envelope, came, ids):
                    early.append(came)
                    came = decoded(await peer.receive(), codec)
                assert fits(envelope, came, ids), (came, step)
            case {"receive_in_any_order": envelopes}:
                left = list(envelopes)
                while left:
                    came = decoded(await peer.receive(), codec)
                    left.remove(_fitting(left, came, ids))
            case {"closed": close}:
                code, reason = await peer.closed()
                assert code == close["code"]
                assert reason == close.get("reason", reason)
            case {"server": "stops"}:
                stopping = asyncio.create_task(server.stop())
            case _:
                raise AssertionError(step)
    if stopping is not None:
        await stopping


def _tells_members(envelope: dict[str, Any]) -> bool:
    # A server may tell several changes together, and those that the client has from its join.
    return "presence" in envelope


def _is_about_rooms(steps: list[dict[str, Any]]) -> bool:
    return any("joined" in step.get("receive", ()) for step in steps)


def _fitting(envelopes: list[dict[str, Any]], came: dict[str, Any], ids: Ids) -> dict[str, Any]:
    for envelope in envelopes:
        if fits(envelope, came, ids):
            return envelope
    raise AssertionError((came, envelopes))


@pytest.mark.parametrize("codec", ["json", "msgpack"])
@pytest.mark.parametrize("transport", SERVERS)
async def test_what_is_no_envelope_is_answered_and_does_no_harm(transport: str, codec: str) -> None:
    async with SERVERS[transport](None) as server:
        for vector in (*MALFORMED["refused"], *MALFORMED["refused_by_servers"]):
            if codec in vector:
                await _refused(server, codec, message(vector, codec), vector)


@pytest.mark.parametrize("transport", SERVERS)
async def test_a_message_of_the_other_kind_is_answered_and_does_no_harm(transport: str) -> None:
    async with SERVERS[transport](None) as server:
        for vector in MALFORMED["wrong_message"]:
            said = joined(vector["text"]) if "text" in vector else bytes.fromhex(joined(vector["binary"]))
            await _refused(server, vector["spoken"], said, vector)


async def _refused(server: Served, codec: str, said: str | bytes, vector: dict[str, Any]) -> None:
    error: dict[str, Any] = {"code": vector["code"], "retryable": False}
    if "path" in vector:
        error["details"] = {"path": vector["path"]}
    about = {"error": vector["id"]} if "id" in vector else {"event": "error"}
    steps = [{"receive": about | {"data": error}}, {"send": {"ping": 7}}, {"receive": {"pong": 7}}]
    async with server.connect("/", OFFERS[codec]) as peer:
        await peer.send(said)
        try:
            await hold(steps, server, peer, codec)
        except BaseException as problem:
            problem.add_note(f"after {vector['name']!r}")
            raise


@pytest.mark.parametrize("vector", MALFORMED["closes"], ids=lambda vector: vector["name"])
async def test_what_is_no_message_closes(vector: dict[str, Any]) -> None:
    offers = OFFERS[vector["spoken"]]
    async with SERVERS["native"](None) as server, server.connect("/", offers) as peer:
        if "text_hex" in vector:
            await peer.send_as_text(bytes.fromhex(vector["text_hex"]))
        else:
            said = joined(vector["text"]) if "text" in vector else bytes.fromhex(joined(vector["binary"]))
            await peer.send(said)
        code, _ = await peer.closed()
        assert code == vector["closes"]


@pytest.mark.parametrize("transport", SERVERS)
async def test_what_a_client_offers_decides_what_is_spoken(transport: str) -> None:
    async with SERVERS[transport](None) as server:
        for vector in HANDSHAKE["subprotocols"]:
            path = "/" if vector["route"] == "events" else "/raw"
            async with server.connect(path, vector["offers"]) as peer:
                assert peer.subprotocol == vector["chosen"], vector
                for sent in vector.get("sends", ()):
                    assert decoded(await peer.receive(), vector["speaks"]) == sent
                if vector["speaks"] == "raw":
                    await peer.send("hi")
                    assert await peer.receive() == "hi"
                else:
                    await peer.send(encoded({"event": "echo", "data": [1], "id": 1}, vector["speaks"]))
                    answer = decoded(await peer.receive(), vector["speaks"])
                    assert answer == {"reply": 1, "data": [1]}


@pytest.mark.parametrize("codec", OFFERS)
@pytest.mark.parametrize("transport", SERVERS)
async def test_a_token_among_the_subprotocols_is_the_one_of_the_handshake(transport: str, codec: str) -> None:
    asked = {"event": "token", "id": 1}
    spoken = "json" if codec == "plain" else codec
    async with SERVERS[transport](None) as server:
        for vector in (*HANDSHAKE["tokens"], {"token": None, "subprotocol": "chat"}):
            async with server.connect("/", (*OFFERS[codec], vector["subprotocol"])) as peer:
                await peer.send(encoded(asked, spoken))
                answer = decoded(await peer.receive(), spoken)
                assert answer == {"reply": 1, "data": vector["token"]}


async def test_a_refusal_is_told_as_the_client_asked_over_a_network() -> None:
    async with serve_natively(make_app()) as url:
        for vector in HANDSHAKE["refusals"]:
            address, offers = f"{url}/{vector['route']}", vector["offers"] or None
            if "status" in vector:
                answer = await refused(address, subprotocols=offers)
                _is_as_told(vector, answer.status, answer.headers, answer.body)
            else:
                async with connect(address, subprotocols=offers) as client:
                    assert client.subprotocol == vector["chosen"]
                    for sent in vector["sends"]:
                        _is_said(vector, sent, await client.recv())
                    assert await closed(client) == (vector["code"], vector["reason"])


async def test_a_refusal_is_told_as_the_client_asked_in_memory() -> None:
    async with TestClient(make_app()) as client:
        for vector in HANDSHAKE["refusals"]:
            path, offers = f"/{vector['route']}", vector["offers"]
            if "status" in vector:
                with pytest.raises(HandshakeRefusedError) as refusal:
                    await client.connect(path, subprotocols=offers, protocol="raw")
                answer = refusal.value
                _is_as_told(vector, answer.status, answer.headers, answer.json())
            else:
                connection = await client.connect(path, subprotocols=offers, protocol="raw")
                assert connection.subprotocol == vector["chosen"]
                for sent in vector["sends"]:
                    _is_said(vector, sent, await connection.receive())
                close = await connection.wait_closed()
                assert (close.code, close.reason) == (vector["code"], vector["reason"])


def _is_as_told(vector: dict[str, Any], status: int, headers: Any, body: Any) -> None:
    assert status == vector["status"]
    assert headers["content-type"] == "application/json"
    assert {name: headers[name] for name in vector.get("headers", ())} == vector.get("headers", {})
    assert body == vector["body"]


def _is_said(vector: dict[str, Any], sent: Any, came: str | bytes) -> None:
    spoken = "msgpack" if vector["chosen"] == "symphony.v1.msgpack" else "json"
    assert (came if isinstance(sent, str) else decoded(came, spoken)) == sent, vector
