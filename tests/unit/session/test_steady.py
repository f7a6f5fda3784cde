"""A task whose coroutine survives a `GeneratorExit` of what it awaits."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from symphony.session.steady import Steady


class Exit(GeneratorExit):
    """One that can be referred to weakly."""


async def failing(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def deep(error: BaseException) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        await asyncio.create_task(failing(error))

    async for _ in items():
        pass


@pytest.mark.parametrize("error", [GeneratorExit(), Exit("own")])
async def test_the_code_that_awaits_sees_another_error_and_goes_on(error: GeneratorExit):
    async def work() -> str:
        with pytest.raises(RuntimeError, match="raised GeneratorExit") as caught:
            await deep(error)
        assert caught.value.__cause__ is error
        await asyncio.sleep(0)
        return "done"

    assert await asyncio.create_task(Steady(work())) == "done"


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError(), KeyError()])
async def test_every_other_error_passes(error: BaseException):
    async def work() -> str:
        with pytest.raises(type(error)):
            await asyncio.create_task(failing(error))
        return "done"

    assert await asyncio.create_task(Steady(work())) == "done"


async def test_it_can_be_cancelled_and_closed():
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    task = asyncio.create_task(Steady(work()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    steady = Steady(work())
    steady.send(None)
    steady.close()
    assert seen == ["CancelledError", "GeneratorExit"]


async def test_an_error_is_freed_without_the_garbage_collector():
    made: list[weakref.ref[BaseException]] = []

    async def fail() -> None:
        await asyncio.sleep(0)
        # Not in a variable of this frame, which would keep it itself.
        raise noted()

    def noted() -> Exit:
        error = Exit()
        made.append(weakref.ref(error))
        return error

    async def work() -> None:
        with suppress(RuntimeError):
            await asyncio.create_task(fail())

    gc.collect()
    gc.disable()
    try:
        await asyncio.create_task(Steady(work()))
        assert [freed() for freed in made] == [None]
    finally:
        gc.enable()


async def test_a_task_shows_where_it_waits():
    async def work() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(Steady(work()))
    await asyncio.sleep(0)
    assert [frame.f_code.co_name for frame in task.get_stack()] == ["work"]
    task.cancel()
