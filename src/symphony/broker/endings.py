"""What a presence store remembers of connections that have ended, or were refused."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from symphony.broker.attendance import REMEMBERED, Tracked, Untracked

__all__ = ("Ended", "Endings")

# What is remembered at most, over all rooms. See docs/limits.md.
_MAX_ENDED: Final = 200_000


class Ended(NamedTuple):
    """The end of a connection.

    Attributes:
        until: When it is forgotten.
        untracked: The answer to a repeat of its `untrack`.
        refused: The answer to a repeat of its `track`, if that was refused.
    """

    until: float
    untracked: Untracked
    refused: Tracked | None


class Endings:
    """The ends of all connections, the oldest first.

    Without them, a late repeat of a call would let in a connection that has ended.
    """

    def __init__(self) -> None:
        self._ended: OrderedDict[str, Ended] = OrderedDict()

    def __contains__(self, connection: str) -> bool:
        return connection in self._ended

    def of(self, connection: str) -> Ended | None:
        """Return what is remembered of a connection."""
        return self._ended.get(connection)

    def add(self, connection: str, untracked: Untracked, now: float, refused: Tracked | None = None) -> None:
        """Remember the end of a connection."""
        self._ended[connection] = Ended(now + REMEMBERED, untracked, refused)
        if len(self._ended) > _MAX_ENDED:
            self._ended.popitem(last=False)

    def forget_old(self, now: float) -> None:
        """Free what does not have to be remembered any more."""
        while self._ended and next(iter(self._ended.values())).until <= now:
            self._ended.popitem(last=False)
