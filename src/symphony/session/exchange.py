"""Hot path: handles the incoming messages of an event connection.

Each message is decoded here. Only events enter the lane, where they wait for
their turn. Replies, errors, grants and cancels are handled at once, so that a
handler can await a reply of its own client. `answering.py` sends the answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any, cast

from symphony.errors import ProtocolError, Reject
from symphony.protocol.actions import COUNT, HISTORY, JOIN, LEAVE, PRESENCE, PUBLISH
from symphony.protocol.bounds import SMALL, check_elements
from symphony.protocol.envelopes import (
    Cancel,
    Envelope,
    Error,
    Event,
    Failure,
    Grant,
    Join,
    Leave,
    MalformedError,
    Ping,
    Pong,
    Protocol,
    Publish,
    ReadCount,
    ReadHistory,
    ReadPresence,
    Reply,
    Retry,
)
from symphony.protocol.v1 import ERROR, MAX_CREDIT, V1
from symphony.session.answering import CANCELLED, INTERNAL, RESTARTS, Answering
from symphony.session.requests import Requests
from symphony.session.streams import OVERDRAWN

if TYPE_CHECKING:
    from symphony.limits import Limits
    from symphony.outgoing.encoding import Message
    from symphony.session.contracts import LiveSession, Runner
    from symphony.transport.base import Connection

__all__ = ("Exchange",)

logger = logging.getLogger("symphony.socket")


class Exchange:
    """Exchanges envelopes with one client.

    Args:
        session: The socket's session.
        connection: The socket's connection.
        protocol: The connection's protocol, which may be stateful.
        limits: The limits of the route.
        context: The context of the handlers.
        name: The socket's name in logs.

    Attributes:
        answering: The client's requests and their answers.
        requests: The server's requests to the client.
        runner: Runs the handlers; set by `start`.
    """

    __slots__ = (
        "_connection",
        "_decode_event",
        "_highest",
        "_kind",
        "_limits",
        "_loop",
        "_name",
        "_needs_check",
        "_protocol",
        "_session",
        "_small",
        "answering",
        "requests",
        "runner",
    )

    runner: Runner

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
        self._protocol = protocol
        self._limits = limits
        self._name = name
        self._loop = asyncio.get_running_loop()
        # For `symphony.v1`, the decoder is called directly, without a wrapper.
        self._kind = protocol.kind if isinstance(protocol, V1) else None
        self._decode_event: Callable[[Message], Any] = getattr(protocol, "decode_event", protocol.decode)
        self._highest = -1
        # Whether `_check` must decide if an event may enter the lane.
        self._needs_check = False
        # A message of at most so many bytes is decoded without looking at its size.
        self._small = min(SMALL, limits.max_elements)
        self.answering = Answering(session, connection, protocol, limits, context, name)
        self.requests = Requests(
            self.answering.send,
            self.adjust_reading,
            protocol.payload,
            limits.max_requests,
            limits.max_elements,
            name,
        )

    def start(self, runner: Runner) -> None:
        """Set the runner; called before the first message is received."""
        self.runner = runner
        self.answering.withdraw = runner.withdraw

    def received(self, message: Any) -> None:
        """Handle the next message, or an event of a message. Never raises."""
        event = message
        # The data of queued events stays encoded: decoded it can be 20 times as large.
        runner = self.runner
        if type(message) is self._kind and runner.is_idle and len(message) <= self._small:
            decode = self._decode_event
            try:
                event = decode(message)
            except Exception:
                # It is not an event, or malformed.
                return self._decode(message)
        elif not isinstance(event, Event):
            return self._decode(message)
        id = event.id
        try:
            if id is not None and id > self._highest:
                self._highest = id
        except TypeError:
            # See `_was_received`. Where nothing is raised, `try` costs nothing.
            pass
        answering = self.answering
        if (self._needs_check or id in answering.active) and self._check(event):
            return None
        if id is None:
            if event.event == ERROR and self._kind is not None:
                # Only `symphony.v1` reserves the name.
                return self._reported()
            return runner.deliver(event)
        # Most handlers finish in this call. Only the requests of others are remembered.
        answering.unsettled = True
        runner.deliver(event)
        if answering.unsettled:
            answering.remember(event)
        return None

    def _check(self, event: Event) -> bool:
        """Refuse an event that may not enter the lane; return whether it was refused."""
        id, answering = event.id, self.answering
        if id is None and event.event == ERROR and self._kind is not None:
            # It is not for a handler: see `_reported`.
            return False
        if answering.draining:
            answering.refuse(None if id in answering.active else id, RESTARTS)
        elif self.requests.pending and self.runner.queue.exceeds(
            self._limits.max_awaiting, self._limits.max_awaiting_bytes
        ):
            # While a handler awaits a reply of this client, the connection must be read.
            # A full queue therefore cannot pause reading, and events are refused instead.
            answering.refuse(
                id, Reject("too_many", "too many messages while a handler awaits a reply from this client")
            )
        elif id in answering.active:
            answering.refuse(None, Reject("conflict", f"request {id} is still running", details={"id": id}))
        else:
            return False
        return True

    def _reported(self) -> None:
        # Requests of this name are answered. Never answer the event: two peers that
        # answer errors with errors would never stop.
        text = "The client of socket %s reported an error."
        self._session.complaints.log(logger, logging.INFO, text, self._name)

    def _decode(self, message: Message) -> None:
        answering = self.answering
        try:
            decoded = self._protocol.decode(message)
        except MalformedError as error:
            decoded = error
        except ProtocolError as error:
            return self._connection.close(error.code, error.reason)
        except Exception as error:
            self._session.report(error, f"decode of {type(self._protocol).__name__}")
            answering.refuse(None, INTERNAL)
            return None
        # What is malformed is refused anyway.
        is_large = len(message) > self._small and not isinstance(decoded, MalformedError)
        too_complex = self._too_complex(message) if is_large else None
        envelopes = decoded if isinstance(decoded, Sequence) else (decoded,)
        # Their data refers to the message, which stays in memory until the last is handled.
        self.runner.queue.announced = message.__sizeof__() // (len(envelopes) or 1)
        for envelope in envelopes:
            if self._connection.outbox.sealed:
                # The handler of an earlier part has closed the socket.
                return None
            try:
                if too_complex is not None and isinstance(envelope, Event):
                    answering.refuse(None if envelope.id in answering.active else envelope.id, too_complex)
                else:
                    self._take(envelope)
            except Exception as error:
                # Such as an id that is not hashable: an app's own protocol has a mistake.
                self._session.report(error, f"decode of {type(self._protocol).__name__}")
                answering.refuse(None, INTERNAL)
        return None

    def _take(self, envelope: Envelope | MalformedError) -> None:
        if isinstance(envelope, Failure):
            self._reported()
        elif isinstance(envelope, Publish):
            self.received(Event(PUBLISH, envelope, envelope.id, envelope.timeout))
        elif isinstance(envelope, Event):
            self.received(envelope)
        elif isinstance(envelope, MalformedError):
            answering = self.answering
            # A request that still runs gets its answer later, and only one.
            answering.refuse(None if envelope.id in answering.active else envelope.id, envelope)
        else:
            self._other(envelope)

    def _was_received(self, id: Any) -> bool:
        """Return whether the client has sent a request with this id, or a later one."""
        try:
            return id <= self._highest
        except TypeError:
            # The ids of an app's own protocol may have no order. Rather believe the client.
            return True

    def _too_complex(self, message: Message) -> Reject | None:
        """Return the refusal of a message with too many elements; its data is not decoded yet."""
        payload = self._protocol.payload
        if payload == "plain":  # the app's own protocol has decoded it
            return None
        try:
            check_elements(message, self._limits.max_elements, is_json=payload == "json")
        except Reject as refusal:
            return refusal
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
                event = self.answering.active.get(id)
                if event is not None:
                    self.answering.cancel(event, CANCELLED)
                else:
                    self._expect(id, self._was_received(id))
            case Ping(number):
                self.answering.send(Pong(number))
            case Join():
                self.received(Event(JOIN, envelope, envelope.id, envelope.timeout))
            case Leave():
                self.received(Event(LEAVE, envelope, envelope.id, envelope.timeout))
            case ReadHistory():
                self.received(Event(HISTORY, envelope, envelope.id, envelope.timeout))
            case ReadPresence():
                self.received(Event(PRESENCE, envelope, envelope.id, envelope.timeout))
            case ReadCount():
                self.received(Event(COUNT, envelope, envelope.id, envelope.timeout))
            case _:
                kind = type(envelope).__name__.lower()
                refusal = Reject("invalid", f"only a server sends `{kind}`", details={"path": "$"})
                self.answering.refuse(None, refusal)

    def _grant(self, id: Any, credit: int) -> None:
        event = self.answering.active.get(id)
        if self.answering.streams.grant(id, credit):
            return
        if event is None:
            self._expect(id, self._was_received(id))
        elif event.credit is not None:
            # Its stream has not started: it will start with the whole credit.
            event.credit += credit
            if event.credit > MAX_CREDIT:
                self.answering.cancel(event, OVERDRAWN)

    def _expect(self, id: Any, known: bool) -> None:
        """Answer `not_found` if a client names an unknown request.

        A request that is over is known: its answer may still be on the way.
        """
        if not known:
            refusal = Reject("not_found", f"there is no request {id}", details={"id": id})
            self.answering.refuse(None, refusal)

    # Flow control and the end

    def drain(self, *, retry: float, timeout: float) -> None:
        """Refuse new events, and end the streams after *timeout* seconds.

        Args:
            retry: After how many seconds the client should reconnect.
            timeout: How many seconds running streams may take.
        """
        self._needs_check = self.answering.draining = True
        self.answering.send(Retry(retry))
        self._loop.call_later(timeout, self.answering.streams.cancel_all, RESTARTS)

    def connection_lost(self) -> None:
        """Fail the server's requests and cancel the streams, because the connection has ended."""
        self.requests.connection_lost()
        self.answering.connection_lost()

    def release(self) -> None:
        """Break reference cycles, so that a closed socket is freed at once."""
        self.answering.release()
        self.runner = self.requests = self.answering = cast("Any", None)

    def adjust_reading(self, *_: bool) -> None:
        """Pause reading if the queue is full, unless a handler awaits a reply."""
        self._needs_check = self.answering.draining or bool(self.requests.pending)
        if self.runner.is_full and not self.requests.pending:
            self._connection.pause_reading()
        else:
            self._connection.resume_reading()
