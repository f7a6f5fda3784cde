"""What happens in a thread, and to what it asks of the event loop, also after its call was cancelled."""

import asyncio
import gc
import logging
import threading
import weakref
from contextvars import ContextVar
from typing import Any

import pytest

from support.clients import until
from symphony.session import threads
from symphony.session.threads import run_in_thread
from symphony.tasks import start


async def answer(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def test_the_thread_gets_the_answers_of_the_loop_and_the_caller_the_result():
    def work(wait: Any) -> list[Any]:
        return [threading.get_ident(), wait(answer(1)), wait(answer(2), closes=True)]

    thread, *answers = await run_in_thread(work)
    assert thread != threading.get_ident()
    assert answers == [1, 2]


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError(), GeneratorExit()])
async def test_what_the_thread_raises_is_raised(error: BaseException):
    def work(wait: Any) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await run_in_thread(work)
    assert caught.value is error


async def test_a_stop_iteration_is_raised_as_a_coroutine_raises_it():
    with pytest.raises(RuntimeError, match="StopIteration"):
        await run_in_thread(lambda wait: next(iter(())))


class Cancelled:
    """A call that is cancelled while its thread is blocked, and goes on with *rest* afterwards."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def run(self, rest: Any) -> Any:
        loop = asyncio.get_running_loop()
        began = asyncio.Event()

        def work(wait: Any) -> Any:
            loop.call_soon_threadsafe(began.set)
            assert self.go_on.wait(10)
            result: Any = None
            try:
                result = rest(wait)
            except BaseException as error:
                result = type(error)
                raise
            finally:
                loop.call_soon_threadsafe(self.result.set_result, result)

        call = asyncio.create_task(run_in_thread(work))
        await began.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        self.go_on.set()
        return await asyncio.wait_for(self.result, 10)


async def test_after_a_cancellation_the_thread_may_close_and_not_open():
    def rest(wait: Any) -> Any:
        with pytest.raises(asyncio.CancelledError):
            wait(answer(1))
        return wait(answer(2), closes=True)

    assert await Cancelled().run(rest) == 2


async def fail() -> None:
    raise OSError("cannot close")


async def cancelled() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(("closing", "error"), [(fail, OSError), (cancelled, asyncio.CancelledError)])
async def test_after_a_cancellation_the_thread_sees_how_closing_fails(closing: Any, error: Any, caplog):
    assert await Cancelled().run(lambda wait: wait(closing(), closes=True)) is error
    if error is OSError:
        await until(lambda: "OSError: cannot close" in caplog.text)
    else:
        # A cancellation was wanted.
        assert not caplog.records


async def test_a_thread_is_answered_if_closing_is_cancelled_before_its_first_step(monkeypatch):
    """It waited for ever, and with it the end of the process."""
    call = Cancelled()

    def rest(wait: Any) -> Any:
        return wait(answer(1), closes=True)

    def cancelled(*all: Any) -> asyncio.Task[Any]:
        task = start(*all)
        task.cancel()
        return task

    before = asyncio.all_tasks()
    monkeypatch.setattr(threads, "start", cancelled)
    assert await call.run(rest) is asyncio.CancelledError
    assert asyncio.all_tasks() == before


async def test_what_is_closed_late_runs_with_the_context_variables_of_the_call():
    who: ContextVar[str] = ContextVar("who")

    async def call() -> Any:
        who.set("ann")
        return await Cancelled().run(lambda wait: wait(read(), closes=True))

    async def read() -> str:
        return who.get()

    assert await asyncio.create_task(call()) == "ann"


class Failure(LookupError):
    """One that can be referred to weakly."""


@pytest.mark.parametrize("late", [False, True])
async def test_an_error_is_freed_without_the_garbage_collector(late: bool, monkeypatch):
    # What is logged is kept by pytest.
    monkeypatch.setattr(logging.getLogger("symphony.app"), "disabled", True)
    freed: list[Any] = []

    def work(wait: Any) -> None:
        error = Failure()
        freed.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    gc.collect()
    gc.disable()
    try:
        if late:
            await Cancelled().run(work)
            await until(lambda: freed[0]() is None)
        else:
            with pytest.raises(Failure):
                await run_in_thread(work)
        assert freed[0]() is None
    finally:
        gc.enable()
