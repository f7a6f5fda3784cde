"""What a client offers as subprotocols: what it speaks, and a token that nobody else may see."""

import json
import logging
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from support.clients import closed, connect, refused, until
from support.servers import transport
from symphony import Handshake, Reject, Socket, Symphony

SECRET = "s3cr3t-ž~🐎/+="
JSON, MSGPACK, RAW, REFUSE = "symphony.v1.json", "symphony.v1.msgpack", "symphony.raw", "symphony.refuse"


def offer(token: str) -> str:
    return "symphony.token." + urlsafe_b64encode(token.encode()).decode().rstrip("=")


def telling() -> Symphony:
    """Make an app whose sockets are told the token that came with their handshake."""
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket, handshake: Handshake) -> None:
        await socket.emit("token", handshake.token)

    app.route("/raw").on_message(lambda message: message)
    app.route("/events").on("x")(lambda data: data)

    @app.route("/members").on_connect
    async def members(handshake: Handshake) -> None:
        if handshake.token != SECRET:
            raise Reject("unauthorized", "who are you?")

    return app


async def token_told(client: Any) -> str | None:
    return json.loads(await client.recv())["data"]


@pytest.mark.parametrize("path", ["/raw", "/events"])
@pytest.mark.parametrize("token", ["a", "ab", "abc", "abcd", SECRET, "x" * 4000, "", " ", "a.b.c"])
async def test_a_token_among_the_subprotocols_is_the_handshakes(serve, path, token):
    async with serve(telling()) as url:
        for offered in ([offer(token), JSON, RAW, REFUSE], [RAW, JSON, offer(token)]):
            async with connect(url + path, subprotocols=offered) as client:
                assert await token_told(client) == token
                assert client.subprotocol == (RAW if path == "/raw" else JSON)


async def test_padding_is_taken_and_so_is_a_bearer_header_which_wins(serve):
    padded = "symphony.token." + urlsafe_b64encode(b"padding").decode().rstrip("=")
    async with serve(telling()) as url:
        async with connect(f"{url}/events", subprotocols=[padded, JSON]) as client:
            assert await token_told(client) == "padding"
        for header in ("Bearer abc", "bearer  abc ", "BEARER abc"):
            async with connect(f"{url}/raw", additional_headers={"Authorization": header}) as client:
                assert await token_told(client) == "abc"
        for header in ("Basic abc", "Bearer", "Bearer ", ""):
            async with connect(f"{url}/raw", additional_headers={"Authorization": header}) as client:
                assert await token_told(client) is None
        async with connect(
            f"{url}/raw", additional_headers={"Authorization": "Bearer abc"}, subprotocols=[offer("x"), RAW]
        ) as client:
            assert await token_told(client) == "abc"


@pytest.mark.parametrize(
    "bad",
    [
        "symphony.token.a",
        "symphony.token.ab!d",
        "symphony.token.a+b",
        "symphony.token._w",
        "symphony.token.4pyT4pyT4p",
    ],
)
async def test_a_token_that_is_not_base64url_of_text_is_400(serve, bad):
    app = telling()
    async with serve(app) as url:
        for offered in ([bad, JSON], [JSON, REFUSE, bad]):
            response = await _status(f"{url}/events", offered)
            assert response in (400, 4400)
        async with connect(f"{url}/events", subprotocols=[JSON]) as client:
            assert await token_told(client) is None
        await until(lambda: app.stats.opened == app.stats.closed + 1)
    assert app.stats.failed_handlers == 0


async def _status(url: str, offered: list[str]) -> int | None:
    """Return the status of the answer, or the close code where it was told by one."""
    try:
        async with connect(url, subprotocols=offered) as client:
            return (await closed(client))[0]
    except Exception as error:
        return error.response.status_code


async def test_a_token_is_never_the_answer_and_stands_in_no_record(serve, caplog):
    """Neither where it is right nor where it is refused, broken, or of a route that is not there."""
    caplog.set_level(logging.DEBUG)
    app = telling()
    encoded = offer(SECRET).removeprefix("symphony.token.")
    async with serve(app) as url:
        for path, offered in (
            ("/raw", [offer(SECRET)]),
            ("/raw", [offer(SECRET), RAW]),
            ("/events", [offer(SECRET)]),
            ("/events", [offer(SECRET), MSGPACK]),
            ("/members", [offer(SECRET)]),
        ):
            try:
                async with connect(url + path, subprotocols=offered) as client:
                    assert client.subprotocol != offer(SECRET)
            except Exception as error:
                assert SECRET not in str(error)
                # The client fails where nothing was chosen of what it offered; the server had opened.
        assert (await refused(f"{url}/members", subprotocols=[offer(SECRET + "!")])).status == 401
        assert (await refused(f"{url}/nowhere", subprotocols=[offer(SECRET)])).status == 404
        assert await _status(f"{url}/members", [offer(SECRET + "!"), REFUSE]) == 4401
        await _status(f"{url}/events", [f"symphony.token.{encoded}!"])
        await until(lambda: app.stats.opened == app.stats.closed)
    records = [record for record in caplog.records if not record.name.startswith("websockets.client")]
    if transport() != "native":
        # What the server that others wrote puts into its own log is its own.
        records = [record for record in records if record.name.startswith("symphony")]
    assert any(record.name.startswith("symphony") for record in records)
    for record in records:
        said = f"{record.getMessage()} {record.args} {record.exc_text}"
        assert encoded not in said, record
        assert SECRET not in said, record


async def test_connect_middleware_and_dependencies_may_read_the_token(serve):
    app = telling()
    async with serve(app) as url:
        async with connect(f"{url}/members", subprotocols=[RAW, offer(SECRET)]) as client:
            assert client.subprotocol == RAW
        async with connect(f"{url}/members", subprotocols=[REFUSE, offer("wrong"), RAW]) as client:
            assert client.subprotocol == REFUSE
            assert await closed(client) == (4401, "who are you?")


# What is spoken


@pytest.mark.parametrize(
    ("path", "offered", "chosen", "protocol"),
    [
        ("/events", [], None, JSON),
        ("/events", [JSON], JSON, JSON),
        ("/events", [MSGPACK], MSGPACK, MSGPACK),
        ("/events", [MSGPACK, JSON], JSON, JSON),
        ("/events", [RAW, REFUSE, offer("x"), MSGPACK], MSGPACK, MSGPACK),
        ("/raw", [], None, "raw"),
        ("/raw", [JSON, MSGPACK, RAW, REFUSE], RAW, "raw"),
        ("/own", [], None, JSON),
        ("/own", ["chat.v1"], "chat.v1", JSON),
        ("/own", ["chat.v1", MSGPACK], MSGPACK, MSGPACK),
        ("/own raw", ["chat.v1", RAW], "chat.v1", "raw"),
        ("/own raw", ["chat.v2", RAW], RAW, "raw"),
    ],
)
async def test_what_is_spoken_is_the_first_of_the_servers_that_the_client_offers(
    serve, path, offered, chosen, protocol
):
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        assert socket.subprotocol == chosen
        await socket.emit("speaks", socket.protocol)

    app.route("/events").on("x")(lambda data: data)
    app.route("/raw").on_message(lambda message: message)
    app.route("/own", subprotocols=["chat.v1"]).on("x")(lambda data: data)
    app.route("/own raw", subprotocols=["chat.v1"]).on_message(lambda message: message)
    async with (
        serve(app) as url,
        connect(url + path.replace(" ", "%20"), subprotocols=offered or None) as one,
    ):
        assert one.subprotocol == chosen
        greeting = await one.recv()
        assert isinstance(greeting, bytes) is (protocol == MSGPACK)
        assert protocol in (greeting if isinstance(greeting, str) else greeting.decode("latin-1"))


@pytest.mark.parametrize("offered", [["chat.v9"], ["symphony.v2.json"], ["symphony.v1.JSON"], [offer("x")]])
async def test_what_nobody_knows_is_never_chosen(serve, offered):
    app = Symphony()
    opened: list[str | None] = []

    @app.on_connect
    async def enter(socket: Socket) -> None:
        opened.append(socket.subprotocol)

    app.route("/events").on("x")(lambda data: data)
    async with serve(app) as url:
        async with connect(f"{url}/events", subprotocols=offered) as client:
            assert client.subprotocol is None
        await until(lambda: app.stats.closed == 1)
    assert opened == [None]
