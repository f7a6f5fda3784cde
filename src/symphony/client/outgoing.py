"""Sends a client's messages: at once if possible, otherwise queued, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Generator, Sequence
from typing import Any, Final, Protocol, cast

from msgspec import Raw

from symphony.client.link import Link
from symphony.client.loss import Loss
from symphony.client.payload import Kind, snapshot, to_json_text
from symphony.errors import QueueFullError
from symphony.protocol.codec import to_message
from symphony.protocol.envelopes import MESSAGE, Envelope, Event
from symphony.protocol.v1 import JSON, MSGPACK, V1
from symphony.websocket.backpressure import READY, Drained

__all__ = ("Entry", "Outgoing")

_CODECS: Final = {"json": JSON, "msgpack": MSGPACK}


class Entry(Protocol):
    """A queued message."""

    @property
    def bound(self) -> bool:
        """Whether it belongs to the current connection only."""
        ...

    def message(self, codec: V1 | None) -> str | bytes | None:
        """Return the message to send now; `None` if it is no longer needed.

        Args:
            codec: The codec; `None` on a raw connection.
        """
        ...

    def dropped(self, loss: Loss) -> bool:
        """Handle that it is never sent; return whether no caller is told."""
        ...


class Outgoing:
    """Sends the messages of one client over its current link.

    Entries are queued here while there is no link and while it is congested.
    So entries that were not sent are not lost with the link.

    Args:
        kind: The encoding that is offered to the server.
        limit: How many entries may be queued.
        where: The address of the server, for the error.

    Attributes:
        codec: The codec that the server chose; `None` on a raw connection.
        held: Whether the link is about to close, so that only entries that
            belong to it are sent.
        live: Whether there is a link.
    """

    __slots__ = ("_kind", "_limit", "_link", "_waiters", "_waiting", "_where", "codec", "held", "live")

    def __init__(self, kind: Kind, limit: int, where: str) -> None:
        self._kind: Kind = kind
        self._limit = limit
        self._where = where
        self._link: Link | None = None
        self._waiting: deque[Entry] = deque()
        self._waiters: list[asyncio.Future[None]] = []
        self.codec: V1 | None = _CODECS[kind]
        self.held = False
        self.live = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def clear(self) -> bool:
        """Whether a message would be sent at once."""
        link = self._link
        return link is not None and not self._waiting and not self.held and not link.congested

    @property
    def takes(self) -> bool:
        """Whether there is a link that accepts new messages."""
        return self.live and not self.held

    def emit(self, event: str, data: Any) -> Awaitable[None]:
        """Send an event.

        Raises:
            QueueFullError: It cannot be sent at once, and the queue is full.
            TypeError: The data cannot be encoded.
        """
        envelope = Event(event, data)
        if self.clear:
            return self._sent((self.codec or JSON).encode(envelope))
        # Encoded now: the caller may change the object later, and gets the error here if
        # it cannot be encoded.
        return self.put(_Emitted(_CODECS[self._kind].encode(envelope), self._kind))

    def send(self, message: Any) -> Awaitable[None]:
        """Send a message on a raw connection, or the event `message` on others.

        Raises:
            QueueFullError: As for `emit`.
            TypeError: The message cannot be encoded.
        """
        if isinstance(message, bytearray | memoryview):
            message = bytes(cast("bytearray", message))
        if self.clear:
            codec = self.codec
            return self._sent(to_message(message) if codec is None else codec.encode(Event(MESSAGE, message)))
        if not isinstance(message, str | bytes):
            message = snapshot(message, self._kind)
        return self.put(_Sent(message, self._kind))

    def say(self, envelope: Envelope) -> None:
        """Send an envelope of this connection; dropped without one, or on a raw one."""
        codec = self.codec
        if self._link is None or codec is None:
            return
        message = codec.encode(envelope)
        if self.clear or (self.held and not self._link.congested):
            self._link.send(message)
        else:
            self._waiting.append(_Said(message))

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
        if refuse and len(self._waiting) >= self._limit:
            hint = "it is not connected"
            if self.live:
                hint = "the server stops" if self.held else "the server reads too slowly; `await` your sends"
            raise QueueFullError(f"{len(self._waiting)} messages are queued for {self._where}: {hint}.")
        self._waiting.append(entry)
        return self.drained() if self.takes else READY

    def put_first(self, entries: Sequence[Entry]) -> None:
        """Queue entries before all others, in their order, regardless of the limit."""
        self._waiting.extendleft(reversed(entries))

    def withdraw(self, entry: Entry) -> bool:
        """Remove an entry from the queue; return whether it was queued."""
        try:
            self._waiting.remove(entry)
        except ValueError:
            return False
        return True

    def drained(self) -> Awaitable[None]:
        """Wait until the link accepts more, or is lost."""
        return Drained(self._drain)

    # Links

    def use(self, link: Link, codec: V1 | None) -> None:
        """Switch to a link; `flush` then sends the queue."""
        self._link = link
        self.codec = codec
        self.live = True

    def hold(self) -> None:
        """Keep unsent messages for the next link: the server stops."""
        self.held = True
        self.flush()

    def lost(self) -> None:
        """Keep the queue for the next link, except entries of the lost one."""
        self._link = None
        self.held = self.live = False
        self._waiting = deque(entry for entry in self._waiting if not entry.bound)
        self._wake()

    def end(self, loss: Loss) -> int:
        """Drop the queue; return how many messages were lost without an error."""
        self.lost()
        waiting, self._waiting = self._waiting, deque()
        return sum(entry.dropped(loss) for entry in waiting)

    def flush(self, *, all: bool = False) -> None:
        """Send the queue until the link is congested.

        Args:
            all: Send everything, even if the link is congested, because
                nothing can be sent later.
        """
        kept: list[Entry] = []
        while (link := self._link) is not None and self._waiting and (all or not link.congested):
            entry = self._waiting.popleft()
            if self.held and not entry.bound:
                kept.append(entry)
            elif (message := entry.message(self.codec)) is not None:
                link.send(message)
        self._waiting.extendleft(reversed(kept))
        if not self._busy:
            self._wake()

    @property
    def _busy(self) -> bool:
        """Whether messages are waiting for the link."""
        link = self._link
        return link is not None and (link.congested or (bool(self._waiting) and not self.held))

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


class _Told:
    """An entry whose sender does not wait for a result."""

    __slots__ = ()
    bound = False

    def dropped(self, loss: Loss) -> bool:
        return not self.bound


class _Emitted(_Told):
    """An event, encoded for the protocol that was offered."""

    __slots__ = ("_kind", "_message")

    def __init__(self, message: str | bytes, kind: Kind) -> None:
        self._message = message
        self._kind: Kind = kind

    def message(self, codec: V1 | None) -> str | bytes:
        # A raw connection has no events: they are sent as JSON there, for either encoding.
        if codec is None and isinstance(self._message, bytes):
            return to_json_text(self._message, self._kind)
        return self._message


class _Sent(_Told):
    """A message of `send`, encoded when the protocol of the connection is known."""

    __slots__ = ("_kind", "_value")

    def __init__(self, value: str | bytes | Raw, kind: Kind) -> None:
        self._value = value
        self._kind: Kind = kind

    def message(self, codec: V1 | None) -> str | bytes:
        if codec is not None:
            return codec.encode(Event(MESSAGE, self._value))
        return to_json_text(self._value, self._kind) if isinstance(self._value, Raw) else self._value


class _Said(_Told):
    """A message that belongs to one connection, such as a reply."""

    __slots__ = ("_message",)
    bound = True

    def __init__(self, message: str | bytes) -> None:
        self._message = message

    def message(self, codec: V1 | None) -> str | bytes:
        return self._message
