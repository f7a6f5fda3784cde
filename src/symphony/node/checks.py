"""What routes and hooks are both checked for when they are compiled."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Final

from symphony.errors import ConfigurationError
from symphony.routing.plan import Plan

__all__ = ("NO_CLOSE", "NO_ROOM", "as_coroutine", "check_state", "refuse_generator", "the_handshake")

NO_ROOM: Final = "a Room is for the hooks of app.rooms(); here use app.room(name) or await socket.join(name)"
NO_CLOSE: Final = "only a disconnect handler has a Close"


def the_handshake(socket: Any, subject: Any) -> Any:
    """Fill a parameter with the handshake of the socket."""
    return socket.handshake


def as_coroutine(
    call: Callable[[Any, Any], Any], is_async: bool
) -> Callable[[Any, Any], Coroutine[Any, Any, Any]]:
    """Return *call* as an async function, whichever it was."""
    if is_async:
        return call

    async def run(socket: Any, subject: Any) -> Any:
        return call(socket, subject)

    return run


def refuse_generator(plan: Plan, where: str) -> None:
    """Refuse a handler that yields where only its return value counts."""
    if plan.is_generator:
        raise ConfigurationError(f"{where}: {plan.name} is a generator. Only a message handler may `yield`.")


def check_state(state: Callable[[], Any] | None, where: str) -> None:
    """Refuse a state that could not be made when the first socket or room needs it."""
    if state is None:
        return
    try:
        inspect.signature(state).bind()
    except TypeError as error:
        name = getattr(state, "__qualname__", repr(state))
        raise ConfigurationError(
            f"{where}: state={name} is made without arguments, and cannot be: {error}. Give it defaults."
        ) from None
    except ValueError:
        # Some builtin classes, `dict` among them, have no signature to read.
        return
