"""The messages that a client queues until it can send them."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from msgspec import Raw

from symphony.client.loss import Loss
from symphony.client.payload import Kind, to_json_text
from symphony.protocol.envelopes import MESSAGE, Event
from symphony.protocol.v1 import V1

__all__ = ("Emitted", "Entry", "Said", "Sent", "Waiting", "size_of")


def size_of(value: object) -> int:
    """Return about how many bytes of memory an encoded value takes."""
    return memoryview(value).nbytes if isinstance(value, Raw) else sys.getsizeof(value)


class Entry(Protocol):
    """A queued message."""

    @property
    def bound(self) -> bool:
        """Whether it belongs to the current connection only."""
        ...

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        ...

    @property
    def what(self) -> str:
        """What it is, for messages: `the event 'say'`."""
        ...

    def message(self, codec: V1 | None) -> str | bytes | None:
        """Return the message to send now; `None` if it is no longer needed.

        Args:
            codec: The codec; `None` on a raw connection.
        """
        ...

    def dropped(self, loss: Loss) -> bool:
        """Handle that it is never sent; return whether this must be logged, because no caller waits."""
        ...


class Waiting:
    """A queue of entries that knows its bytes.

    Attributes:
        bytes: The bytes of all entries.
        bound_bytes: The bytes of those that belong to the current connection only.
    """

    __slots__ = ("_entries", "bound_bytes", "bytes")

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self.bytes = self.bound_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Add an entry at the end."""
        self._entries.append(entry)
        self._count(entry, entry.size)

    def add_first(self, entries: Sequence[Entry]) -> None:
        """Add entries at the beginning, in their order."""
        self._entries.extendleft(reversed(entries))
        for entry in entries:
            self._count(entry, entry.size)

    def take(self) -> Entry:
        """Remove and return the first entry."""
        entry = self._entries.popleft()
        self._count(entry, -entry.size)
        return entry

    def remove(self, entry: Entry) -> bool:
        """Remove an entry; return whether it was there."""
        try:
            self._entries.remove(entry)
        except ValueError:
            return False
        self._count(entry, -entry.size)
        return True

    def take_all(self) -> list[Entry]:
        """Remove and return all entries."""
        entries = list(self._entries)
        self._entries.clear()
        self.bytes = self.bound_bytes = 0
        return entries

    def _count(self, entry: Entry, size: int) -> None:
        self.bytes += size
        if entry.bound:
            self.bound_bytes += size


class _Told:
    """An entry whose sender does not wait for a result."""

    __slots__ = ()
    bound = False

    def dropped(self, loss: Loss) -> bool:
        return not self.bound


class Emitted(_Told):
    """An event, encoded for the protocol that was offered."""

    __slots__ = ("_kind", "_message", "size", "what")

    def __init__(self, event: str, message: str | bytes, kind: Kind) -> None:
        self.what = f"the event {event!r}"
        self.size = size_of(message)
        self._message = message
        self._kind: Kind = kind

    def message(self, codec: V1 | None) -> str | bytes:
        """Return the message to send now."""
        # A raw connection has no events: they are sent as JSON there, for either encoding.
        if codec is None and isinstance(self._message, bytes):
            return to_json_text(self._message, self._kind)
        return self._message


class Sent(_Told):
    """A message of `send`, encoded when the protocol of the connection is known."""

    __slots__ = ("_kind", "_value", "size")
    what = "a message"

    def __init__(self, value: str | bytes | Raw, kind: Kind) -> None:
        self.size = size_of(value)
        self._value = value
        self._kind: Kind = kind

    def message(self, codec: V1 | None) -> str | bytes:
        """Return the message to send now."""
        if codec is not None:
            return codec.encode(Event(MESSAGE, self._value))
        return to_json_text(self._value, self._kind) if isinstance(self._value, Raw) else self._value


class Said(_Told):
    """A message that belongs to one connection, such as a reply."""

    __slots__ = ("_message", "size")
    bound = True
    what = "an answer"

    def __init__(self, message: str | bytes) -> None:
        self.size = size_of(message)
        self._message = message

    def message(self, codec: V1 | None) -> str | bytes:
        """Return the message to send now."""
        return self._message
