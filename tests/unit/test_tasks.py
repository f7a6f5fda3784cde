"""Tasks begin in a later turn of the loop, whatever its task factory does."""

import asyncio
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from symphony.tasks import start

NAME: ContextVar[str] = ContextVar("NAME", default="none")


def refuse(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> Any:
    raise AssertionError(f"{work} was started with the factory of the loop")


@pytest.mark.parametrize("factory", [None, refuse, getattr(asyncio, "eager_task_factory", refuse)])
async def test_the_first_step_runs_in_a_later_turn(factory: Any) -> None:
    began: list[str] = []

    async def work() -> str:
        began.append(NAME.get())
        return "done"

    context = copy_context()
    context.run(NAME.set, "Ada")
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(factory)
    try:
        tasks = [start(work(), context), start(work())]
        assert began == []
        assert [await task for task in tasks] == ["done", "done"]
    finally:
        loop.set_task_factory(before)
    assert began == ["Ada", "none"]
