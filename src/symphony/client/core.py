"""The parts of one client, and how they work together."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from symphony.client.answers import Answers
from symphony.client.backlog import Backlog, Gate
from symphony.client.dispatch import Dispatch
from symphony.client.joining import Since
from symphony.client.link import Close, Dial, Link
from symphony.client.loss import Loss, sentence
from symphony.client.offering import foreign
from symphony.client.options import Options
from symphony.client.outgoing import AHEAD, Outgoing
from symphony.client.owner import State
from symphony.client.payload import Decoding, Kind, error_said
from symphony.client.reconnector import Reconnector
from symphony.client.room import Room
from symphony.client.rooms import Rooms
from symphony.errors import RemoteError, WrongRouteError
from symphony.protocol.envelopes import (
    Cancel,
    Dropped,
    End,
    Error,
    Event,
    Item,
    Joined,
    Left,
    Limits,
    Lost,
    MalformedError,
    Pong,
    Presence,
    Publish,
    Published,
    Reply,
    Retry,
)
from symphony.protocol.positions import Position
from symphony.protocol.v1 import V1
from symphony.websocket.frames import close_reason

__all__ = ("RAW", "Core")

logger = logging.getLogger("symphony.client")

RAW: Final = "raw"
_LOST: Final = 1006
_RESTART: Final = 1012
_ANSWERS: Final = (Reply, Error, Item, End)
# A server that knows `symphony.limits` tells them with its first bytes.
_LIMITS_TIMEOUT: Final = 1.0
# How long a server may take to close after it has said that it stops.
_STOP_TIMEOUT: Final = 300.0
_OF_ROOMS: Final = (Joined, Left, Lost, Presence)
_CODECS: Final[dict[str | None, V1]] = {
    codec.subprotocol: codec for codec in (V1("json", publications=True), V1("msgpack", publications=True))
}


class Core:
    """The parts of one client; `ConnectionOwner` of its reconnector.

    Args:
        dial: Opens its links.
        options: The options of `connect`.

    Attributes:
        where: The address of the server, for messages.
        options: The options of `connect`.
        decoding: How received data is decoded.
        kind: How data is encoded.
        outgoing: Sends messages.
        answers: Requests and streams in progress.
        dispatch: Runs the handlers.
        rooms: The rooms that the client is in.
        gate: Pauses reading while too much waits for the program.
        no_events: Why there can be no events; empty if there can.
        messages: Messages of a raw connection that no handler takes.
        reconnector: Keeps the client connected.
        protocol: The protocol of the connection; `None` before the first one.
        subprotocol: The subprotocol that the server chose.
        state_handlers: Called with each new state.
        open_handlers: Awaited at each connection, before the queue is sent.
    """

    __slots__ = (
        "_complained",
        "_greeting",
        "_last_error",
        "_readers",
        "_stop",
        "_timer",
        "_warned",
        "answers",
        "decoding",
        "dispatch",
        "gate",
        "kind",
        "messages",
        "no_events",
        "open_handlers",
        "options",
        "outgoing",
        "protocol",
        "reconnector",
        "rooms",
        "state_handlers",
        "subprotocol",
        "where",
    )

    def __init__(self, dial: Dial, options: Options) -> None:
        self.where = dial.where
        self.options = options
        self.kind: Kind = options.protocol
        self.decoding = Decoding(options.protocol, options.max_elements)
        limit, size = options.max_queue, options.max_queue_bytes
        self.outgoing = Outgoing(options.protocol, limit, size, dial.where, self._unread)
        self.answers = Answers(self.outgoing, self.decoding)
        self.gate = Gate()
        self.dispatch = Dispatch(self.outgoing, self.gate, limit, size, self._overflow)
        self.rooms = Rooms(self.answers, self.dispatch, self.gate, self.decoding, options, dial.where)
        self.messages: Backlog[str | bytes] = Backlog(self.gate, limit, size, self._overflow)
        self._readers: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._stop: asyncio.TimerHandle | None = None
        self._greeting: object = None
        self.state_handlers: list[Callable[[State], Any]] = []
        self.open_handlers: list[Callable[[], Any]] = []
        self._complained = False
        self._warned = False
        # The event `error` that came last, if only `retry` came after it.
        self._last_error: Event | None = None
        self.no_events = (
            f"The client of {dial.where} has no events, because of raw=True: use client.send() and "
            "`async for message in client`."
            if options.raw
            else ""
        )
        self.protocol: str | None = None
        self.subprotocol: str | None = None
        self.reconnector = Reconnector(dial, options, self)

    def drop(self) -> None:
        """End for good, because the program no longer refers to the client."""
        self.reconnector.drop()
        self.dispatch.spawn(self.dispatch.aclose())

    async def join(self, room: str, since: Since, timeout: float | None) -> Room:
        """Join a room; see `Client.join`."""
        seconds = self.options.request_timeout if timeout is None else timeout
        if not seconds > 0:
            raise ValueError(f"timeout must be above 0, not {timeout!r}.")
        if not room or not isinstance(room, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"The name of a room must be text that is not empty, not {room!r}.")
        if not (since is None or since == "start" or isinstance(since, Position)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"since must be a Position, 'start' or None, not {since!r}.")
        if self.no_events:
            raise WrongRouteError(self.no_events)
        return await self.rooms.join(room, since, seconds)

    async def wait_for_message(self) -> None:
        """Wait until there is a raw message or the state has changed; may wake early."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._readers.append(waiter)
        await waiter

    # Called by the reconnector and its link

    def received(self, message: str | bytes) -> None:
        """Handle a received message."""
        codec = self.outgoing.codec
        if codec is None:
            if not self.dispatch.message(message, self.decoding.max_elements) and self.messages.put(
                message, len(message)
            ):
                self._wake()
            return
        try:
            envelope = codec.decode(message)
        except MalformedError as error:
            if error.id is not None:
                self.outgoing.say(Error(error.id, error.payload()))
            path = error.details["path"]
            self._complain("a message that cannot be decoded: %s (at %s)", error.message, path)
            return
        if not isinstance(envelope, Retry):
            self._last_error = None
        if isinstance(envelope, Event) and not isinstance(envelope, Publish):
            if envelope.id is None:
                if envelope.event == "error":
                    self._last_error = envelope
                if isinstance(envelope, Published) and envelope.room is not None:
                    self.rooms.published(envelope, len(message))
                else:
                    self.dispatch.event(envelope, self.decoding, len(message))
            else:
                self.dispatch.request(envelope, self.decoding)
        elif isinstance(envelope, _ANSWERS):
            self.answers.take(envelope, len(message))
        elif isinstance(envelope, Cancel):
            self.dispatch.cancel(envelope.cancel)
        elif isinstance(envelope, Retry):
            self.reconnector.retry_after(envelope.retry)
            # If the client does not reconnect, keep sending: the server decides what it
            # still accepts.
            if self.options.reconnect:
                self.outgoing.hold()
                self._await_stop()
        elif isinstance(envelope, _OF_ROOMS):
            self.rooms.take(envelope)
        elif isinstance(envelope, Dropped):
            count = envelope.dropped
            self._complain("the news that it has dropped %d messages, which this client has not read", count)
        elif isinstance(envelope, Limits):
            self._tell(envelope.limits.max_message_bytes)
        elif not isinstance(envelope, Pong):
            self._complain("%r, which only clients send", envelope)

    def relieved(self) -> None:
        """Continue to send."""
        self.outgoing.flush()

    def opening(self, link: Link) -> None:
        """Switch to a new link."""
        codec = None if self.options.raw else _CODECS.get(link.subprotocol)
        if foreign(link.subprotocol) and not self.options.raw:
            self.no_events = (
                f"{self.where} is not a Symphony server: it chose a subprotocol that Symphony never chooses. "
                "Connect with raw=True, and use client.send() and `async for message in client`."
            )
            logger.warning("%s", self.no_events)
        elif codec is None:
            self._warn_of_handlers()
        self.subprotocol = link.subprotocol
        self.protocol = RAW if codec is None else link.subprotocol
        self.gate.use(link)
        self._greeting = object() if self.open_handlers else None
        # Until `opened`, also without handlers: the limits of the server may arrive with the
        # handshake, and what they release must not overtake the joins.
        self.outgoing.use(link, codec, self._greeting or object())
        if codec is not None:
            self._timer = asyncio.get_running_loop().call_later(_LIMITS_TIMEOUT, self._tell, None)

    def _warn_of_handlers(self) -> None:
        """Log that the handlers of events are not called on a raw connection."""
        names = [name for name in self.dispatch.handlers.events if name not in ("message", "error", "*")]
        if names and not self._warned:
            self._warned = True
            logger.warning(
                "%s is a raw connection, without events: the handler of %r is never called. Is the path "
                "right? A route that only sends events needs app.route(..., events=True).",
                self.where,
                names[0],
            )

    @property
    def greets(self) -> bool:
        """Whether there is something to do before the queue is sent."""
        return self._greeting is not None

    async def greet(self) -> None:
        """Run the `on_open` handlers. Only what they send is sent meanwhile."""
        AHEAD.set(self._greeting)
        for handler in tuple(self.open_handlers):
            result = handler()
            if inspect.isawaitable(result):
                await result

    def opened(self) -> None:
        """Join the rooms again, then send the queued messages, before any new ones."""
        self._greeting = None
        self.rooms.rejoin()
        self.outgoing.greeted()
        self._wake()

    def lost(self, loss: Loss) -> None:
        """Tell all waiting requests, streams and readers."""
        self.gate.use(None)
        self._stop_timer()
        if self._stop is not None:
            self._stop.cancel()
            self._stop = None
        stopped = self.outgoing.held and loss.close.clean and loss.close.code == _RESTART
        again = self.answers.lost(loss._replace(stopped=stopped))
        self.rooms.lost(loss)
        self.dispatch.lost()
        if not loss.final:
            self.outgoing.lost()
            self.outgoing.put_first([*again, *self.rooms.publishing.unsent()])
            return
        if unsent := self.outgoing.end(loss):
            logger.warning("%d messages were never sent: %s", unsent, sentence(loss.what))
        self.dispatch.finish()
        self._wake()

    def refusal(self, close: Close) -> RemoteError | None:
        """Return the error that came right before the close frame and has its reason as its message."""
        last, self._last_error = self._last_error, None
        error = error_said(last.data, self.decoding) if last is not None else None
        return error if error is not None and close_reason(error.message) == close.reason else None

    def changed(self, state: State) -> None:
        """Call the state handlers."""
        logger.debug("%s: %s", self.where, state)
        for handler in self.state_handlers:
            try:
                result = handler(state)
            except Exception:
                logger.exception("A handler of the state %r failed.", state)
            else:
                if inspect.isawaitable(result):
                    self.dispatch.spawn(_finish(result, state))

    def _tell(self, max_message_bytes: int | None) -> None:
        self._stop_timer()
        self.outgoing.told(max_message_bytes)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _await_stop(self) -> None:
        """Leave a server that does not close: until then, nothing new is sent."""
        if self._stop is None:
            reason = f"the server has not closed the connection within {_STOP_TIMEOUT:g} s after its `retry`"
            give_up = self.reconnector.give_up
            self._stop = asyncio.get_running_loop().call_later(
                _STOP_TIMEOUT, give_up, Close(_LOST, reason, clean=False)
            )

    def _complain(self, what: str, *details: object) -> None:
        # Warn only once: a server of a later version may send something new a thousand
        # times a second.
        level, self._complained = logging.DEBUG if self._complained else logging.WARNING, True
        logger.log(level, f"%s sent {what}.", self.where, *details)

    def _overflow(self) -> None:
        count, size = self.dispatch.queued
        if self.reconnector.give_up(
            Close(1013, "too many events are queued while the program waits", clean=False)
        ):
            logger.warning(
                "%s sends faster than the program handles its messages: %d events of %d bytes are queued "
                "while the program waits for an answer. The client drops this connection. Make the handlers "
                "faster, or raise max_queue and max_queue_bytes.",
                self.where,
                count,
                size,
            )

    def _unread(self) -> None:
        if self.reconnector.give_up(Close(1013, "the server does not read the answers", clean=False)):
            logger.warning(
                "%s sends requests but does not read the answers: %d bytes of them are queued. The client "
                "drops this connection.",
                self.where,
                self.outgoing.unread_bytes,
            )

    def _wake(self) -> None:
        readers, self._readers = self._readers, []
        for waiter in readers:
            if not waiter.done():
                waiter.set_result(None)


async def _finish(handling: Awaitable[Any], state: State) -> None:
    try:
        await handling
    except Exception:
        logger.exception("A handler of the state %r failed.", state)
