"""What routes and hooks are both checked for when they are compiled."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast, get_args, get_origin

from symphony.errors import ConfigurationError
from symphony.routing.handlers import Handler
from symphony.routing.parameters import EMPTY, returned_type
from symphony.routing.plan import Plan
from symphony.routing.results import VALUES, is_awaitable
from symphony.routing.route import Options
from symphony.websocket.handshake import TOKEN, check_origins

__all__ = (
    "NO_CLOSE",
    "NO_LEAVE",
    "NO_MEMBER",
    "NO_ROOM",
    "answering",
    "as_coroutine",
    "check_options",
    "check_state",
    "resync_of",
    "the_handshake",
    "wrong_state",
)

NO_ROOM: Final = (
    "a Room is for the hooks of app.rooms(), and for routes with room=; "
    "here use app.room(name) or await socket.join(name)"
)
NO_MEMBER: Final = "a Member is for the hooks of members, and for routes with room=; here use room.members"
NO_LEAVE: Final = "only on_leave, on_away and on_depart of rooms have a Leave"
NO_CLOSE: Final = "only a disconnect handler has a Close"


def the_handshake(socket: Any, subject: Any) -> Any:
    """Fill a parameter with the handshake of the socket."""
    return socket.handshake


def as_coroutine(
    call: Callable[[Any, Any], Any], is_async: bool
) -> Callable[[Any, Any], Coroutine[Any, Any, Any]]:
    """Return *call*, plain or async, as an async function.

    If a plain function returns an awaitable, that is awaited.
    """
    if is_async:
        return call

    async def run(socket: Any, subject: Any) -> Any:
        result = call(socket, subject)
        if type(result) not in VALUES and is_awaitable(result):
            return await result
        return result

    return run


def answering(plan: Plan, where: str) -> Callable[[Any, Any], Coroutine[Any, Any, Any]]:
    """Return how to call a handler of which only the return value counts.

    Raises:
        ConfigurationError: It is a generator.
    """
    is_generator = f"{where}: {plan.name} is a generator. Only a message handler may `yield`."
    if plan.is_generator:
        raise ConfigurationError(is_generator)
    call = as_coroutine(plan.call, plan.is_async)
    if plan.is_async_function:
        return call

    async def run(socket: Any, subject: Any) -> Any:
        result = await call(socket, subject)
        if inspect.isasyncgen(result):
            # A decorator hid it. Ignored, it would not run, and an `authorize` that
            # does not run would allow everything.
            raise TypeError(is_generator)
        return result

    return run


def check_options(options: Options) -> None:
    """Refuse options of a route that could not be kept.

    Raises:
        ConfigurationError: An option is wrong.
    """
    check_origins(options.origins or ())
    for subprotocol in options.subprotocols or ():
        if not re.fullmatch(TOKEN, subprotocol):
            raise ConfigurationError(f"Subprotocol {subprotocol!r} must be one word (RFC 6455 §4.1).")
    if options.slow_consumer not in (None, "disconnect", "drop_oldest", "conflate", "resync"):
        raise ConfigurationError(
            "slow_consumer= is 'disconnect', 'drop_oldest', 'conflate' or 'resync', "
            f"not {options.slow_consumer!r}."
        )
    if options.errors not in (None, "close", "message"):
        raise ConfigurationError(f"errors= is 'close' or 'message', not {options.errors!r}.")
    if options.concurrency is not None and options.concurrency < 1:
        raise ConfigurationError(f"concurrency= must be at least 1, not {options.concurrency!r}.")
    if options.per_user not in (None, 1):
        raise ConfigurationError(f"per_user= is 1 or None, not {options.per_user!r}.")
    if options.on_conflict not in (None, "replace", "refuse"):
        raise ConfigurationError(f"on_conflict= is 'replace' or 'refuse', not {options.on_conflict!r}.")
    if options.on_conflict is not None and options.per_user is None:
        raise ConfigurationError("on_conflict= needs per_user=1.")


def resync_of(
    options: Options, handler: Handler | None, where: str, plan: Callable[[Handler, str], Plan]
) -> Callable[[Any], Coroutine[Any, Any, Any]] | None:
    """Return how to call the `on_resync` handler of a route, if it has one.

    Raises:
        ConfigurationError: Its policy needs one, and there is none.
    """
    if handler is None:
        if options.slow_consumer != "resync":
            return None
        raise ConfigurationError(
            f"{where}: slow_consumer='resync' needs a handler that sends what was dropped: on_resync."
        )
    where = f"on_resync of {where}"
    run = answering(plan(handler, where), where)
    return lambda socket: run(socket, None)


def check_state(state: Callable[[], Any] | None, where: str) -> None:
    """Refuse a state that could not be made when the first socket or room needs it."""
    if state is None:
        return
    try:
        inspect.signature(state).bind()
    except TypeError as error:
        name = getattr(state, "__qualname__", repr(state))
        raise ConfigurationError(
            f"{where}: state={name} cannot be created without arguments: {error}. Give all of them defaults."
        ) from None
    except ValueError:
        # Some builtin classes, `dict` among them, have no signature to read.
        return


def wrong_state(kind: type, state: Any, annotation: Any, *, of: str) -> str | None:
    """Say what is wrong with the `T` of `Socket[T]` or `Room[T]`; `None`: nothing.

    The state that a function creates is known if its return type is annotated.

    Args:
        kind: The annotated class.
        state: The `state=` of the route or of the rooms, or `None`.
        annotation: The annotation.
        of: What has the state, for the message.
    """
    arguments = get_args(annotation)
    wanted = arguments[0] if arguments and get_origin(annotation) is kind else Any
    if wanted is Any or not isinstance(wanted, type):
        return None
    shown = f"{kind.__name__}[{wanted.__name__}]"
    if state is None:
        return f"wants {shown}, but {of} has no state. Give it state={wanted.__name__}."
    made = returned_type(state)
    if made is EMPTY or not isinstance(made, type) or _fits(made, cast("type[Any]", wanted)):
        return None
    return f"wants {shown}, but the state of {of} is {made.__name__}"


def _fits(made: type[Any], wanted: type[Any]) -> bool:
    try:
        return issubclass(made, wanted)
    except TypeError:
        # A `TypedDict`, or a `Protocol` that cannot be checked at run time.
        return True
