"""A handler in a thread, together with its plain dependencies."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import Any

from symphony.routing.dependencies import Arguments, Step, close_context, resolve

__all__ = ("ThreadRunner", "Wait", "in_thread")

Wait = Callable[[Coroutine[Any, Any, Any]], Any]
"""Called in the thread: lets the event loop await a coroutine, and returns what that gives."""

ThreadRunner = Callable[[Callable[[Wait], Any]], Awaitable[Any]]
"""Runs a function in a thread, with the context variables of the caller, and returns its result.

What the function passes to its `Wait` is awaited in the task that awaits the runner.
"""


def in_thread(
    handler: Callable[..., Any], arguments: Arguments, steps: tuple[Step, ...], thread: ThreadRunner
) -> Callable[[Any, Any], Any]:
    """Return how to call a plain handler in a thread.

    Plain dependencies of scope `"call"` are opened and closed in the thread of the handler:
    they may block, and what they make may belong to one thread, as a connection of sqlite3
    does. All others stay on the event loop. The order of the steps is kept either way.
    """
    plain = next((index for index, step in enumerate(steps) if step.is_plain), len(steps))
    before, steps = steps[:plain], steps[plain:]

    async def call(socket: Any, subject: Any) -> Any:
        async with AsyncExitStack() as stack:
            values = await resolve(before, socket, subject, stack)
            # What belongs to the socket is read here: it is not for other threads.
            makes = [step.arguments.bind(step.call, socket, subject) for step in steps]
            run = arguments.bind(handler, socket, subject)

            def work(wait: Wait) -> Any:
                with ExitStack() as inner:
                    for step, make in zip(steps, makes, strict=True):
                        if step.is_plain:
                            values.append(_opened(step, make(values), inner, wait))
                        else:
                            values.append(_opened_on_loop(step, socket, subject, values, inner, wait))
                    # Here, because the dependencies are closed after it.
                    return _finished(run(values), wait)

            return await thread(work)

    return call


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
    wait(exits.__aexit__(*error))
