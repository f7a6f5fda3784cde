"""The publications of one room, as a broker in memory keeps them."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import deque

from symphony.broker.base import History, Receive, Record
from symphony.protocol.positions import Position

__all__ = ("RoomLog",)


class RoomLog:
    """The publications of one room: those that are kept, and where they stand.

    Attributes:
        name: The name of the room.
        epoch: The epoch of the sequence.
        top: The offset of the last publication.
        floor: The offset up to which publications may have been trimmed. Above it, a place
            without a record is one whose publication was replaced.
        records: Those that are kept, with the times at which they were published.
        edits: Of the replacements that are kept: the first publication of the chain, and
            the offset of the replacement.
        size: The bytes of these.
        receive: The subscriber, if there is one.
        timer: Removes those that are too old.
        history: How much is kept.
    """

    __slots__ = ("edits", "epoch", "floor", "history", "name", "receive", "records", "size", "timer", "top")

    def __init__(self, name: str, epoch: str, top: int) -> None:
        self.name = name
        self.epoch = epoch
        self.top = self.floor = top
        self.edits: dict[Position, int] = {}
        self.records: deque[tuple[float, Record]] = deque()
        self.size = 0
        self.receive: Receive | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.history: History | None = None

    @property
    def position(self) -> Position:
        """The position of the last publication."""
        return Position(self.epoch, self.top)

    def knows(self, position: Position) -> bool:
        """Return whether everything after a position is still here."""
        return position.epoch == self.epoch and self.floor <= position.offset <= self.top

    def index_after(self, offset: int) -> int:
        """Return the index of the first record after an offset."""
        return bisect_right(self.records, offset, key=_offset)

    def index_from(self, offset: int) -> int:
        """Return the index of the first record that is not before an offset."""
        return bisect_left(self.records, offset, key=_offset)


def _offset(entry: tuple[float, Record]) -> int:
    return entry[1].position.offset
