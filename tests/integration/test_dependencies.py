"""`Depends`: what is made, how often, for how long, and in which order it is closed."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from typing import Annotated, Any

import pytest

from support.clients import Log, connect, error_in, refused, until
from symphony import Depends, Limits, Reject, Room, Socket, Symphony


class Session:
    def __init__(self, log: Log, name: str) -> None:
        self.log = log
        self.name = name

    async def __call__(self) -> AsyncIterator[str]:
        self.log.append(f"open {self.name}")
        try:
            yield self.name
        except BaseException as error:
            self.log.append(f"{self.name} sees {type(error).__name__}")
            raise
        finally:
            self.log.append(f"close {self.name}")


async def test_functions_classes_and_generators_of_both_kinds_are_dependencies(serve):
    def plain() -> str:
        return "plain"

    async def awaited() -> str:
        await asyncio.sleep(0)
        return "awaited"

    def generator() -> Iterator[str]:
        yield "generator"

    async def async_generator() -> AsyncIterator[str]:
        yield "async generator"

    class Made:
        def __init__(self, q: str) -> None:
            self.q = q

    app = Symphony()

    @app.on_message
    async def handle(
        message: str,
        a: Annotated[str, Depends(plain)],
        b: Annotated[str, Depends(awaited)],
        c: Annotated[str, Depends(generator)],
        d: Annotated[str, Depends(async_generator)],
        e: Annotated[Made, Depends(Made)],
        f: Annotated[int, Depends(lambda: 7)],
    ) -> list:
        return [message, a, b, c, d, e.q, f]

    async with serve(app) as url, connect(f"{url}/?q=query") as client:
        await client.send("x")
        assert json.loads(await client.recv()) == [
            "x",
            "plain",
            "awaited",
            "generator",
            "async generator",
            "query",
            7,
        ]


async def test_dependencies_nest_and_close_in_reverse_order_after_the_call(serve):
    log = Log()
    outer = Session(log, "pool")

    async def inner(pool: Annotated[str, Depends(outer)], socket: Socket) -> AsyncIterator[str]:
        log.append("open session")
        yield f"session of {pool}"
        log.append("close session")

    app = Symphony()

    @app.on_message
    async def handle(message: str, db: Annotated[str, Depends(inner)], pool: Annotated[str, Depends(outer)]):
        log.append(f"handle {message} with {db}")
        await asyncio.sleep(0)
        return pool

    async with serve(app) as url, connect(f"{url}/") as client:
        for message in "ab":
            await client.send(message)
            assert await client.recv() == "pool"
    once = ["open pool", "open session", None, "close session", "close pool"]
    expected = [entry or f"handle {message} with session of pool" for message in "ab" for entry in once]
    assert log == expected


async def test_one_call_makes_a_dependency_once(serve):
    made = Log()

    def number() -> int:
        made.append(1)
        return len(made)

    def double(number: Annotated[int, Depends(number)]) -> int:
        return number * 2

    app = Symphony()

    @app.on_message
    async def handle(
        message: str, a: Annotated[int, Depends(number)], b: Annotated[int, Depends(double)]
    ) -> list:
        return [a, b]

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert await client.recv() == "[1,2]"
        await client.send("x")
        assert await client.recv() == "[2,4]"


async def test_a_socket_dependency_is_made_once_and_closed_after_the_disconnect_handler(serve):
    log = Log()
    session = Session(log, "session")
    DB = Annotated[str, Depends(session, scope="socket")]
    app = Symphony()

    @app.on_connect
    async def enter(db: DB) -> None:
        log.append("connect")

    @app.on_message
    async def handle(message: str, db: DB) -> str:
        return db

    @app.on_disconnect
    async def leave(db: DB) -> None:
        log.append("disconnect")

    async with serve(app) as url:
        async with connect(f"{url}/") as one, connect(f"{url}/") as two:
            for client in (one, one, two):
                await client.send("x")
                assert await client.recv() == "session"
            assert log == ["open session", "connect"] * 2
        await until(lambda: app.stats.closed == 2)
    assert log[4:].count("disconnect") == 2
    assert log[4:].count("close session") == 2
    assert log[4] == "disconnect"
    assert log[-1] == "close session"


async def test_a_socket_dependency_of_a_refused_socket_is_closed(serve):
    log = Log()
    app = Symphony()

    @app.on_connect
    async def enter(db: Annotated[str, Depends(Session(log, "session"), scope="socket")]) -> None:
        raise Reject("forbidden")

    async with serve(app) as url:
        assert (await refused(f"{url}/")).status == 403
        await log.reaches(2)
    assert log == ["open session", "close session"]


@pytest.mark.parametrize("error", [RuntimeError, Reject])
async def test_dependencies_see_what_the_handler_raised_and_are_closed(serve, error):
    log = Log()
    app = Symphony()

    @app.on_message
    async def fail(message: str, db: Annotated[str, Depends(Session(log, "session"))]) -> None:
        await asyncio.sleep(0)
        raise Reject("conflict") if error is Reject else error

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert error_in(await client.recv())["code"] == ("conflict" if error is Reject else "internal")
    assert log == ["open session", f"session sees {error.__name__}", "close session"]


async def test_dependencies_of_a_cancelled_handler_are_closed(serve):
    log = Log()
    app = Symphony(limits=Limits(finish_timeout=0.05))

    @app.on_message
    async def wait(message: str, db: Annotated[str, Depends(Session(log, "session"))]) -> None:
        await asyncio.Event().wait()

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.send("x")
            await log.reaches(1)
        await log.reaches(3)
    assert log == ["open session", "session sees CancelledError", "close session"]


async def test_dependencies_of_a_connect_handler_are_closed_when_the_client_goes(serve):
    log = Log()
    app = Symphony()

    @app.on_connect
    async def enter(db: Annotated[str, Depends(Session(log, "session"))]) -> None:
        await asyncio.Event().wait()

    async with serve(app) as url:
        opening = asyncio.ensure_future(connect(f"{url}/").__aenter__())
        await log.reaches(1)
        opening.cancel()
        await log.reaches(3)
        with suppress(asyncio.CancelledError):
            await opening
    assert log == ["open session", "session sees CancelledError", "close session"]


async def test_dependencies_of_a_stream_live_until_its_end(serve):
    log = Log()
    app = Symphony()

    @app.on_message
    async def count(message: str, db: Annotated[str, Depends(Session(log, "session"))]) -> AsyncIterator[str]:
        for number in range(2):
            log.append(number)
            await asyncio.sleep(0)
            yield f"{db} {number}"

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert [await client.recv(), await client.recv()] == ["session 0", "session 1"]
        await log.reaches(4)
    assert log == ["open session", 0, 1, "close session"]


async def test_a_dependency_that_fails_is_the_handlers_failure_and_those_before_it_are_closed(serve):
    log = Log()

    async def broken(first: Annotated[str, Depends(Session(log, "first"))]) -> None:
        raise RuntimeError("no database")

    app = Symphony()

    @app.on_message
    async def handle(message: str, db: Annotated[Any, Depends(broken)]) -> None:
        log.append("called")

    @app.on_error
    def on_error(error: Exception) -> None:
        log.append(str(error))

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert error_in(await client.recv())["code"] == "internal"
        await log.reaches(4)
    assert log == ["open first", "first sees RuntimeError", "close first", "no database"]


async def test_a_dependency_may_refuse(serve):
    def token(token: str = "") -> str:
        if token != "secret":
            raise Reject("unauthorized", "a token, please")
        return token

    app = Symphony()

    @app.on_connect
    async def enter(socket: Socket, token: Annotated[str, Depends(token)]) -> None:
        await socket.send(token)

    async with serve(app) as url:
        refusal = await refused(f"{url}/")
        assert (refusal.status, refusal.message) == (401, "a token, please")
        async with connect(f"{url}/?token=secret") as client:
            assert await client.recv() == "secret"


async def test_overrides_replace_a_dependency_wherever_it_is_used(serve):
    def session() -> str:
        raise AssertionError("the real database")

    def repository(session: Annotated[str, Depends(session)]) -> str:
        return f"repository of {session}"

    async def fake() -> AsyncIterator[str]:
        yield "fake"

    app = Symphony()
    app.overrides[session] = fake

    @app.on_message
    async def handle(
        message: str, a: Annotated[str, Depends(session)], b: Annotated[str, Depends(repository)]
    ) -> list:
        return [a, b]

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        assert json.loads(await client.recv()) == ["fake", "repository of fake"]


async def test_dependencies_take_path_parameters_and_the_query(serve):
    def page(room: str, number: int = 1) -> str:
        return f"{room}/{number}"

    app = Symphony()

    @app.route("/chat/{room}").on_message
    async def handle(message: str, page: Annotated[str, Depends(page)]) -> str:
        return page

    async with serve(app) as url:
        async with connect(f"{url}/chat/a?number=3") as client:
            await client.send("x")
            assert await client.recv() == "a/3"
        async with connect(f"{url}/chat/a?number=x") as client:
            await client.send("x")
            assert error_in(await client.recv())["message"] == (
                "query parameter 'number' must be an integer, not 'x'"
            )


async def test_plain_handlers_and_handlers_in_threads_have_dependencies_too(serve):
    log = Log()
    app = Symphony()

    @app.route("/plain").on_message
    def plain(message: str, db: Annotated[str, Depends(Session(log, "a"))]) -> str:
        return db

    @app.route("/thread").on_message(thread=True)
    def thread(message: str, db: Annotated[str, Depends(Session(log, "b"))]) -> str:
        return db

    async with serve(app) as url, connect(f"{url}/plain") as one, connect(f"{url}/thread") as two:
        for client, name in ((one, "a"), (two, "b")):
            await client.send("x")
            assert await client.recv() == name
    assert log == ["open a", "close a", "open b", "close b"]


async def test_room_hooks_and_the_error_handler_have_dependencies(serve):
    log = Log()
    DB = Annotated[str, Depends(Session(log, "session"))]
    app = Symphony()

    @app.rooms("chat:{name}").on_join
    async def joined(socket: Socket, room: Room, name: str, db: DB) -> None:
        log.append(f"{name} joined")

    @app.on_message
    async def handle(socket: Socket, message: str) -> None:
        await socket.join("chat:a")
        raise RuntimeError

    @app.on_error
    async def on_error(error: Exception, db: DB) -> None:
        log.append("on_error")

    async with serve(app) as url, connect(f"{url}/") as client:
        await client.send("x")
        await log.reaches(6)
    assert log == ["open session", "a joined", "close session", "open session", "on_error", "close session"]


@pytest.mark.parametrize("count", [1, 20])
async def test_a_stopping_app_waits_for_the_clean_up_of_socket_dependencies(serve, count: int):
    """The shutdown handlers ran meanwhile, so that a clean-up found its database closed."""
    app = Symphony()
    log = Log()
    entered = asyncio.Event()

    async def unit(socket: Socket):
        yield socket.id
        entered.set()
        for _ in range(50):
            await asyncio.sleep(0)
        log.append("cleaned up")

    @app.on_message
    async def use(message: str, unit: Annotated[str, Depends(unit, scope="socket")]) -> str:
        return message

    @app.on_shutdown
    async def close_database() -> None:
        log.append("shutdown")

    async with serve(app) as url, AsyncExitStack() as stack:
        for _ in range(count):
            client = await stack.enter_async_context(connect(f"{url}/"))
            await client.send("x")
            assert await client.recv() == "x"
        await stack.aclose()
        await entered.wait()
    assert log == ["cleaned up"] * count + ["shutdown"]


@pytest.mark.parametrize("how", ["sleeps", "waits for nothing", "fails after it was cancelled"])
async def test_a_clean_up_of_a_socket_dependency_that_does_not_end_is_cancelled(serve, how: str):
    app = Symphony(limits=Limits(finish_timeout=0.05))
    log = Log()

    async def unit():
        try:
            yield "unit"
        finally:
            try:
                await (asyncio.sleep(1000) if how == "sleeps" else asyncio.Event().wait())
            except asyncio.CancelledError:
                log.append("cancelled")
                if how.startswith("fails"):
                    raise RuntimeError("the clean-up failed") from None
                raise

    @app.on_message
    async def use(message: str, unit: Annotated[str, Depends(unit, scope="socket")]) -> str:
        return message

    @app.on_error
    async def failed(socket: Socket | None, error: Exception) -> None:
        log.append(type(error).__name__)

    async with serve(app) as url:
        async with connect(f"{url}/") as client:
            await client.send("x")
            assert await client.recv() == "x"
        await log.reaches(2)
        await until(lambda: not app._core.node._sessions)
    assert log == ["cancelled", "RuntimeError" if how.startswith("fails") else "TimeoutError"]
