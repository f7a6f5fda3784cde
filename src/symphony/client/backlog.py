"""What came in and waits for the program; when it is full, the link is not read from."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from symphony.client.link import Link

__all__ = ("Backlog", "Gate")

T = TypeVar("T")


class Gate:
    """Lets a client's link be read from while nobody holds it."""

    __slots__ = ("_holding", "link")

    def __init__(self) -> None:
        self.link: Link | None = None
        self._holding = 0

    def use(self, link: Link | None) -> None:
        """Go over to another link."""
        self.link = link
        if link is not None and self._holding:
            link.pause_reading()

    def hold(self) -> None:
        """Let nothing more in; as often as `release`."""
        self._holding += 1
        if self._holding == 1 and self.link is not None:
            self.link.pause_reading()

    def release(self) -> None:
        """Let more in, if nobody else holds it."""
        self._holding -= 1
        if not self._holding and self.link is not None:
            self.link.resume_reading()


class Backlog(Generic[T]):
    """A queue that holds the gate from when it is full until it is half empty.

    What the link has read already is still put: a little more than *limit*.

    Args:
        gate: Of the client.
        limit: When it is full.
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
        """Add one."""
        self._items.append(item)
        self._weigh()

    def take(self) -> T:
        """Remove the oldest; there must be one."""
        item = self._items.popleft()
        self._weigh()
        return item

    def clear(self) -> None:
        """Forget all."""
        self._items.clear()
        self._weigh()

    def keep_open(self, open: bool) -> None:
        """Don't hold the gate, however full: what makes it empty waits for what the link brings."""
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
