"""Lanes under random scripts: each message handled once, in order, one after the other."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from support.lanes import Bench
from support.sizes import size


class Message(NamedTuple):
    """What a handler is to do with it.

    Attributes:
        number: Which it is.
        waits: What its handler awaits, one after the other.
        ends: How it ends.
        brings: What its handler delivers itself, before the first wait.
    """

    number: int
    waits: tuple[str, ...]
    ends: str
    brings: tuple[Message, ...] = ()


class Step(NamedTuple):
    """A message, and how it comes.

    Attributes:
        message: The message.
        by_task: Delivered where another task is current.
        turns: How many turns the loop takes after it.
        jab: The lane's task is cancelled from outside after those turns,
            if a handler is under way then.
    """

    message: Message
    by_task: bool
    turns: int
    jab: bool


class World:
    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []
        self.delivered: list[Message] = []
        self.active: Message | None = None
        self.jabbed: set[int] = set()
        self.bench = Bench(self.handle, done=self.done)

    def done(self, result: int) -> Awaitable[None] | None:
        """Hold the lane back for a turn, after every third."""
        self.bench.results.append(result)
        return None if result % 3 else asyncio.sleep(0)

    def deliver(self, message: Message) -> None:
        self.delivered.append(message)
        self.bench.lane.deliver(message)

    async def handle(self, message: Message) -> int | None:
        assert self.active is None, "two handlers at once"
        assert asyncio.current_task() is self.bench.task
        self.log.append(("begin", message.number))
        self.active = message
        try:
            for brought in message.brings:
                self.deliver(brought)
            for wait in message.waits:
                await self.wait(wait)
                assert asyncio.current_task() is self.bench.task
            return self.finish(message)
        finally:
            self.active = None
            self.log.append(("end", message.number))

    async def wait(self, wait: str) -> None:
        loop = asyncio.get_running_loop()
        match wait:
            case "a turn":
                await asyncio.sleep(0)
            case "a future":
                future: asyncio.Future[None] = loop.create_future()
                loop.call_soon(lambda: future.done() or future.set_result(None))
                await future
            case "a task":
                await asyncio.create_task(asyncio.sleep(0))
            case "a timeout":
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await loop.create_future()

    def finish(self, message: Message) -> int | None:
        match message.ends:
            case "fails":
                raise LookupError(message.number)
            case "is cancelled":
                raise asyncio.CancelledError(message.number)
            case "is interrupted":
                raise KeyboardInterrupt(message.number)
            case "cancels its task":
                self.bench.task.cancel()
            case "gives nothing":
                return None
        return message.number

    async def play(self, script: list[Step]) -> None:
        await self.bench.turn(1)
        for message, by_task, turns, jab in script:
            if by_task:
                self.deliver(message)
            else:
                asyncio.get_running_loop().call_soon(self.deliver, message)
            await self.bench.turn(turns)
            if jab and self.active is not None:
                self.jabbed.add(self.active.number)
                self.bench.task.cancel()
        await self.bench.turn(1)
        await self.bench.end()

    def check(self) -> None:
        bench = self.bench
        assert self.log == [(part, message.number) for message in self.delivered for part in ("begin", "end")]
        assert self.active is None
        quiet = [message for message in self.delivered if message.number not in self.jabbed]
        gave = [m.number for m in quiet if m.ends in ("gives", "cancels its task")]
        assert [result for result in bench.results if result not in self.jabbed] == gave
        names = {
            "fails": LookupError,
            "is cancelled": asyncio.CancelledError,
            "is interrupted": KeyboardInterrupt,
        }
        expected = [(names[m.ends], (m.number,)) for m in quiet if m.ends in names]
        told = [(type(failure), failure.args) for failure in bench.failures]
        assert [each for each in told if each[1] and each[1][0] not in self.jabbed] == expected
        assert [each for each in told if not each[1]] == [(asyncio.CancelledError, ())] * len(self.jabbed)
        assert bench.task.cancelling() == 0
        assert bench.complaints == []


waits = st.lists(st.sampled_from(["a turn", "a future", "a task"]), max_size=3).map(tuple)
ends = st.sampled_from(
    ["gives", "gives", "gives nothing", "fails", "is cancelled", "is interrupted", "cancels its task"]
)


@st.composite
def scripts(draw: st.DrawFn, *, jabs: bool) -> list[Step]:
    count = 0

    def message(depth: int) -> Message:
        nonlocal count
        count += 1
        number = count
        brings = tuple(message(depth + 1) for _ in range(draw(st.integers(0, 2)) if depth < 2 else 0))
        kinds = waits if jabs else st.one_of(waits, st.just(("a timeout",)))
        return Message(number, draw(kinds), draw(ends), brings)

    return [
        Step(
            message(0 if draw(st.integers(0, 4)) == 0 else 2),
            draw(st.booleans()),
            draw(st.integers(0, 4)),
            jabs and draw(st.booleans()),
        )
        for _ in range(draw(st.integers(1, 12)))
    ]


def play(script: list[Step], loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> World:
        world = World()
        await world.play(script)
        return world

    with warnings.catch_warnings(), asyncio.Runner(loop_factory=loop_factory) as runner:
        warnings.simplefilter("error")
        runner.run(main()).check()


LOOPS: Any = pytest.mark.parametrize("loop_factory", [asyncio.SelectorEventLoop, uvloop.new_event_loop])


@LOOPS
@settings(max_examples=size(75, full=750), deadline=None)
@given(script=scripts(jabs=False))
def test_every_message_is_handled_once_in_order_and_alone(script: list[Step], loop_factory: Any) -> None:
    play(script, loop_factory)


@LOOPS
@settings(max_examples=size(75, full=750), deadline=None)
@given(script=scripts(jabs=True))
def test_a_cancellation_from_outside_ends_the_handler_under_way_and_no_other(
    script: list[Step], loop_factory: Any
) -> None:
    play(script, loop_factory)
