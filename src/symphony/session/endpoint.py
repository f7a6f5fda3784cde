"""The compiled form of a route: everything that is needed to run its sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final, Literal

from symphony.errors import ConfigurationError
from symphony.outgoing.encoding import RAW, Dialect
from symphony.protocol import subprotocols
from symphony.protocol.envelopes import Protocol
from symphony.session.contracts import LaneReports, Runner
from symphony.session.lane import Lane
from symphony.session.parallel import Parallel
from symphony.session.waiting import Waiting
from symphony.socket import Socket
from symphony.transport.base import Close, Profile
from symphony.websocket.handshake import choose_subprotocol

__all__ = ("Endpoint", "EventHandlers", "own_dialect")

_PAYLOADS: Final = ("json", "msgpack", "plain")


def own_dialect(make: Callable[[], Protocol], where: str) -> Dialect:
    """Return the dialect of an app's own protocol.

    Args:
        make: The app's `protocol=` argument.
        where: The place to name in the error.

    Raises:
        ConfigurationError: *make* does not return a `Protocol`.
    """
    try:
        shared = make()
        kind, _ = shared.payload, shared.subprotocol
        if kind not in _PAYLOADS:
            raise TypeError(f"its payload is {kind!r}, and not one of {', '.join(_PAYLOADS)}")
    except (TypeError, AttributeError) as error:
        raise ConfigurationError(f"{where}: protocol={make!r} does not create a Protocol: {error}.") from None
    return Dialect(make, shared=shared)


@dataclass(frozen=True, slots=True)
class EventHandlers:
    """The protocols and handlers of an event route.

    Attributes:
        dialects: Its protocols. A client that selects none gets the first.
        receive: Middleware and event handlers, by `Protocol.payload`. Called
            with socket and `Event`, it returns a coroutine.
    """

    dialects: Sequence[Dialect]
    receive: Mapping[str, Callable[[Socket[Any], Any], Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A route, compiled at start and shared by all its sockets.

    Attributes:
        pattern: The route's path pattern, for logs.
        profile: What the route requires of the transport.
        subprotocols: The subprotocols of the route, preferred ones first.
        origins: The other origins whose pages may connect.
        state: Creates the state of a socket.
        connect: Middleware and connect handler.
        receive: Middleware and message handler, called with socket and message.
            If *is_async* is true it returns a coroutine, otherwise the result.
        is_async: Whether *receive* returns a coroutine.
        handler_of: Returns the name of the handler of an event, or on a raw
            route of any message.
        events: The protocols and event handlers. `None` for a raw route, where
            *receive* handles the messages.
        checks: Called with socket and message for each message that arrives,
            before it is decoded. A `Reject` refuses the message.
        concurrency: How many messages of one socket may be handled at once.
        closes_on_error: Whether a refused or failed message closes the socket,
            on a raw route.
        everyone: Whether `app.everyone` reaches its sockets.
        per_user: Whether a user may have only one socket.
        on_conflict: Which one goes if there are two.
        inside: The route, and the routers that it is in, the app first.
        disconnect: Middleware and disconnect handler.
        resync: The handler that runs when the messages of a slow client were dropped.
        room: Returns the name of the room that a socket joins, from the parameters of its path.
    """

    pattern: str
    profile: Profile
    subprotocols: tuple[str, ...]
    origins: tuple[str, ...]
    state: Callable[[], Any]
    connect: Callable[[Socket[Any]], Awaitable[None]]
    receive: Callable[[Socket[Any], Any], Any]
    is_async: bool
    handler_of: Callable[[str], str]
    events: EventHandlers | None
    checks: tuple[Callable[[Socket[Any], Any], None], ...]
    concurrency: int
    closes_on_error: bool
    everyone: bool
    per_user: bool
    on_conflict: Literal["replace", "refuse"]
    inside: tuple[object, ...]
    disconnect: Callable[[Socket[Any], Close], Awaitable[None]] | None
    resync: Callable[[Socket[Any]], Awaitable[None]] | None
    room: Callable[[Mapping[str, Any]], str] | None

    def choose(self, offered: Sequence[str]) -> tuple[str | None, Dialect]:
        """Choose the subprotocol and the dialect of a connection.

        Args:
            offered: The client's subprotocols.

        Returns:
            The subprotocol for the response, or `None` if it names none, and
            the dialect, which is `RAW` on a raw route.
        """
        dialects: Sequence[Dialect] = self.events.dialects if self.events is not None else (RAW,)
        for dialect in dialects:
            if dialect.subprotocol in offered and dialect is not RAW:
                return dialect.subprotocol, dialect
        first = dialects[0]
        own = self.subprotocols
        if first is RAW or not first.is_v1:
            # Either the route is raw, or the app has its own protocol.
            own = (*own, subprotocols.RAW)
        return choose_subprotocol(offered, own), first

    def runner(
        self,
        context: Context,
        reports: LaneReports,
        watched: Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]],
    ) -> Runner:
        """Create what runs the handlers of a socket: one after the other, or several at once.

        Args:
            context: The context of the socket.
            reports: Called with what becomes of the messages.
            watched: Wraps a coroutine, to log a warning if it blocks the event loop.
        """
        loop, limits = asyncio.get_running_loop(), self.profile.limits
        queue = Waiting(
            max_count=limits.max_queue, max_bytes=limits.max_queue_bytes, queued=self.profile.queued
        )
        if self.concurrency == 1:
            return Lane(loop, context, reports, queue=queue, max_turn_time=limits.max_turn_time)
        return Parallel(loop, context, reports, queue=queue, concurrency=self.concurrency, watched=watched)
