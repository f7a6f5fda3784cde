"""A dependency of `scope="socket"` lives in the context of its socket, wherever it is first used."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Annotated, Any

import pytest

from support.clients import until
from symphony import Depends, Socket, Symphony
from symphony.testing import TestClient

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


def plain() -> Iterator[str]:
    token = tenant.set("ann")
    yield "opened"
    tenant.reset(token)


async def awaiting() -> AsyncIterator[str]:
    await asyncio.sleep(0)
    token = tenant.set("ann")
    yield "opened"
    tenant.reset(token)


async def nested(_: Annotated[str, Depends(awaiting, scope="socket")]) -> AsyncIterator[str]:
    assert tenant.get() == "ann"
    token = tenant.set("ann")
    yield "opened"
    tenant.reset(token)


@pytest.mark.parametrize("opened", [plain, awaiting, nested])
@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("first", ["connect", "middleware", "event", "stream", "thread", "disconnect"])
async def test_what_it_sets_is_seen_everywhere_and_reset_in_the_same_context(
    first: str, concurrency: int, opened: Any
) -> None:
    """It was opened in a copy of the context: nothing else saw the variable, and `reset` failed."""
    app = Symphony()
    route = app.route("/", concurrency=concurrency)
    Opened = Annotated[str, Depends(opened, scope="socket")]
    seen: list[str] = []

    if first == "connect":

        @route.on_connect
        async def connected(_: Opened) -> None:
            seen.append(tenant.get())

    if first == "middleware":

        @route.middleware("message")
        async def around(socket: Socket, message: Any, call_next: Any, _: Opened) -> Any:
            seen.append(tenant.get())
            return await call_next(socket, message)

    @route.on("event")
    async def event(_: Opened) -> str:
        return tenant.get()

    @route.on("stream")
    async def stream(_: Opened) -> AsyncIterator[str]:
        yield tenant.get()

    @route.on("thread", thread=True)
    def thread(_: Opened) -> str:
        return tenant.get()

    @route.on("bare")
    async def bare() -> str:
        return tenant.get()

    @route.on_disconnect
    async def gone(_: Opened) -> None:
        seen.append(tenant.get())

    async with TestClient(app) as test, test.connect("/") as client:
        if first in ("event", "thread"):
            seen.append(await client.request(first))
        elif first == "stream":
            seen.extend([item async for item in client.stream("stream")])
        if first != "disconnect":
            seen.append(await client.request("event"))
            seen.extend([item async for item in client.stream("stream")])
            seen.append(await client.request("thread"))
            seen.append(await client.request("bare"))
    assert set(seen) == {"ann"}
    assert tenant.get() == "nobody"


async def test_a_creation_in_a_stream_that_is_cancelled_is_made_again() -> None:
    app = Symphony()
    begun: list[int] = []
    go_on = asyncio.Event()

    async def opened() -> str:
        begun.append(1)
        if len(begun) == 1:
            await asyncio.Event().wait()
        tenant.set("ann")
        return "opened"

    @app.on("stream")
    async def stream(_: Annotated[str, Depends(opened, scope="socket")]) -> AsyncIterator[str]:
        yield tenant.get()

    async with TestClient(app) as test, test.connect("/") as client:
        waiting = asyncio.ensure_future(anext(client.stream("stream")))
        await until(lambda: begun == [1])
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert [item async for item in client.stream("stream")] == ["ann"]
    go_on.set()


def a_plain_one() -> Iterator[str]:
    yield "plain"


async def of_the_call(_: Annotated[str, Depends(a_plain_one)]) -> AsyncIterator[str]:
    token = tenant.set("ann")
    yield "opened"
    tenant.reset(token)


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize(("scope", "returns"), [("socket", "value"), ("socket", "stream"), ("call", "value")])
async def test_a_thread_sees_what_is_set_on_the_loop_after_the_thread_began(
    returns: str, scope: Any, concurrency: int
) -> None:
    """The thread copied the context when it began: what a later dependency set was missing."""
    app = Symphony()
    route = app.route("/", concurrency=concurrency)
    opened = awaiting if scope == "socket" else of_the_call
    seen: list[str] = []

    async def items() -> AsyncIterator[str]:
        yield tenant.get()

    def work(
        first: Annotated[str, Depends(a_plain_one)], then: Annotated[str, Depends(opened, scope=scope)]
    ) -> Any:
        seen.append(tenant.get())
        return items() if returns == "stream" else "done"

    route.on("work", thread=True)(work)
    route.on("bare")(lambda: tenant.get())
    async with TestClient(app) as test, test.connect("/") as client:
        for _ in range(2):
            if returns == "stream":
                assert [item async for item in client.stream("work")] == ["ann"]
            else:
                await client.request("work")
        # Only the socket's own is for its other handlers.
        assert await client.request("bare") == ("ann" if scope == "socket" else "nobody")
    assert seen == ["ann", "ann"]
