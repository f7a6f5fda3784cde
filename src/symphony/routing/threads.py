"""A handler in a thread, together with its plain dependencies."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import Any, Protocol

from symphony.routing.dependencies import Arguments, Step, close_context, resolve

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
    returned, and they see what it raised, not the cancellation.
    """
    plain = next((index for index, step in enumerate(steps) if step.is_plain), len(steps))
    before, steps = steps[:plain], steps[plain:]
    closes_before = any(step.scope == "call" and step.kind != "value" for step in before)

    async def call(socket: Any, subject: Any) -> Any:
        # Taken once, in whichever thread is first: the thread of the handler closes what is
        # open when it begins, or this task if it never does.
        untaken: list[AsyncExitStack] = []
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
                if closes_before:
                    inner.push(partial(_close_on_loop, opened, wait))
                for step, make in zip(steps, makes, strict=True):
                    if step.is_plain:
                        values.append(_opened(step, make(values), inner, wait))
                    else:
                        values.append(_opened_on_loop(step, socket, subject, values, inner, wait))
                # Here, because the dependencies are closed after it.
                return _finished(run(values), wait)

        try:
            return await thread(work)
        finally:
            if (opened := _taken(untaken)) is not None:
                await opened.__aexit__(*sys.exc_info())

    return call


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


def _opened_on_loop(
    step: Step, socket: Any, subject: Any, values: list[Any], stack: ExitStack, wait: Wait
) -> Any:
    exits = AsyncExitStack()
    # Pushed first: a cancelled `wait` may have opened it.
    stack.push(partial(_close_on_loop, exits, wait))
    return wait(step.provide(socket, subject, values, exits))


def _close_on_loop(exits: AsyncExitStack, wait: Wait, *error: Any) -> None:
    wait(exits.__aexit__(*error), closes=True)
