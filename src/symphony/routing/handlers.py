"""Where handlers and middleware are registered: on an app, a router or a route."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from symphony import middleware as around
from symphony.errors import ConfigurationError
from symphony.middleware import Middleware, Stage
from symphony.routing.parameters import qualified_name

__all__ = ("Handler", "Handlers")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Handler:
    """One registered handler.

    Attributes:
        function: As it was given.
        thread: Whether it runs in a thread.
    """

    function: Callable[..., Any]
    thread: bool


class Handlers:
    """Registers handlers and middleware.

    The nearest handler of a kind runs: the route's, else its router's, else
    the app's; exactly one. Middleware of all three runs, the app's outermost.
    """

    def __init__(self) -> None:
        self.handlers: dict[Stage, Handler] = {}
        self.middlewares: dict[Stage, list[Middleware]] = {stage: [] for stage in around.STAGES}

    @overload
    def on_connect(self, handler: F, /) -> F: ...
    @overload
    def on_connect(self, /, *, thread: bool = False) -> Callable[[F], F]: ...
    def on_connect(self, handler: F | None = None, /, *, thread: bool = False) -> F | Callable[[F], F]:
        """Register what runs when a client connects.

        The socket opens at its first send, or when this returns; a `Reject`
        before that is an HTTP answer. It returns nothing.

        Args:
            handler: The handler, plain or async.
            thread: Run a plain handler in a thread.
        """
        return self._register("connect", handler, thread)

    @overload
    def on_message(self, handler: F, /) -> F: ...
    @overload
    def on_message(self, /, *, thread: bool = False) -> Callable[[F], F]: ...
    def on_message(self, handler: F | None = None, /, *, thread: bool = False) -> F | Callable[[F], F]:
        """Register what runs for each message.

        What it returns is sent to the sender; an async generator's items one
        by one. The type of its payload decides what a message must be: `str`,
        `bytes`, either, or any type that JSON decodes to.

        Args:
            handler: The handler, plain, async or an async generator.
            thread: Run a plain handler in a thread.
        """
        return self._register("message", handler, thread)

    @overload
    def on_disconnect(self, handler: F, /) -> F: ...
    @overload
    def on_disconnect(self, /, *, thread: bool = False) -> Callable[[F], F]: ...
    def on_disconnect(self, handler: F | None = None, /, *, thread: bool = False) -> F | Callable[[F], F]:
        """Register what runs when a socket has gone.

        It runs exactly once for every socket that opened, or whose connect
        handler began. The socket is still in its rooms then.

        Args:
            handler: The handler, plain or async; `Close` says how it ended.
            thread: Run a plain handler in a thread.
        """
        return self._register("disconnect", handler, thread)

    def middleware(self, stage: Stage | object) -> Callable[[F], F]:
        """Register a middleware, outside of those registered later.

        As a decorator it names the stage: `@app.middleware("message")`. Given
        an object, it registers each of its methods `connect`, `message` and
        `disconnect`.

        Raises:
            ConfigurationError: There is no such stage, or the middleware does
                not have its shape.
        """
        if not isinstance(stage, str):
            for name, method in around.methods(stage).items():
                self._add_middleware(name, method)
            return _unchanged

        def register(middleware: F) -> F:
            self._add_middleware(stage, middleware)
            return middleware

        if stage not in self.middlewares:
            raise around.no_such_stage(stage)
        return register

    def _add_middleware(self, stage: str, middleware: Middleware) -> None:
        around.check(stage, middleware)
        self.middlewares[stage].append(middleware)  # type: ignore[index]

    def _register(self, stage: Stage, handler: F | None, thread: bool) -> F | Callable[[F], F]:
        def register(handler: F) -> F:
            if not callable(handler):
                raise ConfigurationError(f"@{self}.on_{stage} decorates a function, not {handler!r}.")
            earlier = self.handlers.get(stage)
            if earlier is not None:
                raise ConfigurationError(
                    f"{self} has an on_{stage} handler already, {qualified_name(earlier.function)}; "
                    f"{qualified_name(handler)} would never run. Use middleware for what must run as well."
                )
            self.handlers[stage] = Handler(handler, thread)
            return handler

        return register if handler is None else register(handler)


def _unchanged(function: F) -> F:
    return function
