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
from symphony.client.link import Close, Dial, Link
from symphony.client.loss import Loss, sentence
from symphony.client.offering import foreign
from symphony.client.options import Options
from symphony.client.outgoing import Outgoing
from symphony.client.payload import Kind, error_said
from symphony.client.reconnector import Reconnector, State
from symphony.errors import RemoteError
from symphony.protocol.envelopes import (
    Cancel,
    End,
    Error,
    Event,
    Item,
    Limits,
    MalformedError,
    Pong,
    Reply,
    Retry,
)
from symphony.protocol.v1 import JSON, MSGPACK, V1
from symphony.websocket.frames import close_reason

__all__ = ("RAW", "Core")

logger = logging.getLogger("symphony.client")

RAW: Final = "raw"
_ANSWERS: Final = (Reply, Error, Item, End)
_CODECS: Final[dict[str | None, V1]] = {codec.subprotocol: codec for codec in (JSON, MSGPACK)}


class Core:
    """The parts of one client; `ConnectionOwner` of its reconnector.

    Args:
        dial: Opens its links.
        options: The options of `connect`.

    Attributes:
        where: The address of the server, for messages.
        kind: How data is encoded.
        outgoing: Sends messages.
        answers: Requests and streams in progress.
        dispatch: Runs the handlers.
        max_queue: The option.
        no_events: Why there can be no events; empty if there can.
        messages: Messages of a raw connection that no handler takes.
        raw: Whether the client was made with `raw=True`.
        reconnector: Keeps the client connected.
        protocol: The protocol of the connection; `None` before the first one.
        subprotocol: The subprotocol that the server chose.
        state_handlers: Called with each new state.
    """

    __slots__ = (
        "_comes_back",
        "_complained",
        "_gate",
        "_last_error",
        "_readers",
        "answers",
        "dispatch",
        "kind",
        "max_queue",
        "messages",
        "no_events",
        "outgoing",
        "protocol",
        "raw",
        "reconnector",
        "state_handlers",
        "subprotocol",
        "where",
    )

    def __init__(self, dial: Dial, options: Options) -> None:
        self.where = dial.where
        self.max_queue = options.max_queue
        self.kind: Kind = options.protocol
        self.outgoing = Outgoing(options.protocol, options.max_queue, dial.where)
        self.answers = Answers(self.outgoing)
        self._gate = Gate()
        self.dispatch = Dispatch(self.outgoing, self._gate, options.max_queue, self._overflow)
        self.messages: Backlog[str | bytes] = Backlog(self._gate, options.max_queue)
        self._readers: list[asyncio.Future[None]] = []
        self.state_handlers: list[Callable[[State], Any]] = []
        self._complained = False
        # The event `error` that came last, if only `retry` came after it.
        self._last_error: Event | None = None
        self._comes_back = options.reconnect
        self.raw = options.raw
        self.no_events = (
            f"The client of {dial.where} has no events, because of raw=True: use client.send() and "
            "`async for message in client`."
            if options.raw
            else ""
        )
        self.protocol: str | None = None
        self.subprotocol: str | None = None
        self.reconnector = Reconnector(dial, options, self)

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
            if not self.dispatch.message(message):
                self.messages.put(message)
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
        if isinstance(envelope, Event):
            if envelope.id is None:
                if envelope.event == "error":
                    self._last_error = envelope
                self.dispatch.event(envelope, self.kind)
            else:
                self.dispatch.request(envelope, self.kind)
        elif isinstance(envelope, _ANSWERS):
            self.answers.take(envelope)
        elif isinstance(envelope, Cancel):
            self.dispatch.cancel(envelope.cancel)
        elif isinstance(envelope, Retry):
            self.reconnector.retry_after(envelope.retry)
            # If the client does not reconnect, keep sending: the server decides what it
            # still accepts.
            if self._comes_back:
                self.outgoing.hold()
        elif not isinstance(envelope, Pong | Limits):
            self._complain("%r, which only clients send", envelope)

    def relieved(self) -> None:
        """Continue to send."""
        self.outgoing.flush()

    def opening(self, link: Link) -> None:
        """Switch to a new link."""
        codec = None if self.raw else _CODECS.get(link.subprotocol)
        if foreign(link.subprotocol) and not self.raw:
            self.no_events = (
                f"{self.where} is not a Symphony server: it chose a subprotocol that Symphony never chooses. "
                "Connect with raw=True, and use client.send() and `async for message in client`."
            )
            logger.warning("%s", self.no_events)
        self.subprotocol = link.subprotocol
        self.protocol = RAW if codec is None else link.subprotocol
        self._gate.use(link)
        self.outgoing.use(link, codec)

    def opened(self) -> None:
        """Send the queued messages, before any new ones."""
        self.outgoing.flush()
        self._wake()

    def lost(self, loss: Loss) -> None:
        """Tell all waiting requests, streams and readers."""
        self._gate.use(None)
        again = self.answers.lost(loss)
        self.dispatch.lost()
        if not loss.final:
            self.outgoing.lost()
            self.outgoing.put_first(again)
            return
        if unsent := self.outgoing.end(loss):
            logger.warning("%d messages were never sent: %s", unsent, sentence(loss.what))
        self.dispatch.finish()
        self._wake()

    def refusal(self, close: Close) -> RemoteError | None:
        """Return the error that came right before the close frame and has its reason as its message."""
        last, self._last_error = self._last_error, None
        error = error_said(last.data, self.kind) if last is not None else None
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

    def _complain(self, what: str, *details: object) -> None:
        # Warn only once: a server of a later version may send something new a thousand
        # times a second.
        level, self._complained = logging.DEBUG if self._complained else logging.WARNING, True
        logger.log(level, f"%s sent {what}.", self.where, *details)

    def _overflow(self) -> None:
        self.reconnector.give_up(Close(1013, "too many events are queued while a handler waits", clean=False))

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
