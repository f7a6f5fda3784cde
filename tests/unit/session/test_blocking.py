import asyncio
import time

import pytest

from symphony.session.blocking import watched


async def test_a_step_that_holds_the_loop_is_reported_with_its_time():
    async def work():
        await asyncio.sleep(0)
        time.sleep(0.02)  # noqa: ASYNC251
        await asyncio.sleep(0)
        return "done"

    held: list[float] = []
    assert await watched(work(), 0.01, held.append) == "done"
    assert len(held) == 1
    assert held[0] >= 0.02


async def test_waiting_is_not_holding():
    held: list[float] = []
    await watched(asyncio.sleep(0.02), 0.01, held.append)
    assert held == []


async def test_an_exception_passes_through():
    async def work():
        await asyncio.sleep(0)
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        await watched(work(), 1, print)


async def test_a_cancellation_reaches_the_work():
    waiting = asyncio.Event()
    seen: list[str] = []

    async def work():
        try:
            waiting.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def run():
        await watched(work(), 1, print)

    task = asyncio.create_task(run())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]
