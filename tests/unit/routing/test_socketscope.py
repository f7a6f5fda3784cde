"""The dependencies of one socket, without a plan. Most tests are in `test_dependencies.py`."""

import asyncio
from contextlib import AsyncExitStack
from contextvars import copy_context

import pytest

from symphony.routing.socketscope import SocketScope
from symphony.socketsession import HomeContext


async def test_concurrent_calls_get_one_value() -> None:
    scope = SocketScope(asyncio.Event, HomeContext(copy_context()))
    made: list[object] = []

    async def create(stack: AsyncExitStack) -> object:
        await asyncio.sleep(0)
        made.append(object())
        return made[-1]

    values = await asyncio.gather(*(scope.provide("key", create) for _ in range(3)))
    assert values == made * 3
    assert len(made) == 1
    await scope.aclose()


async def test_after_it_is_closed_nothing_is_created() -> None:
    scope = SocketScope(asyncio.Event, HomeContext(copy_context()))
    await scope.aclose()

    async def create(stack: AsyncExitStack) -> object:
        raise AssertionError("created")

    with pytest.raises(RuntimeError, match="its dependencies are closed"):
        await scope.provide("key", create)


async def test_closing_waits_for_a_creation_under_way_and_closes_what_it_made() -> None:
    log: list[str] = []
    scope = SocketScope(asyncio.Event, HomeContext(copy_context()))
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def create(stack: AsyncExitStack) -> str:
        entered.set()
        await go_on.wait()
        stack.callback(log.append, "close")
        return "value"

    creating = asyncio.create_task(scope.provide("key", create))
    await entered.wait()
    closing = asyncio.create_task(scope.aclose())
    go_on.set()
    assert await creating == "value"
    await closing
    assert log == ["close"]
