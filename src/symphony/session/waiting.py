"""The messages of one socket that wait for their handler, counted and weighed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from symphony.websocket.queued import Queued

__all__ = ("Waiting",)


class Waiting:
    """A queue of messages with a limit in bytes beside its count.

    Any event can be removed in constant time: a client may cancel thousands of
    waiting requests at once. A message stays encoded until its handler runs:
    decoded, it could be 20 times as large.

    Args:
        max_count: How many messages may wait.
        max_bytes: How many bytes they may have.
        queued: The bytes of all queues of the process.

    Attributes:
        announced: The bytes of the next message, if it is not text or bytes.
        size: The bytes of all waiting messages.
    """

    __slots__ = ("_max_bytes", "_max_count", "_messages", "_queued", "_repeated", "announced", "size")

    def __init__(self, *, max_count: int, max_bytes: int, queued: Queued) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._queued = queued
        # Made when it is needed, to save memory. Not a dict: to find its first key, that
        # passes over all that were removed before.
        self._messages: OrderedDict[int, tuple[Any, int]] | None = None
        self._repeated = 0
        self.announced = 0
        self.size = 0

    def __len__(self) -> int:
        """Return how many messages wait."""
        return len(self._messages) if self._messages else 0

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the messages, the oldest first."""
        return (message for message, _ in (self._messages or {}).values())

    def add(self, message: Any) -> None:
        """Add a message after all others."""
        # The size in memory: characters beyond Latin-1 take 2 or 4 bytes.
        size = message.__sizeof__() if isinstance(message, str | bytes) else self.announced
        if self._messages is None:
            self._messages = OrderedDict()
        key = id(message)
        if key in self._messages:
            # Equal texts may be the same object. Only events are removed, and each is an
            # separate object.
            self._repeated = key = self._repeated - 1
        self._messages[key] = message, size
        self.size += size
        self._queued.size += size

    def take(self) -> Any:
        """Remove and return the oldest message."""
        assert self._messages
        _, (message, size) = self._messages.popitem(last=False)
        self._forget(size)
        return message

    def remove(self, message: Any) -> bool:
        """Remove an event; return whether it was waiting."""
        messages = self._messages
        if messages is None or messages.get(id(message), (None, 0))[0] is not message:
            return False
        self._forget(messages.pop(id(message))[1])
        return True

    def clear(self) -> int:
        """Remove all messages; return how many there were."""
        count = len(self)
        self._messages = None
        self._forget(self.size)
        return count

    def close(self) -> None:
        """Remove all messages, and count no more: what is added now is not handled."""
        self.clear()
        self._queued = Queued(0)

    @property
    def is_full(self) -> bool:
        """Whether no further message should be read."""
        return self.exceeds(self._max_count, self._max_bytes)

    @property
    def has_room(self) -> bool:
        """Whether a queue that was full is empty enough to go on."""
        if not self._messages:
            return True
        return (
            len(self._messages) <= self._max_count // 2
            and self.size <= self._max_bytes // 2
            and not self._queued.is_full
        )

    def exceeds(self, count: int, size: int) -> bool:
        """Return whether *count* messages or *size* bytes wait, or too much in the whole process."""
        waiting = len(self)
        return waiting >= count or self.size >= size or (waiting > 0 and self._queued.is_full)

    def _forget(self, size: int) -> None:
        self.size -= size
        self._queued.size -= size
