"""Pages of a room's history, read and encoded once for all members that need them."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Awaitable, Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from symphony.protocol.positions import Position

if TYPE_CHECKING:
    from symphony.broker.base import Page, Record
    from symphony.outgoing.encoding import SharedEncoding

__all__ = ("Excerpt", "Pages")

# Members that come back together have much the same positions.
_MAX_CACHED_PAGES: Final = 16

# For how many seconds a page is shared. It may then have publications that the room no longer keeps.
_SHARED_FOR: Final = 1.0

_OFFSET: Final = attrgetter("position.offset")


class _Read:
    """What one read of the history has returned.

    Attributes:
        after: The position that it follows.
        end: How far it goes.
        records: The publications.
        frames: Their frames in each encoding, made when they are needed.
        until: The loop's time up to which it is shared.
    """

    __slots__ = ("after", "end", "frames", "records", "until")

    def __init__(self, after: Position, page: Page, until: float) -> None:
        self.after = after
        self.end = page.end
        self.records = page.records
        self.frames: dict[SharedEncoding, list[Any]] = {}
        self.until = until

    def has(self, position: Position) -> bool:
        """Whether what follows a position is in it."""
        end = self.end
        return position.epoch == end.epoch and self.after.offset <= position.offset < end.offset


class Excerpt:
    """The publications that follow a position, as far as one page goes.

    Attributes:
        complete: Whether nothing between the position and these is missing.
        top: The position of the room's last publication, when they were read.
        end: How far it goes; the next page follows it.
    """

    __slots__ = ("_begin", "_read", "complete", "end", "top")

    def __init__(self, read: _Read, begin: int, top: Position, *, complete: bool) -> None:
        self._read = read
        self._begin = begin
        self.top = top
        self.complete = complete
        self.end = read.end

    def __len__(self) -> int:
        return len(self._read.records) - self._begin

    @property
    def first(self) -> Position | None:
        """The position of the first publication; `None`: there is none."""
        return self._read.records[self._begin].position if len(self) else None

    def frames(
        self, encoding: SharedEncoding, encode: Callable[[Record, Position, SharedEncoding], Any]
    ) -> list[Any]:
        """Return the frames of the publications, each made once for all members.

        Args:
            encoding: The encoding of the member.
            encode: Returns the frame of one publication, `None` if the encoding has none.
                It is called with the position before it, too. All places between the two
                are empty.
        """
        read = self._read
        made = read.frames.get(encoding)
        if made is None:
            made = read.frames[encoding] = [_NOT_MADE] * len(read.records)
        for index in range(self._begin, len(made)):
            if made[index] is _NOT_MADE:
                before = read.records[index - 1].position if index else read.after
                made[index] = encode(read.records[index], before, encoding)
        return [frame for frame in made[self._begin :] if frame is not None]


_NOT_MADE: Final = object()


class Pages:
    """The pages of one room.

    A thousand members that come back at once have different positions, but the
    publications that they need are the same. A member whose position lies within a page
    that was just read gets the rest of that page.

    Args:
        read: Reads the page after a position from the broker.
    """

    __slots__ = ("_lock", "_read", "_reads", "_timer")

    def __init__(self, read: Callable[[Position | None], Awaitable[Page]]) -> None:
        self._read = read
        self._reads: list[_Read] = []
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None

    async def after(self, position: Position | None, last: Position) -> Excerpt:
        """Return the publications after a position.

        Args:
            position: The position; `None`: from the oldest that is kept.
            last: The last publication that the members have got.
        """
        found = self._find(position, last)
        if found is not None:
            return found
        # One read at a time: what the others wait for may be in it.
        async with self._lock:
            found = self._find(position, last)
            if found is not None:
                return found
            page = await self._read(position)
            after = position if position is not None and page.complete else _before(page)
            read = _Read(after, page, self._now + _SHARED_FOR)
            if page.records:
                self._keep(read)
            return Excerpt(read, 0, page.top, complete=page.complete)

    def forget(self) -> None:
        """Free all pages."""
        self._reads.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _find(self, position: Position | None, last: Position) -> Excerpt | None:
        if position is None:
            return None
        now = self._now
        for read in self._reads:
            if now < read.until and read.has(position):
                begin = bisect_right(read.records, position.offset, key=_OFFSET)
                return Excerpt(read, begin, last, complete=True)
        return None

    def _keep(self, read: _Read) -> None:
        if len(self._reads) >= _MAX_CACHED_PAGES:
            del self._reads[0]
        self._reads.append(read)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SHARED_FOR, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._now
        self._reads = [read for read in self._reads if now < read.until]
        if self._reads:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._reads[0].until, self._expire)

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _before(page: Page) -> Position:
    """Return the position before the first publication of a page."""
    if not page.records:
        return page.top
    first = page.records[0].position
    return Position(first.epoch, first.offset - 1)
