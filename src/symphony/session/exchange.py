"""Hot path: what is said on an event connection, in both directions.

Whatever comes in is decoded here. An event goes to the lane, where its turn
comes; answers, grants and cancels never wait there, so that a handler may
await its own client. Each request gets exactly one answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, Final, cast
from typing import Protocol as Contract

from symphony.errors import ProtocolError, Reject
from symphony.outgoing.encoding import frame_encoder
from symphony.protocol.envelopes import (
    Cancel,
    End,
    Envelope,
    Error,
    Event,
    Grant,
    MalformedError,
    Ping,
    Pong,
    Protocol,
    Reply,
    Retry,
)
from symphony.protocol.invalid import shortened
from symphony.protocol.v1 import MAX_CREDIT, V1
from symphony.session.requests import Requests
from symphony.session.streams import OVERDRAWN, Streams

if TYPE_CHECKING:
    from symphony.limits import Limits
    from symphony.outgoing.encoding import Message
    from symphony.transport.base import Connection

__all__ = ("Exchange", "ExchangeSession", "Runner")

logger = logging.getLogger("symphony.socket")

_CANCELLED: Final = Reject("cancelled", "the request was cancelled")
_TOO_LATE: Final = Reject("timeout", "the request took longer than its timeout")
_RESTARTS: Final = Reject("unavailable", "the server restarts")
_INTERNAL: Final = Reject("internal", "the server failed to handle the event")


class Runner(Contract):
    """What runs the handlers: a lane, or several handlers at once."""

    is_full: bool

    @property
    def is_idle(self) -> bool:
        """Whether a message is handled at once."""
        ...

    @property
    def waiting(self) -> int:
        """How many messages wait."""
        ...

    def deliver(self, message: Any) -> None:
        """Handle a message when its turn comes."""
        ...

    def withdraw(self, message: Any) -> bool:
        """Take it back, or cancel its handler; whether that runs."""
        ...


class ExchangeSession(Contract):
    """What an exchange needs of the session it belongs to."""

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended."""
        ...

    def report(self, error: BaseException, what: str, event: str = "") -> None:
        """Report what was raised in *what*, the handler of *event*."""
        ...

    def watched(self, work: Coroutine[Any, Any, Any], event: Event, /) -> Awaitable[Any]:
        """Name *work* in a warning if it holds the event loop."""
        ...


class Exchange:
    """The requests, answers and streams of one socket.

    Args:
        host: The socket's session.
        connection: Its connection.
        protocol: Its protocol; it may have a memory of its own.
        limits: The bounds of its route.
        context: What its handlers run in.
        name: How the socket is called in logs.

    Attributes:
        requests: The server's own requests to the client.
        runner: Runs the handlers; given once, before anything comes in.
        streams: The streams that answer the client's.
    """

    __slots__ = (
        "_active",
        "_connection",
        "_decode_event",
        "_draining",
        "_encode",
        "_highest",
        "_host",
        "_kind",
        "_limits",
        "_loop",
        "_name",
        "_needs_check",
        "_outbox",
        "_protocol",
        "_timers",
        "_unsettled",
        "_why",
        "requests",
        "runner",
        "streams",
    )

    runner: Runner

    def __init__(
        self,
        host: ExchangeSession,
        connection: Connection,
        protocol: Protocol,
        limits: Limits,
        context: Context,
        name: str,
    ) -> None:
        self._host = host
        self._connection = connection
        self._protocol = protocol
        self._limits = limits
        self._name = name
        self._loop = asyncio.get_running_loop()
        # The decoder of the usual protocol is called without a function between.
        self._kind = protocol.kind if isinstance(protocol, V1) else None
        self._decode_event: Callable[[Message], Any] = getattr(protocol, "decode_event", protocol.decode)
        self._encode = frame_encoder(protocol, connection.encoding)
        self._outbox = connection.outbox
        self._highest = -1
        self._unsettled = False
        self._draining = False
        # Whether more than usual decides if an event may wait for its turn.
        self._needs_check = False
        # The client's requests: all that wait or run, and why one was cancelled.
        self._active: dict[Any, Event] = {}
        self._timers: dict[Any, asyncio.TimerHandle] = {}
        self._why: dict[Any, Reject] = {}
        self.streams = Streams(self._send, self._streamed, host.watched, context, limits.max_streams, name)
        self.requests = Requests(self._send, self.adjust_reading, protocol.payload, limits.max_requests, name)

    # What comes in

    def received(self, message: Any) -> None:
        """Take the next message, or an event that was in one. Never raises."""
        event = message
        # What waits keeps its data as it is written: decoded it can be 20 times as large.
        if type(message) is self._kind and self.runner.is_idle:
            decode = self._decode_event
            try:
                event = decode(message)
            except Exception:
                # Of another kind, or malformed.
                return self._decode(message)
        elif not isinstance(event, Event):
            return self._decode(message)
        id = event.id
        if id is not None and id > self._highest:
            self._highest = id
        if (self._needs_check or id in self._active or event.event == "error") and self._check(event):
            return None
        if id is None:
            return self.runner.deliver(event)
        # Most handlers finish right here; only of others a request is remembered.
        self._unsettled = True
        self.runner.deliver(event)
        if self._unsettled:
            self._active[id] = event
            if event.timeout is not None:
                self._timers[id] = self._loop.call_later(event.timeout, self._cancel, event, _TOO_LATE)
        return None

    def _check(self, event: Event) -> bool:
        """Do not let an event wait for its turn, if there is a reason."""
        id = event.id
        if event.event == "error":
            # Never answered: two that tell each other of errors would never end.
            logger.info("Socket %s tells of an error.", self._name)
        elif self._draining:
            self._refuse(None if id in self._active else id, _RESTARTS)
        elif self.requests.pending and self.runner.waiting >= self._limits.max_awaiting:
            # While a handler awaits this client, its answer must be read: the
            # queue cannot push back, so that it has a bound of another kind.
            self._refuse(id, Reject("too_many", "too many messages while a handler waits for you"))
        elif id in self._active:
            self._refuse(None, Reject("conflict", f"request {id} is under way", details={"id": id}))
        else:
            return False
        return True

    def _decode(self, message: Message) -> None:
        try:
            decoded = self._protocol.decode(message)
        except MalformedError as error:
            decoded = error
        except ProtocolError as error:
            return self._connection.close(error.code, error.reason)
        except Exception as error:
            self._host.report(error, f"decode of {type(self._protocol).__name__}")
            self._refuse(None, _INTERNAL)
            return None
        for envelope in decoded if isinstance(decoded, Sequence) else (decoded,):
            if isinstance(envelope, Event):
                self.received(envelope)
            elif isinstance(envelope, MalformedError):
                # The answer of a request that is under way is still to come.
                self._refuse(None if envelope.id in self._active else envelope.id, envelope)
            else:
                self._other(envelope)
        return None

    def _other(self, envelope: Envelope) -> None:
        match envelope:
            case Reply(id, data):
                self._expect(id, self.requests.answered(id, data))
            case Error(id, data):
                self._expect(id, self.requests.failed(id, data))
            case Grant(id, credit):
                self._grant(id, credit)
            case Cancel(id):
                event = self._active.get(id)
                if event is not None:
                    self._cancel(event, _CANCELLED)
                else:
                    self._expect(id, id <= self._highest)
            case Ping(number):
                self._send(Pong(number))
            case _:
                kind = type(envelope).__name__.lower()
                self._refuse(None, Reject("invalid", f"only a server sends `{kind}`", details={"path": "$"}))

    def _grant(self, id: Any, credit: int) -> None:
        event = self._active.get(id)
        if self.streams.grant(id, credit):
            return
        if event is None:
            self._expect(id, id <= self._highest)
        elif event.credit is not None:
            # Its turn has not come: it will begin with all of it.
            event.credit += credit
            if event.credit > MAX_CREDIT:
                self._cancel(event, OVERDRAWN)

    def _expect(self, id: Any, known: bool) -> None:
        """Tell who names a request that never was; of one that is over he may not have known."""
        if not known:
            self._refuse(None, Reject("not_found", f"there is no request {id}", details={"id": id}))

    # Answers to the client

    def done(self, event: Event, result: Any) -> Awaitable[None] | None:
        """Answer with what a handler returned; returns what to await before the next."""
        if type(result) is AsyncGeneratorType:
            if self._host.is_over:
                self._settle(event)
            else:
                self.streams.begin(event, cast("AsyncGeneratorType[Any, Any]", result))
            return None
        id = event.id
        if id is None:
            return None
        encode = self._encode
        frame = encode(Reply(id, result))
        if self._active:
            self._settle(event)
        else:
            self._unsettled = False
        # `_send`, but the frame made first: if that fails, it is still to be answered.
        if frame is None:
            return None
        outbox = self._outbox
        outbox.send(frame)
        return None if outbox.size <= outbox.high else outbox.drained()

    def failed(self, event: Event | None, error: BaseException) -> Awaitable[None] | None:
        """Answer with what a handler raised; returns what to await before the next."""
        if isinstance(error, ProtocolError):
            self._connection.close(error.code, error.reason)
            return None
        if event is None:
            self._host.report(error, "message handler")
            return None
        refusal = self._refusal(event, error)
        self._settle(event)
        return self._refuse(event.id, refusal)

    def _refusal(self, event: Event, error: BaseException) -> Reject:
        if isinstance(error, Reject):
            return error
        why = self._why.get(event.id, _RESTARTS if self._draining else None)
        if isinstance(error, asyncio.CancelledError) and why is not None:
            return why
        self._host.report(error, f"handler of the event {shortened(event.event)!r}", event.event)
        return _INTERNAL

    def _refuse(self, id: Any, refusal: Reject) -> Awaitable[None] | None:
        payload = refusal.payload()
        try:
            return self._send(Event("error", payload) if id is None else Error(id, payload))
        except Exception as error:
            self._host.report(error, "details of a Reject")
            # What is left of it can be encoded.
            return self._refuse(id, _INTERNAL)

    def _settle(self, event: Event) -> None:
        id = event.id
        if self._active.pop(id, None) is None:
            self._unsettled = False
            return
        self._why.pop(id, None)
        timer = self._timers.pop(id, None)
        if timer is not None:
            timer.cancel()

    def _cancel(self, event: Event, why: Reject) -> None:
        if not self.streams.cancel(event.id, why) and event.id not in self._why:
            self._why[event.id] = why
            if not self.runner.withdraw(event):
                self.failed(event, why)

    def _streamed(self, event: Event, error: BaseException | None) -> None:
        """End the answer of a stream."""
        if self._host.is_over:
            # Nobody hears it; what failed while it was closed is reported all the same.
            self._settle(event)
            if error is not None and not isinstance(error, asyncio.CancelledError | Reject):
                self._host.report(error, f"stream of {shortened(event.event)!r}")
        elif error is None:
            self._settle(event)
            self._send(End(event.id))
        else:
            self.failed(event, error)

    # Its adjust_reading and its end

    def drain(self, *, retry: float, timeout: float) -> None:
        """Take no more events, and end the streams within *timeout* seconds.

        Args:
            retry: After how many seconds the client may come back.
            timeout: For what runs.
        """
        self._draining = self._needs_check = True
        self._send(Retry(retry))
        self._loop.call_later(timeout, self.streams.cancel_all, _RESTARTS)

    def connection_lost(self) -> None:
        """Hear that the connection has ended: nothing is answered any more."""
        self.requests.connection_lost()
        self.streams.cancel_all(None)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def release(self) -> None:
        """Let go of what refers back: a socket that has gone is freed at once."""
        self.runner = self.requests = self.streams = cast("Any", None)

    def adjust_reading(self, *_: bool) -> None:
        """Read on, or do not: never stop while an answer is awaited."""
        self._needs_check = self._draining or bool(self.requests.pending)
        if self.runner.is_full and not self.requests.pending:
            self._connection.pause_reading()
        else:
            self._connection.resume_reading()

    def _send(self, envelope: Envelope) -> Awaitable[None] | None:
        outbox, frame = self._outbox, self._encode(envelope)
        if frame is None:
            return None
        outbox.send(frame)
        # For whoever asks faster than he reads the answers: see `Messages.done`.
        return None if outbox.size <= outbox.high else outbox.drained()
