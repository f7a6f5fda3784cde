"""The plain dependencies of a handler in a thread run in its thread; all others on the event loop."""

import asyncio
import contextvars
import gc
import logging
import sqlite3
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Annotated, Any

import pytest

from support.clients import until
from symphony import Depends, Reject, Socket, Symphony
from symphony.errors import RemoteError, RequestTimeoutError
from symphony.testing import TestClient


def database() -> Iterator[sqlite3.Connection]:
    # Its own check, which is on: a connection is used in the thread that made it, and nowhere else.
    connection = sqlite3.connect(":memory:")
    yield connection
    connection.close()


class Log(list[tuple[str, bool]]):
    """What happened, and whether in the event loop's thread."""

    def __init__(self) -> None:
        self.loop = threading.get_ident()

    def note(self, what: str) -> None:
        self.append((what, threading.get_ident() == self.loop))


async def test_sqlite_works_in_a_thread() -> None:
    app = Symphony()

    @app.on("add", thread=True)
    def add(data: list[int], db: Annotated[sqlite3.Connection, Depends(database)]) -> int:
        return int(db.execute("select ? + ?", data).fetchone()[0])

    async with TestClient(app) as test, test.connect("/") as client:
        for number in range(20):
            assert await client.request("add", [number, 1]) == number + 1


async def test_plain_ones_share_the_thread_and_async_ones_stay_on_the_loop_in_order() -> None:
    log = Log()
    threads: set[int] = set()
    tasks: list[Any] = []

    async def config() -> AsyncIterator[str]:
        log.note("config")
        yield "config"
        log.note("config closed")

    def session(config: Annotated[str, Depends(config)]) -> Iterator[str]:
        log.note(f"session of {config}")
        threads.add(threading.get_ident())
        yield "session"
        threads.add(threading.get_ident())
        log.note("session closed")

    async def user(session: Annotated[str, Depends(session)]) -> AsyncIterator[str]:
        log.note(f"user of {session}")
        tasks.append(asyncio.current_task())
        yield "user"
        tasks.append(asyncio.current_task())
        log.note("user closed")

    def rights(user: Annotated[str, Depends(user)]) -> str:
        log.note(f"rights of {user}")
        threads.add(threading.get_ident())
        return "rights"

    app = Symphony()

    @app.on("do", thread=True)
    def do(data: str, rights: Annotated[str, Depends(rights)]) -> str:
        log.note(f"{data} with {rights}")
        threads.add(threading.get_ident())
        return "done"

    async with TestClient(app) as test, test.connect("/") as client:
        assert await client.request("do", "it") == "done"
    assert log == [
        ("config", True),
        ("session of config", False),
        ("user of session", True),
        ("rights of user", False),
        ("it with rights", False),
        ("user closed", True),
        ("session closed", False),
        ("config closed", True),
    ]
    assert len(threads) == 1
    assert tasks[0] is tasks[1]


async def test_a_dependency_of_the_socket_stays_on_the_loop() -> None:
    log = Log()

    def counter() -> Iterator[list[int]]:
        log.note("open")
        yield []
        log.note("closed")

    def session() -> str:
        log.note("session")
        return "session"

    app = Symphony()

    @app.on("count", thread=True)
    def count(
        session: Annotated[str, Depends(session)],
        counter: Annotated[list[int], Depends(counter, scope="socket")],
    ) -> int:
        counter.append(1)
        return len(counter)

    async with TestClient(app) as test, test.connect("/") as client:
        assert [await client.request("count") for _ in range(3)] == [1, 2, 3]
    assert log == [
        ("session", False),
        ("open", True),
        ("session", False),
        ("session", False),
        ("closed", True),
    ]


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_what_a_handler_raises_reaches_its_dependencies_and_its_caller(kind: str) -> None:
    seen: list[str] = []

    def first() -> Iterator[int]:
        try:
            yield 1
        except Reject as error:
            seen.append(f"first: {error.code}")
            raise

    async def second(first: Annotated[int, Depends(first)]) -> AsyncIterator[int]:
        try:
            yield 2
        except Reject as error:
            seen.append(f"second: {error.code}")
            # Not swallowed: the sender would be told that all went well.

    def third() -> Iterator[int]:
        try:
            yield 3
        except Reject as error:
            seen.append(f"third: {error.code}")

    app = Symphony()
    inner: Any = second if kind == "async" else third

    @app.on("do", thread=True)
    def do(first: Annotated[int, Depends(first)], inner: Annotated[int, Depends(inner)]) -> None:
        raise Reject("shop.sold_out", "too late")

    async with TestClient(app) as test, test.connect("/") as client:
        with pytest.raises(RemoteError, match="too late"):
            await client.request("do")
    assert seen == [f"{'second' if kind == 'async' else 'third'}: shop.sold_out", "first: shop.sold_out"]


async def test_what_a_dependency_on_the_loop_raises_unwinds_the_thread() -> None:
    log = Log()

    def session() -> Iterator[int]:
        try:
            yield 1
        finally:
            log.note("closed")

    async def user(session: Annotated[int, Depends(session)]) -> int:
        raise Reject("unauthorized", "who?")

    app = Symphony()

    @app.on("do", thread=True)
    def do(user: Annotated[int, Depends(user)]) -> None:
        log.note("never")

    async with TestClient(app) as test, test.connect("/") as client:
        with pytest.raises(RemoteError, match=r"who\?"):
            await client.request("do")
    assert log == [("closed", False)]


async def test_a_lambda_that_hands_on_a_coroutine_is_awaited_on_the_loop() -> None:
    log = Log()

    async def load() -> str:
        log.note("load")
        return "loaded"

    app = Symphony()

    @app.on("do", thread=True)
    def do(value: Annotated[str, Depends(lambda: load())]) -> str:
        return value

    async with TestClient(app) as test, test.connect("/") as client:
        assert await client.request("do") == "loaded"
    assert log == [("load", True)]


async def test_context_variables_reach_the_thread() -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")

    async def login() -> None:
        who.set("ann")

    def name() -> str:
        return who.get()

    app = Symphony()

    @app.on("do", thread=True)
    def do(login: Annotated[None, Depends(login)], name: Annotated[str, Depends(name)]) -> str:
        return f"{name} {who.get()}"

    async with TestClient(app) as test, test.connect("/") as client:
        assert await client.request("do") == "ann ann"


async def test_a_cancelled_call_closes_the_plain_ones_when_the_handler_ends() -> None:
    """A thread cannot be interrupted: what the handler still uses must not be closed under it."""
    log = Log()
    running, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def session() -> Iterator[int]:
        yield 1
        log.note("closed")
        closed.set()

    app = Symphony()

    @app.on("do", thread=True)
    def do(session: Annotated[int, Depends(session)]) -> None:
        running.set()
        loop.call_soon_threadsafe(started.set)
        go_on.wait(10)
        log.note("done")

    @app.on("ping")
    async def ping(socket: Socket) -> str:
        return "pong"

    async with TestClient(app) as test, test.connect("/") as client:
        call = asyncio.create_task(client.request("do"))
        await started.wait()
        call.cancel()
        assert await client.request("ping") == "pong"
        assert log == []
        go_on.set()
        assert await loop.run_in_executor(None, closed.wait, 10)
    assert log == [("done", False), ("closed", False)]


class Blocked:
    """An app with a handler in a thread that has begun, and ends when the test says so.

    Its dependencies are named by their place: those on the loop and those in the thread.
    """

    def __init__(self, *, error: BaseException | None = None, leaves: str = "") -> None:
        self.log = Log()
        self.app = Symphony()
        self.started, self.closed = asyncio.Event(), asyncio.Event()
        self.go_on = threading.Event()
        loop = asyncio.get_running_loop()
        log = self.log

        def note(what: str, end: BaseException | None) -> None:
            log.note(f"{what} closed" if end is None else f"{what} saw {type(end).__name__}")
            if what == leaves:
                raise OSError("cannot close")

        async def first() -> AsyncIterator[int]:
            try:
                yield 1
            except BaseException as end:
                note("first", end)
                raise
            else:
                await asyncio.sleep(0)
                note("first", None)
            finally:
                loop.call_soon(self.closed.set)

        def second(first: Annotated[int, Depends(first)]) -> Iterator[int]:
            try:
                yield 2
            except BaseException as end:
                note("second", end)
                raise
            note("second", None)

        async def third(second: Annotated[int, Depends(second)]) -> AsyncIterator[int]:
            try:
                yield 3
            except BaseException as end:
                note("third", end)
                raise
            await asyncio.sleep(0)
            note("third", None)

        @contextmanager
        def managed() -> Iterator[int]:
            try:
                yield 4
            finally:
                log.note("fourth closed")

        def fourth(third: Annotated[int, Depends(third)]) -> Iterator[int]:
            with managed() as value:
                yield value

        @self.app.on("do", thread=True)
        def do(fourth: Annotated[int, Depends(fourth)]) -> int:
            loop.call_soon_threadsafe(self.started.set)
            assert self.go_on.wait(10)
            log.note("done")
            if error is not None:
                raise error
            return fourth

        @self.app.on("ping")
        async def ping() -> str:
            return "pong"

    async def finish(self) -> None:
        """Let the handler end, and wait until its dependencies are closed."""
        self.go_on.set()
        await asyncio.wait_for(self.closed.wait(), 10)


async def ended_by(how: str, blocked: Blocked, test: TestClient) -> None:
    """End a call whose handler runs in a thread; return when nothing awaits the thread any more."""
    if how == "disconnect":
        async with test.connect("/") as client:
            call = asyncio.create_task(client.request("do"))
            await blocked.started.wait()
            call.cancel()
        await test.settle()
        return
    async with test.connect("/") as client:
        if how == "cancel":
            call = asyncio.create_task(client.request("do"))
            await blocked.started.wait()
            call.cancel()
        else:
            call = asyncio.create_task(client.request("do", timeout=5))
            await blocked.started.wait()
            await test.clock.advance(6)
            with pytest.raises(RequestTimeoutError):
                await call
        assert await client.request("ping") == "pong"


CLOSED = [
    ("done", False),
    ("fourth closed", False),
    ("third closed", True),
    ("second closed", False),
    ("first closed", True),
]


@pytest.mark.parametrize("how", ["cancel", "timeout", "disconnect"])
async def test_whatever_ends_the_call_all_dependencies_are_closed_when_the_handler_returns(how: str) -> None:
    """Those on the loop were not closed, and the others saw a cancellation of a handler that had returned."""
    blocked = Blocked()
    async with TestClient(blocked.app, raise_errors=False) as test:
        await ended_by(how, blocked, test)
        assert blocked.log == []
        await blocked.finish()
    assert blocked.log == CLOSED


@pytest.mark.parametrize("error", [ValueError("no"), Reject("shop.closed"), StopIteration(1)])
async def test_after_a_cancelled_call_dependencies_see_what_the_handler_raised(
    error: Exception, caplog
) -> None:
    blocked = Blocked(error=error)
    async with TestClient(blocked.app) as test:
        await ended_by("cancel", blocked, test)
        await blocked.finish()
        await until(lambda: "A handler in a thread failed after its call was cancelled." in caplog.text)
    saw = [what for what, _ in blocked.log]
    assert saw[:2] == ["done", "fourth closed"]
    assert [what.split()[0] for what in saw[2:]] == ["third", "second", "first"]
    assert all(" saw " in what and "Cancelled" not in what for what in saw[2:])


@pytest.mark.parametrize("leaves", ["first", "second", "third"])
async def test_an_exit_that_fails_after_a_cancelled_call_is_logged_and_the_others_are_closed(
    leaves: str, caplog
) -> None:
    blocked = Blocked(leaves=leaves)
    async with TestClient(blocked.app) as test:
        await ended_by("cancel", blocked, test)
        await blocked.finish()
        await until(lambda: "OSError: cannot close" in caplog.text)
    assert [what.split()[0] for what, _ in blocked.log] == ["done", "fourth", "third", "second", "first"]


async def test_a_call_that_is_cancelled_between_two_dependencies_opens_no_more_and_closes_what_is_open() -> (
    None
):
    log = Log()
    go_on = threading.Event()
    opening, closed = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def first(value: Annotated[int, Depends(lambda: 1)]) -> AsyncIterator[int]:
        try:
            yield 1
        except BaseException as end:
            log.note(f"first saw {type(end).__name__}")
            loop.call_soon(closed.set)
            raise

    def second(first: Annotated[int, Depends(first)]) -> int:
        loop.call_soon_threadsafe(opening.set)
        assert go_on.wait(10)
        return 2

    async def third(second: Annotated[int, Depends(second)]) -> int:
        log.note("never")
        return 3

    app = Symphony()

    @app.on("do", thread=True)
    def do(third: Annotated[int, Depends(third)]) -> None:
        log.note("never")

    async with TestClient(app) as test, test.connect("/") as client:
        call = asyncio.create_task(client.request("do"))
        await opening.wait()
        call.cancel()
        await test.settle()
        go_on.set()
        await asyncio.wait_for(closed.wait(), 10)
    assert log == [("first saw CancelledError", True)]


async def test_a_call_that_is_cancelled_before_its_thread_begins_closes_what_is_open_at_once() -> None:
    log = Log()
    go_on = threading.Event()
    opened, closed = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(1)
    loop.set_default_executor(executor)
    executor.submit(go_on.wait, 10)

    async def first() -> AsyncIterator[int]:
        opened.set()
        try:
            yield 1
        except asyncio.CancelledError:
            log.note("cancelled")
            raise
        finally:
            closed.set()

    app = Symphony()

    @app.on("do", thread=True)
    def do(first: Annotated[int, Depends(first)]) -> None:
        log.note("never")

    async with TestClient(app) as test, test.connect("/") as client:
        call = asyncio.create_task(client.request("do"))
        await opened.wait()
        await test.settle()
        call.cancel()
        await asyncio.wait_for(closed.wait(), 10)
        go_on.set()
        await loop.run_in_executor(None, lambda: None)
    assert log == [("cancelled", True)]


class Failure(LookupError):
    """One that can be referred to weakly."""


async def test_what_a_thread_raises_is_freed_without_the_garbage_collector(monkeypatch: Any) -> None:
    """Else a socket that has gone waits for its next full round."""

    async def refuse(first: Annotated[int, Depends(lambda: 1)]) -> None:
        raise Failure("no")

    # What is logged is kept by pytest.
    monkeypatch.setattr(logging.getLogger("symphony.app"), "disabled", True)
    app = Symphony()

    @app.on("handler", thread=True)
    def fail(first: Annotated[int, Depends(lambda: 1)]) -> None:
        raise Failure("no")

    @app.on("dependency", thread=True)
    def never(value: Annotated[None, Depends(refuse)]) -> None: ...

    @app.on("coroutine")
    async def forgotten() -> Any:
        return refuse(1)

    for event in ("handler", "dependency", "coroutine"):
        async with TestClient(app, raise_errors=False) as test, test.connect("/") as client:
            gc.collect()
            gc.disable()
            try:
                with pytest.raises(RemoteError, match="internal"):
                    await client.request(event)
                (error,) = test.errors
                freed = weakref.ref(error)
                test.errors.clear()
                del error
                await test.settle()
                assert freed() is None, event
            finally:
                gc.enable()
