"""A handler in a thread may return a stream; its dependencies stay open until that has ended."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest

from support.clients import until
from symphony import Depends, Limits, Symphony
from symphony.errors import RemoteError
from symphony.testing import TestClient


class Log(list[tuple[str, bool]]):
    """What happened, and whether in the event loop's thread."""

    def __init__(self) -> None:
        self.loop = threading.get_ident()

    def note(self, what: str) -> None:
        self.append((what, threading.get_ident() == self.loop))

    @property
    def words(self) -> list[str]:
        return [what for what, _ in self]


class Streaming:
    """An app whose handler in a thread returns a stream, with dependencies of each kind."""

    def __init__(self, kind: str, *, error: BaseException | None = None, **limits: Any) -> None:
        self.log = log = Log()
        self.app = Symphony(limits=Limits(**limits))
        self.waits = asyncio.Event()

        async def on_loop() -> AsyncIterator[str]:
            try:
                yield "a"
            except BaseException as end:
                log.note(f"loop saw {type(end).__name__}")
                raise
            finally:
                log.note("loop closed")

        def in_thread() -> Iterator[sqlite3.Connection]:
            # It must be closed in the thread that made it.
            connection = sqlite3.connect(":memory:")
            try:
                yield connection
            finally:
                connection.close()
                log.note("thread closed")

        def later(first: Annotated[Any, Depends(in_thread)]) -> Any:
            return first

        async def later_on_loop(first: Annotated[Any, Depends(later)]) -> AsyncIterator[str]:
            try:
                yield "b"
            finally:
                log.note("later closed")

        dependency = {
            "none": None,
            "on the loop": Depends(on_loop),
            "in the thread": Depends(in_thread),
            "both": Depends(later_on_loop),
        }[kind]

        async def items() -> AsyncIterator[int]:
            try:
                for number in range(3):
                    yield number
                    log.note(f"sent {number}")
                if error is not None:
                    raise error
                if kind == "none" or self.waits.is_set():
                    return
                self.waits.set()
                await asyncio.Event().wait()
            finally:
                log.note("stream closed")

        self.finish = self.waits.set

        def bare() -> AsyncIterator[int]:
            return items()

        def handler(first: Any) -> AsyncIterator[int]:
            return items()

        handler.__annotations__["first"] = Annotated[Any, dependency]
        self.app.on("count", thread=True)(bare if dependency is None else handler)
        self.app.on("ping")(lambda: "pong")


CLOSED = {
    "none": [("stream closed", True)],
    "on the loop": [("stream closed", True), ("loop closed", True)],
    "in the thread": [("stream closed", True), ("thread closed", False)],
    "both": [("stream closed", True), ("later closed", True), ("thread closed", False)],
}
each_kind = pytest.mark.parametrize("kind", CLOSED)
SENT = [("sent 0", True), ("sent 1", True), ("sent 2", True)]


@each_kind
async def test_dependencies_of_a_handler_in_a_thread_stay_open_until_its_stream_has_ended(kind: str) -> None:
    """They were closed before the first item was sent."""
    streaming = Streaming(kind)
    streaming.finish()
    async with TestClient(streaming.app) as test, test.connect("/") as client:
        assert [item async for item in client.stream("count")] == [0, 1, 2]
    assert streaming.log == SENT + CLOSED[kind]


@pytest.mark.parametrize("how", ["cancel", "disconnect", "stop"])
@pytest.mark.parametrize("kind", ["on the loop", "in the thread"])
async def test_dependencies_are_closed_when_the_stream_is_cut_short(kind: str, how: str) -> None:
    streaming = Streaming(kind, finish_timeout=0.05)
    closed = CLOSED[kind][-1]
    async with TestClient(streaming.app) as test:
        client = await test.connect("/")
        stream = client.stream("count")
        assert [await anext(stream) for _ in range(3)] == [0, 1, 2]
        await streaming.waits.wait()
        assert closed not in streaming.log
        if how == "cancel":
            await stream.aclose()
            await until(lambda: closed in streaming.log)
            assert await client.request("ping") == "pong"
        elif how == "disconnect":
            await client.drop()
    expected = [("stream closed", True), closed]
    assert [entry for entry in streaming.log[3:] if "saw" not in entry[0]] == expected


@pytest.mark.parametrize(
    "error", [ValueError("no"), StopAsyncIteration(), asyncio.CancelledError(), GeneratorExit()]
)
@pytest.mark.parametrize("kind", CLOSED)
async def test_dependencies_see_what_ended_the_stream(kind: str, error: BaseException) -> None:
    streaming = Streaming(kind, error=error)
    async with TestClient(streaming.app, raise_errors=False) as test, test.connect("/") as client:
        with pytest.raises(RemoteError, match="failed"):
            async for _ in client.stream("count"):
                pass
        assert await client.request("ping") == "pong"
        # A cancellation is logged, and is no error.
        assert len(test.errors) == (not isinstance(error, asyncio.CancelledError))
    assert "stream closed" in streaming.log.words
    if kind == "on the loop":
        seen = "RuntimeError" if isinstance(error, StopAsyncIteration) else type(error).__name__
        assert f"loop saw {seen}" in streaming.log.words
    if kind == "in the thread":
        assert streaming.log[-1] == ("thread closed", False)


@each_kind
async def test_dependencies_are_closed_if_the_stream_may_not_begin(kind: str) -> None:
    """The answer to an event that is not a request cannot be a stream."""
    streaming = Streaming(kind)
    async with TestClient(streaming.app) as test, test.connect("/") as client:
        await client.emit("count")
        assert await client.request("ping") == "pong"
        assert [word for word in streaming.log.words if word.endswith("closed")] == [
            word for word, _ in CLOSED[kind] if word != "stream closed"
        ]


async def test_a_call_that_was_cancelled_hands_over_no_stream() -> None:
    log = Log()
    started, closed = asyncio.Event(), asyncio.Event()
    go_on = threading.Event()
    loop = asyncio.get_running_loop()
    app = Symphony()

    async def on_loop() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            log.note("loop closed")
            closed.set()

    def in_thread(first: Annotated[int, Depends(on_loop)]) -> Iterator[int]:
        try:
            yield 2
        finally:
            log.note("thread closed")

    async def items() -> AsyncIterator[int]:
        yield 1

    @app.on("one", thread=True)
    def one(first: Annotated[int, Depends(on_loop)]) -> AsyncIterator[int]:
        loop.call_soon_threadsafe(started.set)
        assert go_on.wait(10)
        return items()

    @app.on("two", thread=True)
    def two(second: Annotated[int, Depends(in_thread)]) -> AsyncIterator[int]:
        loop.call_soon_threadsafe(started.set)
        assert go_on.wait(10)
        return items()

    async with TestClient(app, raise_errors=False) as test:
        for event in ("one", "two"):
            started.clear(), closed.clear(), go_on.clear()
            async with test.connect("/") as client:
                call = asyncio.create_task(client.request(event))
                await started.wait()
                call.cancel()
            await test.settle()
            go_on.set()
            await closed.wait()
    assert log == [("loop closed", True), ("thread closed", False), ("loop closed", True)]


async def test_a_raw_route_streams_from_a_thread_too() -> None:
    log = Log()
    app = Symphony()

    def database() -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(":memory:")
        yield connection
        connection.close()
        log.note("closed")

    async def items(message: str) -> AsyncIterator[str]:
        for letter in message:
            yield letter
            log.note(letter)

    @app.on_message(thread=True)
    def spell(message: str, db: Annotated[sqlite3.Connection, Depends(database)]) -> AsyncIterator[str]:
        return items(message)

    async with TestClient(app) as test, test.connect("/") as client:
        await client.send("ab")
        assert [await client.receive_text() for _ in range(2)] == ["a", "b"]
        await until(lambda: len(log) == 3)
    assert log == [("a", True), ("b", True), ("closed", False)]


async def test_a_plain_generator_is_refused_and_its_dependencies_are_closed() -> None:
    log = Log()
    app = Symphony()

    def database() -> Iterator[int]:
        yield 1
        log.note("closed")

    @app.on("count", thread=True)
    def count(db: Annotated[int, Depends(database)]) -> Iterator[int]:
        return iter(number for number in range(3))

    async with TestClient(app, raise_errors=False) as test, test.connect("/") as client:
        with pytest.raises(RemoteError, match="failed"):
            await client.request("count")
        assert "yield its items from an async generator" in str(test.errors[0])
    assert log == [("closed", False)]
