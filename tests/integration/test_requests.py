"""Requests of the server to its client, and what is left of requests when they are over."""

import asyncio
import gc
import json
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from math import nan
from types import SimpleNamespace
from typing import Any

import msgspec
import pydantic
import pytest
import websockets.asyncio.client
from websockets.exceptions import InvalidStatus

from support.clients import Client, Log, connect, until
from support.servers import serve_natively
from symphony import Limits, Reject, Socket, Symphony
from symphony.errors import (
    ConfigurationError,
    DisconnectedError,
    QueueFullError,
    RemoteError,
    RequestTimeoutError,
    WrongRouteError,
)

CODECS: Mapping[str, Any] = {
    "json": SimpleNamespace(encode=lambda frame: msgspec.json.encode(frame).decode(), decode=json.loads),
    "msgpack": msgspec.msgpack,
}


async def say(client: Client, **frame: Any) -> None:
    await client.send(json.dumps(frame))


async def hear(client: Client) -> Any:
    async with asyncio.timeout(5):
        return json.loads(await client.recv())


async def silent(client: Client) -> None:
    """Check that nothing is on its way: a ping's answer comes next."""
    await say(client, ping=42)
    assert await hear(client) == {"pong": 42}


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Model(pydantic.BaseModel):
    name: str


def asking(**options: Any) -> tuple[Symphony, Log]:
    """Make an app whose event `ask` asks back, and log what came of it."""
    app = Symphony(**options)
    log = Log()

    @app.on("ask")
    async def ask(socket: Socket, data: Any) -> str:
        try:
            log.append(await socket.request("q", data, timeout=5))
        except Exception as error:
            log.append(error)
        return "done"

    return app, log


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (Any, {"a": [1, None]}, {"a": [1, None]}),
        (Point, {"x": 1}, Point(1)),
        (list[Point], [{"x": 1, "y": 2}], [Point(1, 2)]),
        (int | None, None, None),
        (bytes, b"\x00\xff", b"\x00\xff"),
        (Model, {"name": "bo"}, Model(name="bo")),
    ],
)
async def test_the_reply_of_the_client_is_of_the_type_that_was_asked_for(serve, codec, kind, data, expected):
    app = Symphony()
    log = Log()

    @app.on("go")
    async def go(socket: Socket) -> None:
        log.append(await socket.request("q", Point(1), response_type=kind))

    speak = CODECS[codec]
    async with serve(app) as url, connect(f"{url}/", subprotocols=[f"symphony.v1.{codec}"]) as client:
        await client.send(speak.encode({"event": "go"}))
        asked = speak.decode(await client.recv())
        id = asked.pop("id")
        assert asked == {"event": "q", "data": {"x": 1, "y": 0}, "timeout": 5.0}
        await client.send(speak.encode({"reply": id, "data": data}))
        await log.reaches(1)
    assert log == [expected]


async def test_a_reply_without_data_is_none(serve):
    app, log = asking()
    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="ask")
        await say(client, reply=(await hear(client))["id"])
        await log.reaches(1)
    assert log == [None]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            {"code": "shop.closed", "message": "no", "retryable": True, "details": [1]},
            ("shop.closed", "no", True, [1]),
        ),
        ({"code": "forbidden"}, ("forbidden", "the client answered with an error", False, None)),
        ({"code": 7, "retryable": "yes"}, ("7", "the client answered with an error", False, None)),
        ({}, ("invalid", "the client answered with an error", False, None)),
        ("oops", ("invalid", "the client answered with an error", False, None)),
        (None, ("invalid", "the client answered with an error", False, None)),
    ],
)
async def test_an_error_of_the_client_is_a_remote_error(serve, error, expected):
    app, log = asking()
    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="ask", id=1)
        await say(client, error=(await hear(client))["id"], data=error)
        assert await hear(client) == {"reply": 1, "data": "done"}
    [told] = log
    assert isinstance(told, RemoteError)
    assert (told.code, told.message, told.retryable, told.details) == expected


async def test_a_reply_of_another_type_is_a_remote_error_that_says_where(serve):
    app = Symphony()

    @app.on("ask")
    async def ask(socket: Socket) -> Any:
        with pytest.raises(RemoteError) as caught:
            await socket.request("q", response_type=list[Point])
        return [caught.value.code, caught.value.details]

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="ask", id=1)
        await say(client, reply=(await hear(client))["id"], data=[{"x": 1}, {"x": "1"}])
        assert await hear(client) == {"reply": 1, "data": ["invalid", {"path": "$[1].x"}]}


async def test_without_an_answer_in_time_the_client_is_told_and_a_late_one_is_ignored(serve):
    app = Symphony()

    @app.on("ask")
    async def ask(socket: Socket) -> str:
        with pytest.raises(RequestTimeoutError, match=r"did not answer 'q' within 0\.05 s"):
            await socket.request("q", timeout=0.05)
        return "timed out"

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="ask", id=1)
        asked = await hear(client)
        assert asked["timeout"] == 0.05
        assert await hear(client) == {"cancel": asked["id"]}
        assert await hear(client) == {"reply": 1, "data": "timed out"}
        await say(client, reply=asked["id"], data="late")
        await say(client, error=asked["id"], data={"code": "cancelled"})
        await silent(client)


async def test_a_request_that_nobody_wants_any_more_is_cancelled_at_the_client(serve):
    app = Symphony()

    @app.on("ask")
    async def ask(socket: Socket) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await socket.request("q", timeout=60)

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="ask", id=1)
        id = (await hear(client))["id"]
        assert await hear(client) == {"cancel": id}
        assert await hear(client) == {"reply": 1, "data": None}


async def test_only_the_first_answer_counts_and_those_of_others_do_not(serve):
    app, log = asking()
    async with serve(app) as url, connect(f"{url}/") as client, connect(f"{url}/") as other:
        await say(client, event="ask", id=1)
        id = (await hear(client))["id"]
        await say(other, reply=id, data="from another socket")
        assert (await hear(other))["data"]["code"] == "not_found"
        await say(client, reply=id, data="first")
        await say(client, reply=id, data="second")
        await say(client, error=id, data={})
        assert await hear(client) == {"reply": 1, "data": "done"}
        await silent(client)
    assert log == ["first"]


async def test_replies_find_their_requests_in_any_order(serve):
    app = Symphony()

    @app.on("ask")
    async def ask(socket: Socket) -> Any:
        return await asyncio.gather(*(socket.request("q", n) for n in range(50)))

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="ask", id=1)
        asked = [await hear(client) for _ in range(50)]
        assert len({each["id"] for each in asked}) == 50
        for each in reversed(asked):
            await say(client, reply=each["id"], data=each["data"] ** 2)
        assert await hear(client) == {"reply": 1, "data": [n**2 for n in range(50)]}


async def test_requests_under_way_fail_at_once_when_the_socket_goes_and_later_ones_too(serve):
    app, log = asking()

    @app.on_disconnect
    async def leave(socket: Socket) -> None:
        for _ in range(2):
            with pytest.raises(DisconnectedError, match="was not sent"):
                await socket.request("too late")
        log.append(socket)

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await say(client, event="ask")
            await hear(client)
            client.transport.abort()
        await log.reaches(2)
        error, socket = log
        assert isinstance(error, DisconnectedError)
        await until(lambda: app.stats.closed == 1)
        with pytest.raises(DisconnectedError):
            await socket.request("much too late")


async def test_a_request_of_a_task_of_the_app_fails_as_well_when_the_socket_goes(serve):
    """It ended after its socket had been taken apart, with an `AttributeError`."""
    app = Symphony()
    log = Log()
    app.on("x")(lambda data: data)

    async def ask(socket: Socket) -> None:
        try:
            await socket.request("q", timeout=60)
        except BaseException as error:
            log.append(type(error))

    async with AsyncExitStack() as clients:
        async with serve(app) as url:
            client = await clients.enter_async_context(connect(f"{url}/"))
            other = await clients.enter_async_context(connect(f"{url}/"))
            await until(lambda: len(app.everyone.sockets) == 2)
            for socket in app.everyone.sockets:
                app.background(ask(socket))
            await hear(client)
            await hear(other)
            await client.close()
            await log.reaches(1)
        await log.reaches(2)
    assert log == [DisconnectedError] * 2


@pytest.mark.parametrize("frame", [{"event": "ask"}, {"event": "ask", "id": 1}])
async def test_a_handler_that_lets_the_end_of_its_client_through_has_not_failed(serve, caplog, frame):
    app = Symphony()

    @app.on("ask")
    async def ask(socket: Socket) -> None:
        await socket.request("q")

    with caplog.at_level("INFO", logger="symphony.socket"):
        async with serve(app) as url:
            async with connect(f"{url}/") as client:
                await say(client, **frame)
                await hear(client)
                client.transport.abort()
            await until(lambda: app.stats.closed == 1)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert "was closed before it answered" in caplog.text


@pytest.mark.within("max_requests")
@pytest.mark.beyond("max_requests")
async def test_more_requests_than_one_client_may_have_to_answer_are_refused(serve):
    app = Symphony(limits=Limits(max_requests=3))

    @app.on("ask")
    async def ask(socket: Socket) -> Any:
        asked = [asyncio.ensure_future(socket.request("q", n)) for n in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError, match="has 3 unanswered requests already"):
            await socket.request("one too many")
        return await asyncio.gather(*asked)

    async with serve(app) as url, connect(f"{url}/") as client:
        for _ in range(2):
            await say(client, event="ask", id=1)
            for _ in range(3):
                each = await hear(client)
                await say(client, reply=each["id"], data=each["data"])
            assert await hear(client) == {"reply": 1, "data": [0, 1, 2]}


async def test_what_cannot_be_sent_or_read_is_told_at_once_and_leaves_nothing_under_way(serve):
    app = Symphony()

    @app.on("ask")
    async def ask(socket: Socket) -> Any:
        with pytest.raises(TypeError):
            await socket.request("q", object())
        with pytest.raises(ConfigurationError):
            await socket.request("q", response_type=Symphony)
        # A client must refuse such a frame: a timeout is above 0.
        for timeout in (0, -1, nan, None):
            with pytest.raises((ValueError, TypeError)):
                await socket.request("q", timeout=timeout)
        return await socket.request("q")

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="ask", id=1)
        asked = await hear(client)
        await say(client, reply=asked["id"], data="well")
        assert await hear(client) == {"reply": 1, "data": "well"}


async def test_a_connect_handler_a_background_task_and_the_app_may_ask(serve):
    app = Symphony()
    log = Log()
    app.on("x")(lambda: None)

    @app.on_connect
    async def enter(socket: Socket) -> None:
        log.append(await socket.request("connect"))
        socket.background(background(socket))
        log.append(socket.id)

    async def background(socket: Socket) -> None:
        log.append(await socket.request("background"))

    async with serve(app) as url, connect(f"{url}/") as client:
        for name in ("connect", "background"):
            asked = await hear(client)
            assert asked["event"] == name
            await say(client, reply=asked["id"], data=f"to {name}")
        await log.reaches(3)
        socket = app.socket(log[1])
        asking = asyncio.ensure_future(socket.request("app"))
        asked = await hear(client)
        await say(client, reply=asked["id"], data="to the app")
        assert await asking == "to the app"
    assert log == ["to connect", socket.id, "to background"]


async def test_a_raw_socket_has_no_requests_and_says_so(serve):
    app = Symphony()

    @app.route("/raw").on_message
    async def handle(socket: Socket, message: str) -> str:
        with pytest.raises(WrongRouteError, match=r"Route /raw is raw.*events=True"):
            await socket.request("q")
        return "raw"

    async with serve(app) as url, connect(f"{url}/raw") as client:
        await client.send("x")
        assert await client.recv() == "raw"


async def test_a_handler_may_await_its_client_behind_a_full_queue(serve):
    """What stops the reading is the queue; the answer is behind it."""
    app = Symphony(limits=Limits(max_queue=2, max_awaiting=200))
    handled = Log()

    @app.on("ask")
    async def ask(socket: Socket) -> Any:
        return [await socket.request("q"), await socket.request("q")]

    @app.on("note")
    async def note(data: int) -> None:
        handled.append(data)

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="ask", id=1)
        for number in range(50):
            await say(client, event="note", data=number)
        first = await hear(client)
        for number in range(50, 100):
            await say(client, event="note", data=number)
        await say(client, reply=first["id"], data="one")
        second = await hear(client)
        assert handled == []
        await say(client, reply=second["id"], data="two")
        assert await hear(client) == {"reply": 1, "data": ["one", "two"]}
        await handled.reaches(100)
        await silent(client)
    assert handled == list(range(100))


@pytest.mark.within("max_awaiting")
@pytest.mark.beyond("max_awaiting")
async def test_what_may_wait_while_a_handler_awaits_its_client_has_a_bound(serve):
    app, log = asking(limits=Limits(max_queue=2, max_awaiting=4))
    noted = Log()
    app.on("note")(lambda data: noted.append(data))

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="ask", id=0)
        id = (await hear(client))["id"]
        for number in range(1, 7):
            await say(client, event="note", data=number, **({"id": number} if number != 6 else {}))
        refused = {
            "code": "too_many",
            "message": "too many messages while a handler awaits a reply from this client",
        }
        refused |= {"retryable": True, "details": None}
        assert await hear(client) == {"error": 5, "data": refused}
        assert await hear(client) == {"event": "error", "data": refused}
        await silent(client)
        await say(client, reply=id, data="go on")
        assert await hear(client) == {"reply": 0, "data": "done"}
        assert [await hear(client) for _ in range(4)] == [{"reply": n, "data": None} for n in range(1, 5)]
    assert (log, noted) == (["go on"], [1, 2, 3, 4])


# What is left


def tables_in(owner: Any) -> list[Any]:
    """Collect the tables of an exchange, and of its parts."""
    values = [getattr(owner, name) for name in type(owner).__slots__]
    kept = ("answering", "requests", "streams")
    parts = [part for part in values if type(part).__module__.rpartition(".")[2] in kept]
    return [table for table in values if isinstance(table, dict)] + [
        table for part in parts for table in tables_in(part)
    ]


class Remains:
    """An app with handlers of every kind, and what its socket leaves behind.

    Attributes:
        tables: What is remembered of requests, each way.
        born: What is freed with the socket.
    """

    def __init__(self) -> None:
        self.app = app = Symphony()
        self.tables: list[Any] = []
        self.born: list[weakref.ref[Any]] = []

        @app.on_connect
        async def enter(socket: Socket) -> None:
            self.tables = tables_in(socket._session._serving._exchange)
            self.born += weakref.ref(socket.state), weakref.ref(socket._connection)

        @app.on("echo")
        async def echo(data: Any) -> Any:
            if data == "fail":
                raise Reject("invalid")
            if data == "wait":
                await asyncio.Event().wait()
            return data

        @app.on("count")
        async def count(data: int) -> AsyncIterator[int]:
            for number in range(data):
                yield number

        @app.on("ask")
        async def ask(socket: Socket) -> Any:
            try:
                return await socket.request("q")
            except DisconnectedError:
                return None

    @property
    def left(self) -> list[Any]:
        """The tables that are not empty."""
        assert len(self.tables) >= 4
        return [table for table in self.tables if table]

    async def use(self, client: Client) -> None:
        """Do everything once, and let everything be answered."""
        await say(client, event="echo")
        for id, data in enumerate(("x", "fail")):
            await say(client, event="echo", data=data, id=id, timeout=60)
            await hear(client)
        await say(client, event="echo", data="wait", id=2, timeout=60)
        await say(client, event="echo", id=3, timeout=60)
        for id in (3, 2):
            await say(client, cancel=id)
            assert (await hear(client))["error"] == id
        await say(client, event="echo", data="wait", id=2, timeout=0.01)
        assert (await hear(client))["data"]["code"] == "timeout"
        await say(client, event="count", data=3, id=4, credit=1)
        await hear(client)
        await say(client, cancel=4)
        assert (await hear(client))["data"]["code"] == "cancelled"
        await say(client, event="count", data=1, id=5, timeout=60)
        assert [await hear(client) for _ in range(2)] == [{"item": 5, "data": 0}, {"end": 5}]
        await say(client, event="ask", id=6)
        await say(client, reply=(await hear(client))["id"])
        assert await hear(client) == {"reply": 6, "data": None}


async def test_nothing_is_remembered_of_what_was_answered(serve):
    remains = Remains()
    async with serve(remains.app) as url, connect(f"{url}/") as client:
        await remains.use(client)
        assert remains.left == []


async def test_nothing_is_remembered_of_what_was_under_way_when_the_socket_went(serve):
    remains = Remains()
    async with serve(remains.app) as url:
        async with connect(f"{url}/") as client:
            await say(client, event="count", data=3, id=1, credit=0, timeout=60)
            await say(client, event="ask", id=2, timeout=60)
            await say(client, event="echo", id=3, timeout=60)
            await hear(client)
            assert len(remains.left) == 4
        await until(lambda: remains.app.stats.closed == 1)
    assert remains.left == []


@pytest.mark.parametrize("used", [False, True])
async def test_a_socket_that_has_gone_is_freed_without_the_garbage_collector(used):
    """Left to the collector, thousands of them wait for its next full round."""
    remains = Remains()
    gc.collect()
    gc.disable()
    try:
        async with serve_natively(remains.app) as url:
            async with connect(f"{url}/") as client:
                if used:
                    await remains.use(client)
                else:
                    await silent(client)
            await until(lambda: remains.app.stats.closed == 1)
            remains.tables.clear()
            await until(lambda: not any(ref() for ref in remains.born), timeout=1)
    finally:
        gc.enable()


async def test_a_request_named_error_is_answered(serve):
    """It was taken for the report of an error, and never answered."""
    app = Symphony()
    app.on("other")(lambda: None)
    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send('{"event": "error", "data": null, "id": 1}')
        assert '"error":1' in await client.recv()


@pytest.mark.parametrize(
    "way", ["reply", "error", "wrong type", "timeout", "leave", "cancel", "close", "refuse"]
)
async def test_a_socket_that_was_asked_is_freed_without_the_garbage_collector(way):
    """A failed request kept its exception in a frame of the traceback, and with it the socket."""
    app = Symphony()
    born: list[weakref.ref[Any]] = []

    @app.on_connect
    async def enter(socket: Socket) -> None:
        born.append(weakref.ref(socket.state))
        if way == "refuse":
            raise Reject("forbidden", "no")

    @app.on("ask")
    async def ask(socket: Socket) -> str:
        if way == "cancel":
            task = socket.background(socket.request("name"))
            await asyncio.sleep(0)
            task.cancel()
            return "cancelled"
        if way == "close":
            task = socket.background(socket.request("name"))
            await asyncio.sleep(0)
            await socket.close(4000, "bye")
            return "closed"
        timeout = 0.001 if way == "timeout" else 5
        return await socket.request("name", response_type=str, timeout=timeout)

    async def use(client: Any) -> None:
        await client.send('{"event": "ask", "data": null, "id": 1}')
        asked = json.loads(await client.recv())
        answers = {
            "reply": {"reply": asked["id"], "data": "ann"},
            "wrong type": {"reply": asked["id"], "data": 7},
            "error": {"error": asked["id"], "data": {"code": "forbidden", "message": "no"}},
        }
        if way in answers:
            await client.send(json.dumps(answers[way]))
            assert json.loads(await client.recv()).keys() & {"reply", "error"}

    gc.collect()
    gc.disable()
    try:
        async with serve_natively(app) as url:
            for _ in range(10):
                if way == "refuse":
                    with pytest.raises(InvalidStatus):
                        await websockets.asyncio.client.connect(f"{url}/")
                else:
                    async with connect(f"{url}/") as client:
                        await use(client)
            await until(lambda: app.stats.closed + app.stats.refused == 10)
            await until(lambda: not any(ref() for ref in born), timeout=1)
            assert len(born) == 10
    finally:
        gc.enable()
