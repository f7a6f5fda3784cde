"""The publications of one room that wait for the program."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple, TypeAlias

from symphony.protocol.envelopes import Published
from symphony.protocol.positions import Position

__all__ = ("Arrival", "Arrivals", "Publication")


class Publication(NamedTuple):
    """A publication of a room, as an iteration gives it.

    Attributes:
        event: The name of its event.
        data: Its data, as plain Python values.
        position: Where it stands in the history of the room; `None` if it is not kept there.
        replaces: The position of an earlier publication that this one replaces, such as an
            edited message; `None`: it replaces none. Of several edits, each names the first
            publication.
    """

    event: str
    data: Any
    position: Position | None
    replaces: Position | None = None


class Arrival(NamedTuple):
    """A publication that has arrived.

    Attributes:
        event: Its envelope.
        size: The bytes of its message.
        position: Its position; `None` if it has none.
    """

    event: Published
    size: int
    position: Position | None


Waiting: TypeAlias = Arrival | Position
"""A publication, or the position after publications that were lost."""


class Arrivals:
    """A queue of arrivals that knows when it is full.

    Args:
        limit: The number of arrivals at which it is full.
        max_bytes: The bytes at which it is full.
    """

    __slots__ = ("_bytes", "_items", "_limit", "_max_bytes")

    def __init__(self, limit: int, max_bytes: int) -> None:
        self._limit = limit
        self._max_bytes = max_bytes
        self._items: deque[Waiting] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether it takes no more publications."""
        return len(self._items) >= self._limit or self._bytes >= self._max_bytes

    def put(self, arrival: Arrival) -> None:
        """Add a publication."""
        self._items.append(arrival)
        self._bytes += arrival.size

    def lose(self, position: Position) -> None:
        """Note that publications up to a position are lost; also if it is full."""
        if self._items and isinstance(self._items[-1], Position):
            self._items.pop()
        self._items.append(position)

    def take(self) -> Waiting | None:
        """Remove and return the oldest item."""
        if not self._items:
            return None
        item = self._items.popleft()
        if isinstance(item, Arrival):
            self._bytes -= item.size
        return item

    def take_all(self) -> list[Waiting]:
        """Remove and return all items."""
        items = list(self._items)
        self._items.clear()
        self._bytes = 0
        return items
