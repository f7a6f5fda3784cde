"""The test client, as users' tests use it; each app is written in its test."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
import httpx
import pytest
import uvloop
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from symphony import (
    Close,
    Depends,
    Handshake,
    Limits,
    Reject,
    RemoteError,
    Room,
    Router,
    Socket,
    Symphony,
    WrongRouteError,
)
from symphony.testing import Clock, DisconnectedError, HandshakeRefusedError, TestClient


@dataclass
class Say:
    text: str


def echo() -> Symphony:
    app = Symphony()

    @app.on_message
    async def answer(message: str | bytes) -> str | bytes:
        return message

    return app


# Messages


@pytest.mark.parametrize("message", ["héllo", b"\x00\xff", "", b""])
async def test_a_message_arrives_as_it_was_sent(message: str | bytes) -> None:
    async with TestClient(echo()) as client, client.connect("/") as c:
        await c.send(message)
        assert await c.receive() == message


async def test_what_is_neither_text_nor_bytes_is_sent_as_json() -> None:
    app = Symphony()

    @app.on_message
    async def say(data: Say) -> Say:
        return Say(data.text.upper())

    async with TestClient(app) as client, client.connect("/") as c:
        await c.send({"text": "hi"})
        assert await c.receive_json() == {"text": "HI"}
        await c.send(Say("ho"))
        assert await c.receive_json() == {"text": "HO"}


async def test_messages_are_received_in_the_order_they_were_sent() -> None:
    async with TestClient(echo()) as client, client.connect("/") as c:
        for number in range(100):
            await c.send(str(number))
        assert [await c.receive() for _ in range(100)] == [str(number) for number in range(100)]


async def test_the_kind_of_a_message_is_checked_where_a_test_asks_for_one() -> None:
    async with TestClient(echo()) as client, client.connect("/") as c:
        await c.send("text")
        await c.send(b"bytes")
        assert await c.receive_text() == "text"
        assert await c.receive_bytes() == b"bytes"
        await c.send("text")
        with pytest.raises(AssertionError, match="Expected bytes from /, but received text: 'text'"):
            await c.receive_bytes()
        await c.send(b"bytes")
        with pytest.raises(AssertionError, match="Expected text from /, but received bytes: b'bytes'"):
            await c.receive_text()
        await c.send("no json")
        with pytest.raises(AssertionError, match="Expected JSON from /, but received: 'no json'"):
            await c.receive_json()


async def test_waiting_for_a_message_that_does_not_come_says_where_and_for_how_long() -> None:
    async with TestClient(echo(), timeout=0.5) as client, client.connect("/quiet") as c:
        with pytest.raises(TimeoutError, match=r"/quiet: No message was received\. Waited for 0\.5 s\."):
            await c.receive()
        with pytest.raises(TimeoutError, match=r"0\.02 s"):
            await c.receive(timeout=0.02)


async def test_nothing_more_names_the_messages_that_came_all_the_same() -> None:
    async with TestClient(echo()) as client, client.connect("/") as c:
        await c.nothing_more()
        await c.send("one")
        await c.send(b"two")
        with pytest.raises(AssertionError, match="Expected nothing more from /, but received: 'one', b'two'"):
            await c.nothing_more()


async def test_a_room_hears_what_one_of_its_members_says() -> None:
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("lobby")

    @app.on_message
    async def say(socket: Socket, message: str) -> None:
        await app.room("lobby").send(message, exclude=socket)

    async with TestClient(app) as client, client.connect("/") as alice, client.connect("/") as bob:
        await alice.send("hi")
        assert await bob.receive() == "hi"
        await alice.nothing_more()


# Connections


async def test_the_handshake_carries_what_the_test_gives_it() -> None:
    app = Symphony(subprotocols=["chat.v2", "chat.v1"], origins=["https://example.com"])
    route = app.route("/seen/{name}")

    @route.on_connect
    async def tell(socket: Socket, name: str, page: int) -> None:
        handshake = socket.handshake
        await socket.send(
            {
                "name": name,
                "page": page,
                "header": handshake.headers["X-Token"],
                "cookies": handshake.cookies,
                "origin": handshake.origin,
                "offered": handshake.subprotocols,
                "client": socket.client,
                "host": handshake.url.hostname,
            }
        )

    async with TestClient(app) as client:
        connecting = client.connect(
            "/seen/Zoë%20B?page=2",
            headers={"X-Token": "secret"},
            cookies={"session": "abc", "theme": "dark"},
            origin="https://example.com",
            subprotocols=["chat.v1", "chat.v2"],
            client=("192.0.2.7", 4321),
        )
        async with connecting as c:
            assert c.subprotocol == "chat.v2"
            assert await c.receive_json() == {
                "name": "Zoë B",
                "page": 2,
                "header": "secret",
                "cookies": {"session": "abc", "theme": "dark"},
                "origin": "https://example.com",
                "offered": ["chat.v1", "chat.v2", "symphony.limits", "symphony.v1.json", "symphony.raw"],
                "client": ["192.0.2.7", 4321],
                "host": "testserver",
            }


async def test_a_page_of_another_origin_is_refused_and_one_of_the_apps_own_is_not() -> None:
    async with TestClient(echo()) as client:
        with pytest.raises(HandshakeRefusedError) as refused:
            await client.connect("/", origin="https://evil.example")
        assert refused.value.status == 403
        async with client.connect("/", origin="http://testserver") as c:
            assert c.closed is None


async def test_a_connection_can_be_awaited_and_closed_by_hand() -> None:
    closes: list[Close] = []
    app = echo()

    @app.on_disconnect
    async def gone(close: Close) -> None:
        closes.append(close)

    async with TestClient(app) as client:
        c = await client.connect("/")
        await c.send("hi")
        assert await c.receive() == "hi"
        await c.close(4000, "bye")
        assert closes == [Close(4000, "bye", clean=True)]
        assert c.closed == Close(4000, "bye", clean=True)
        await c.close()
        with pytest.raises(DisconnectedError, match=r"4000: bye"):
            await c.send("too late")
        with pytest.raises(ValueError, match="1006"):
            await c.close(1006)


async def test_leaving_a_connection_closes_it_and_runs_its_disconnect_handler() -> None:
    closes: list[Close] = []
    app = Symphony()

    @app.on_disconnect
    async def gone(close: Close) -> None:
        closes.append(close)

    async with TestClient(app) as client:
        async with client.connect("/"):
            assert closes == []
        assert closes == [Close(1000, "", clean=True)]


async def test_a_dropped_connection_is_lost_without_a_close_frame() -> None:
    closes: list[Close] = []
    app = Symphony()

    @app.on_disconnect
    async def gone(close: Close) -> None:
        closes.append(close)

    async with TestClient(app) as client, client.connect("/") as c:
        await c.drop()
        assert closes == [Close(1006, "", clean=False)]


async def test_when_the_app_closes_what_it_sent_before_can_still_be_received() -> None:
    app = Symphony()

    @app.on_message
    async def last(socket: Socket, message: str) -> None:
        await socket.send("bye")
        await socket.close(4001, "enough")

    async with TestClient(app) as client, client.connect("/") as c:
        await c.send("hi")
        assert await c.wait_closed() == Close(4001, "enough", clean=True)
        assert await c.receive() == "bye"
        with pytest.raises(DisconnectedError) as gone:
            await c.receive()
        assert (gone.value.code, gone.value.reason) == (4001, "enough")
        assert str(gone.value) == "The connection to / has ended (4001: enough)."


async def test_a_receive_under_way_hears_that_the_app_closed() -> None:
    app = Symphony()

    @app.on_message
    async def close(socket: Socket, message: str) -> None:
        await socket.close(1008)

    async with TestClient(app) as client, client.connect("/") as c:
        waiting = asyncio.ensure_future(c.receive())
        await client.settle()
        await c.send("hi")
        with pytest.raises(DisconnectedError, match="1008"):
            await waiting


async def test_waiting_for_a_close_that_does_not_come_says_so() -> None:
    async with TestClient(echo(), timeout=0.5) as client, client.connect("/") as c:
        with pytest.raises(TimeoutError, match="The app did not close the connection"):
            await c.wait_closed()


async def test_closing_tells_when_a_handler_is_still_at_work() -> None:
    app = Symphony()
    finish = asyncio.Event()

    @app.on_message
    async def work(message: str) -> None:
        await finish.wait()

    async with TestClient(app, timeout=0.5) as client, client.connect("/") as c:
        await c.send("go")
        with pytest.raises(TimeoutError, match="a handler of the app is still running"):
            await c.close()
        finish.set()
        await c.close()


# Refusals


async def test_a_refusal_is_raised_with_status_headers_and_body() -> None:
    app = Symphony()

    @app.on_connect
    async def guard(handshake: Handshake) -> None:
        raise Reject("too_many", "come back later", details={"left": 0}, headers={"Retry-After": "7"})

    async with TestClient(app) as client:
        with pytest.raises(HandshakeRefusedError, match=r"HTTP 429: .*come back later") as refused:
            await client.connect("/")
        assert refused.value.status == 429
        assert refused.value.headers["Retry-After"] == "7"
        assert refused.value.json() == {
            "code": "too_many",
            "message": "come back later",
            "retryable": True,
            "details": {"left": 0},
            "retry_after": 7.0,
        }
        assert refused.value.refusal is not None
        assert (refused.value.refusal.code, refused.value.retry_after) == ("too_many", 7)
        with pytest.raises(HandshakeRefusedError):
            async with client.connect("/"):
                pytest.fail("the connection was refused")


async def test_an_unknown_path_is_refused_with_404() -> None:
    app = Symphony()
    app.route("/known")
    async with TestClient(app) as client:
        with pytest.raises(HandshakeRefusedError) as refused:
            await client.connect("/unknown")
    assert refused.value.status == 404
    assert b"/unknown" in refused.value.body


async def test_a_handshake_without_an_answer_is_given_up_and_the_app_hears_of_it() -> None:
    app = Symphony()
    cancelled = asyncio.Event()

    @app.on_connect
    async def never(socket: Socket) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with TestClient(app, timeout=0.5) as client:
        with pytest.raises(TimeoutError, match="/slow: The handshake was not answered"):
            await client.connect("/slow")
        await client.settle()
        assert cancelled.is_set()


async def test_a_path_must_start_with_a_slash() -> None:
    async with TestClient(echo()) as client:
        with pytest.raises(ValueError, match="must start with '/': 'chat'"):
            client.connect("chat")


# The app's life


async def test_entering_starts_the_app_and_leaving_stops_it() -> None:
    happened: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Symphony) -> AsyncIterator[dict[str, str]]:
        happened.append("begin")
        yield {"database": "open"}
        happened.append("end")

    app = Symphony(lifespan=lifespan)

    @app.on_startup
    async def startup() -> None:
        happened.append("startup")

    @app.on_shutdown
    def shutdown() -> None:
        happened.append("shutdown")

    for _ in range(2):
        async with TestClient(app):
            assert happened == ["begin", "startup"]
            assert app.state.database == "open"
        assert happened == ["begin", "startup", "shutdown", "end"]
        happened.clear()


async def test_a_start_up_that_fails_is_raised_on_entering() -> None:
    app = Symphony()

    @app.on_startup
    async def startup() -> None:
        raise ConnectionRefusedError("no database")

    with pytest.raises(ConnectionRefusedError, match="no database"):
        async with TestClient(app):
            pytest.fail("the app did not start")
    assert not app._core.started


async def test_a_shutdown_that_fails_is_raised_on_leaving() -> None:
    app = Symphony()

    @app.on_shutdown
    async def shutdown() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        async with TestClient(app):
            pass


async def test_the_lifespan_of_the_http_app_runs_as_well() -> None:
    started: list[str] = []

    async def http(scope: dict, receive, send) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{phase}"
                started.append(phase)
                await send({"type": f"lifespan.{phase}.complete"})

    async with TestClient(Symphony(http=http)):
        assert started == ["startup"]
    assert started == ["startup", "shutdown"]


@pytest.fixture
async def client_with_task_group() -> AsyncIterator[tuple[TestClient, list[str]]]:
    work: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Symphony) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            yield
            work.append("done")
            group.cancel_scope.cancel()

    async with TestClient(Symphony(lifespan=lifespan)) as client:
        yield client, work
    assert work == ["done"]


async def test_a_client_can_be_a_fixture_whatever_task_that_is_torn_down_in(
    client_with_task_group: tuple[TestClient, list[str]],
) -> None:
    client, work = client_with_task_group
    async with client.connect("/") as c:
        await c.nothing_more()
    assert work == []


async def test_no_warning_about_the_transport_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "symphony"):
        async with TestClient(echo()) as client, client.connect("/") as c:
            await c.send("hi")
            await c.receive()
    assert caplog.records == []


async def test_a_stopping_app_closes_connections_with_1012() -> None:
    async with TestClient(echo()) as client:
        c = await client.connect("/")
    assert c.closed == Close(1012, "the server restarts", clean=True)


async def test_connecting_outside_of_the_client_says_what_to_write() -> None:
    client = TestClient(echo())
    with pytest.raises(RuntimeError, match="async with TestClient"):
        client.connect("/")


async def test_a_client_is_entered_once() -> None:
    client = TestClient(echo())
    async with client:
        pass
    with pytest.raises(RuntimeError, match="Create another one"):
        await client.__aenter__()


async def test_an_override_replaces_a_dependency() -> None:
    def database() -> str:
        raise AssertionError("the real one is not for tests")

    app = Symphony()

    @app.on_message
    async def ask(message: str, db: Annotated[str, Depends(database)]) -> str:
        return f"{db} {message}"

    app.overrides[database] = lambda: "fake"
    async with TestClient(app) as client, client.connect("/") as c:
        await c.send("row")
        assert await c.receive() == "fake row"


# Handlers that fail


def failing() -> Symphony:
    app = Symphony()

    @app.on_message
    async def divide(message: str) -> str:
        return str(1 / int(message))

    return app


async def test_what_a_handler_raises_is_raised_on_leaving_the_client() -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with TestClient(failing()) as client, client.connect("/") as c:
            await c.send("0")
            assert (await c.receive_json())["data"]["code"] == "internal"


async def test_several_failures_are_raised_as_a_group() -> None:
    with pytest.raises(ExceptionGroup) as raised:  # noqa: PT012
        async with TestClient(failing()) as client, client.connect("/") as c:
            await c.send("0")
            await c.send("nonsense")
    assert [type(error) for error in raised.value.exceptions] == [ZeroDivisionError, ValueError]


async def test_a_test_that_fails_on_its_own_is_told_what_the_handler_had_raised() -> None:
    with pytest.raises(AssertionError) as raised:  # noqa: PT012
        async with TestClient(failing()) as client, client.connect("/") as c:
            await c.send("0")
            assert await c.receive() == "infinity"
    (note,) = raised.value.__notes__
    assert "a handler of the app raised" in note
    assert "ZeroDivisionError" in note
    assert "return str(1 / int(message))" in note


async def test_an_error_that_was_taken_out_is_not_raised() -> None:
    async with TestClient(failing()) as client, client.connect("/") as c:
        await c.send("0")
        await client.settle()
        assert isinstance(client.errors.pop(), ZeroDivisionError)


async def test_errors_are_only_collected_where_the_test_says_so() -> None:
    async with TestClient(failing(), raise_errors=False) as client, client.connect("/") as c:
        await c.send("0")
        await c.receive()
        assert [type(error) for error in client.errors] == [ZeroDivisionError]


async def test_an_answer_to_a_wrong_message_is_no_error() -> None:
    app = Symphony()

    @app.on_message
    async def say(data: Say) -> None:
        raise Reject("conflict", "said before")

    async with TestClient(app) as client, client.connect("/") as c:
        await c.send({"text": 1})
        assert (await c.receive_json())["data"]["code"] == "invalid"
        await c.send({"text": "hi"})
        assert (await c.receive_json())["data"]["code"] == "conflict"


async def test_a_failing_connect_handler_is_refused_with_500_and_raised() -> None:
    app = Symphony()

    @app.on_connect
    async def fail(socket: Socket) -> None:
        raise LookupError("no such user")

    with pytest.raises(LookupError, match="no such user"):  # noqa: PT012
        async with TestClient(app) as client:
            with pytest.raises(HandshakeRefusedError) as refused:
                await client.connect("/")
    assert refused.value.status == 500


async def test_failing_background_tasks_and_error_handlers_are_raised_too() -> None:
    app = Symphony()

    @app.on_error
    async def broken(error: Exception) -> None:
        raise RuntimeError("the error handler is broken")

    async def work() -> None:
        raise LookupError("in the background")

    with pytest.raises(ExceptionGroup) as raised:  # noqa: PT012
        async with TestClient(app) as client:
            app.background(work())
            await client.settle()
    assert [str(error) for error in raised.value.exceptions] == [
        "in the background",
        "the error handler is broken",
    ]


async def test_an_app_is_not_watched_any_more_when_its_client_has_gone() -> None:
    app = echo()
    async with TestClient(app):
        assert app.on_exception is not None
    assert app.on_exception is None


# Time


async def test_a_sleeping_handler_wakes_when_its_time_has_come_and_not_before() -> None:
    app = Symphony()

    @app.on_message
    async def later(message: str) -> str:
        await asyncio.sleep(60)
        return message

    async with TestClient(app) as client, client.connect("/") as c:
        await c.send("hi")
        await client.clock.advance(59)
        await c.nothing_more()
        await client.clock.advance(1)
        assert await c.receive() == "hi"


async def test_a_task_that_sleeps_again_and_again_wakes_as_often_as_fits() -> None:
    app = Symphony()
    game = app.rooms("game:{name}")

    @game.task
    async def tick(room: Room) -> None:
        while True:
            await asyncio.sleep(1)
            await room.send("tick")

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("game:chess")

    async with TestClient(app) as client, client.connect("/") as c:
        await client.clock.advance(5)
        assert [await c.receive() for _ in range(5)] == ["tick"] * 5
        await c.nothing_more()
        for _ in range(5):
            await client.clock.advance(1)
        assert [await c.receive() for _ in range(5)] == ["tick"] * 5
        await c.nothing_more()


async def test_what_falls_due_runs_in_the_order_of_its_time() -> None:
    woken: list[float] = []

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append(seconds)

    async with TestClient(Symphony()) as client, asyncio.TaskGroup() as group:
        for seconds in (30, 10, 20):
            group.create_task(sleep(seconds))
        await client.clock.advance(40)
        assert woken == [10, 20, 30]


async def test_an_empty_room_keeps_its_state_for_its_linger() -> None:
    app = Symphony()
    app.rooms("chat:{name}", linger=20, state=list)

    @app.on_connect
    async def enter(socket: Socket) -> None:
        room = await socket.join("chat:lobby")
        room.state.append(socket.id)
        await socket.send(str(len(room.state)))

    async with TestClient(app) as client:
        for expected, pause in (("1", 19.5), ("2", 21), ("1", 0)):
            async with client.connect("/") as c:
                assert await c.receive() == expected
            await client.clock.advance(pause)


async def test_the_apps_limits_see_time_pass() -> None:
    app = Symphony(limits=Limits(idle_timeout=30, connect_timeout=5))
    slow = app.route("/slow")
    app.route("/idle")

    @slow.on_connect
    async def never(socket: Socket) -> None:
        await asyncio.Event().wait()

    async with TestClient(app) as client:
        connecting = asyncio.ensure_future(client.connect("/slow").__aenter__())
        await client.clock.advance(5)
        with pytest.raises(HandshakeRefusedError, match="HTTP 503"):
            await connecting
        async with client.connect("/idle") as c:
            await client.clock.advance(30)
            assert (await c.wait_closed()).code == 4408


async def test_the_tests_own_waiting_is_in_real_time() -> None:
    async with TestClient(echo()) as client, client.connect("/") as c:
        receiving = asyncio.ensure_future(c.receive())
        await client.clock.advance(60)
        await c.send("in time")
        assert await receiving == "in time"


async def test_time_never_goes_back_when_one_client_follows_another() -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    clocks: list[Clock] = []
    for passed in (100, 200):
        async with TestClient(Symphony()) as client:
            await client.clock.advance(100)
            assert loop.time() >= begin + passed
            clocks.append(client.clock)
    assert loop.time() >= begin + 200
    # Each one around the other would be a stack of them after many tests in one loop.
    assert clocks[0] is clocks[1]


async def test_two_can_let_time_pass_at_once_and_it_adds_up() -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    async with TestClient(Symphony()) as client:
        await asyncio.gather(client.clock.advance(10), client.clock.advance(20))
        assert loop.time() >= begin + 30


async def test_time_does_not_go_back() -> None:
    async with TestClient(Symphony()) as client:
        with pytest.raises(ValueError, match="Time cannot go back"):
            await client.clock.advance(-1)


def test_on_uvloop_all_but_the_clock_works() -> None:
    async def test() -> None:
        async with TestClient(echo()) as client, client.connect("/") as c:
            await c.nothing_more()
            await c.send("hi")
            with pytest.raises(AssertionError, match="'hi'"):
                await c.nothing_more()
            with pytest.raises(RuntimeError, match=r"The time of uvloop\.Loop cannot be advanced"):
                _ = client.clock

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test())


# Handlers without an end


async def test_a_stream_ends_when_its_client_has_gone() -> None:
    """It went on for `finish_timeout`, for nobody, and kept what it held."""
    app = Symphony()
    ended = asyncio.Event()

    @app.on_message
    async def prices(message: str) -> AsyncIterator[int]:
        try:
            for price in range(1000):
                yield price
                await asyncio.sleep(1)
        finally:
            ended.set()

    async with TestClient(app) as client:
        c = await client.connect("/")
        await c.send("go")
        assert await c.receive_json() == 0
        closing = asyncio.ensure_future(c.close())
        await client.clock.advance(1)
        await closing
        assert ended.is_set()


async def test_leaving_the_client_does_not_wait_in_real_time_for_a_handler_without_an_end() -> None:
    app = Symphony()
    outcomes: list[str] = []

    @app.on_message
    async def work(message: str) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            outcomes.append("cancelled")
            raise

    def skipped() -> float:
        return asyncio.get_running_loop().time() - time.monotonic()

    async with TestClient(app, timeout=0.5) as client, client.connect("/") as c:
        await c.send("go")
        await client.settle()
        before = skipped()
    assert outcomes == ["cancelled"]
    assert skipped() - before > Limits().finish_timeout - 1


@pytest.mark.parametrize("method", ["receive", "receive_text", "receive_bytes", "receive_json"])
async def test_reading_messages_of_a_route_with_events_says_what_to_do(method: str) -> None:
    app = Symphony()

    @app.on("say")
    async def say(data: str) -> str:
        return data

    async with TestClient(app) as client, client.connect("/") as connection:
        with pytest.raises(WrongRouteError, match=r"speaks events, .* use receive_event\('name'\)"):
            await getattr(connection, method)()
        assert await connection.request("say", "hi") == "hi"
    async with TestClient(app) as client, client.connect("/", protocol="raw") as connection:
        await connection.send('{"event":"say","data":"hi","id":1}')
        assert await connection.receive_json() == {"reply": 1, "data": "hi"}


async def test_waiting_for_events_of_a_raw_route_says_what_to_do() -> None:
    app = Symphony()

    @app.on_connect
    async def greet(socket: Socket) -> None:
        await socket.emit("hello", 1)

    async with TestClient(app) as client, client.connect("/") as connection:
        with pytest.raises(WrongRouteError, match=r"is a raw connection, .* events=True"):
            await connection.receive_event("hello")
        assert await connection.receive_json() == {"event": "hello", "data": 1}


@pytest.mark.parametrize("state", [{}, {"a": 1}, {"pool": object(), "b": [2]}])
async def test_a_mounted_app_may_yield_the_state_of_its_lifespan(state: dict[str, Any]) -> None:
    """Starlette refused to start: "The server does not support state in the lifespan scope"."""
    seen: list[Any] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        yield state

    async def page(request: Request) -> PlainTextResponse:
        seen.append({name: getattr(request.state, name) for name in state})
        return PlainTextResponse("hi")

    for http in (
        FastAPI(lifespan=lifespan),
        Starlette(lifespan=lifespan, routes=[Route("/page", page)]),
    ):
        app = Symphony(http=http)

        @app.on("say")
        async def say(data: str) -> str:
            return data

        async with TestClient(app) as client, client.connect("/") as connection:
            assert await connection.request("say", "hi") == "hi"
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as web:
                await web.get("/page")
    assert seen in ([state], [])


async def test_an_app_that_runs_already_is_refused_with_the_remedy() -> None:
    app = Symphony()
    words = "The app runs already, and a TestClient starts its app itself"
    async with TestClient(app):
        with pytest.raises(RuntimeError, match=words):
            await TestClient(app).__aenter__()
    async with app.lifespan(), contextlib.AsyncExitStack() as stack:
        with pytest.raises(RuntimeError, match=r"use symphony\.connect"):
            await stack.enter_async_context(TestClient(app))
    async with TestClient(app) as client, client.connect("/"):
        pass


@pytest.mark.parametrize("on_router", [False, True])
async def test_a_route_may_speak_events_without_a_handler_of_one(on_router: bool) -> None:
    """A route with only a connect handler is raw, so its events never reached `client.on`."""
    app, router = Symphony(), Router()
    app.include(router)
    ticks = (router if on_router else app).route("/ticks", events=True)
    app.route("/quiet", events=True)
    shouting = app.route("/shouting", events=True)

    @ticks
    async def tick(socket: Socket) -> None:
        await socket.emit("tick", 1)

    @shouting.on_message
    async def shout(data: str) -> str:
        return data.upper()

    async with TestClient(app) as client:
        async with client.connect("/ticks") as connection:
            assert connection.protocol == "symphony.v1.json"
            assert await connection.receive_event("tick") == 1
            with pytest.raises(RemoteError, match="say"):
                await connection.request("say", 1)
        async with client.connect("/quiet", protocol="msgpack") as connection:
            assert connection.protocol == "symphony.v1.msgpack"
        async with client.connect("/shouting") as connection:
            assert await connection.request("message", "hi") == "HI"


@pytest.mark.parametrize("app", [FastAPI(), Router(), Symphony, None], ids=lambda app: type(app).__name__)
def test_what_is_not_a_symphony_app_is_refused_with_what_to_pass(app: Any) -> None:
    with pytest.raises(
        TypeError, match=f"TestClient takes a Symphony app, not {type(app).__name__}. If the "
    ):
        TestClient(app)


def talking() -> Symphony:
    """Return an app with rooms that clients join and publish to."""
    app = Symphony()
    rooms = app.rooms("talk:{topic}", history=100, presence=True, client_join=True)
    app.route("/", events=True)

    @rooms.on_publish("said")
    async def say(data: str) -> None:
        if data == "rude":
            raise Reject("forbidden", "be polite")

    return app


async def test_a_connection_joins_a_room_and_receives_what_is_published() -> None:
    app = talking()
    async with TestClient(app) as client, client.connect("/") as one, client.connect("/") as two:
        room, other = await one.join("talk:a"), await two.join("talk:a")
        assert await one.join("talk:a") is room
        first = await room.emit("said", "hi")
        second = await app.room("talk:a").emit("edited", "ho", replaces=first)
        for each in (room, other):
            assert await each.receive() == ("said", "hi", first, None)
            assert await each.receive() == ("edited", "ho", second, first)
            assert each.position == first
        assert await room.count() == 2
        # Changes of a short time are told together.
        await client.clock.advance(1)
        assert room.presence.total == 2
        assert [each.data for each in await room.history()] == ["ho"]
        with pytest.raises(RemoteError, match="be polite"):
            await room.emit("said", "rude")
        await one.nothing_more()
        await two.nothing_more()


async def test_handlers_and_iterations_of_a_room_take_what_is_published() -> None:
    app, heard = talking(), list[str]()
    async with TestClient(app) as client, client.connect("/", protocol="msgpack") as one:
        async with await one.join("talk:a") as room:
            room.on("said", heard.append)
            await room.emit("said", "hi")
            await app.room("talk:a").emit("other", 1)
            async for publication in room:
                assert (publication.event, publication.data) == ("other", 1)
                break
        assert heard == ["hi"]
        assert room.ended is not None
        with pytest.raises(RemoteError, match="left"):
            await room.receive()
        again = await one.join("talk:a", since="start")
        assert again is not room
        assert [(await again.receive()).data for _ in range(2)] == ["hi", 1]


async def test_what_was_published_is_kept_for_a_handler_that_is_registered_late() -> None:
    app, heard = talking(), list[Any]()
    async with TestClient(app) as client, client.connect("/") as one:
        room = await one.join("talk:a")
        for number in range(3):
            await app.room("talk:a").emit("said", f"{number}")
        await client.settle()
        assert room.waiting == 3
        room.on("said", heard.append)
        await client.settle()
        assert heard == ["0", "1", "2"]
        assert room.waiting == 0


async def test_waiting_for_a_publication_ends_in_real_time_and_loses_none() -> None:
    app = talking()
    async with TestClient(app, timeout=0.05) as client, client.connect("/") as one:
        room = await one.join("talk:a")
        with pytest.raises(TimeoutError, match="No publication of the room 'talk:a' was received"):
            await room.receive()
        receiving = asyncio.ensure_future(room.receive(timeout=20))
        await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait((receiving,))
        await app.room("talk:a").emit("said", "hi")
        assert (await room.receive(timeout=10)).data == "hi"


async def test_what_is_left_in_a_room_is_found() -> None:
    app = talking()
    async with TestClient(app) as client, client.connect("/") as one:
        await one.join("talk:a")
        await app.room("talk:a").emit("said", "unexpected")
        with pytest.raises(AssertionError, match=r"said 'unexpected' in talk:a"):
            await one.nothing_more()
        await one.nothing_more()


async def test_a_room_ends_with_the_membership_or_the_connection() -> None:
    app = talking()
    async with TestClient(app) as client, client.connect("/") as one, client.connect("/") as two:
        room, other = await one.join("talk:a"), await two.join("talk:b")
        await app.room("talk:a").emit("said", "last")
        await app.room("talk:a").close()
        assert (await room.receive()).data == "last"
        with pytest.raises(RemoteError, match="closed"):
            await room.receive()
        await two.drop()
        with pytest.raises(DisconnectedError):
            await other.receive()


async def test_a_join_that_is_refused_raises() -> None:
    app = Symphony()
    app.rooms("private:{name}", history=10)
    app.route("/", events=True)
    async with TestClient(app) as client, client.connect("/") as one:
        with pytest.raises(RemoteError) as refused:
            await one.join("private:a")
        assert refused.value.code == "forbidden"
