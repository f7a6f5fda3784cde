"""Registration of handlers and middleware on an app, a router or a route."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from symphony.errors import ConfigurationError
from symphony.protocol.envelopes import MESSAGE
from symphony.protocol.v1 import MAX_NAME
from symphony.routing import middleware as around
from symphony.routing.middleware import Middleware, MiddlewareObject, Stage
from symphony.routing.parameters import located_name, qualified_name, remedy, underlying
from symphony.routing.patterns import NamePattern

if TYPE_CHECKING:
    from symphony.rooms.target import Target

__all__ = ("ANY_EVENT", "EVENT_SEPARATOR", "Handler", "Handlers", "reachable")

EVENT_SEPARATOR: Final = "."
ANY_EVENT: Final = "*"
_NOT_PLAIN: Final = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Handler:
    """One registered handler.

    Attributes:
        function: The registered function.
        thread: Whether it runs in a thread.
    """

    function: Callable[..., Any]
    thread: bool


class Handlers:
    """Registers handlers and middleware.

    Only the closest handler runs: the route's, otherwise its router's,
    otherwise the app's. The middleware of all three runs, with the app's
    outermost.

    Attributes:
        handlers: The handlers by stage.
        events: The event handlers by name or pattern.
        middlewares: The middleware by stage.
        checks: The checks of arriving messages.
    """

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.events: dict[str, Handler] = {}
        self.middlewares: dict[Stage, list[Middleware]] = {stage: [] for stage in around.STAGES}
        self.checks: list[Callable[[Any, Any], None]] = []
        # One for each running app that it is part of.
        self._reached: list[Callable[[Handlers], Target]] = []

    @property
    def everyone(self) -> Target:
        """All its open sockets: `send`, `emit` and `count`.

        For a router, these are the sockets of its routes, without those of routes with
        `everyone=False` and those whose handler takes `bytes`.

        Raises:
            RuntimeError: The app is not running.
        """
        if len(self._reached) != 1:
            why = "its app is not running" if not self._reached else "it is part of several running apps"
            raise RuntimeError(f"{self}.everyone: {why}.")
        return self._reached[0](self)

    @overload
    def on_connect(self, handler: F, /) -> F: ...
    @overload
    def on_connect(self, /, *, thread: bool = False) -> Callable[[F], F]: ...
    def on_connect(self, handler: F | None = None, /, *, thread: bool = False) -> F | Callable[[F], F]:
        """Register the handler that runs when a client connects.

        The socket opens when the handler returns, or earlier, when it first
        sends. A `Reject` before that is sent as an HTTP response. The handler
        returns nothing.

        Args:
            handler: The handler, plain or async.
            thread: Run a plain handler in a thread.

        Raises:
            ConfigurationError: There is such a handler already, or it is not a function.
        """
        return self._register("connect", handler, thread)

    @overload
    def on_message(self, handler: F, /) -> F: ...
    @overload
    def on_message(self, /, *, thread: bool = False) -> Callable[[F], F]: ...
    def on_message(self, handler: F | None = None, /, *, thread: bool = False) -> F | Callable[[F], F]:
        """Register the handler that runs for each message.

        The return value is sent to the client, and so is each item of an async
        generator. The type of the payload decides which messages the handler
        accepts: `str`, `bytes`, both, or any type that can be decoded from
        JSON.

        Args:
            handler: The handler, plain, async or an async generator.
            thread: Run a plain handler in a thread.

        Raises:
            ConfigurationError: There is such a handler already, or it is not a function.
        """
        return self._register("message", handler, thread)

    @overload
    def on_disconnect(self, handler: F, /) -> F: ...
    @overload
    def on_disconnect(self, /, *, thread: bool = False) -> Callable[[F], F]: ...
    def on_disconnect(self, handler: F | None = None, /, *, thread: bool = False) -> F | Callable[[F], F]:
        """Register the handler that runs when a socket has disconnected.

        It runs exactly once for every socket that opened, or whose connect
        handler was started. The socket has left its rooms by then, and their
        `on_leave` hooks have run.

        Args:
            handler: The handler, plain or async. A `Close` parameter receives
                how the connection ended.
            thread: Run a plain handler in a thread.

        Raises:
            ConfigurationError: There is such a handler already, or it is not a function.
        """
        return self._register("disconnect", handler, thread)

    def on_resync(self, handler: F, /) -> F:
        """Register the handler that runs when the messages of a slow client were dropped.

        It runs with `slow_consumer="resync"`, and sends what the client needs to go on,
        such as the whole state. It runs in a background task of the socket. If more is
        dropped while it runs, it runs once more.

        Args:
            handler: The handler, plain or async, as `on_connect`.

        Raises:
            ConfigurationError: There is such a handler already, or it is not a function.
        """
        registered: F = self._register("resync", handler, False)  # type: ignore[assignment]
        return registered

    def on(self, event: str, *, thread: bool = False) -> Callable[[F], F]:
        """Register the handler that runs for each event of a name.

        A route with such a handler speaks `symphony.v1`. The return value is
        the reply to a request. It is discarded if the event was not a request.
        An async generator answers a request with a stream. The type of the
        payload decides what the event's data must be.

        Args:
            event: A name, such as `"chat.say"`, or a name with parameters,
                such as `"game.{id:int}.move"`. `"*"` handles all events
                without another handler, and its parameter `event` receives
                the name. An exact name wins over a pattern.
            thread: Run a plain handler in a thread.

        Raises:
            ConfigurationError: The name is not valid, or is already registered.
        """
        if not isinstance(event, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            kind = str(self).partition(" ")[0]
            raise ConfigurationError(f"{self}: on() takes the name of an event. Write @{kind}.on('say').")
        if event != ANY_EVENT:
            NamePattern(event, separator=EVENT_SEPARATOR)
            if ANY_EVENT in event:
                raise ConfigurationError(
                    f"{self}: {event!r} would be matched literally. Use a parameter for a part that varies, "
                    f"{event.replace(ANY_EVENT, '{name}')!r}. '*' alone matches every event."
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
        """Register middleware around the middleware that is registered later.

        Use it as a decorator with a stage, `@app.middleware("message")`. Or pass
        an object: its methods `connect`, `message` and `disconnect` are
        registered, if they exist.

        Middleware is `async def`. It takes `(socket, call_next)` at `"connect"`,
        `(socket, message, call_next)` at `"message"` and
        `(socket, close, call_next)` at `"disconnect"`, and then what a handler
        can take, such as dependencies.

        Args:
            stage: The name of a stage, or an object with such methods.

        Raises:
            ConfigurationError: There is no such stage, or the middleware has
                the wrong signature.
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

    def check(self, check: F) -> F:
        """Check each message as it arrives: `(socket, message)`.

        It runs before the message is decoded or waits for its turn, so it can
        refuse a message for less than it costs to read it, for example in a rate limit.
        The checks of the app run first, then those of its routers, then those
        of the route. A `Reject` refuses the message and tells the sender; the
        socket stays open. An event connection that refuses a request answers
        with an `error` event, because the id of the request is not known yet.

        Args:
            check: A plain function; *message* is `str` or `bytes`, as it came.

        Raises:
            ConfigurationError: It is `async def` or a generator, or does not
                take socket and message.
        """
        name = qualified_name(check) if callable(check) else repr(check)
        if not callable(check) or any(kind(underlying(check)) for kind in _NOT_PLAIN):
            raise ConfigurationError(
                f"@{self}.check decorates a plain function (socket, message), not {name}."
            )
        try:
            inspect.signature(check).bind("socket", "message")
        except TypeError:
            raise ConfigurationError(f"@{self}.check: {name} must take (socket, message).") from None
        self.checks.append(check)
        return check

    def _add_middleware(self, stage: Stage, middleware: Middleware) -> None:
        around.check(stage, middleware)
        self.middlewares[stage].append(middleware)

    def _register(self, stage: str, handler: F | None, thread: bool) -> F | Callable[[F], F]:
        def register(handler: F) -> F:
            earlier = self.handlers.get(stage) or (self.events.get(MESSAGE) if stage == "message" else None)
            if earlier is not None:
                raise self._taken(f"on_{stage}", earlier, handler)
            self.handlers[stage] = self._handler(f"on_{stage}", handler, thread)
            return handler

        return register if handler is None else register(handler)

    def _handler(self, what: str, function: Any, thread: bool) -> Handler:
        if not callable(function):
            raise ConfigurationError(
                f"@{self}.{what} decorates a function, not {function!r}.{remedy(function)}"
            )
        return Handler(function, thread)

    def _taken(self, what: str, earlier: Handler, handler: Callable[..., Any]) -> ConfigurationError:
        return ConfigurationError(
            f"{self} already has an {what} handler, {located_name(earlier.function)}; "
            f"{located_name(handler)} would never run. Use middleware for code that must run as well."
        )


@contextmanager
def reachable(groups: Iterable[Handlers], everyone_of: Callable[[Handlers], Target]) -> Generator[None]:
    """Let routes and routers give their sockets inside the block.

    Args:
        groups: The routes and routers of a running app.
        everyone_of: Returns the sockets of one.
    """
    groups = tuple(groups)
    for group in groups:
        group._reached.append(everyone_of)  # pyright: ignore[reportPrivateUsage]
    try:
        yield
    finally:
        for group in groups:
            group._reached.remove(everyone_of)  # pyright: ignore[reportPrivateUsage]


def _unchanged(function: F) -> F:
    return function
