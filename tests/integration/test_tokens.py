"""Tokens among the subprotocols, for clients that cannot set headers; and `symphony.raw`."""

import base64
import json
import logging

import pytest

from support.clients import connect, refused, until
from symphony import Handshake, Reject, Socket, Symphony
from symphony.protocol.subprotocols import token_subprotocol

SECRET = "se-cret.Grüße?~>"
OFFER = token_subprotocol(SECRET)


def telling() -> Symphony:
    """Make an app that tells each client its token."""
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket, handshake: Handshake) -> None:
        await socket.emit("token", handshake.token)

    app.on("say")(lambda data: data)
    return app


async def told(url: str, **options) -> tuple[object, object, str]:
    """Connect; give the token, the subprotocol chosen and the answer's header."""
    async with connect(f"{url}/", **options) as client:
        token = json.loads(await client.recv()).get("data")
        headers = client.response.headers
        return token, client.subprotocol, "\n".join(map(str, headers.raw_items()))


@pytest.mark.parametrize("token", [SECRET, "a", "ab", "abc", "abcd", "eyJ.eyJ.x_-", "x" * 2000])
async def test_a_token_among_the_subprotocols_is_the_handshakes(serve, token):
    offered = "symphony.token." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    async with serve(telling()) as url:
        found, chosen, answer = await told(url, subprotocols=[offered, "symphony.v1.json"])
    assert (found, chosen) == (token, "symphony.v1.json")
    assert offered not in answer


async def test_without_a_token_there_is_none(serve):
    async with serve(telling()) as url:
        assert (await told(url))[0] is None
        assert (await told(url, additional_headers={"Authorization": "Basic eDp5"}))[0] is None
        assert (await told(url, additional_headers={"Authorization": "Bearer"}))[0] is None


async def test_the_header_wins_over_the_subprotocol(serve):
    async with serve(telling()) as url:
        for scheme in ("Bearer", "bearer", "BEARER"):
            header = {"Authorization": f"{scheme} of-the-header"}
            assert (await told(url, additional_headers=header))[0] == "of-the-header"
            both = {"additional_headers": header, "subprotocols": ["symphony.v1.json", OFFER]}
            assert (await told(url, **both))[0] == "of-the-header"
        # A header of another scheme says nothing about the token.
        basic = {"additional_headers": {"Authorization": "Basic eDp5"}, "subprotocols": [OFFER]}
        offered = {**basic, "subprotocols": ["symphony.v1.json", OFFER]}
        assert (await told(url, **offered))[0] == SECRET


async def test_a_token_alone_is_never_chosen(serve):
    app = Symphony()
    app.route("/").on("say")(lambda data: data)
    app.route("/raw").on_message(lambda message: message)
    async with serve(app) as url:
        for path in ("", "raw"):
            async with connect(f"{url}/{path}", subprotocols=[OFFER]) as client:
                assert client.subprotocol is None
                assert "sec-websocket-protocol" not in client.response.headers


@pytest.mark.parametrize("offered", ["!", "a", "abcde", "_w", "gIA", "a.b"])
async def test_a_malformed_token_is_400_and_no_failure_of_the_server(serve, caplog, offered):
    app = telling()
    # `_w` and `gIA` are base64url, of no UTF-8.
    async with serve(app) as url:
        refusal = await refused(f"{url}/", subprotocols=["symphony.v1.json", f"symphony.token.{offered}"])
        assert refusal.status == 400
        assert (await told(url))[0] is None
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_malformed_token_that_a_message_handler_reads_is_no_failure_of_the_server(serve, caplog):
    app = Symphony()

    @app.on("who")
    async def who(handshake: Handshake) -> str | None:
        return handshake.token

    async with serve(app) as url:
        refusal = await refused(f"{url}/", subprotocols=["symphony.v1.json", "symphony.token.!"])
        assert refusal.status == 400
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_the_token_is_in_no_log_record_and_no_refusal(serve, caplog):
    caplog.set_level(logging.DEBUG)
    app = Symphony()

    @app.on_connect
    async def enter(handshake: Handshake) -> None:
        assert handshake.token
        if "refuse" in handshake.query_params:
            raise Reject("unauthorized", "who are you?")
        if "fail" in handshake.query_params:
            raise LookupError("a bug")

    @app.on("fail")
    async def fail() -> None:
        raise LookupError("a bug")

    offer = ["symphony.v1.json", OFFER]
    async with serve(app) as url:
        async with connect(f"{url}/", subprotocols=offer) as client:
            await client.send('{"event":"fail","id":1}')
            assert json.loads(await client.recv())["data"]["code"] == "internal"
        for query in ("refuse", "fail"):
            refusal = await refused(f"{url}/?{query}=1", subprotocols=offer)
            assert OFFER not in str(refusal)
        await refused(f"{url}/", subprotocols=["symphony.v1.json", "symphony.token.S-E-C-R-E-T!"])
        await until(lambda: app.stats.closed == 1)
    # The client and the servers of others have logs of their own.
    ours = [r for r in caplog.records if not r.name.startswith(("websockets", "uvicorn"))]
    assert ours
    shown = "\n".join(f"{caplog.handler.format(record)} {record.args}" for record in ours)
    for secret in (SECRET, OFFER.removeprefix("symphony.token."), "S-E-C-R-E-T"):
        assert secret not in shown


def mixed() -> Symphony:
    app = Symphony()
    app.route("/raw").on_message(lambda message: message)
    app.route("/own", subprotocols=["chat.v1"]).on_message(lambda message: message)
    app.route("/talk").on("say")(lambda data: data)
    app.route("/shut").on_connect(refuse)
    return app


async def refuse() -> None:
    raise Reject("forbidden", "go away")


ALL = ["symphony.v1.json", "symphony.v1.msgpack", "symphony.raw", "symphony.refuse", OFFER]


@pytest.mark.parametrize(
    ("path", "offered", "chosen"),
    [
        ("raw", ["symphony.raw"], "symphony.raw"),
        ("raw", ALL, "symphony.raw"),
        ("raw", ["symphony.v1.json", "symphony.v1.msgpack"], None),
        ("raw", ["symphony.refuse"], None),
        ("raw", None, None),
        ("own", ["symphony.raw", "chat.v1"], "chat.v1"),
        ("own", ["symphony.raw", "chat.v2"], "symphony.raw"),
        ("talk", ["symphony.raw"], None),
        ("talk", ALL[::-1], "symphony.v1.json"),
        ("talk", ["symphony.raw", "symphony.v1.msgpack"], "symphony.v1.msgpack"),
        ("talk", ["symphony.refuse", OFFER], None),
        ("talk", None, None),
        ("shut", ALL, "symphony.refuse"),
    ],
)
async def test_what_is_chosen_depends_on_the_route_and_on_what_is_offered(serve, path, offered, chosen):
    async with serve(mixed()) as url, connect(f"{url}/{path}", subprotocols=offered) as client:
        assert client.subprotocol == chosen
        if path == "shut":
            await client.wait_closed()
            assert (client.close_code, client.close_reason) == (4403, "go away")
