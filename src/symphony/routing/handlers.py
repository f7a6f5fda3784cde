"""Where handlers and middleware are registered: on an app, a router or a route."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, overload

from symphony.errors import ConfigurationError
from symphony.protocol.envelopes import MESSAGE
from symphony.protocol.v1 import MAX_NAME
from symphony.routing import middleware as around
from symphony.routing.middleware import Middleware, MiddlewareObject, Stage
from symphony.routing.parameters import located_name
from symphony.routing.patterns import NamePattern

__all__ = ("ANY_EVENT", "EVENT_SEPARATOR", "Handler", "Handlers")

EVENT_SEPARATOR: Final = "."
ANY_EVENT: Final = "*"
_ERROR: Final = "error"

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

    Attributes:
        handlers: By the stage they are for.
        events: By the name or pattern of the event they are for.
        middlewares: By the stage they are around.
    """

    def __init__(self) -> None:
        self.handlers: dict[Stage, Handler] = {}
        self.events: dict[str, Handler] = {}
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

    def on(self, event: str, *, thread: bool = False) -> Callable[[F], F]:
        """Register what runs for each event of a name.

        A route with such a handler speaks `symphony.v1`. What the handler
        returns is the reply to a request, and dropped where there was none;
        an async generator answers a request with a stream. The type of its
        payload decides what the event's data must be.

        Args:
            event: Its name, `"chat.say"`; with parameters,
                `"game.{id:int}.move"`, that are filled by name; or `"*"`
                for all that no other handler takes, whose parameter
                `event` is the name. An exact name wins over a pattern.
            thread: Run a plain handler in a thread.

        Raises:
            ConfigurationError: The name is no name or pattern, is taken
                already, or is `"error"`, which is Symphony's own.
        """
        if not isinstance(event, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"@{self}.on takes the name of an event: write @{self}.on('say').")
        if event != ANY_EVENT:
            NamePattern(event, separator=EVENT_SEPARATOR)
            if ANY_EVENT in event:
                raise ConfigurationError(
                    f"{self}: {event!r} would be taken literally. A part that varies has a name, "
                    f"{event.replace(ANY_EVENT, '{name}')!r}; '*' alone takes every event."
                )
        if event == _ERROR:
            raise ConfigurationError(
                f"{self}: the event 'error' is how Symphony tells what is wrong; take another name."
            )
        if len(event) > MAX_NAME:
            raise ConfigurationError(f"{self}: an event's name has at most {MAX_NAME} characters.")

        def register(handler: F) -> F:
            if event == MESSAGE and "message" in self.handlers:
                raise self._taken(f"on({event!r})", self.handlers["message"], handler)
            if event in self.events:
                raise self._taken(f"on({event!r})", self.events[event], handler)
            self.events[event] = self._handler(f"on({event!r})", handler, thread)
            return handler

        return register

    @overload
    def middleware(self, stage: Stage) -> Callable[[F], F]: ...
    @overload
    def middleware(self, stage: MiddlewareObject) -> Callable[[F], F]: ...
    def middleware(self, stage: Stage | MiddlewareObject) -> Callable[[F], F]:
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
            earlier = self.handlers.get(stage) or (self.events.get(MESSAGE) if stage == "message" else None)
            if earlier is not None:
                raise self._taken(f"on_{stage}", earlier, handler)
            self.handlers[stage] = self._handler(f"on_{stage}", handler, thread)
            return handler

        return register if handler is None else register(handler)

    def _handler(self, what: str, function: Any, thread: bool) -> Handler:
        if not callable(function):
            raise ConfigurationError(f"@{self}.{what} decorates a function, not {function!r}.")
        return Handler(function, thread)

    def _taken(self, what: str, earlier: Handler, handler: Callable[..., Any]) -> ConfigurationError:
        return ConfigurationError(
            f"{self} has an {what} handler already, {located_name(earlier.function)}; "
            f"{located_name(handler)} would never run. Use middleware for what must run as well."
        )


def _unchanged(function: F) -> F:
    return function
