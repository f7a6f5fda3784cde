"""Routes, and routers that group them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from symphony.errors import ConfigurationError
from symphony.limits import Limits
from symphony.protocol.envelopes import Protocol
from symphony.routing.handlers import Handlers
from symphony.routing.parameters import located_name
from symphony.routing.patterns import PathPattern, join_paths

__all__ = ("Options", "Route", "Router")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a route may set for its connections; `None` takes the app's.

    Attributes:
        state: A class without arguments, made once a socket.
        subprotocols: What it speaks, in the order of its preference.
        origins: Cross-origin pages whose browsers may connect.
        limits: Bounds that differ from the app's.
        compression: Compress messages of at least so many bytes.
        slow_consumer: What happens to a client that does not read.
        protocol: Makes, for each connection, the protocol its events are in.
        concurrency: How many messages of one socket are handled at once.
    """

    state: Callable[[], Any] | None = None
    subprotocols: Sequence[str] | None = None
    origins: Sequence[str] | None = None
    limits: Limits | None = None
    compression: int | None = None
    slow_consumer: Literal["disconnect", "drop_oldest"] | None = None
    protocol: Callable[[], Protocol] | None = None
    concurrency: int | None = None


class Route(Handlers):
    """A path pattern and what happens on connections to it.

    Made by `app.route(path)` or `router.route(path)`.

    Attributes:
        path: The pattern, without the prefixes of its routers.
        options: What it sets for its connections.
        place: The file and line that added it.
    """

    def __init__(self, path: str, options: Options, place: str = "") -> None:
        super().__init__()
        if path:
            PathPattern(path)
        self.path = path
        self.options = options
        self.place = place

    @property
    def owner(self) -> str:
        """Whose it is, for errors: its first handler, or where it was added."""
        first = next(iter((*self.handlers.values(), *self.events.values())), None)
        handler = f"handler {located_name(first.function)}" if first is not None else ""
        return handler or f"the route without handlers ({self.place})"

    def __call__(self, handler: Callable[..., Any]) -> Route:
        """Make *handler* the connect handler and return the route."""
        self.on_connect(handler)
        return self

    def __repr__(self) -> str:
        return f"route {self.path!r}"


class Router(Handlers):
    """Routes grouped in a module of yours, included into the app.

    Handlers and middleware of a router hold for all of its routes.

    Args:
        prefix: Goes before the paths of its routes, as in `"/api"`.
    """

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        join_paths(prefix, "/")
        self.prefix = prefix
        self._parts: list[Route | tuple[str, Router]] = []

    def route(
        self,
        path: str,
        *,
        state: Callable[[], Any] | None = None,
        subprotocols: Sequence[str] | None = None,
        origins: Sequence[str] | None = None,
        limits: Limits | None = None,
        compression: int | None = None,
        slow_consumer: Literal["disconnect", "drop_oldest"] | None = None,
        protocol: Callable[[], Protocol] | None = None,
        concurrency: int | None = None,
    ) -> Route:
        """Add a route.

        Args:
            path: `/chat`, `/chat/{room}`, `/users/{id:int}`, `/files/{path:path}`.
            state: A class without arguments; each socket gets one as its `state`.
            subprotocols: What the route speaks, in the order of its preference.
            origins: Pages of other origins whose browsers may connect:
                `"https://example.com"`, `"https://*.example.com"` or `"*"`.
            limits: Bounds instead of the app's.
            compression: Compress messages of at least so many bytes, for
                clients that can (RFC 7692). `None`: as the app does.
            slow_consumer: When a client's outbox is full: `"disconnect"` it
                with 1013, or `"drop_oldest"` messages and count them.
            protocol: A protocol of your own for the events of this route: a
                class, or anything else that makes a `Protocol`, called
                without arguments for each connection. `None`: `symphony.v1`
                in JSON and MessagePack where there are event handlers.
            concurrency: How many messages of one socket are handled at once,
                each in a task of its own, in no order. `None` and 1: one
                after the other. Streams never wait for each other.

        Returns:
            The route, to register handlers on; also usable as the decorator
            of its connect handler.

        Raises:
            ConfigurationError: The path is not a pattern.
        """
        options = Options(
            state=state,
            subprotocols=subprotocols,
            origins=origins,
            limits=limits,
            compression=compression,
            slow_consumer=slow_consumer,
            protocol=protocol,
            concurrency=concurrency,
        )
        caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
        route = Route(path, options, f"{caller.f_code.co_filename}:{caller.f_lineno}")
        self._parts.append(route)
        return route

    def include(self, router: Router, *, prefix: str = "") -> None:
        """Add all routes of *router*, also those it gets later.

        Args:
            router: Another router.
            prefix: Goes before the router's own prefix.

        Raises:
            ConfigurationError: The prefix is wrong, or the router would
                include itself.
        """
        join_paths(prefix, "/")
        if router is self or any(inner is self for inner in router.routers()):
            raise ConfigurationError(f"{router!r} cannot be included into itself.")
        self._parts.append((prefix, router))

    def routers(self) -> Iterator[Router]:
        """Give all routers below this one."""
        for part in self._parts:
            if not isinstance(part, Route):
                yield part[1]
                yield from part[1].routers()

    def routes(self, prefix: str = "") -> Iterator[tuple[str, Route, tuple[Handlers, ...]]]:
        """Give each route with its whole path and what it is in, the outermost first."""
        prefix = join_paths(prefix, self.prefix)
        for part in self._parts:
            if isinstance(part, Route):
                yield join_paths(prefix, part.path), part, (self, part)
            else:
                outer, router = part
                for path, route, inside in router.routes(join_paths(prefix, outer)):
                    yield path, route, (self, *inside)

    def __repr__(self) -> str:
        return f"router {self.prefix!r}" if self.prefix else "router"
