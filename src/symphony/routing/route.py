"""Routes, and what they may set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from symphony.limits import Limits
from symphony.protocol.envelopes import Protocol
from symphony.routing.handlers import Handlers
from symphony.routing.parameters import located_name
from symphony.routing.patterns import PathPattern

__all__ = ("Options", "Route")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a route; `None` means the app's option.

    Attributes:
        state: A class without arguments, created once for each socket.
        subprotocols: The supported subprotocols, in order of preference.
        origins: Pages of other origins that may connect.
        limits: Limits that replace the app's.
        compression: Compress messages of at least this many bytes.
        slow_consumer: What happens to a client that does not read.
        protocol: Creates the protocol of each connection.
        concurrency: How many messages of one socket are handled at once.
        events: Whether it speaks events even without a handler of one.
        errors: What a refused or failed message does on a raw route.
        everyone: Whether `app.everyone` reaches its sockets.
        per_user: How many sockets a user may have: 1, or `None` for any number.
        on_conflict: What a further one does: it replaces the other, or is refused.
        room: The room that its sockets join, with parameters of the path.
    """

    state: Callable[[], Any] | None = None
    subprotocols: Sequence[str] | None = None
    origins: Sequence[str] | None = None
    limits: Limits | None = None
    compression: int | None = None
    slow_consumer: Literal["disconnect", "drop_oldest", "conflate", "resync"] | None = None
    protocol: Callable[[], Protocol] | None = None
    concurrency: int | None = None
    events: bool | None = None
    errors: Literal["close", "message"] | None = None
    everyone: bool | None = None
    per_user: int | None = None
    on_conflict: Literal["replace", "refuse"] | None = None
    room: str | None = None

    def over(self, defaults: Options) -> Options:
        """Return these options, with those of *defaults* where they are `None`."""
        values = {
            field.name: getattr(self if getattr(self, field.name) is not None else defaults, field.name)
            for field in fields(self)
        }
        return Options(**values)


class Route(Handlers):
    """A path pattern with its handlers, middleware and options.

    Create it with `app.route(path)` or `router.route(path)`.

    Attributes:
        path: The pattern, without the prefixes of its routers.
        options: The options of the route.
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
    def _owner(self) -> str:
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
