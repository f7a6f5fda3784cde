"""What a route compiles to: everything that runs one of its sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from symphony.errors import ConfigurationError
from symphony.protocol.envelopes import Protocol
from symphony.protocol.handshake import choose_subprotocol
from symphony.protocol.v1 import JSON, MSGPACK
from symphony.session.lane import Lane
from symphony.session.parallel import Parallel
from symphony.socket import Socket
from symphony.transport.base import Close, Profile
from symphony.voice import Voice

__all__ = ("RAW_SUBPROTOCOL", "V1_DIALECTS", "Dialect", "Endpoint", "Speech", "own_dialect")

_PAYLOADS: Final = ("json", "msgpack", "plain")
RAW_SUBPROTOCOL: Final = "symphony.raw"
"""Chosen on raw routes for clients that offer it: browsers fail a connection
for which they offered something and nothing was chosen."""


class Dialect(NamedTuple):
    """A protocol that events can be said in.

    Attributes:
        make: Makes one for a connection.
        voice: Says what belongs to no request.
        subprotocol: What a client offers to speak it.
    """

    make: Callable[[], Protocol]
    voice: Voice
    subprotocol: str | None


V1_DIALECTS: Final = (
    Dialect(lambda: JSON, Voice(JSON), JSON.subprotocol),
    Dialect(lambda: MSGPACK, Voice(MSGPACK), MSGPACK.subprotocol),
)


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
        kind, subprotocol = shared.payload, shared.subprotocol
        if kind not in _PAYLOADS:
            raise TypeError(f"its payload is {kind!r}, and not one of {', '.join(_PAYLOADS)}")
    except (TypeError, AttributeError) as error:
        raise ConfigurationError(f"{where}: protocol={make!r} makes no Protocol: {error}.") from None
    return Dialect(make, Voice(shared), subprotocol)


@dataclass(frozen=True, slots=True)
class Speech:
    """How a route speaks events.

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
        speech: How it speaks events; `None`: it is raw, and *receive* takes
            its messages.
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
    speech: Speech | None
    concurrency: int
    disconnect: Callable[[Socket[Any], Close], Awaitable[None]] | None

    def choose(self, offered: Sequence[str]) -> tuple[str | None, Dialect | None]:
        """Choose what is spoken on a connection.

        Args:
            offered: The client's subprotocols.

        Returns:
            The subprotocol for the answer, and how events are said.
        """
        dialects: Sequence[Dialect] = self.speech.dialects if self.speech is not None else []
        for dialect in dialects:
            if dialect.subprotocol in offered:
                return dialect.subprotocol, dialect
        if dialects and dialects[0].voice is V1_DIALECTS[0].voice:
            return choose_subprotocol(offered, self.subprotocols), dialects[0]
        # What is said is the app's own, on a raw route or in a protocol of its own.
        chosen = choose_subprotocol(offered, (*self.subprotocols, RAW_SUBPROTOCOL))
        return chosen, dialects[0] if dialects else None

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
