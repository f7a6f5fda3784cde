"""How far a client has the publications of one room; pure."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, TypeAlias

from symphony.protocol.positions import Position

__all__ = ("GAP", "HAD", "Place")


class _Verdict(Enum):
    HAD = auto()
    GAP = auto()


HAD: Final = _Verdict.HAD
"""The client has had this publication."""
GAP: Final = _Verdict.GAP
"""The client has missed a publication before this one."""

Judged: TypeAlias = Position | _Verdict


class Place:
    """How far a client has the publications of one room.

    A publication is taken when it arrives, and done when its handler has
    returned. Handlers can take long, so a connection may be lost in between.

    Attributes:
        seen: The position of the last publication that was taken; `None` if
            the room has no history, as far as is known.
    """

    __slots__ = ("_pending", "seen")

    def __init__(self) -> None:
        self.seen: Position | None = None
        # Taken and not done, in order, each with the position before it.
        self._pending: dict[Position, Position] = {}

    @property
    def handled(self) -> Position | None:
        """The position up to which all publications are done."""
        return next(iter(self._pending.values()), self.seen)

    def judge(self, offset: int, epoch: str | None, after: int | None = None) -> Judged:
        """Return the position of the next publication, or why it is not the next one.

        `seen` must not be `None`.

        Args:
            offset: The offset of the publication.
            epoch: Its epoch, if it names one.
            after: The places between this offset and *offset* are empty, if there are any.
        """
        seen = self.seen
        assert seen is not None
        if offset == seen.offset + 1 or (after is not None and after <= seen.offset < offset):
            return Position(epoch or seen.epoch, offset)
        same = epoch is None or epoch == seen.epoch
        return HAD if same and offset <= seen.offset else GAP

    def take(self, position: Position) -> None:
        """Note that the next publication waits for its handler."""
        assert self.seen is not None
        self._pending[position] = self.seen
        self.seen = position

    def give_back(self, position: Position) -> None:
        """Undo the `take` of a publication and of those after it, for which there was no room."""
        self.seen = self._pending[position]
        taken = list(self._pending)
        for later in taken[taken.index(position) :]:
            del self._pending[later]

    def done(self, position: Position) -> None:
        """Note that the handler of a publication has returned."""
        self._pending.pop(position, None)

    def waits(self, position: Position) -> bool:
        """Return whether a publication was taken, and is still to be handled."""
        return position in self._pending

    def move(self, position: Position | None) -> None:
        """Continue after another position; what was taken is still to be handled."""
        self.seen = position

    def restart(self, position: Position | None) -> None:
        """Continue after another position. What was taken is no longer to be handled: it comes again."""
        self._pending.clear()
        self.seen = position

    def ahead_of(self, position: Position) -> bool:
        """Return whether everything up to a position was taken."""
        seen = self.seen
        return seen is not None and seen.epoch == position.epoch and seen.offset >= position.offset
