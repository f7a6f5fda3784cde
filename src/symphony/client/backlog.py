"""Queues of received messages; a full queue pauses reading from the link."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from symphony.client.link import Link

__all__ = ("Backlog", "Gate")

T = TypeVar("T")

# While the program waits for an answer, reading goes on above the limits, up to these
# factors: the answer may come after everything that the server has sent already.
_MANY = 32
_LARGE = 4


class Gate:
    """Pauses reading from a client's link while at least one holder asks for it.

    While the program waits for an answer of the server, it does not pause reading:
    the answer may arrive after the messages that are queued.
    """

    __slots__ = ("_holding", "_paused", "_waiting", "link")

    def __init__(self) -> None:
        self.link: Link | None = None
        self._holding = 0
        self._waiting = 0
        self._paused = False

    @property
    def kept_open(self) -> bool:
        """Whether the program waits for an answer."""
        return self._waiting > 0

    def use(self, link: Link | None) -> None:
        """Switch to another link."""
        self.link = link
        self._paused = False
        self._adjust()

    def hold(self) -> None:
        """Pause reading; each call needs one `release`."""
        self._holding += 1
        self._adjust()

    def release(self) -> None:
        """Resume reading, unless another holder is left."""
        self._holding -= 1
        self._adjust()

    def wait(self) -> None:
        """Note that the program waits for an answer; each call needs one `waited`."""
        self._waiting += 1
        self._adjust()

    def waited(self) -> None:
        """Note that it no longer waits."""
        self._waiting -= 1
        self._adjust()

    def _adjust(self) -> None:
        paused = self._holding > 0 and not self._waiting
        if self.link is None or paused is self._paused:
            return
        self._paused = paused
        if paused:
            self.link.pause_reading()
        else:
            self.link.resume_reading()


class Backlog(Generic[T]):
    """A queue that holds the gate from when it is full until it is half empty.

    Messages that the link has already read are still added, so it can grow a
    little above its limits. While the gate is kept open, it can grow to 32 times
    *limit* and 4 times *max_bytes*; then it overflows.

    Args:
        gate: The gate of the client.
        limit: The number of items at which it is full.
        max_bytes: The bytes at which it is full.
        overflow: Called instead of adding an item when it overflows.
    """

    __slots__ = ("_gate", "_holds", "_items", "_limit", "_max_bytes", "_overflow", "bytes")

    def __init__(self, gate: Gate, limit: int, max_bytes: int, overflow: Callable[[], None]) -> None:
        self._gate = gate
        self._limit = limit
        self._max_bytes = max_bytes
        self._overflow = overflow
        self._items: deque[tuple[T, int]] = deque()
        self._holds = False
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T, size: int) -> bool:
        """Add an item of so many bytes; return whether it was added."""
        if self._gate.kept_open and self._items and self._above(_MANY, _LARGE, size):
            self._overflow()
            return False
        self._items.append((item, size))
        self.bytes += size
        if not self._holds and self._above():
            self._holds = True
            self._gate.hold()
        return True

    def take(self) -> T:
        """Remove and return the oldest item; the queue must not be empty."""
        item, size = self._items.popleft()
        self.bytes -= size
        self._relax()
        return item

    def clear(self) -> None:
        """Remove all items."""
        self._items.clear()
        self.bytes = 0
        self._relax()

    def _above(self, many: int = 1, large: int = 1, more: int = 0) -> bool:
        return len(self._items) >= self._limit * many or self.bytes + more >= self._max_bytes * large

    def _relax(self) -> None:
        if self._holds and len(self._items) <= self._limit // 2 and self.bytes <= self._max_bytes // 2:
            self._holds = False
            self._gate.release()
