from __future__ import annotations

import asyncio
import gc
import inspect
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar, copy_context
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from support.lanes import Bench
from symphony.session.contracts import LaneReports
from symphony.session.lane import Lane
from symphony.session.waiting import Waiting
from symphony.websocket.queued import Queued

Begin = Callable[..., Awaitable[Bench]]


@pytest.fixture
async def begin() -> AsyncIterator[Begin]:
    """Begin a lane, asleep; at the end nothing of it may be left or complain."""
    benches: list[Bench] = []

    async def begin(handler: Callable[[Any], Any], **options: Any) -> Bench:
        bench = Bench(handler, **options)
        benches.append(bench)
        await bench.turn(1)
        return bench

    yield begin
    for bench in benches:
        if not bench.task.done():
            await bench.end()
    gc.collect(1)  # What a test has made is young.
    assert [bench.complaints for bench in benches if bench.complaints] == []


class Gate:
    """Handlers wait at it, by the name of their message."""

    def __init__(self) -> None:
        self.waiting: dict[Any, asyncio.Future[Any]] = {}

    async def wait(self, name: Any) -> Any:
        self.waiting[name] = future = asyncio.get_running_loop().create_future()
        return await future

    def open(self, name: Any, value: Any = None) -> None:
        self.waiting.pop(name).set_result(value)


async def echo(message: Any) -> Any:
    return message


async def echo_a_turn_later(message: Any) -> Any:
    await asyncio.sleep(0)
    return message


# The first step


async def test_a_handler_that_finishes_in_its_first_step_has_finished_when_deliver_returns(
    begin: Begin,
) -> None:
    bench = await begin(echo)
    assert await bench.receive(1, 2, 3) == [1, 2, 3]


async def test_a_handler_that_gives_nothing_is_done_without_a_word(begin: Begin) -> None:
    handled = []

    async def handler(message: int) -> None:
        handled.append(message)

    bench = await begin(handler)
    assert await bench.receive(1, 2) == []
    assert handled == [1, 2]


class Large:
    """A message, or a result, of which one can see when it is freed."""


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("how", ["plain", "async", "suspends", "fails"])
async def test_an_idle_lane_keeps_neither_the_last_message_nor_its_result(
    begin: Begin, how: str, inline: bool
) -> None:
    """Each idle connection kept its last message in memory: 1 MiB if it was large."""
    refs: list[weakref.ref[Any]] = []

    def plain(message: Any) -> Large:
        refs.extend((weakref.ref(message), weakref.ref(result := Large())))
        return result

    async def handle(message: Any) -> Large:
        if how == "suspends":
            await asyncio.sleep(0)
        result = plain(message)
        if how == "fails":
            raise ValueError
        return result

    bench = await begin(
        plain if how == "plain" else handle,
        is_async=how != "plain",
        done=lambda result: None,
        failed=lambda error: None,
    )
    if inline:
        await bench.receive(Large())
    else:
        bench.lane.deliver(Large())
    await bench.turn(5)
    assert len(refs) == 2
    assert [ref() for ref in refs] == [None, None]


async def test_falsy_results_are_results(begin: Begin) -> None:
    bench = await begin(echo)
    assert await bench.receive("", 0, False, None, b"") == ["", 0, False, b""]


async def test_messages_from_before_the_lane_serves_are_handled_in_order(begin: Begin) -> None:
    bench = Bench(echo)
    bench.lane.deliver(1)
    bench.lane.deliver(2)
    assert bench.results == []
    await bench.turn()
    assert await bench.receive(3) == [1, 2, 3]
    await bench.end()


async def test_a_message_that_comes_while_another_task_is_current_waits_for_the_lanes_own(
    begin: Begin,
) -> None:
    tasks = []

    async def handler(message: int) -> int:
        tasks.append(asyncio.current_task())
        return message

    bench = await begin(handler)
    ours = asyncio.current_task()
    bench.lane.deliver(1)
    bench.lane.deliver(2)
    assert asyncio.current_task() is ours
    assert bench.results == []
    await bench.turn()
    assert bench.results == [1, 2]
    assert tasks == [bench.task, bench.task]
    assert await bench.receive(3) == [1, 2, 3]


async def test_a_message_that_a_handler_brings_about_waits_until_it_has_finished(begin: Begin) -> None:
    log = []

    async def handler(message: int) -> None:
        log.append(("begin", message))
        if message in (1, 2):
            bench.lane.deliver(message + 10)
        if message == 2:
            await asyncio.sleep(0)
        log.append(("end", message))

    bench = await begin(handler)
    await bench.receive(1, 2, 3)
    await bench.end()
    assert log == [(part, message) for message in (1, 11, 2, 3, 12) for part in ("begin", "end")]


# Handlers that suspend


async def test_later_messages_queue_behind_a_handler_that_suspends(begin: Begin) -> None:
    gate = Gate()
    log = []

    async def handler(message: int) -> int:
        log.append(message)
        if message % 2:
            await gate.wait(message)
        return message

    bench = await begin(handler)
    assert await bench.receive(1, 2, 3, 4) == []
    await bench.turn()
    assert log == [1]
    gate.open(1)
    await bench.turn(5)
    assert log == [1, 2, 3]
    assert bench.results == [1, 2]
    gate.open(3)
    await bench.turn(5)
    assert bench.results == [1, 2, 3, 4]


async def test_the_lane_is_idle_again_when_a_suspended_handler_has_finished(begin: Begin) -> None:
    bench = await begin(echo_a_turn_later)
    for message in range(3):
        assert message not in await bench.receive(message)
        await bench.turn()
        assert bench.results[-1] == message


async def test_every_step_of_a_handler_runs_in_one_task(begin: Begin) -> None:
    tasks = []

    async def handler(message: str) -> None:
        for _ in range(3):
            tasks.append(asyncio.current_task())
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        tasks.append(asyncio.current_task())

    bench = await begin(handler)
    await bench.receive("inline")
    await bench.receive("queued")
    await bench.end()
    assert tasks == [bench.task] * 8


async def test_a_context_variable_that_one_message_sets_is_seen_by_the_next(begin: Begin) -> None:
    variable: ContextVar[list[str]] = ContextVar("variable")
    seen = []

    async def handler(message: str) -> None:
        seen.append(list(variable.get([])))
        variable.set([*variable.get([]), message])
        if "suspends" in message:
            await asyncio.sleep(0)
            variable.set([*variable.get([]), "after"])

    bench = await begin(handler)
    await bench.receive("inline", "suspends", "queued")
    await bench.turn(5)
    await bench.receive("inline again")
    assert seen == [
        [],
        ["inline"],
        ["inline", "suspends", "after"],
        ["inline", "suspends", "after", "queued"],
    ]
    assert variable.get("nothing") == "nothing"


async def test_the_value_and_the_error_of_what_is_awaited_reach_the_handler(begin: Begin) -> None:
    gate = Gate()

    async def handler(message: str) -> Any:
        try:
            return await gate.wait(message)
        except LookupError as error:
            return f"caught {error.args[0]}"

    bench = await begin(handler)
    await bench.receive("a", "b")
    gate.open("a", "value")
    await bench.turn()
    gate.waiting["b"].set_exception(LookupError("it"))
    await bench.end()
    assert bench.results == ["value", "caught it"]


async def by_a_turn(message: str) -> str:
    await asyncio.sleep(0)
    return message


async def by_many_turns(message: str) -> str:
    for _ in range(10):
        await asyncio.sleep(0)
    return message


async def by_a_timer(message: str) -> str:
    return await asyncio.sleep(0.001, message)


async def by_a_future_that_is_done_at_once(message: str) -> str:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str] = loop.create_future()
    loop.call_soon(future.set_result, message)
    return await future


async def by_a_task(message: str) -> str:
    return await asyncio.create_task(by_a_timer(message))


async def by_gather(message: str) -> str:
    (first, _) = await asyncio.gather(by_a_turn(message), by_a_timer(message))
    return first


async def by_wait_for(message: str) -> str:
    return await asyncio.wait_for(by_a_timer(message), 5)


async def by_wait_for_that_is_too_late(message: str) -> str:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.001)
    return message


async def by_a_shield(message: str) -> str:
    return await asyncio.shield(by_a_timer(message))


async def by_a_thread(message: str) -> str:
    return await asyncio.to_thread(str, message)


async def by_an_event(message: str) -> str:
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)
    await event.wait()
    return message


async def by_a_timeout_that_holds(message: str) -> str:
    async with asyncio.timeout(5):
        return await by_a_timer(message)


async def by_a_timeout_that_passes(message: str) -> str:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()
    return message


async def by_a_timeout_that_has_passed_already(message: str) -> str:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    return message


async def by_a_timeout_around_a_turn(message: str) -> str:
    async def turn_forever() -> None:
        for _ in iter(int, 1):
            await asyncio.sleep(0)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await turn_forever()
    return message


async def by_a_task_group(message: str) -> str:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(by_a_timer(message))
        group.create_task(by_a_turn(message))
    return task.result()


async def by_a_task_group_of_which_one_fails(message: str) -> str:
    async def fail() -> None:
        raise LookupError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.Event().wait())
            group.create_task(fail())
            await asyncio.Event().wait()
    except* LookupError:
        answer = message
    return answer


async def by_anyio_sleep(message: str) -> str:
    await anyio.lowlevel.checkpoint()
    await anyio.sleep(0.001)
    return message


async def by_an_anyio_scope_that_passes(message: str) -> str:
    with anyio.move_on_after(0.001) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    return message


async def by_an_anyio_scope_that_has_passed_already(message: str) -> str:
    with pytest.raises(TimeoutError), anyio.fail_after(0):
        await anyio.sleep_forever()
    return message


async def by_an_anyio_scope_that_is_cancelled_in_the_first_step(message: str) -> str:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    await anyio.lowlevel.checkpoint()
    return message


async def by_an_anyio_scope_that_a_callback_cancels_at_once(message: str) -> str:
    with anyio.CancelScope() as scope:
        asyncio.get_running_loop().call_soon(scope.cancel)
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    return message


async def by_an_anyio_shield(message: str) -> str:
    with anyio.CancelScope() as outer:
        outer.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.001)
        await anyio.sleep_forever()
    assert outer.cancelled_caught
    return message


async def by_an_anyio_task_group(message: str) -> str:
    results: list[str] = []

    async def child() -> None:
        results.append(await by_a_timer(message))

    async with anyio.create_task_group() as group:
        group.start_soon(child)
        group.start_soon(anyio.lowlevel.checkpoint)
    return results[0]


async def by_an_anyio_task_group_of_which_one_fails(message: str) -> str:
    async def fail() -> None:
        raise LookupError

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            await anyio.sleep_forever()
    except* LookupError:
        answer = message
    return answer


async def by_an_anyio_thread(message: str) -> str:
    return await anyio.to_thread.run_sync(str, message)


@pytest.mark.parametrize("way", [each for name, each in list(globals().items()) if name.startswith("by_")])
async def test_a_handler_may_suspend(begin: Begin, way: Callable[[str], Awaitable[str]]) -> None:
    bench = await begin(way)
    assert await bench.receive("inline", "queued") == []
    await bench.end()
    assert (bench.results, bench.failures) == (["inline", "queued"], [])
    assert bench.task.cancelling() == 0


async def test_a_handler_that_awaits_what_it_may_not_is_told_so(begin: Begin) -> None:
    class Nonsense:
        def __await__(self) -> Any:
            yield "nonsense"

    async def handler(message: int) -> None:
        await Nonsense()

    bench = await begin(handler)
    await bench.receive(1, 2)
    await bench.end()
    assert [type(failure) for failure in bench.failures] == [RuntimeError, RuntimeError]


async def test_two_lanes_do_not_wait_for_each_other(begin: Begin) -> None:
    gate = Gate()
    slow, quick = await begin(gate.wait), await begin(echo)
    await slow.receive("slow")
    assert await quick.receive("quick") == ["quick"]
    gate.open("slow", "done")
    await slow.turn()
    assert slow.results == ["done"]


# Handlers that fail

ERRORS = [ValueError, asyncio.CancelledError, KeyboardInterrupt, SystemExit, StopIteration]


@pytest.mark.parametrize("suspends", [False, True])
@pytest.mark.parametrize("error", ERRORS)
async def test_what_a_handler_raises_is_told_and_the_lane_goes_on(
    begin: Begin, error: type[BaseException], suspends: bool
) -> None:
    async def handler(message: int) -> int:
        if suspends:
            await asyncio.sleep(0)
        if message % 2:
            raise error(message)
        return message

    bench = await begin(handler)
    await bench.receive(1, 2, 3)
    await bench.turn(6)
    await bench.receive(4)
    await bench.end()
    assert bench.results == [2, 4]
    # A coroutine that lets this one out has it wrapped by Python itself.
    wrapped = RuntimeError if error is StopIteration else error
    assert [type(failure) for failure in bench.failures] == [wrapped, wrapped]


async def test_what_done_raises_is_told_as_if_the_handler_had(begin: Begin) -> None:
    """A result that cannot be encoded: the lane would have ended in whoever delivers."""

    def refuse(result: Any) -> None:
        raise TypeError(f"{result!r} is no message")

    bench = await begin(echo, done=refuse)
    await bench.receive(1, 2)
    assert [str(failure) for failure in bench.failures] == ["1 is no message", "2 is no message"]


# Pressure: what `done` and `failed` return is awaited before the next message


class Pressure:
    """Holds the lane back behind the messages it is told to."""

    def __init__(self, *behind: Any) -> None:
        self.behind = behind
        self.told: list[Any] = []
        self.gate = Gate()

    def __call__(self, told: Any) -> Awaitable[None] | None:
        self.told.append(told)
        name = told.args[0] if isinstance(told, BaseException) else told
        return self.gate.wait(name) if name in self.behind else None


async def fail(message: Any) -> None:
    raise LookupError(message)


async def fail_a_turn_later(message: Any) -> None:
    await asyncio.sleep(0)
    raise LookupError(message)


def fail_plainly(message: Any) -> None:
    raise LookupError(message)


@pytest.mark.parametrize(
    "handler", [echo, echo_a_turn_later, fail, fail_a_turn_later, lambda message: message, fail_plainly]
)
async def test_the_next_message_waits_until_the_pressure_is_relieved(begin: Begin, handler: Any) -> None:
    pressure = Pressure(1, 2)
    is_async = inspect.iscoroutinefunction(handler)
    bench = await begin(handler, done=pressure, failed=pressure, is_async=is_async)
    await bench.receive(1, 2, 3)
    await bench.turn(5)
    assert len(pressure.told) == 1
    pressure.gate.open(1)
    await bench.turn(5)
    assert len(pressure.told) == 2
    pressure.gate.open(2)
    await bench.turn(5)
    assert len(pressure.told) == 3
    await bench.receive(4)
    await bench.end()
    assert len(pressure.told) == 4


async def test_a_cancellation_under_pressure_is_nobodys_and_the_next_message_is_handled(begin: Begin) -> None:
    pressure = Pressure(1)
    bench = await begin(echo, done=pressure)
    await bench.receive(1, 2)
    await bench.turn()
    bench.task.cancel()
    await bench.turn()
    assert pressure.told == [1, 2]
    assert bench.failures == []
    await bench.receive(3)
    assert pressure.told == [1, 2, 3]


async def test_a_lane_under_pressure_ends_when_its_time_is_over(begin: Begin) -> None:
    pressure = Pressure(1)
    bench = await begin(echo, done=pressure)
    await bench.receive(1, 2)
    bench.lane.end(timeout=0.01)
    await bench.task
    assert pressure.told == [1]
    assert [type(failure) for failure in bench.failures] == [TimeoutError]


# Cancellation


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel("enough")


async def test_a_handler_that_cancels_its_task_and_finishes_leaves_the_lane_usable(begin: Begin) -> None:
    async def handler(message: int) -> int:
        if message == 1:
            await cancel_itself()
        return message

    bench = await begin(handler)
    assert (await bench.receive(1, 2))[0] == 1
    await bench.turn()
    assert await bench.receive(3) == [1, 2, 3]
    assert bench.failures == []
    assert bench.task.cancelling() == 0


async def test_a_handler_that_cancels_its_task_and_takes_it_back_leaves_the_lane_usable(begin: Begin) -> None:
    async def handler(message: int) -> int:
        if message == 1:
            await cancel_itself()
            bench.task.uncancel()
        return message

    bench = await begin(handler)
    assert await bench.receive(1) == [1]
    await bench.turn()
    assert await bench.receive(2) == [1, 2]
    assert not bench.task.done()


@pytest.mark.parametrize("wait", [asyncio.Event, None])
async def test_a_handler_that_cancels_its_task_is_cancelled_where_it_awaits(begin: Begin, wait: Any) -> None:
    caught: list[tuple[Any, ...]] = []

    async def handler(message: int) -> int:
        if message % 2:
            await cancel_itself()
            try:
                await (wait().wait() if wait else asyncio.sleep(0))
            except asyncio.CancelledError as error:
                caught.append(error.args)
                raise
        return message

    bench = await begin(handler)
    await bench.receive(1, 2, 3)
    await bench.turn(8)
    assert await bench.receive(4) == [2, 4]
    assert [type(failure) for failure in bench.failures] == [asyncio.CancelledError] * 2
    assert caught == [("enough",), ("enough",)]


async def test_a_handler_that_catches_its_cancellation_goes_on(begin: Begin) -> None:
    async def handler(message: int) -> str:
        await cancel_itself()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return f"{message} went on"

    bench = await begin(handler)
    await bench.receive(1, 2)
    await bench.turn(12)
    assert bench.results == ["1 went on", "2 went on"]
    assert bench.failures == []


async def test_a_cancellation_from_outside_reaches_the_handler_that_is_suspended(begin: Begin) -> None:
    gate = Gate()

    async def handler(message: int) -> int:
        if message == 1:
            await gate.wait(message)
        return message

    bench = await begin(handler)
    await bench.receive(1, 2)
    await bench.turn()
    bench.task.cancel("from outside")
    await bench.turn()
    assert bench.results == [2]
    assert [failure.args for failure in bench.failures] == [("from outside",)]
    assert gate.waiting[1].cancelled()
    assert await bench.receive(3) == [2, 3]


@pytest.mark.parametrize("done", [False, True], ids=["pending", "done meanwhile"])
async def test_a_cancellation_reaches_a_handler_that_its_task_has_not_taken_over_yet(
    begin: Begin, done: bool
) -> None:
    gate = Gate()
    bench = await begin(gate.wait)

    def deliver_and_cancel() -> None:
        bench.lane.deliver("message")
        if done:
            gate.open("message", "too late")
        bench.task.cancel("from outside")

    bench.loop.call_soon(deliver_and_cancel)
    await bench.turn(5)
    assert bench.results == []
    assert [failure.args for failure in bench.failures] == [("from outside",)]
    await bench.receive("next")
    gate.open("next", "fine")
    await bench.turn()
    assert bench.results == ["fine"]


async def test_a_cancellation_before_the_task_takes_over_goes_by_way_of_what_is_awaited(begin: Begin) -> None:
    log = []

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("child")

    async def handler(task: asyncio.Task[None]) -> None:
        try:
            await task
        finally:
            log.append("handler")

    bench = await begin(handler)
    task = asyncio.create_task(child())
    await bench.turn(1)

    def deliver_and_cancel() -> None:
        bench.lane.deliver(task)
        bench.task.cancel()

    bench.loop.call_soon(deliver_and_cancel)
    await bench.turn(6)
    assert task.cancelled()
    assert log == ["child", "handler"]


async def test_a_cancellation_of_an_idle_lane_ends_it(begin: Begin) -> None:
    bench = await begin(echo)
    await bench.receive(1)
    bench.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bench.task
    assert bench.failures == []


# Full


async def test_a_full_queue_is_told_once_and_so_is_room_in_it(begin: Begin) -> None:
    gate = Gate()
    bench = await begin(gate.wait, max_queue=4)
    await bench.receive(0, 1, 2, 3)
    assert bench.fullness == []
    assert not bench.lane.is_full
    await bench.receive(4, 5, 6)
    assert bench.fullness == [True]
    assert bench.lane.is_full
    for message in range(7):
        gate.open(message)
        await bench.turn()
        # Six wait behind the first; half of four leave room.
        assert bench.fullness == ([True] if message < 3 else [True, False])
    await bench.receive(7)
    gate.open(7)
    assert bench.fullness == [True, False]


async def test_a_queue_of_one_is_full_with_one_and_has_room_with_none(begin: Begin) -> None:
    gate = Gate()
    bench = await begin(gate.wait, max_queue=1)
    for first in (0, 2):
        await bench.receive(first, first + 1)
        assert bench.fullness[-1] is True
        gate.open(first)
        await bench.turn()
        assert bench.fullness[-1] is False
        gate.open(first + 1)
        await bench.turn()
    assert bench.fullness == [True, False, True, False]


async def test_whoever_hears_of_room_may_deliver_at_once(begin: Begin) -> None:
    """A memory transport hands its backlog over within `resume_reading`."""
    backlog = [3, 4]

    def full(is_full: bool) -> None:
        while not is_full and backlog:
            bench.lane.deliver(backlog.pop(0))

    bench = await begin(echo_a_turn_later, max_queue=2, full=full)
    await bench.receive(0, 1, 2)
    await bench.end()
    assert bench.results == [0, 1, 2, 3, 4]


# End


async def test_an_idle_lane_ends_at_once(begin: Begin) -> None:
    bench = await begin(echo)
    bench.lane.end(timeout=5)
    await bench.task


async def test_end_returns_when_all_that_was_delivered_is_handled(begin: Begin) -> None:
    gate = Gate()

    async def handler(message: int) -> int:
        return await gate.wait(message) if message == 1 else message

    bench = await begin(handler)
    await bench.receive(1, 2, 3)
    bench.lane.end(timeout=5)
    bench.lane.deliver(4)
    await bench.turn()
    assert not bench.task.done()
    gate.open(1, 1)
    await bench.task
    assert bench.results == [1, 2, 3, 4]
    assert bench.failures == []


async def test_a_message_that_comes_in_the_iteration_of_the_end_is_still_handled(begin: Begin) -> None:
    bench = await begin(echo_a_turn_later)

    def end_and_deliver() -> None:
        bench.lane.end(timeout=5)
        bench.lane.deliver(1)

    bench.loop.call_soon(end_and_deliver)
    await bench.task
    assert bench.results == [1]


async def test_a_handler_that_is_still_at_work_after_the_timeout_is_cancelled(begin: Begin) -> None:
    gate = Gate()
    bench = await begin(gate.wait)
    await bench.receive("stuck", "dropped", "dropped too")
    bench.lane.end(timeout=0.01)
    await bench.task
    assert bench.results == []
    dropped, cancelled = bench.failures
    assert isinstance(dropped, TimeoutError)
    assert "2 messages were dropped" in str(dropped)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert list(gate.waiting) == ["stuck"]


async def test_a_stuck_handler_without_followers_is_cancelled_without_talk_of_dropped_messages(
    begin: Begin,
) -> None:
    bench = await begin(Gate().wait)
    await bench.receive("stuck")
    bench.lane.end(timeout=0.01)
    await bench.task
    assert [type(failure) for failure in bench.failures] == [asyncio.CancelledError]


async def test_a_second_end_changes_nothing(begin: Begin) -> None:
    gate = Gate()
    bench = await begin(gate.wait)
    await bench.receive("message")
    bench.lane.end(timeout=5)
    bench.lane.end(timeout=0)
    await bench.turn(5)
    gate.open("message", "handled")
    await bench.task
    assert bench.results == ["handled"]


async def test_cancel_ends_an_idle_lane_and_one_at_work(begin: Begin) -> None:
    idle, at_work = await begin(echo), await begin(Gate().wait)
    await at_work.receive("stuck", "dropped")
    for bench in (idle, at_work):
        bench.lane.cancel()
        await bench.task
    assert idle.failures == []
    assert [type(failure) for failure in at_work.failures] == [TimeoutError, asyncio.CancelledError]


async def test_the_timeout_of_a_lane_that_has_ended_cancels_nothing_of_what_its_task_does_next(
    begin: Begin,
) -> None:
    """A session's task serves the lane, and then runs the disconnect handler."""
    gate = Gate()
    bench = await begin(gate.wait)
    await bench.end()
    lane = Lane(
        bench.loop,
        copy_context(),
        LaneReports(
            done=lambda message, result: None,
            failed=lambda message, error: bench.failures.append(error),
            full=bench.fullness.append,
        ),
        queue=Waiting(max_count=10, max_bytes=10**9, queued=Queued(10**9)),
    )

    async def serve_then_disconnect() -> str:
        await lane.serve(lambda _, message: gate.wait(message), None, is_async=True)
        await asyncio.sleep(0.05)
        return "undisturbed"

    task = asyncio.create_task(serve_then_disconnect())
    await bench.turn()
    lane.deliver("message")
    await bench.turn()
    lane.end(timeout=0.01)
    gate.open("message")
    assert await task == "undisturbed"


async def test_a_lane_that_has_ended_is_freed_without_the_garbage_collector() -> None:
    class Marker:
        def __call__(self, result: Any) -> None: ...

    marker = Marker()
    gone = weakref.ref(marker)
    gate = Gate()
    bench = Bench(gate.wait, done=marker)
    del marker
    gc.collect()
    gc.disable()
    try:
        await bench.turn()
        await bench.receive(1, 2)
        bench.lane.end(timeout=60)
        gate.open(1)
        await bench.turn()
        gate.open(2)
        await bench.task
        del bench, gate
        await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()


# Plain handlers


async def test_a_plain_handler_runs_inline_and_its_result_counts(begin: Begin) -> None:
    bench = await begin(lambda message: message, is_async=False)
    assert await bench.receive(1, None, 2) == [1, 2]


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
async def test_what_a_plain_handler_raises_is_told_and_the_lane_goes_on(
    begin: Begin, error: type[BaseException]
) -> None:
    def handler(message: int) -> int:
        if message == 1:
            raise error
        return message

    bench = await begin(handler, is_async=False)
    assert await bench.receive(1, 2) == [2]
    assert [type(failure) for failure in bench.failures] == [error]


async def test_a_plain_handler_runs_in_the_lanes_task_and_context(begin: Begin) -> None:
    variable: ContextVar[int] = ContextVar("variable", default=0)

    def handler(message: str) -> tuple[Any, int]:
        variable.set(variable.get() + 1)
        return asyncio.current_task(), variable.get()

    bench = await begin(handler, is_async=False)
    await bench.receive("inline")
    bench.lane.deliver("queued")
    await bench.turn()
    assert bench.results == [(bench.task, 1), (bench.task, 2)]
    assert variable.get() == 0


async def test_a_plain_handler_that_cancels_its_task_leaves_the_lane_usable(begin: Begin) -> None:
    def handler(message: int) -> int:
        if message == 1:
            bench.task.cancel()
        return message

    bench = await begin(handler, is_async=False)
    await bench.receive(1, 2)
    await bench.turn()
    assert await bench.receive(3) == [1, 2, 3]
