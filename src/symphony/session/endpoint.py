"""What a route compiles to: everything that runs one of its sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final

from symphony.errors import ConfigurationError
from symphony.outgoing.encoding import RAW, Dialect
from symphony.protocol import subprotocols
from symphony.protocol.envelopes import Protocol
from symphony.session.lane import Lane
from symphony.session.parallel import Parallel
from symphony.socket import Socket
from symphony.transport.base import Close, Profile
from symphony.websocket.handshake import choose_subprotocol

__all__ = ("Endpoint", "EventHandlers", "own_dialect")

_PAYLOADS: Final = ("json", "msgpack", "plain")


def own_dialect(make: Callable[[], Protocol], where: str) -> Dialect:
    """Return the dialect of an app's own protocol.

    Args:
        make: What the app gave.
        where: For the error.

    Raises:
        ConfigurationError: It makes no protocol.
    """
    try:
        shared = make()
        kind, _ = shared.payload, shared.subprotocol
        if kind not in _PAYLOADS:
            raise TypeError(f"its payload is {kind!r}, and not one of {', '.join(_PAYLOADS)}")
    except (TypeError, AttributeError) as error:
        raise ConfigurationError(f"{where}: protocol={make!r} makes no Protocol: {error}.") from None
    return Dialect(make, shared=shared)


@dataclass(frozen=True, slots=True)
class EventHandlers:
    """What a route that speaks events does with them.

    Attributes:
        dialects: Its protocols; a client that asks for none gets the first.
        receive: Middleware and event handlers, by `Protocol.payload`: makes a
            coroutine from socket and `Event`.
    """

    dialects: Sequence[Dialect]
    receive: Mapping[str, Callable[[Socket[Any], Any], Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A route, compiled at start; shared by all of its sockets.

    Attributes:
        pattern: The route's path pattern, for logs.
        profile: What the route asks of the transport.
        subprotocols: What it speaks, in the order of its preference.
        origins: The cross-origin pages whose browsers may connect.
        state: Makes the state of a socket.
        connect: Middleware and connect handler.
        receive: Middleware and message handler: makes a coroutine from socket
            and message, or with *is_async* false handles it.
        is_async: Which of the two.
        handler_of: Names the handler of an event, or on a raw route of any message.
        events: What it does with events; `None`: the route is raw, and
            *receive* takes its messages.
        checks: Called with socket and message for each message that arrives,
            before it is decoded; a `Reject` refuses it.
        concurrency: How many messages of one socket are handled at once.
        disconnect: Middleware and disconnect handler.
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
    disconnect: Callable[[Socket[Any], Close], Awaitable[None]] | None

    def choose(self, offered: Sequence[str]) -> tuple[str | None, Dialect]:
        """Choose the subprotocol and the dialect of a connection.

        Args:
            offered: The client's subprotocols.

        Returns:
            The subprotocol for the answer, `None`: none is named; and the
            dialect, `RAW` on a raw route.
        """
        dialects: Sequence[Dialect] = self.events.dialects if self.events is not None else (RAW,)
        for dialect in dialects:
            if dialect.subprotocol in offered and dialect is not RAW:
                return dialect.subprotocol, dialect
        first = dialects[0]
        own = self.subprotocols
        if first is RAW or not first.is_v1:
            # The messages are the app's own, on a raw route or in a protocol of the app's.
            own = (*own, subprotocols.RAW)
        return choose_subprotocol(offered, own), first

    def runner(
        self,
        context: Context,
        done: Callable[[Any, Any], Awaitable[None] | None],
        failed: Callable[[Any, BaseException], Awaitable[None] | None],
        full: Callable[[bool], None],
        watched: Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]],
    ) -> Lane | Parallel:
        """Make what runs the handlers of a socket: one after the other, or several at once.

        Args:
            context: The socket's.
            done: As a `Lane` takes it.
            failed: Likewise.
            full: Likewise.
            watched: Awaits work, and names it if it holds the event loop.
        """
        loop, max_queue = asyncio.get_running_loop(), self.profile.limits.max_queue
        if self.concurrency == 1:
            return Lane(loop, context, done=done, failed=failed, full=full, max_queue=max_queue)
        return Parallel(
            loop,
            context,
            done=done,
            failed=failed,
            full=full,
            max_queue=max_queue,
            concurrency=self.concurrency,
            watched=watched,
        )
