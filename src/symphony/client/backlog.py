"""Queues of received messages; a full queue pauses reading from the link."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from symphony.client.link import Link

__all__ = ("Backlog", "Gate")

T = TypeVar("T")


class Gate:
    """Pauses reading from a client's link while at least one holder asks for it."""

    __slots__ = ("_holding", "link")

    def __init__(self) -> None:
        self.link: Link | None = None
        self._holding = 0

    def use(self, link: Link | None) -> None:
        """Switch to another link."""
        self.link = link
        if link is not None and self._holding:
            link.pause_reading()

    def hold(self) -> None:
        """Pause reading; each call needs one `release`."""
        self._holding += 1
        if self._holding == 1 and self.link is not None:
            self.link.pause_reading()

    def release(self) -> None:
        """Resume reading, unless another holder is left."""
        self._holding -= 1
        if not self._holding and self.link is not None:
            self.link.resume_reading()


class Backlog(Generic[T]):
    """A queue that holds the gate from when it is full until it is half empty.

    Messages that the link has already read are still added, so it can grow a
    little above *limit*.

    Args:
        gate: The gate of the client.
        limit: The number of items at which it is full.
    """

    __slots__ = ("_gate", "_holds", "_items", "_limit", "_open")

    def __init__(self, gate: Gate, limit: int) -> None:
        self._gate = gate
        self._limit = limit
        self._items: deque[T] = deque()
        self._holds = False
        self._open = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Add an item."""
        self._items.append(item)
        self._weigh()

    def take(self) -> T:
        """Remove and return the oldest item; the queue must not be empty."""
        item = self._items.popleft()
        self._weigh()
        return item

    def clear(self) -> None:
        """Remove all items."""
        self._items.clear()
        self._weigh()

    def keep_open(self, open: bool) -> None:
        """Set whether the gate stays open even if the queue is full.

        It must while the consumer waits for a message from the link.
        """
        self._open = open
        self._weigh()

    def _weigh(self) -> None:
        size = len(self._items)
        if not self._holds and size >= self._limit and not self._open:
            self._holds = True
            self._gate.hold()
        elif self._holds and (self._open or size <= self._limit // 2):
            self._holds = False
            self._gate.release()
