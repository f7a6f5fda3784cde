"""Functions around a stage, in onion order.

| stage | middleware | `call_next` |
|---|---|---|
| `connect` | `(socket, call_next)` | `await call_next(socket)` |
| `message` | `(socket, message, call_next)` | `await call_next(socket, message)`, gives the reply |
| `disconnect` | `(socket, close, call_next)` | `await call_next(socket, close)` |

After these, a middleware may take what a handler may take: dependencies,
path parameters, the handshake.

`call_next` takes what the middleware was given, or something else in its
place. A middleware that does not call it answers itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, Protocol, TypeAlias, get_args

from symphony.errors import ConfigurationError
from symphony.routing.parameters import underlying

__all__ = (
    "STAGES",
    "CallNext",
    "Middleware",
    "MiddlewareObject",
    "Stage",
    "check",
    "given",
    "methods",
    "no_such_stage",
    "wrap",
)

# The list of stages. pyright checks all other names of stages against it.
Stage: TypeAlias = Literal["connect", "message", "disconnect"]
Middleware: TypeAlias = Callable[..., Awaitable[Any]]
CallNext: TypeAlias = Callable[..., Awaitable[Any]]
"""The next middleware of a stage, or its handler: `await call_next(socket, message)`."""


class _Connect(Protocol):
    def connect(self, socket: Any, call_next: Any, /) -> Awaitable[Any]: ...


class _Message(Protocol):
    def message(self, socket: Any, message: Any, call_next: Any, /) -> Awaitable[Any]: ...


class _Disconnect(Protocol):
    def disconnect(self, socket: Any, close: Any, call_next: Any, /) -> Awaitable[Any]: ...


MiddlewareObject: TypeAlias = _Connect | _Message | _Disconnect
"""An object with a method for at least one stage."""

STAGES: tuple[Stage, ...] = get_args(Stage)


def _shape(stage: Stage) -> tuple[str, ...]:
    """Return the arguments that a stage gives its middleware."""
    match stage:  # pyright reports a stage that is missing here
        case "connect":
            return "socket", "call_next"
        case "message":
            return "socket", "message", "call_next"
        case "disconnect":
            return "socket", "close", "call_next"


_SHAPES: dict[Stage, tuple[str, ...]] = {stage: _shape(stage) for stage in STAGES}


def no_such_stage(stage: str) -> ConfigurationError:
    """Return the error for a stage that does not exist."""
    return ConfigurationError(f"There is no middleware stage {stage!r}; the stages are {', '.join(STAGES)}.")


def check(stage: str, middleware: Middleware) -> None:
    """Refuse a middleware that could not be called.

    Raises:
        ConfigurationError: There is no such stage, it is not `async def`, or
            it takes another number of arguments.
    """
    shape = _SHAPES.get(stage)  # type: ignore[call-overload]
    if shape is None:
        raise no_such_stage(stage)
    name = getattr(middleware, "__qualname__", repr(middleware))
    call: Any = underlying(middleware) if callable(middleware) else None
    wanted = f"async def {getattr(middleware, '__name__', 'middleware')}({', '.join(shape)})"
    # A plain wrapper around an async function returns its coroutine.
    if not any(map(inspect.iscoroutinefunction, (call, inspect.unwrap(call)))):
        raise ConfigurationError(f"The {stage} middleware {name} must be written as `{wanted}`.")
    if given(stage, middleware) is None:
        raise ConfigurationError(
            f"The {stage} middleware {name} must take ({', '.join(shape)}) first. "
            "Dependencies and other parameters come after these."
        )


def given(stage: str, middleware: Middleware) -> int | None:
    """Return how many arguments a stage gives its middleware, `None`: it does not take them."""
    count = len(_SHAPES[stage])  # type: ignore[index]
    try:
        inspect.signature(middleware).bind_partial(*[None] * count)
    except TypeError:
        return None
    taken = [
        parameter
        for parameter in inspect.signature(middleware).parameters.values()
        if parameter.kind is not parameter.KEYWORD_ONLY
    ]
    if any(each.name == "call_next" for index, each in enumerate(taken) if index != count - 1):
        # It would be given something else.
        return None
    return count if len(taken) >= count or any(each.kind is each.VAR_POSITIONAL for each in taken) else None


def methods(middleware: object) -> dict[Stage, Middleware]:
    """Return the stages for which an object has a method.

    Raises:
        ConfigurationError: It has none.
    """
    found: dict[Stage, Middleware] = {
        stage: getattr(middleware, stage) for stage in STAGES if callable(getattr(middleware, stage, None))
    }
    if not found:
        if inspect.isroutine(middleware):
            raise ConfigurationError(
                f"The middleware {middleware.__qualname__} has no stage. Write the name of one: "
                f"""{" or ".join(f'middleware("{stage}")' for stage in STAGES)}."""
            )
        raise ConfigurationError(
            f"{middleware!r} is not middleware: it has none of the methods {', '.join(STAGES)}."
        )
    return found


def wrap(
    stack: Iterable[Middleware], endpoint: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    """Return *endpoint* inside the middleware of *stack*, the first outermost."""
    for middleware in reversed(tuple(stack)):
        endpoint = _around(middleware, endpoint)
    return endpoint


def _around(
    middleware: Middleware, call_next: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    def run(*arguments: Any) -> Awaitable[Any]:
        return middleware(*arguments, call_next)

    return run
