"""Exceptions that coroutines, futures and generators treat in their own way, raised wherever an app has code.

A request gets exactly one answer, the socket handles what comes next, and the exception is told.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Annotated, Any, NoReturn

import fastapi
import pytest
from starlette.exceptions import HTTPException

from support.clients import Client, Log, closed, connect, error_in, refused, until
from symphony import Depends, RemoteError, Room, Socket, Symphony
from symphony.testing import HandshakeRefusedError, TestClient

Fail = Callable[[], NoReturn]
Place = Callable[[Symphony, Any, Fail], object]


class Own(BaseException):
    """Of the app, and no `Exception`."""


ERRORS: Mapping[str, Callable[[], BaseException]] = {
    "StopIteration": lambda: StopIteration("value"),
    "StopAsyncIteration": StopAsyncIteration,
    "GeneratorExit": GeneratorExit,
    "BaseException": Own,
    "CancelledError": asyncio.CancelledError,
    "ExceptionGroup": lambda: ExceptionGroup("several", [ValueError("one"), StopIteration()]),
    "BaseExceptionGroup": lambda: BaseExceptionGroup("several", [asyncio.CancelledError(), Own()]),
}


class Told:
    """An exception to raise, and what the app was told about it."""

    def __init__(self, app: Symphony, error: str, caplog: pytest.LogCaptureFixture) -> None:
        self.raised = 0
        self._make = ERRORS[error]
        self._type = type(self._make())
        self._caplog = caplog
        self._errors = Log()
        app.on_error(self._on_error)

    def fail(self) -> NoReturn:
        self.raised += 1
        raise self._make()

    def _on_error(self, socket: Socket | None, error: BaseException) -> None:
        self._errors.append(error)

    async def once(self) -> None:
        """Check that each exception was told once: a cancellation in the log, others to `on_error` too."""
        assert self.raised
        if self._type is asyncio.CancelledError:
            await until(lambda: self._logged("was cancelled"))
            assert len(self._logged("was cancelled")) == self.raised
            assert not self._errors
            return
        await self._errors.reaches(self.raised)
        assert len(self._errors) == len(self._logged(" failed.")) == self.raised
        assert all(self._is_ours(error) for error in self._errors), self._errors

    def _logged(self, text: str) -> list[str]:
        return [message for message in self._caplog.messages if text in message]

    def _is_ours(self, error: BaseException | None) -> bool:
        # A coroutine or a generator that raises a StopIteration raises a RuntimeError instead.
        return isinstance(error, self._type) or (
            isinstance(error, RuntimeError) and self._is_ours(error.__cause__ or error.__context__)
        )


async def say(client: Client, **frame: Any) -> None:
    await client.send(json.dumps(frame))


async def hear(client: Client) -> Any:
    async with asyncio.timeout(5):
        return json.loads(await client.recv())


async def works(client: Client) -> None:
    """Check that the socket answers, and that nothing else was on its way."""
    await say(client, event="next", data="x", id=2)
    assert await hear(client) == {"reply": 2, "data": "x"}


def in_async_handler(app: Symphony, route: Any, fail: Fail) -> None:
    @route.on("go")
    async def go() -> None:
        fail()


def in_async_handler_that_waited(app: Symphony, route: Any, fail: Fail) -> None:
    @route.on("go")
    async def go() -> None:
        await asyncio.sleep(0)
        fail()


def in_plain_handler(app: Symphony, route: Any, fail: Fail) -> None:
    @route.on("go")
    def go() -> None:
        fail()


def in_awaitable_of_plain_handler(app: Symphony, route: Any, fail: Fail) -> None:
    async def work() -> None:
        fail()

    route.on("go")(lambda: work())


def in_thread(app: Symphony, route: Any, fail: Fail) -> None:
    @route.on("go", thread=True)
    def go() -> None:
        fail()


def in_dependency_of_thread(app: Symphony, route: Any, fail: Fail) -> None:
    def dependency() -> Iterator[None]:
        fail()
        yield

    @route.on("go", thread=True)
    def go(_: Annotated[None, Depends(dependency)]) -> None:
        raise AssertionError("runs without its dependency")


def in_async_dependency_of_thread(app: Symphony, route: Any, fail: Fail) -> None:
    def plain() -> Iterator[None]:
        yield

    async def dependency(_: Annotated[None, Depends(plain)]) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        fail()
        yield

    @route.on("go", thread=True)
    def go(_: Annotated[None, Depends(dependency)]) -> None:
        raise AssertionError("runs without its dependency")


def in_stream(app: Symphony, route: Any, fail: Fail) -> None:
    @route.on("go")
    async def go() -> AsyncIterator[int]:
        fail()
        yield 1


def in_plain_dependency(app: Symphony, route: Any, fail: Fail) -> None:
    @route.on("go")
    async def go(_: Annotated[None, Depends(lambda: fail())]) -> None:
        raise AssertionError("runs without its dependency")


def before_yield_of_plain_dependency(app: Symphony, route: Any, fail: Fail) -> None:
    def dependency() -> Iterator[None]:
        fail()
        yield

    @route.on("go")
    def go(_: Annotated[None, Depends(dependency)]) -> None:
        raise AssertionError("runs without its dependency")


def after_yield_of_plain_dependency(app: Symphony, route: Any, fail: Fail) -> None:
    def dependency() -> Iterator[None]:
        yield
        fail()

    @route.on("go")
    def go(_: Annotated[None, Depends(dependency)]) -> None: ...


def before_yield_of_dependency(app: Symphony, route: Any, fail: Fail) -> None:
    async def dependency() -> AsyncIterator[None]:
        fail()
        yield

    @route.on("go")
    async def go(_: Annotated[None, Depends(dependency)]) -> None:
        raise AssertionError("runs without its dependency")


def after_yield_of_dependency(app: Symphony, route: Any, fail: Fail) -> None:
    async def dependency() -> AsyncIterator[None]:
        yield
        fail()

    @route.on("go")
    async def go(_: Annotated[None, Depends(dependency)]) -> None: ...


def through_dependencies(app: Symphony, route: Any, fail: Fail) -> None:
    def plain() -> Iterator[None]:
        yield

    async def dependency() -> AsyncIterator[None]:
        yield

    @route.on("go")
    async def go(_: Annotated[None, Depends(dependency)], __: Annotated[None, Depends(plain)]) -> None:
        fail()


def in_middleware(app: Symphony, route: Any, fail: Fail) -> None:
    @route.middleware("message")
    async def middleware(socket: Socket, message: Any, call_next: Any) -> Any:
        return fail() if message.event == "go" else await call_next(socket, message)

    route.on("go")(lambda: None)


async def awaited(fail: Fail) -> None:
    """Raise it in a task, and wait for that."""

    async def work() -> None:
        await asyncio.sleep(0)
        fail()

    await asyncio.create_task(work())


def in_awaited_task(app: Symphony, route: Any, fail: Fail) -> None:
    @route.on("go")
    async def go() -> None:
        await awaited(fail)


def in_gathered_task(app: Symphony, route: Any, fail: Fail) -> None:
    @route.on("go")
    async def go() -> None:
        await asyncio.sleep(0)
        await asyncio.gather(awaited(fail), asyncio.sleep(0))


def in_task_of_dependency(app: Symphony, route: Any, fail: Fail) -> None:
    async def before() -> AsyncIterator[int]:
        await awaited(fail)
        yield 1

    @route.on("go")
    async def go(value: Annotated[int, Depends(before)]) -> None: ...


def in_middleware_after_the_handler(app: Symphony, route: Any, fail: Fail) -> None:
    @route.middleware("message")
    async def middleware(socket: Socket, message: Any, call_next: Any) -> Any:
        answer = await call_next(socket, message)
        return fail() if message.event == "go" else answer

    route.on("go")(lambda: None)


def in_on_join(app: Symphony, route: Any, fail: Fail) -> None:
    @app.rooms("game:{id}").on_join
    async def on_join(socket: Socket, room: Room) -> None:
        fail()

    @route.on("go")
    async def go(socket: Socket) -> None:
        await socket.join("game:1")


def in_authorize(app: Symphony, route: Any, fail: Fail) -> None:
    @app.rooms("game:{id}").authorize
    async def authorize(socket: Socket, room: Room) -> None:
        fail()

    @route.on("go")
    async def go(socket: Socket) -> None:
        await socket.join("game:1")


def in_on_leave(app: Symphony, route: Any, fail: Fail) -> None:
    @app.rooms("game:{id}").on_leave
    async def on_leave(socket: Socket, room: Room) -> None:
        fail()

    @route.on("go")
    async def go(socket: Socket) -> None:
        await socket.join("game:1")
        await socket.leave("game:1")


FAILING: list[Place] = [
    in_async_handler,
    in_async_handler_that_waited,
    in_plain_handler,
    in_awaitable_of_plain_handler,
    in_thread,
    in_dependency_of_thread,
    in_async_dependency_of_thread,
    in_stream,
    in_plain_dependency,
    before_yield_of_plain_dependency,
    after_yield_of_plain_dependency,
    before_yield_of_dependency,
    after_yield_of_dependency,
    through_dependencies,
    in_awaited_task,
    in_gathered_task,
    in_task_of_dependency,
    in_middleware,
    in_middleware_after_the_handler,
    in_on_join,
    in_authorize,
    in_on_leave,
]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", FAILING)
async def test_a_request_is_answered_once_and_the_socket_goes_on(serve, caplog, place, error):
    app = Symphony()
    told = Told(app, error, caplog)
    place(app, app, told.fail)
    app.on("next")(lambda data: data)

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="go", id=1)
        answer = await hear(client)
        assert (answer["error"], answer["data"]["code"]) == (1, "internal")
        await works(client)
        await told.once()
        assert app.room("game:1").sockets == ()


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    "place", [in_async_handler, in_plain_handler, in_thread, in_stream, after_yield_of_dependency]
)
async def test_handlers_that_run_at_once_go_on(serve, caplog, place, error):
    app = Symphony()
    told = Told(app, error, caplog)
    route = app.route("/", concurrency=4)
    place(app, route, told.fail)
    route.on("next")(lambda data: data)

    async with serve(app) as url, connect(f"{url}/") as client:
        # More than there are places: one that is not given back would be missed.
        for id in range(10, 16):
            await say(client, event="go", id=id)
        answers = [await hear(client) for _ in range(6)]
        assert sorted(answer["error"] for answer in answers) == list(range(10, 16))
        assert {answer["data"]["code"] for answer in answers} == {"internal"}
        await works(client)
        await told.once()


@pytest.mark.parametrize("error", ERRORS)
async def test_messages_that_wait_are_handled(serve, caplog, error):
    app = Symphony()
    told = Told(app, error, caplog)
    may = asyncio.Event()

    @app.on("go")
    async def go() -> None:
        await may.wait()
        told.fail()

    app.on("next")(lambda data: data)

    async with serve(app) as url, connect(f"{url}/") as client:
        for id in (10, 11, 12):
            await say(client, event="go", id=id)
        await say(client, event="next", data="x", id=2)
        may.set()
        for id in (10, 11, 12):
            assert (await hear(client))["error"] == id
        assert await hear(client) == {"reply": 2, "data": "x"}
        await told.once()


@pytest.mark.parametrize("error", ERRORS)
async def test_a_stream_ends_with_an_error_after_its_items(serve, caplog, error):
    app = Symphony()
    told = Told(app, error, caplog)

    @app.on("go")
    async def go() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0)
        told.fail()

    app.on("next")(lambda data: data)

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="go", id=1)
        assert await hear(client) == {"item": 1, "data": 1}
        assert (await hear(client))["data"]["code"] == "internal"
        await works(client)
        await told.once()


@pytest.mark.parametrize("error", ERRORS)
async def test_a_stream_that_raises_while_it_is_cancelled_ends_once(serve, caplog, error):
    app = Symphony()
    told = Told(app, error, caplog)

    @app.on("go")
    async def go() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            told.fail()

    app.on("next")(lambda data: data)

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="go", id=1)
        assert await hear(client) == {"item": 1, "data": 1}
        await say(client, cancel=1)
        assert (await hear(client))["error"] == 1
        await works(client)
        if error != "CancelledError":
            # That one is how a cancelled stream ends.
            await told.once()


@pytest.mark.parametrize("error", [error for error in ERRORS if error != "GeneratorExit"])
async def test_a_stream_that_raises_while_it_is_refused_is_told(serve, caplog, error):
    """All but a GeneratorExit, which is how a generator that is closed ends."""
    app = Symphony()
    told = Told(app, error, caplog)

    @app.middleware("message")
    async def begin(socket: Socket, message: Any, call_next: Any) -> Any:
        answer = await call_next(socket, message)
        if message.event == "go":
            await anext(answer)
        return answer

    @app.on("go")
    async def go() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            told.fail()

    app.on("next")(lambda data: data)

    async with serve(app) as url, connect(f"{url}/") as client:
        # Not a request, so the stream has no one to go to.
        await say(client, event="go")
        assert (await hear(client))["data"]["code"] == "request_required"
        await works(client)
        await told.once()


# Raw routes


def raw_async(fail: Fail) -> Callable[..., Any]:
    async def handle(message: str) -> str:
        return message if message == "next" else fail()

    return handle


def raw_awaitable(fail: Fail) -> Callable[..., Any]:
    handle = raw_async(fail)
    return lambda message: handle(message)


def raw_sync(fail: Fail) -> Callable[..., Any]:
    def handle(message: str) -> str:
        return message if message == "next" else fail()

    return handle


def raw_stream(fail: Fail) -> Callable[..., Any]:
    async def handle(message: str) -> AsyncIterator[str]:
        if message != "next":
            fail()
        yield message

    return handle


def raw_stream_that_waited(fail: Fail) -> Callable[..., Any]:
    async def handle(message: str) -> AsyncIterator[str]:
        await asyncio.sleep(0)
        if message != "next":
            fail()
        yield message

    return handle


def raw_stream_of_plain_handler(fail: Fail) -> Callable[..., Any]:
    stream = raw_stream(fail)
    return lambda message: stream(message)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    "handler",
    [raw_async, raw_awaitable, raw_sync, raw_stream, raw_stream_that_waited, raw_stream_of_plain_handler],
)
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_raw_connection_gets_one_error_and_goes_on(serve, caplog, handler, error, concurrency):
    app = Symphony()
    told = Told(app, error, caplog)
    app.route("/", concurrency=concurrency).on_message(handler(told.fail))

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("go")
        async with asyncio.timeout(5):
            assert error_in(await client.recv())["code"] == "internal"
            await client.send("next")
            assert await client.recv() == "next"
        await told.once()


# What runs beside the answer


def in_on_empty(app: Symphony, fail: Fail) -> None:
    @app.rooms("game:{id}").on_empty
    async def on_empty(room: Room) -> None:
        fail()

    @app.on("go")
    async def go(socket: Socket) -> None:
        await socket.join("game:1")
        await socket.leave("game:1")


def in_room_task(app: Symphony, fail: Fail) -> None:
    @app.rooms("game:{id}").task
    async def task(room: Room) -> None:
        fail()

    @app.on("go")
    async def go(socket: Socket) -> None:
        await socket.join("game:1")


def in_task_of_socket(app: Symphony, fail: Fail) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        fail()

    @app.on("go")
    async def go(socket: Socket) -> None:
        socket.background(work())


def in_task_of_app(app: Symphony, fail: Fail) -> None:
    async def work() -> None:
        fail()

    @app.on("go")
    async def go() -> None:
        app.background(work())


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", [in_on_empty, in_room_task, in_task_of_socket, in_task_of_app])
async def test_what_runs_beside_a_request_is_told_and_its_answer_stays(serve, caplog, place, error):
    app = Symphony()
    told = Told(app, error, caplog)
    place(app, told.fail)
    app.on("next")(lambda data: data)

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="go", id=1)
        assert await hear(client) == {"reply": 1, "data": None}
        await works(client)
        await until(lambda: told.raised)
        await told.once()
        # Once more: what has failed has left nothing that is in the way.
        await works(client)


# The ends of a connection


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("kind", ["async", "plain", "thread", "middleware"])
async def test_a_client_whose_connect_handler_raises_is_refused(serve, caplog, error, kind):
    app = Symphony()
    told = Told(app, error, caplog)
    route = app.route("/fails")
    for each in (route, app.route("/")):
        each.on("next")(lambda data: data)

    async def enter() -> None:
        told.fail()

    def enter_plainly() -> None:
        told.fail()

    async def around(socket: Socket, call_next: Any) -> None:
        told.fail()

    if kind == "middleware":
        route.middleware("connect")(around)
    elif kind == "async":
        route.on_connect(enter)
    else:
        route.on_connect(thread=kind == "thread")(enter_plainly)

    async with serve(app) as url:
        refusal = await refused(f"{url}/fails")
        assert (refusal.status, refusal.code) == (500, "internal")
        await told.once()
        async with connect(f"{url}/") as client:
            await works(client)


@pytest.mark.parametrize("error", ERRORS)
async def test_a_connect_handler_that_raises_after_it_opened_closes(serve, caplog, error):
    app = Symphony()
    told = Told(app, error, caplog)

    @app.on_connect
    async def enter(socket: Socket) -> None:
        await socket.emit("opened")
        told.fail()

    app.on("next")(lambda data: data)

    async with serve(app) as url, connect(f"{url}/") as client:
        assert (await hear(client))["event"] == "opened"
        assert (await hear(client))["data"]["code"] == "internal"
        assert (await closed(client))[0] == 1011
        await told.once()


@pytest.mark.parametrize("error", ERRORS)
async def test_all_that_ends_a_connection_runs_whatever_raises(serve, caplog, error):
    """Hooks of rooms, the disconnect handler and the socket's dependencies: each raises, each is told."""
    app = Symphony()
    told = Told(app, error, caplog)

    @app.rooms("game:{id}").on_leave
    async def on_leave(socket: Socket, room: Room) -> None:
        told.fail()

    async def dependency() -> AsyncIterator[None]:
        yield
        told.fail()

    @app.on_connect
    async def enter(socket: Socket, _: Annotated[None, Depends(dependency, scope="socket")]) -> None:
        await socket.join("game:1")

    @app.on_disconnect
    async def leave() -> None:
        told.fail()

    app.on("next")(lambda data: data)

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await works(client)
        await until(lambda: told.raised == 3)
        async with connect(f"{url}/") as client:
            await works(client)
            assert len(app.room("game:1").sockets) == 1
        await until(lambda: told.raised == 6)
        await until(lambda: not app.everyone.sockets)
        await told.once()


@pytest.mark.parametrize("error", ERRORS)
async def test_an_error_handler_that_raises_is_logged(serve, caplog, error):
    app = Symphony()

    @app.on_error
    async def on_error(socket: Socket | None, raised: Exception) -> None:
        raise ERRORS[error]()

    @app.on("go")
    def go() -> None:
        raise ValueError("told")

    app.on("next")(lambda data: data)

    async with serve(app) as url, connect(f"{url}/") as client:
        await say(client, event="go", id=1)
        assert (await hear(client))["error"] == 1
        await works(client)
        await until(lambda: [text for text in caplog.messages if text.startswith("The error handler")])


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("stage", ["connect", "message", "disconnect"])
async def test_a_task_that_a_raw_handler_awaits_does_not_end_its_socket(serve, caplog, stage, error):
    """A `GeneratorExit` of an awaited task closed every coroutine of the socket's task."""
    app = Symphony()
    told = Told(app, error, caplog)
    log: Log = Log()

    @app.on_connect
    async def enter() -> None:
        if stage == "connect":
            await awaited(told.fail)

    @app.on_message
    async def handle(message: str) -> str:
        if message == "go" and stage == "message":
            await awaited(told.fail)
        return message

    @app.on_disconnect
    async def leave() -> None:
        log.append("disconnect")
        if stage == "disconnect":
            await awaited(told.fail)

    async with serve(app) as url:
        if stage == "connect":
            assert (await refused(f"{url}/")).code == "internal"
        else:
            async with connect(f"{url}/") as client:
                await client.send("go")
                answer = await client.recv()
                assert answer == "go" if stage == "disconnect" else error_in(answer)["code"] == "internal"
                await client.send("next")
                assert await client.recv() == "next"
        await log.reaches(1)
        await told.once()
    assert log == ["disconnect"]


@pytest.mark.parametrize(
    "error",
    [fastapi.HTTPException(404, "gone"), HTTPException(403), fastapi.WebSocketException(1008)],
    ids=repr,
)
async def test_exceptions_of_other_frameworks_are_logged_with_what_to_raise(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket, fail: bool = False) -> None:
        if fail:
            raise error

    @app.on("say")
    async def say() -> None:
        raise error

    hint = "failed. Raise symphony.Reject instead: HTTPException and WebSocketException are for endpoints"
    async with TestClient(app, raise_errors=False) as test:
        with pytest.raises(HandshakeRefusedError):
            await test.connect("/?fail=1")
        assert caplog.text.count(hint) == 1
        async with test.connect("/") as ann:
            with pytest.raises(RemoteError, match="internal"):
                await ann.request("say")
        assert caplog.text.count(hint) == 2
        test.errors.clear()
