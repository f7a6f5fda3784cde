"""Detects code that blocks the event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from time import monotonic
from types import coroutine
from typing import Any, Final

from symphony.outgoing.encoding import RAW, Dialect
from symphony.protocol.invalid import shortened
from symphony.transport.base import SlowRead

__all__ = ("HELD", "event_in", "watched", "what_held")

HELD: Final = "%s held the event loop for %.2f s (socket %s). %s"
"""The warning: who, for how many seconds, a message of which socket, and what to do about it."""

_ADVICE: Final = "Await something slow, or register a plain function with thread=True."
_LOAD: Final = "Together they are slow: send fewer, or have the client wait for answers."


def event_in(message: Any, dialect: Dialect) -> str:
    """Return the name of the event in a message, to be shown; empty if it has none."""
    event = getattr(message, "event", None)
    if event is None and dialect.is_v1 and dialect is not RAW and isinstance(message, str | bytes):
        try:
            event = getattr(dialect.make().decode(message), "event", None)
        except Exception:
            return ""
    return repr(shortened(event)) if isinstance(event, str) else ""


def what_held(stage: str, pattern: str, event: str, read: SlowRead, seconds: float) -> tuple[str, str]:
    """Return who held the event loop, as the beginning of a sentence, and what to do about it.

    Args:
        stage: Which handler runs: connect, message or disconnect.
        pattern: That of the route.
        event: The name of the event in `read.message`; empty if it has none.
        read: What was handled.
        seconds: How long it took.
    """
    one = f"handler of the event {event}" if event else f"{stage} handler"
    if read.messages <= 1:
        return f"The {one} of {pattern}", _ADVICE
    many = f"{read.messages} messages of {pattern}, handled in one go,"
    if read.slowest is None:
        last = f"The last one was the event {event}. " if event else ""
        each = f"That is {1000 * seconds / read.messages:.3g} ms each. "
        return many, f"{each}{last}The next time, each is timed."
    if read.slowest > seconds / 2:
        return (
            f"The {one} of {pattern}, in {read.slowest:.2f} s, and {read.messages - 1} other messages",
            _ADVICE,
        )
    most = f", the {one}" if event else ""
    return many, f"The slowest took {1000 * read.slowest:.3g} ms{most}. {_LOAD}"


@coroutine
def watched(
    work: Coroutine[Any, Any, Any], limit: float, slow: Callable[[float], None]
) -> Generator[Any, Any, Any]:
    """Await *work* and measure the time of each step.

    Args:
        work: A coroutine that has not started.
        limit: How many seconds one step may take.
        slow: Called for each step that took longer, with its seconds.

    Returns:
        The result of *work*.
    """
    value: Any = None
    error: BaseException | None = None
    awaited: Any
    while True:
        # The future of the last step holds the exception that it raised: see below.
        awaited = None
        began = monotonic()
        try:
            awaited = work.send(value) if error is None else work.throw(error)
        except StopIteration as stop:
            return stop.value
        finally:
            held = monotonic() - began
            if held > limit:
                slow(held)
            # Also if it raises. An exception in a local variable of a frame of its own
            # traceback is a reference cycle, which would keep the socket alive too.
            value = error = None
        try:
            value = yield awaited
        except BaseException as thrown:
            error = thrown
