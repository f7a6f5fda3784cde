"""A handler in a thread, together with its plain dependencies."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol, cast

from symphony.routing.dependencies import Arguments, Step, close_context, resolve
from symphony.routing.results import keeping
from symphony.routing.socketscope import Change, changes_since

__all__ = ("ThreadRunner", "Wait", "in_thread")


class Wait(Protocol):
    """Called in the thread."""

    def __call__(self, coroutine: Coroutine[Any, Any, Any], *, closes: bool = False) -> Any:
        """Let the event loop await a coroutine, and return what that gives.

        If the call was cancelled, a coroutine is awaited only if it *closes* what is open.

        Raises:
            CancelledError: The call was cancelled.
        """
        ...

    def stream(self, items: AsyncGenerator[Any]) -> None:
        """Let the event loop send the items of a generator, and return when it has ended.

        Raises:
            BaseException: What ended the generator, such as a `CancelledError`.
        """
        ...


ThreadRunner = Callable[[Callable[[Wait], Any]], Awaitable[Any]]
"""Runs a function in a thread, with the context variables of the caller, and returns its result.

What the function passes to its `Wait` is awaited in the task that awaits the runner. If that is
cancelled, the function may still run, and may not have begun.
"""


def in_thread(
    handler: Callable[..., Any], arguments: Arguments, steps: tuple[Step, ...], thread: ThreadRunner
) -> Callable[[Any, Any], Any]:
    """Return how to call a plain handler in a thread.

    Plain dependencies of scope `"call"` are opened and closed in the thread of the handler:
    they may block, and what they make may belong to one thread, as a connection of sqlite3
    does. All others stay on the event loop. The order of the steps is kept either way.

    A cancelled call does not end the thread. All dependencies stay open until the handler has
    returned, and they see what it raised, not the cancellation. If it returns an async
    generator, they stay open until that has ended; the thread waits if it must close one.
    """
    plain = next((index for index, step in enumerate(steps) if step.is_plain), len(steps))
    before, steps = steps[:plain], steps[plain:]
    closes_before = any(step.scope == "call" and step.kind != "value" for step in before)
    closes_in_thread = any(step.is_plain and step.kind == "context" for step in steps)

    async def call(socket: Any, subject: Any) -> Any:
        # Taken once, in whichever thread is first: the thread of the handler closes what is
        # open when it begins, or this task if it never does.
        untaken: list[AsyncExitStack] = []
        # What the thread has handed back to this task, to be closed after a stream.
        kept: list[AsyncExitStack] = []
        async with AsyncExitStack() as stack:
            values = await resolve(before, socket, subject, stack)
            # What belongs to the socket is read here: it is not for other threads.
            makes = [step.arguments.bind(step.call, socket, subject) for step in steps]
            run = arguments.bind(handler, socket, subject)
            untaken.append(stack.pop_all())

        def work(wait: Wait) -> Any:
            if (opened := _taken(untaken)) is None:
                return None
            with ExitStack() as inner:
                on_loop = [opened] if closes_before else []
                if closes_before:
                    inner.push(partial(_close_on_loop, opened, wait))
                for step, make in zip(steps, makes, strict=True):
                    if step.is_plain:
                        values.append(_opened(step, make(values), inner, wait))
                    else:
                        on_loop.append(exits := AsyncExitStack())
                        # Pushed first: a cancelled `wait` may have opened it.
                        inner.push(partial(_close_on_loop, exits, wait))
                        value, changes = wait(_provided(step, socket, subject, values, exits))
                        values.append(value)
                        # The thread has a copy of the context, made when it began.
                        for variable, _, new in changes:
                            variable.set(new)
                # Here, because the dependencies are closed after it.
                result = _finished(run(values), wait)
                if not inspect.isasyncgen(result):
                    return result
                if closes_in_thread:
                    return wait.stream(cast("AsyncGenerator[Any]", result))
                # If the call was cancelled, this raises, and they are closed here.
                wait(_keep(on_loop, kept))
                inner.pop_all()
                return result

        try:
            result = await thread(work)
            if (opened := _taken(kept)) is not None:
                result = keeping(opened, result)
                await anext(result)
            return result
        finally:
            if (opened := _taken(untaken) or _taken(kept)) is not None:
                await opened.__aexit__(*sys.exc_info())

    return call


async def _provided(
    step: Step, socket: Any, subject: Any, values: list[Any], exits: AsyncExitStack
) -> tuple[Any, list[Change]]:
    before = copy_context()
    return await step.provide(socket, subject, values, exits), changes_since(before)


async def _keep(exits: list[AsyncExitStack], kept: list[AsyncExitStack]) -> None:
    stack = AsyncExitStack()
    for each in exits:
        stack.push_async_exit(each)
    kept.append(stack)


def _taken(untaken: list[AsyncExitStack]) -> AsyncExitStack | None:
    try:
        return untaken.pop()
    except IndexError:
        return None


def _opened(step: Step, made: Any, stack: ExitStack, wait: Wait) -> Any:
    if step.kind == "context":
        value = made.__enter__()
        stack.push(partial(close_context, made))
        return value
    return _finished(made, wait)


def _finished(made: Any, wait: Wait) -> Any:
    """Return what a plain function made; if that is a coroutine, let the event loop await it."""
    return wait(made) if inspect.iscoroutine(made) else made


def _close_on_loop(exits: AsyncExitStack, wait: Wait, *error: Any) -> None:
    wait(exits.__aexit__(*error), closes=True)
