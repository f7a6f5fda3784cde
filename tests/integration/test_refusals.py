"""A refusal says the same to a client, whenever the connect handler refuses."""

import json
import math
from copy import copy
from typing import Any

import pytest

from support.clients import closed, connect, refused
from symphony import DisconnectedError, RefusedError, Reject, Socket, Symphony
from symphony import connect as connect_client
from symphony.errors import CODES
from symphony.session import refusal

BUSY = {
    "code": "test.busy",
    "message": "no seat is left",
    "retryable": True,
    "details": {"seats": 0},
    "retry_after": 1.5,
}


def busy() -> Symphony:
    """An app that refuses before the socket opens on /early, and after it on /late and /raw."""
    app = Symphony()

    def reject() -> Reject:
        return Reject(
            "test.busy",
            "no seat is left",
            details={"seats": 0},
            retryable=True,
            retry_after=1.5,
            status=409,
            close_code=4999,
        )

    early, late, raw = (app.route(path) for path in ("/early", "/late", "/raw"))

    @early.on_connect
    async def refuse_at_once(socket: Socket) -> None:
        raise reject()

    @late.on_connect
    async def refuse_an_open_one(socket: Socket) -> None:
        await socket.emit("hello")
        raise reject()

    @raw.on_connect
    async def refuse_an_open_raw_one(socket: Socket) -> None:
        await socket.send("hello")
        raise reject()

    for route in (early, late):
        route.on("echo")(_echo)
    raw.on_message(_echo)
    return app


async def _echo(data: Any) -> Any:
    return data


async def test_before_the_upgrade_it_is_an_http_answer_with_every_field(serve) -> None:
    async with serve(busy()) as url:
        answer = await refused(f"{url}/early")
        # Whole seconds, rounded up.
        assert (answer.status, answer.headers["Retry-After"], answer.body) == (409, "2", BUSY)


async def test_a_page_gets_the_same_fields_before_the_close_frame(serve) -> None:
    async with serve(busy()) as url, connect(f"{url}/early", subprotocols=["symphony.refuse"]) as client:
        assert json.loads(await client.recv()) == {"event": "error", "data": BUSY}
        assert json.loads(await client.recv()) == {"retry": 1.5}
        assert await closed(client) == (4999, "no seat is left")


async def test_an_open_connection_is_told_before_it_is_closed(serve) -> None:
    async with serve(busy()) as url, connect(f"{url}/late") as client:
        assert json.loads(await client.recv()) == {"event": "hello", "data": None}
        assert json.loads(await client.recv()) == {"event": "error", "data": BUSY}
        assert json.loads(await client.recv()) == {"retry": 1.5}
        assert await closed(client) == (4999, "no seat is left")


async def test_a_raw_connection_gets_the_close_code_alone(serve) -> None:
    async with serve(busy()) as url, connect(f"{url}/raw") as client:
        assert await client.recv() == "hello"
        assert await closed(client) == (4999, "no seat is left")


async def test_our_client_has_the_refusal_before_and_after_opening(serve) -> None:
    async with serve(busy()) as url:
        early = connect_client(f"{url}/early", reconnect=False)
        with pytest.raises(RefusedError) as caught:
            await early
        error = caught.value
        assert (error.code, error.reason, error.status) == (4999, "no seat is left", None)
        assert error.retry_after == 1.5
        late = connect_client(f"{url}/late", reconnect=False)
        late.on("error", lambda: None)
        async with late:
            with pytest.raises(DisconnectedError) as lost:
                await late.request("echo", 1)
        assert not isinstance(lost.value, RefusedError)
        for refusal in (error.refusal, lost.value.refusal, early.closed and early.closed.refusal):
            assert refusal is not None
            assert {name: getattr(refusal, name) for name in BUSY} == BUSY
        assert late.closed is not None
        assert late.closed.refusal is lost.value.refusal


async def test_details_that_cannot_be_encoded_are_left_out(serve, caplog, monkeypatch) -> None:
    # It is logged once a second, and this test runs more often.
    monkeypatch.setattr(refusal, "_unencodable", copy(refusal._unencodable))
    monkeypatch.setattr(refusal._unencodable, "_logged", 0)
    app = Symphony()

    @app.route("/").on_connect
    async def refuse(socket: Socket) -> None:
        raise Reject("forbidden", "not you", details=object())

    async with serve(app) as url:
        answer = await refused(f"{url}/")
        assert (answer.status, answer.body["code"], answer.body["details"]) == (403, "forbidden", None)
        async with connect(f"{url}/", subprotocols=["symphony.refuse"]) as client:
            assert json.loads(await client.recv())["data"]["details"] is None
            assert await closed(client) == (4403, "not you")
    assert "The details of a Reject cannot be encoded: forbidden: not you" in caplog.text


def test_retry_after_is_in_the_error_only_if_it_is_set() -> None:
    plain = Reject("too_many")
    assert (plain.retry_after, plain.headers) == (None, {})
    assert "retry_after" not in plain.payload()
    soon = Reject("too_many", retry_after=0.2)
    assert (soon.payload()["retry_after"], soon.headers) == (0.2, {"Retry-After": "1"})


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("Fri, 31 Dec 1999 23:59:59 GMT", None), ("²", None)]
)
def test_a_retry_after_header_counts_if_it_is_in_seconds(header: str, seconds: float | None) -> None:
    refusal = Reject("too_many", headers={"retry-after": header})
    assert (refusal.retry_after, refusal.headers) == (seconds, {"retry-after": header})


def test_retry_after_takes_the_place_of_the_header() -> None:
    refusal = Reject("too_many", retry_after=3, headers={"retry-after": "7", "X-Other": "1"})
    assert refusal.headers == {"X-Other": "1", "Retry-After": "3"}


@pytest.mark.parametrize("code", [1000, 1008, 1014, 3000, 4000, 4999])
def test_a_close_code_of_the_apps_own_takes_the_place_of_the_codes(code: int) -> None:
    assert Reject("forbidden", close_code=code).close_code == code
    assert Reject("forbidden").close_code == CODES["forbidden"].close


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000])
def test_a_close_code_that_may_not_be_sent_is_refused(code: int) -> None:
    with pytest.raises(ValueError, match=f"close code {code} may not be sent"):
        Reject("forbidden", close_code=code)


@pytest.mark.parametrize("seconds", [-1, -0.001, math.inf, math.nan])
def test_a_retry_after_that_is_no_delay_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="retry_after must be 0 or more seconds"):
        Reject("too_many", retry_after=seconds)


@pytest.mark.parametrize(
    ("path", "offers", "code"),
    [
        ("/nowhere", [], "not_found"),
        ("/early", [], "test.busy"),
        ("/failing", [], "internal"),
        ("/failing", ["symphony.token.!"], "invalid"),
    ],
)
async def test_every_refusal_before_the_upgrade_is_marked_with_its_code(serve, path, offers, code):
    app = busy()

    failing = app.route("/failing")

    @failing.on_connect
    async def fail(socket: Socket) -> None:
        raise RuntimeError

    failing.on_message(_echo)
    async with serve(app) as url:
        refusal = await refused(url + path, subprotocols=offers or None)
    assert refusal.headers["symphony-refusal"] == refusal.code == code


async def test_a_page_of_another_origin_gets_a_marked_refusal(serve):
    async with serve(busy()) as url:
        refusal = await refused(f"{url}/early", origin="https://evil.example")
    assert refusal.headers["symphony-refusal"] == refusal.code == "forbidden"
