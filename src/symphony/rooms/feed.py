"""A room with a history, as this node hears it: its position, and pages of its past."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from symphony.errors import Reject
from symphony.outgoing.announced import Announced
from symphony.outgoing.encoding import Content
from symphony.protocol.positions import Position
from symphony.rooms.pages import Excerpt, Pages
from symphony.tasks import start

if TYPE_CHECKING:
    from symphony.broker.base import Broker, Page, Record
    from symphony.outgoing.encoding import SharedEncoding

__all__ = ("Feed",)

# What a member that is behind gets at once, before its outbox is looked at again.
_MAX_PAGE: Final = 100
_MAX_PAGE_BYTES: Final = 64 * 1024

_OFFSET: Final = attrgetter("offset")


class Feed:
    """Passes on what is published to one room, and reads its history.

    Args:
        broker: The broker.
        room: The name of the room.
        deliver: Called with each publication and its position, to hand it to the members.
        not_encoded: Called with the error of an encoding that cannot encode a publication
            of the history. Its members do not get this publication.

    Attributes:
        last: The position of the last publication that was handed to the members.
    """

    __slots__ = ("_broker", "_deliver", "_not_encoded", "_opening", "_pages", "_room", "last")

    def __init__(
        self,
        broker: Broker,
        room: str,
        deliver: Callable[[Announced, Position], object],
        not_encoded: Callable[[Exception], object],
    ) -> None:
        self._broker = broker
        self._room = room
        self._deliver = deliver
        self._not_encoded = not_encoded
        self._opening: asyncio.Task[None] | None = None
        self._pages = Pages(self._read)
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
        self._pages.forget()

    async def reached(self, position: Position) -> None:
        """Wait until the members have got everything up to a position, or will not get it."""

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
        page = await self.page(after)
        top = self.last if page.top.epoch != self.last.epoch else max(page.top, self.last, key=_OFFSET)
        before = page.first.offset - 1 if page.first is not None else top.offset
        first = before
        if page.complete and top.offset - before > most:
            # These are fewer publications if some places are empty.
            first = await self._before_newest(most)
        if after is not None:
            if page.complete and first <= before:
                return after, True
            if after.epoch == self.last.epoch and after.offset > self.last.offset:
                # Another node was faster: it must not be told that it goes back.
                await self.reached(page.top)
            return None, False
        return Position(top.epoch, max(first, before)), first <= before

    async def page(self, after: Position | None) -> Excerpt:
        """Return the publications that follow *after*; from the oldest for `None`.

        Raises:
            Reject: `unavailable`: the broker failed.
        """
        try:
            return await self._pages.after(after, self.last)
        except Exception as error:
            raise self._unavailable() from error

    def frames(self, page: Excerpt, encoding: SharedEncoding) -> list[Any]:
        """Return the frames of a page in *encoding*, made once for all members."""
        return page.frames(encoding, self._encode)

    async def _before_newest(self, most: int) -> int:
        """Return the offset before the newest publications."""
        try:
            page = await self._broker.before(self._room, None, limit=most)
        except Exception as error:
            raise self._unavailable() from error
        return page.records[0].position.offset - 1 if page.records else page.top.offset

    def _encode(self, record: Record, before: Position, encoding: SharedEncoding) -> Any:
        try:
            return encoding.encode(self._announced(record, before))
        except Exception as error:
            self._not_encoded(error)
            return None

    async def _read(self, after: Position | None) -> Page:
        return await self._broker.after(self._room, after, limit=_MAX_PAGE, max_bytes=_MAX_PAGE_BYTES)

    def _unavailable(self) -> Reject:
        return Reject("unavailable", f"the history of {self._room!r} cannot be read")

    async def _subscribe(self) -> None:
        self.last = await self._broker.subscribe(self._room, self._received)

    def _received(self, record: Record, after: Position | None = None) -> None:
        """Pass on a publication; *after*: as for `_announced`."""
        self.last = record.position
        if record.replaces is not None:
            # They may have the one that is replaced.
            self._pages.forget()
        try:
            self._deliver(self._announced(record, after), record.position)
        except Exception as error:
            # The publication is kept already.
            self._not_encoded(error)

    def _announced(self, record: Record, after: Position | None = None) -> Announced:
        """Return a publication for the members.

        Args:
            record: The publication.
            after: The position that is known to be the one before; `None`: it is the next one.
        """
        content = record.source
        if not isinstance(content, Content):
            content = Content(record.event, record.payload)
        offset = record.position.offset
        gap = None if after is None or after.offset + 1 == offset else after.offset
        return Announced(content, self._room, offset, gap, record.replaces)


def _nothing(*ignored: object) -> None:
    """Stand where a closed feed hands nothing on."""
