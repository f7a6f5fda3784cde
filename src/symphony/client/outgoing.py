"""Sends a client's messages: at once if possible, otherwise queued, in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextvars import ContextVar
from typing import Any, Final, cast

from symphony.client.entries import Emitted, Entry, Said, Sent, Waiting
from symphony.client.link import Link
from symphony.client.loss import Loss
from symphony.client.payload import Kind, snapshot
from symphony.errors import MessageTooLargeError, QueueFullError
from symphony.protocol.codec import to_message
from symphony.protocol.envelopes import MESSAGE, Envelope, Event, Reply
from symphony.protocol.v1 import JSON, MSGPACK, V1
from symphony.websocket.backpressure import READY, Drained

__all__ = ("AHEAD", "Outgoing")

logger = logging.getLogger("symphony.client")

AHEAD: Final[ContextVar[object]] = ContextVar("AHEAD", default=None)
"""The greeting that the current task is part of: its messages are sent before the queue."""

_CODECS: Final = {"json": JSON, "msgpack": MSGPACK}
# Every server accepts messages of this size. Larger ones wait until the limit is known.
_SMALL_BYTES: Final = 16 * 1024
# An envelope without data has fewer. It is sent whatever the limits of the server are.
_CONTROL_BYTES: Final = 1024


class Outgoing:
    """Sends the messages of one client over its current link.

    Entries are queued here while there is no link and while it is congested.
    So entries that were not sent are not lost with the link.

    Args:
        kind: The encoding that is offered to the server.
        limit: How many entries may be queued.
        max_bytes: How many bytes the queued entries may have, and the queued
            answers among them.
        where: The address of the server, for the error.
        overflow: Called instead of queueing an answer when too many bytes of
            answers are queued.

    Attributes:
        codec: The codec that the server chose; `None` on a raw connection.
        held: Whether the link is about to close, so that only entries that
            belong to it are sent.
        live: Whether there is a link.
        max_message_bytes: What the server accepts; `None`: not known.
    """

    __slots__ = (
        "_greeting",
        "_kind",
        "_limit",
        "_link",
        "_max_bytes",
        "_overflow",
        "_told",
        "_waiters",
        "_waiting",
        "_where",
        "codec",
        "held",
        "live",
        "max_message_bytes",
    )

    def __init__(
        self, kind: Kind, limit: int, max_bytes: int, where: str, overflow: Callable[[], None]
    ) -> None:
        self._kind: Kind = kind
        self._limit = limit
        self._max_bytes = max_bytes
        self._where = where
        self._overflow = overflow
        self._link: Link | None = None
        self._waiting = Waiting()
        self._waiters: list[asyncio.Future[None]] = []
        # Set while `on_open` runs: only its own messages are sent.
        self._greeting: object = None
        # Whether the limits of the server are known, or will not arrive.
        self._told = True
        self.max_message_bytes: int | None = None
        self.codec: V1 | None = _CODECS[kind]
        self.held = False
        self.live = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def clear(self) -> bool:
        """Whether a message would be sent at once."""
        link = self._link
        if link is None or self.held or link.congested:
            return False
        if self._greeting is not None:
            return self.ahead
        return self._told and not self._waiting

    @property
    def unread_bytes(self) -> int:
        """The bytes of the queued answers."""
        return self._waiting.bound_bytes

    @property
    def ahead(self) -> bool:
        """Whether the current task is part of `on_open`, on this link."""
        return self._greeting is not None and AHEAD.get() is self._greeting

    @property
    def takes(self) -> bool:
        """Whether there is a link that accepts new messages."""
        return self.live and not self.held and self._greeting is None

    def emit(self, event: str, data: Any) -> Awaitable[None]:
        """Send an event.

        Raises:
            MessageTooLargeError: It is larger than the server accepts.
            QueueFullError: It cannot be sent at once, and the queue is full.
            TypeError: The data cannot be encoded.
        """
        envelope = Event(event, data)
        if self.clear:
            return self._sent(self.fitting((self.codec or JSON).encode(envelope), "the event {!r}", event))
        # Encoded now: the caller may change the object later, and gets the error here if
        # it cannot be encoded.
        message = self.fitting(_CODECS[self._kind].encode(envelope), "the event {!r}", event)
        return self.put(Emitted(event, message, self._kind))

    def send(self, message: Any) -> Awaitable[None]:
        """Send a message on a raw connection, or the event `message` on others.

        Raises:
            MessageTooLargeError: As for `emit`.
            QueueFullError: As for `emit`.
            TypeError: The message cannot be encoded.
        """
        if isinstance(message, bytearray | memoryview):
            message = bytes(cast("bytearray", message))
        if self.clear:
            codec = self.codec
            encoded = to_message(message) if codec is None else codec.encode(Event(MESSAGE, message))
            return self._sent(self.fitting(encoded, "a message"))
        if not isinstance(message, str | bytes):
            message = snapshot(message, self._kind)
        return self.put(Sent(message, self._kind))

    def say(self, envelope: Envelope) -> None:
        """Send an envelope of this connection; dropped without one, or on a raw one.

        Raises:
            MessageTooLargeError: It is larger than the server accepts.
        """
        codec = self.codec
        if self._link is None or codec is None:
            return
        message = codec.encode(envelope)
        # Without an error or a `cancel`, the server would wait for nothing.
        if isinstance(envelope, Reply) or len(message) > _CONTROL_BYTES:
            message = self.fitting(message, "an answer")
        if self.clear or (not self.takes and not self._link.congested):
            self._link.send(message)
        elif self.unread_bytes < self._max_bytes:
            self._waiting.add(Said(message))
            self.flush()
        else:
            self._overflow()

    def fitting(self, message: str | bytes, what: str, *names: object) -> str | bytes:
        """Return *message*, if the server accepts its size.

        Args:
            message: The message.
            what: What it is, for the error: a format string.
            names: The values for *what*.

        Raises:
            MessageTooLargeError: It does not.
        """
        limit = self.max_message_bytes
        # A character has up to 4 bytes in UTF-8.
        if limit is None or len(message) * 4 <= limit:
            return message
        size = len(message.encode()) if isinstance(message, str) else len(message)
        if size <= limit:
            return message
        raise MessageTooLargeError(
            f"{what.format(*names)} has {size:,} bytes, and {self._where} accepts {limit:,} in a message. "
            "Send less at once, or raise max_message_bytes of the server.",
            size=size,
            limit=limit,
        )

    def put(self, entry: Entry, *, refuse: bool = True) -> Awaitable[None]:
        """Send an entry, or queue it.

        Args:
            entry: The entry to send.
            refuse: Whether to refuse it if the queue is full.

        Raises:
            QueueFullError: The queue is full.
        """
        if self.clear:
            message = entry.message(self.codec)
            return READY if message is None else self._sent(message)
        waiting = self._waiting
        if (
            refuse
            and waiting
            and (len(waiting) >= self._limit or waiting.bytes + entry.size > self._max_bytes)
        ):
            hint = "it is not connected"
            if self.live:
                hint = "the server stops" if self.held else "the server reads too slowly; `await` your sends"
                hint = hint if self._greeting is None else "on_open is still running"
            if len(waiting) >= self._limit:
                raise QueueFullError(f"{len(waiting)} messages are queued for {self._where}: {hint}.")
            raise QueueFullError(f"{waiting.bytes:,} bytes of messages are queued for {self._where}: {hint}.")
        waiting.add(entry)
        if not self._told:
            self.flush()
        return self.drained() if self.takes else READY

    def put_first(self, entries: Sequence[Entry]) -> None:
        """Queue entries before all others, in their order, regardless of the limit."""
        self._waiting.add_first(entries)

    def withdraw(self, entry: Entry) -> bool:
        """Remove an entry from the queue; return whether it was queued."""
        return self._waiting.remove(entry)

    def drained(self) -> Awaitable[None]:
        """Wait until the link accepts more, or is lost."""
        return Drained(self._drain)

    # Links

    def use(self, link: Link, codec: V1 | None, greeting: object = None) -> None:
        """Switch to a link; `flush` then sends the queue.

        Args:
            link: The link.
            codec: Its codec; `None` on a raw connection.
            greeting: Until `greeted`, only messages are sent for which `AHEAD`
                is this object; `None`: all are sent.
        """
        self._link = link
        self.codec = codec
        self.live = True
        self._greeting = greeting
        # Only connections with events have limits to wait for.
        self._told = codec is None
        self.max_message_bytes = None

    def greeted(self) -> None:
        """Send the queue, because `on_open` is done."""
        self._greeting = None
        self.flush()

    def told(self, max_message_bytes: int | None) -> None:
        """Store the limit of the server; `None`: it did not arrive in time."""
        self._told = True
        self.max_message_bytes = max_message_bytes
        self.flush()

    def hold(self) -> None:
        """Keep unsent messages for the next link: the server stops."""
        self.held = True
        self.flush()

    def lost(self) -> None:
        """Keep the queue for the next link, except entries of the lost one."""
        self._link = self._greeting = None
        self.held = self.live = False
        self._told = True
        self._waiting.add_first([entry for entry in self._waiting.take_all() if not entry.bound])
        self._wake()

    def end(self, loss: Loss) -> int:
        """Drop the queue; return how many messages were lost without an error."""
        self.lost()
        return sum(entry.dropped(loss) for entry in self._waiting.take_all())

    def flush(self, *, all: bool = False) -> None:
        """Send the queue until the link is congested.

        Args:
            all: Send everything, even if the link is congested, because
                nothing can be sent later.
        """
        kept: list[Entry] = []
        while (link := self._link) is not None and self._waiting and (all or not link.congested):
            entry = self._waiting.take()
            if not entry.bound and (self.held or self._greeting is not None):
                kept.append(entry)
            elif not (self._told or all or entry.size <= _SMALL_BYTES):
                kept.append(entry)
                break
            elif (message := self._message(entry)) is not None:
                link.send(message)
        self._waiting.add_first(kept)
        if not self._busy:
            self._wake()

    def _message(self, entry: Entry) -> str | bytes | None:
        message = entry.message(self.codec)
        try:
            return None if message is None else self.fitting(message, "{}", entry.what)
        except MessageTooLargeError as error:
            # No caller waits for it: it was queued before the limit was known.
            logger.error("A queued message was not sent: %s", error)
            return None

    @property
    def _busy(self) -> bool:
        """Whether messages are waiting for the link."""
        link = self._link
        return link is not None and (link.congested or (bool(self._waiting) and self.takes))

    def _sent(self, message: str | bytes) -> Awaitable[None]:
        link = self._link
        assert link is not None
        link.send(message)
        return self.drained() if link.congested else READY

    def _drain(self) -> Generator[Any, None, None]:
        while self._busy:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            yield from waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
