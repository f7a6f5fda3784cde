"""A room with a history, as this node hears it: its position, and pages of its past."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from symphony.errors import Reject
from symphony.outgoing.encoding import Announced, Content
from symphony.protocol.positions import Position
from symphony.tasks import start

if TYPE_CHECKING:
    from symphony.broker.base import Broker, Page, Record
    from symphony.outgoing.encoding import SharedEncoding

__all__ = ("Feed",)

# What a member that is behind gets at once, before its outbox is looked at again.
_MAX_PAGE: Final = 100
_MAX_PAGE_BYTES: Final = 64 * 1024

# Members that come back together have much the same positions.
_MAX_CACHED_PAGES: Final = 16


class Feed:
    """Passes on what is published to one room, and reads its history.

    Args:
        broker: The broker.
        room: The name of the room.
        deliver: Called with each publication, to hand it to the members.

    Attributes:
        last: The position of the last publication that was handed to the members.
    """

    __slots__ = ("_broker", "_cached", "_deliver", "_opening", "_room", "last")

    def __init__(self, broker: Broker, room: str, deliver: Callable[[Announced], object]) -> None:
        self._broker = broker
        self._room = room
        self._deliver = deliver
        self._opening: asyncio.Task[None] | None = None
        self._cached: dict[tuple[SharedEncoding, Position, int], list[Any]] = {}
        self.last = Position("-", 0)

    async def open(self) -> None:
        """Subscribe to the room, if that is not done yet.

        Raises:
            Reject: `unavailable`: the broker failed.
        """
        opening = self._opening
        if opening is None:
            opening = self._opening = start(self._subscribe())
        # Not the task itself: a join that is cancelled would cancel it for all.
        await asyncio.wait((opening,))
        if opening.cancelled() or opening.exception() is not None:
            if self._opening is opening:
                self._opening = None
            raise Reject("unavailable", f"the history of {self._room!r} cannot be reached") from (
                None if opening.cancelled() else opening.exception()
            )

    def close(self) -> None:
        """End the subscription."""
        if self._opening is not None:
            self._opening.cancel()
            self._broker.unsubscribe(self._room)

    async def start_of(self, since: Position | str, most: int) -> Position | None:
        """Return the position after which a member gets all publications that it wants.

        Args:
            since: The position it has, or `"start"` for the oldest that is kept.
            most: How many publications it may get.

        Returns:
            The position; `None`: something after it is gone, or there is too much of it.
        """
        after = since if isinstance(since, Position) else None
        page = await self._broker.after(self._room, after, limit=1, max_bytes=_MAX_PAGE_BYTES)
        if not page.complete:
            return None
        if after is None:
            offset = page.records[0].position.offset - 1 if page.records else page.top.offset
            after = Position(page.top.epoch, max(offset, page.top.offset - most))
        return after if page.top.offset - after.offset <= most else None

    async def page(self, after: Position) -> Page:
        """Read the publications that follow *after*."""
        return await self._broker.after(self._room, after, limit=_MAX_PAGE, max_bytes=_MAX_PAGE_BYTES)

    def frames(self, page: Page, encoding: SharedEncoding) -> list[Any]:
        """Return the frames of a page in *encoding*, made once for all members."""
        key = encoding, page.records[0].position, len(page.records)
        frames = self._cached.get(key)
        if frames is None:
            while len(self._cached) >= _MAX_CACHED_PAGES:
                del self._cached[next(iter(self._cached))]
            frames = self._cached[key] = [
                encoding.encode(
                    Announced(Content(record.event, record.payload), self._room, record.position.offset)
                )
                for record in page.records
            ]
        return frames

    def forget_pages(self) -> None:
        """Free the frames of pages, because no member is behind."""
        self._cached.clear()

    async def _subscribe(self) -> None:
        self.last = await self._broker.subscribe(self._room, self._received)

    def _received(self, record: Record) -> None:
        self.last = record.position
        content = record.source
        if not isinstance(content, Content):
            content = Content(record.event, record.payload)
        self._deliver(Announced(content, self._room, record.position.offset))
