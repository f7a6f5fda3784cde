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
from functools import partial
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, Final, cast
from typing import Protocol as Contract

from symphony.errors import ProtocolError, Reject
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
from symphony.requests import Requests
from symphony.streams import OVERDRAWN, Stream

if TYPE_CHECKING:
    from symphony.limits import Limits
    from symphony.transport.base import Connection, Encoding, Message

__all__ = ("Exchange", "Host", "Runner")

logger = logging.getLogger("symphony.socket")

# Timers cannot count for ever; a request that may take a day may take longer.
_LONGEST: Final = 24 * 3600.0

_CANCELLED: Final = Reject("cancelled", "the request was cancelled")
_TOO_LATE: Final = Reject("timeout", "the request took longer than its timeout")
_RESTARTS: Final = Reject("unavailable", "the server restarts")
_INTERNAL: Final = Reject("internal", "the server failed to handle the event")


class Runner(Contract):
    """What runs the handlers: a lane, or several handlers at once."""

    is_full: bool

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


class Host(Contract):
    """What an exchange needs of the session it belongs to."""

    @property
    def over(self) -> bool:
        """Whether the connection has ended."""
        ...

    def failed_in(self, error: BaseException, what: str) -> None:
        """Report what was raised in *what*."""
        ...

    def watched(self, work: Coroutine[Any, Any, Any], /) -> Awaitable[Any]:
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
    """

    __slots__ = (
        "_active",
        "_connection",
        "_context",
        "_decode",
        "_draining",
        "_highest",
        "_host",
        "_limits",
        "_loop",
        "_name",
        "_outbox",
        "_protocol",
        "_runner",
        "_say",
        "_streams",
        "_timers",
        "_unsettled",
        "_why",
        "requests",
    )

    _runner: Runner

    def __init__(
        self,
        host: Host,
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
        self._context = context
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._decode: Callable[[Message], Envelope | Sequence[Envelope | MalformedError]] = protocol.decode
        self._say = _sayer(protocol, connection.encoding)
        self._outbox = connection.outbox
        self._highest = -1
        self._unsettled = False
        self._draining = False
        # The client's requests: all that wait or run, and why one was cancelled.
        self._active: dict[Any, Event] = {}
        self._timers: dict[Any, asyncio.TimerHandle] = {}
        self._why: dict[Any, Reject] = {}
        self._streams: dict[Any, Stream] = {}
        self.requests = Requests(self._send, self._pace, protocol.payload, limits.max_requests, name)

    def start(self, runner: Runner) -> None:
        """Take what runs the handlers; called once, before anything comes in."""
        self._runner = runner

    @property
    def payload(self) -> str:
        """What the data of its events is, as `Protocol.payload` says."""
        return self._protocol.payload

    # What comes in

    def received(self, message: Message) -> None:
        """Take the next message. Never raises."""
        try:
            envelope = self._decode(message)
        except MalformedError as error:
            # The answer of one that is under way is still to come.
            self._refuse(None if error.id in self._active else error.id, error)
        except ProtocolError as error:
            self._connection.close(error.code, error.reason)
        except Exception as error:
            self._host.failed_in(error, f"decode of {type(self._protocol).__name__}")
            self._refuse(None, _INTERNAL)
        else:
            if isinstance(envelope, Event):
                self._event(envelope)
            elif isinstance(envelope, Sequence):
                for each in envelope:
                    if isinstance(each, MalformedError):
                        self._refuse(each.id, each)
                    elif isinstance(each, Event):
                        self._event(each)
                    else:
                        self._other(each)
            else:
                self._other(envelope)

    def _event(self, event: Event) -> None:
        id = event.id
        if event.event == "error":
            # Never answered: two that tell each other of errors would never end.
            logger.info("Socket %s tells of an error.", self._name)
        elif (self._draining or self.requests.pending) and not self._may_wait(event):
            return
        elif id is None:
            self._runner.deliver(event)
        elif id in self._active:
            self._refuse(None, Reject("conflict", f"request {id} is under way", details={"id": id}))
        else:
            if id > self._highest:
                self._highest = id
            # Most handlers finish right here; what is remembered of a request
            # costs only those that do not.
            self._unsettled = True
            self._runner.deliver(event)
            if self._unsettled:
                self._active[id] = event
                if event.timeout is not None:
                    timeout = min(event.timeout, _LONGEST)
                    self._timers[id] = self._loop.call_later(timeout, self._cancel, event, _TOO_LATE)

    def _may_wait(self, event: Event) -> bool:
        if self._draining:
            self._refuse(None if event.id in self._active else event.id, _RESTARTS)
            return False
        # While a handler awaits this client, its answer must be read: the
        # queue cannot push back, so that it has a bound of another kind.
        if self.requests.pending and self._runner.waiting >= self._limits.max_awaiting:
            self._refuse(event.id, Reject("too_many", "too many messages while a handler waits for you"))
            return False
        return True

    def _other(self, envelope: Envelope) -> None:
        match envelope:
            case Reply(id, data):
                self._check_asked(id, self.requests.answered(id, data))
            case Error(id, data):
                self._check_asked(id, self.requests.failed(id, data))
            case Grant(id, credit):
                self._grant(id, credit)
            case Cancel(id):
                event = self._active.get(id)
                if event is not None:
                    self._cancel(event, _CANCELLED)
                else:
                    self._check_known(id)
            case Ping(number):
                self._send(Pong(number))
            case _:
                kind = type(envelope).__name__.lower()
                self._refuse(None, Reject("invalid", f"only a server sends `{kind}`", details={"path": "$"}))

    def _grant(self, id: Any, credit: int) -> None:
        stream, event = self._streams.get(id), self._active.get(id)
        if stream is not None:
            stream.grant(credit)
        elif event is None:
            self._check_known(id)
        elif event.credit is not None:
            # Its turn has not come: it will begin with all of it.
            event.credit += credit
            if event.credit > MAX_CREDIT:
                self._cancel(event, OVERDRAWN)

    def _check_known(self, id: Any) -> None:
        """Tell who names a request that never was; of one that is over he may not have known."""
        if id > self._highest:
            self._refuse(None, Reject("not_found", f"there is no request {id}", details={"id": id}))

    def _check_asked(self, id: Any, asked: bool) -> None:
        if not asked:
            self._refuse(None, Reject("not_found", f"there is no request {id}", details={"id": id}))

    # Answers to the client

    def done(self, event: Event, result: Any) -> Awaitable[None] | None:
        """Answer with what a handler returned; returns what to await before the next."""
        if type(result) is AsyncGeneratorType:
            return self._begin(event, cast("AsyncGeneratorType[Any, Any]", result))
        if event.id is None:
            return None
        frame = self._say(Reply(event.id, result))
        self._settle(event)
        # `_send` written out, and the frame made first: if that fails, the
        # request is still to be answered.
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
            self._host.failed_in(error, "message handler")
            return None
        refusal = self._refusal(event, error)
        self._settle(event)
        return self._refuse(event.id, refusal)

    def _refusal(self, event: Event, error: BaseException) -> Reject:
        if isinstance(error, Reject):
            return error
        if isinstance(error, asyncio.CancelledError):
            why = self._why.get(event.id) if event.id is not None else None
            if why is not None or self._draining:
                return why or _RESTARTS
        self._host.failed_in(error, f"handler of the event {shortened(event.event)!r}")
        return _INTERNAL

    def _refuse(self, id: Any, refusal: Reject) -> Awaitable[None] | None:
        payload = refusal.payload()
        try:
            return self._send(Event("error", payload) if id is None else Error(id, payload))
        except Exception as error:
            self._host.failed_in(error, "details of a Reject")
            # What is left of it can be encoded.
            return self._refuse(id, _INTERNAL)

    def _settle(self, event: Event) -> None:
        id = event.id
        if not self._active or self._active.pop(id, None) is None:
            self._unsettled = False
            return
        self._why.pop(id, None)
        timer = self._timers.pop(id, None)
        if timer is not None:
            timer.cancel()

    def _cancel(self, event: Event, why: Reject) -> None:
        stream = self._streams.get(event.id)
        if stream is not None:
            stream.cancel(why)
        elif event.id not in self._why:
            self._why[event.id] = why
            if not self._runner.withdraw(event):
                self.failed(event, why)

    def _begin(self, event: Event, items: AsyncGeneratorType[Any, Any]) -> None:
        if event.id is None:
            name = shortened(event.event)
            raise Reject(
                "request_required",
                f"the answer to {name!r} is a stream: send an `id`",
                details={"event": name},
            )
        limit = self._limits.max_streams
        if len(self._streams) >= limit:
            raise Reject("too_many", f"{limit} streams are under way", details={"max_streams": limit})
        stream = Stream(event.id, items, event.credit, self._send)
        self._streams[event.id] = stream
        stream.task = self._loop.create_task(self._run(stream), context=self._context.copy())
        # Not at the end of the task's own work: one that is cancelled before its
        # first step does none.
        stream.task.add_done_callback(partial(self._finished, event, stream))

    async def _run(self, stream: Stream) -> None:
        await self._host.watched(stream.run())

    def _finished(self, event: Event, stream: Stream, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if isinstance(error, asyncio.CancelledError) and stream.why is not None:
            error = stream.why
        del self._streams[event.id]
        if self._host.over:
            # Nobody hears it; what failed while it was closed is reported all the same.
            if error is not None and not isinstance(error, asyncio.CancelledError | Reject):
                self._host.failed_in(error, f"stream of {shortened(event.event)!r}")
        elif error is None:
            self._settle(event)
            self._send(End(event.id))
        else:
            self.failed(event, error)

    # Its pace and its end

    def full(self, full: bool) -> None:
        """Hear whether the runner's queue is full."""
        self._pace()

    def drain(self, *, retry: float, timeout: float) -> None:
        """Take no more events, and end the streams within *timeout* seconds.

        Args:
            retry: After how many seconds the client may come back.
            timeout: For what runs.
        """
        self._draining = True
        self._send(Retry(retry))
        self._pace()
        for stream in tuple(self._streams.values()):
            self._loop.call_later(timeout, stream.cancel, _RESTARTS)

    def gone(self) -> None:
        """Hear that the connection has ended: nothing is answered any more."""
        self.requests.gone()
        for stream in tuple(self._streams.values()):
            stream.cancel(None)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    async def streams_ended(self, *, timeout: float) -> None:
        """Return when all streams have closed their generators, or time is up."""
        tasks = [stream.task for stream in self._streams.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            if late:
                logger.error("%d streams of socket %s do not end and are left behind.", len(late), self._name)

    def _pace(self) -> None:
        """Read on, or do not: never stop while an answer is awaited."""
        if (self._runner.is_full or self._draining) and not self.requests.pending:
            self._connection.pause_reading()
        else:
            self._connection.resume_reading()

    def _send(self, envelope: Envelope) -> Awaitable[None] | None:
        frame = self._say(envelope)
        if frame is None:
            return None
        outbox = self._outbox
        outbox.send(frame)
        # A client that asks faster than it reads the answers waits for the
        # next one; that alone must not make it a slow consumer.
        return None if outbox.size <= outbox.high else outbox.drained()


def _sayer(protocol: Protocol, encoding: Encoding) -> Callable[[Envelope], Any]:
    """Return what makes the frame of an envelope, or `None` where nothing is to be sent."""
    if isinstance(protocol, V1) and protocol.is_text:
        # JSON comes as the bytes that go into the frame: a text of them would
        # be made only to be encoded again.
        payload, text = protocol.encode_payload, encoding.encode_text
        return lambda envelope: text(payload(envelope))

    def say(envelope: Envelope) -> Any:
        message = protocol.encode(envelope)
        return None if message is None else encoding.encode(message)

    return say
