"""Browsers hide HTTP refusals; who offers `symphony.refuse` reads a close code instead."""

import json
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed

from support.clients import connect, refused
from symphony import Limits, Reject, Socket, Symphony

OFFER = ["chat.v1", "symphony.refuse"]


async def refused_with(url: str, **options) -> tuple[int, str]:
    """Connect with the token; give the close code and reason that come."""
    async with connect(url, subprotocols=OFFER, **options) as client:
        # Browsers fail a connection for which nothing of what they offered was chosen.
        assert client.subprotocol == "symphony.refuse"
        said = json.loads(await client.recv())
        assert said["event"] == "error"
        assert said["data"]["message"] == await _last_words(client)
        return client.close_code, client.close_reason


async def _last_words(client) -> str:
    # A notice of when to come back, where there is one.
    with suppress(ConnectionClosed):
        assert list(json.loads(await client.recv())) == ["retry"]
    await client.wait_closed()
    return client.close_reason


def members_only() -> Symphony:
    app = Symphony(limits=Limits(max_connections=1))
    route = app.route("/members")

    @route.on_connect
    async def enter(socket: Socket) -> None:
        raise Reject("unauthorized", "log in first")

    app.route("/open").on_message(lambda message: message)
    return app


async def test_the_connect_handlers_refusal_is_a_close_with_its_code_and_reason(serve):
    async with serve(members_only()) as url:
        assert await refused_with(f"{url}/members") == (4401, "log in first")


async def test_so_are_the_servers_own_refusals(serve):
    async with serve(members_only()) as url:
        assert (await refused_with(f"{url}/nowhere"))[0] == 4404
        assert (await refused_with(f"{url}/open", origin="https://evil.example"))[0] == 4403
        async with connect(f"{url}/open"):
            assert (await refused_with(f"{url}/open"))[0] == 4503


async def test_who_is_to_come_back_later_is_told_when(serve):
    app = Symphony(limits=Limits(max_connections=1, retry_after=2.5))
    app.on_message(lambda message: message)
    async with (
        serve(app) as url,
        connect(f"{url}/"),
        connect(f"{url}/", subprotocols=OFFER) as client,
    ):
        said = json.loads(await client.recv())["data"]
        assert (said["code"], said["retryable"], said["retry_after"]) == ("unavailable", True, 2.5)
        assert json.loads(await client.recv()) == {"retry": 2.5}
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 4503


async def test_without_the_token_it_is_an_http_answer(serve):
    async with serve(members_only()) as url:
        assert (await refused(f"{url}/members")).status == 401


async def test_a_refused_socket_is_counted_and_forgotten(serve):
    app = members_only()
    async with serve(app) as url:
        await refused_with(f"{url}/members")
        await refused_with(f"{url}/nowhere")
        assert (app.stats.refused, app.stats.opened) == (2, 0)


async def test_the_token_is_chosen_by_refusals_only(serve):
    app = Symphony(subprotocols=["chat.v1"])
    app.route("/").on_message(lambda message: message)
    async with serve(app) as url, connect(f"{url}/", subprotocols=OFFER) as client:
        assert client.subprotocol == "chat.v1"
        await client.send("hi")
        assert await client.recv() == "hi"
