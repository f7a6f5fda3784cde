"""Hot path: answers the requests of one client.

Each request gets exactly one answer: the result of its handler, the error that
it raised, the end of its stream, or the reason why it was cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextvars import Context
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, Final, cast

from symphony.errors import ProtocolError, Reject
from symphony.outgoing.encoding import frame_encoder
from symphony.protocol.envelopes import End, Envelope, Error, Event, Failure, Protocol, Reply
from symphony.protocol.invalid import shortened
from symphony.protocol.v1 import ERROR
from symphony.session.streams import Streams

if TYPE_CHECKING:
    from symphony.limits import Limits
    from symphony.session.contracts import LiveSession
    from symphony.transport.base import Connection

__all__ = ("CANCELLED", "INTERNAL", "RESTARTS", "TOO_LATE", "Answering")

CANCELLED: Final = Reject("cancelled", "the request was cancelled")
TOO_LATE: Final = Reject("timeout", "the request took longer than its timeout")
RESTARTS: Final = Reject("unavailable", "the server restarts")
INTERNAL: Final = Reject("internal", "the server failed to handle the event")


class Answering:
    """The unanswered requests of one client.

    Args:
        session: The socket's session.
        connection: The socket's connection.
        protocol: The connection's protocol, which may be stateful.
        limits: The limits of the route.
        context: The context of the handlers.
        name: The socket's name in logs.

    Attributes:
        active: The requests that wait or run, by id.
        draining: Whether the server is stopping. Cancelled requests are then
            answered with `unavailable`.
        streams: The streams that answer requests.
        unsettled: Whether the request that was just delivered has no answer
            yet. Most handlers finish at once, and only the requests of the
            others are remembered.
        withdraw: Removes an event from the queue or cancels its handler, and
            returns whether the handler was running. It is set once, before the
            first message is received.
    """

    __slots__ = (
        "_connection",
        "_encode",
        "_loop",
        "_outbox",
        "_session",
        "_timers",
        "_why",
        "active",
        "draining",
        "streams",
        "unsettled",
        "withdraw",
    )

    withdraw: Callable[[Event], bool]

    def __init__(
        self,
        session: LiveSession,
        connection: Connection,
        protocol: Protocol,
        limits: Limits,
        context: Context,
        name: str,
    ) -> None:
        self._session = session
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._encode = frame_encoder(protocol, connection.encoding)
        self._outbox = connection.outbox
        self._timers: dict[Any, asyncio.TimerHandle] = {}
        self._why: dict[Any, Reject] = {}
        self.active: dict[Any, Event] = {}
        self.unsettled = False
        self.draining = False
        self.streams = Streams(self.send, self._streamed, session.watched, context, limits.max_streams, name)

    def remember(self, event: Event) -> None:
        """Remember a request whose handler did not finish at once."""
        id = event.id
        self.active[id] = event
        if event.timeout is not None:
            self._timers[id] = self._loop.call_later(event.timeout, self.cancel, event, TOO_LATE)

    def done(self, event: Event, result: Any) -> Awaitable[None] | None:
        """Answer with a handler's result; return what to await before the next event."""
        if type(result) is AsyncGeneratorType:
            return self._stream(event, cast("AsyncGeneratorType[Any, Any]", result))
        id = event.id
        if id is None:
            return None
        encode = self._encode
        frame = encode(Reply(id, result))
        if self.active:
            self._settle(event)
        else:
            self.unsettled = False
        # Inlined `send`. The frame is made before the request is settled: if encoding
        # fails, the request still needs an answer.
        if frame is None:
            return None
        outbox = self._outbox
        outbox.send(frame)
        return None if outbox.size <= outbox.high else outbox.drained()

    def failed(self, event: Event | None, error: BaseException) -> Awaitable[None] | None:
        """Answer with a handler's error; return what to await before the next event."""
        if isinstance(error, ProtocolError):
            self._connection.close(error.code, error.reason)
            return None
        if event is None:
            self._session.report(error, "message handler")
            return None
        refusal = self._refusal(event, error)
        self._settle(event)
        return self.refuse(event.id, refusal)

    def refuse(self, id: Any, refusal: Reject) -> Awaitable[None] | None:
        """Answer the request *id* with an error; without an id, send it as an event."""
        try:
            payload = refusal.payload()
            return self.send(Failure(ERROR, payload) if id is None else Error(id, payload))
        except Exception as error:
            self._session.report(error, "details of a Reject")
            if refusal is not INTERNAL:
                # Without details, the error can be encoded.
                return self.refuse(id, INTERNAL)
            # The app's own protocol has no way to say it.
            self._connection.close(1011, INTERNAL.message)
            return None

    def cancel(self, event: Event, why: Reject) -> None:
        """Cancel the handler or the stream of a request, and answer with *why*."""
        if not self.streams.cancel(event.id, why) and event.id not in self._why:
            self._why[event.id] = why
            withdraw = self.withdraw
            if not withdraw(event):
                self.failed(event, why)

    def send(self, envelope: Envelope) -> Awaitable[None] | None:
        """Send an envelope; return what to await before the next."""
        outbox, encode = self._outbox, self._encode
        frame = encode(envelope)
        if frame is None:
            return None
        outbox.send(frame)
        # A client that sends faster than it reads the answers is slowed down: see
        # `Messages.done`.
        return None if outbox.size <= outbox.high else outbox.drained()

    def connection_lost(self) -> None:
        """Cancel the streams and timers, because the connection has ended."""
        self.streams.cancel_all(None)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def release(self) -> None:
        """Break reference cycles, so that a closed socket is freed at once."""
        self.streams = self.withdraw = cast("Any", None)

    def _stream(self, event: Event, items: AsyncGenerator[Any]) -> Awaitable[None] | None:
        """Answer with the items of a generator."""
        if self._session.is_over:
            self._settle(event)
        else:
            try:
                self.streams.begin(event, items)
            except Reject as refusal:
                self.failed(event, refusal)
            else:
                return None
        return self._close(event, items)

    async def _close(self, event: Event, items: AsyncGenerator[Any]) -> None:
        """Close a generator that will not be streamed: it may hold dependencies."""
        try:
            await items.aclose()
        except BaseException as error:
            self._session.report(error, f"stream of {shortened(event.event)!r}")

    def _refusal(self, event: Event, error: BaseException) -> Reject:
        if isinstance(error, Reject):
            return error
        why = self._why.get(event.id, RESTARTS if self.draining else None)
        if isinstance(error, asyncio.CancelledError) and why is not None:
            return why
        self._session.report(error, f"handler of the event {shortened(event.event)!r}", event.event)
        return INTERNAL

    def _settle(self, event: Event) -> None:
        id = event.id
        if self.active.pop(id, None) is None:
            self.unsettled = False
            return
        self._why.pop(id, None)
        timer = self._timers.pop(id, None)
        if timer is not None:
            timer.cancel()

    def _streamed(self, event: Event, error: BaseException | None) -> None:
        """Answer a request whose stream has ended."""
        if self._session.is_over:
            # There is no client to answer, but errors of the generator are still reported.
            self._settle(event)
            if error is not None and not isinstance(error, asyncio.CancelledError | Reject):
                self._session.report(error, f"stream of {shortened(event.event)!r}")
        elif error is None:
            self._settle(event)
            self.send(End(event.id))
        else:
            self.failed(event, error)
