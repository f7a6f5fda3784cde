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
        not_encoded: Called with the error of an encoding that cannot encode a publication
            of the history. Its members do not get this publication.

    Attributes:
        last: The position of the last publication that was handed to the members.
    """

    __slots__ = ("_broker", "_cached", "_deliver", "_not_encoded", "_opening", "_room", "last")

    def __init__(
        self,
        broker: Broker,
        room: str,
        deliver: Callable[[Announced], object],
        not_encoded: Callable[[Exception], object],
    ) -> None:
        self._broker = broker
        self._room = room
        self._deliver = deliver
        self._not_encoded = not_encoded
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
        elif opening.done() and not opening.cancelled() and opening.exception() is None:
            return
        # Not the task itself: a join that is cancelled would cancel it for all.
        await asyncio.wait((opening,))
        if opening.cancelled() or opening.exception() is not None:
            if self._opening is opening:
                self._opening = None
            raise self._unavailable() from (None if opening.cancelled() else opening.exception())

    def close(self) -> None:
        """End the subscription."""
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
            self._broker.unsubscribe(self._room)
        # Otherwise the room would wait for the garbage collector.
        self._deliver = self._not_encoded = _nothing

    async def start_of(self, since: Position | str, most: int) -> tuple[Position | None, bool]:
        """Return the position after which a member gets publications, and whether these are all.

        Args:
            since: The position it has, or `"start"` for the oldest that is kept.
            most: How many publications it may get.

        Returns:
            The position; `None`: it gets none of those before this moment, because
            something after its position is gone, or there is too much.

        Raises:
            Reject: `unavailable`: the broker failed.
        """
        after = since if isinstance(since, Position) else None
        try:
            page = await self._broker.after(self._room, after, limit=1, max_bytes=_MAX_PAGE_BYTES)
        except Exception as error:
            raise self._unavailable() from error
        if after is not None:
            if page.complete and page.top.offset - after.offset <= most:
                return after, True
            return None, False
        offset = page.records[0].position.offset - 1 if page.records else page.top.offset
        first = max(offset, page.top.offset - most)
        return Position(page.top.epoch, first), first == offset

    async def page(self, after: Position | None) -> Page:
        """Read the publications that follow *after*; from the oldest for `None`."""
        return await self._broker.after(self._room, after, limit=_MAX_PAGE, max_bytes=_MAX_PAGE_BYTES)

    def frames(self, page: Page, encoding: SharedEncoding) -> list[Any]:
        """Return the frames of a page in *encoding*, made once for all members."""
        key = encoding, page.records[0].position, len(page.records)
        frames = self._cached.get(key)
        if frames is None:
            while len(self._cached) >= _MAX_CACHED_PAGES:
                del self._cached[next(iter(self._cached))]
            frames = self._cached[key] = []
            for record in page.records:
                content = Content(record.event, record.payload)
                try:
                    frames.append(encoding.encode(Announced(content, self._room, record.position.offset)))
                except Exception as error:
                    self._not_encoded(error)
        return frames

    def forget_pages(self) -> None:
        """Free the frames of pages, because no member is behind."""
        self._cached.clear()

    def _unavailable(self) -> Reject:
        return Reject("unavailable", f"the history of {self._room!r} cannot be read")

    async def _subscribe(self) -> None:
        self.last = await self._broker.subscribe(self._room, self._received)

    def _received(self, record: Record) -> None:
        self.last = record.position
        content = record.source
        if not isinstance(content, Content):
            content = Content(record.event, record.payload)
        try:
            self._deliver(Announced(content, self._room, record.position.offset))
        except Exception as error:
            # The publication is kept already.
            self._not_encoded(error)


def _nothing(ignored: object) -> None:
    """Stand where a closed feed hands nothing on."""
