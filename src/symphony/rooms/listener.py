"""A listener of a room: what waits for it, and how the app iterates over it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

import msgspec

from symphony.errors import BrokerUnavailableError, QueueFullError
from symphony.outgoing.heard import OVERHEAD, Heard
from symphony.protocol.envelopes import Lost
from symphony.protocol.positions import Position
from symphony.rooms.publishing import Publication
from symphony.websocket.backpressure import TURN

if TYPE_CHECKING:
    from symphony.outgoing.terms import Terms
    from symphony.stats import Stats
    from symphony.transport.base import SlowConsumer

__all__ = ("Conflate", "Publications", "Waiting")

logger = logging.getLogger("symphony.app")

F = TypeVar("F", bound=Callable[..., Any])

Conflate = bool | Callable[[Publication], "str | None"]
"""What `conflate=` takes: whether, or a function that returns the key of a publication."""

# How many publications are given in one turn of the event loop.
_AT_ONCE: Final = 64


class _Item(NamedTuple):
    """What waits for a listener.

    Attributes:
        place: The first position that was in its place; `None`: it is not kept.
        position: Its position.
        what: The publication; or the position after publications that are lost.
        size: The bytes that it takes.
    """

    place: Position | None
    position: Position | None
    what: Heard | Position
    size: int


class Waiting:
    """The publications that wait for one listener. For the room, it is the listener's outbox.

    Args:
        room: The name of the room, for errors.
        policy: What happens to publications that are not kept, when there is too much.
        conflate: See `Room.listen`.
        limit: The most bytes.
        stats: Counts what happens.

    Attributes:
        size: The bytes of what waits.
        high: Above this, publications that are kept are read from the history, later.
        low: At or below this, the history is read on.
        sealed: Whether nothing more comes.
        corked: Always true, so that a room puts each publication here one by one.
        error: Why nothing more comes; `None`: the end is a normal one.
        dropped: How many publications were dropped, because there was too much.
        untold: How many of these the listener has not been told yet.
        position: The position of the last publication that was put here.
    """

    def __init__(
        self, room: str, policy: SlowConsumer | None, conflate: Conflate, limit: int, stats: Stats
    ) -> None:
        self.size = 0
        self.high = limit
        self.low = limit // 4
        self.sealed = False
        self.corked = True
        self.error: Exception | None = None
        self.dropped = self.untold = 0
        self.position: Position | None = None
        self._room = room
        self._policy: SlowConsumer | None = policy
        self._conflates = conflate is True or policy == "conflate"
        self._key_of = None if isinstance(conflate, bool) else conflate
        self._stats = stats
        # By the key that is conflated, otherwise by a number.
        self._items: OrderedDict[Any, _Item] = OrderedDict()
        self._numbers = count()
        self._changed: asyncio.Future[None] | None = None
        self._lowered: asyncio.Future[None] | None = None

    def put(self, frame: Heard) -> None:
        """Add a publication."""
        self._put(frame, None)

    def replace(self, key: tuple[Any, str], frame: Heard) -> None:
        """Add a publication that was published with a key to conflate."""
        self._put(frame, key[1] if self._conflates else None)

    def place(self, frame: Heard, terms: Terms) -> None:
        """Add a publication of a room whose family has a policy."""
        self._put(frame, terms.conflate if self._conflates else None)

    def send(self, frame: Heard | Lost) -> None:
        """Add a publication of the history, or the news that some of it is lost."""
        if isinstance(frame, Heard):
            self._put(frame, None)
        elif not self.sealed:
            self.position = position = frame.position
            self._add(next(self._numbers), _Item(position, position, position, OVERHEAD))

    def begin(self, position: Position | None) -> None:
        """Note the position that the first publication follows."""
        self.position = position

    def seal(self, error: Exception | None = None) -> None:
        """Let the iteration end, after what waits."""
        if not self.sealed:
            self.sealed = True
            self.error = error
            self._wake()

    def forget(self) -> None:
        """End, without what waits."""
        self.seal()
        self._items.clear()
        self.size = self.untold = 0

    def take(self) -> _Item | None:
        """Return what has waited for the longest time; `None`: nothing waits."""
        if not self._items:
            return None
        _, item = self._items.popitem(last=False)
        self.size -= item.size
        if self.size <= self.low:
            self._lower()
        return item

    async def changed(self) -> None:
        """Wait until something is there, or nothing more comes."""
        if self._changed is not None:
            raise RuntimeError(f"Another task already iterates over this listener of {self._room!r}.")
        self._changed = asyncio.get_running_loop().create_future()
        try:
            await self._changed
        finally:
            self._changed = None

    async def lowered(self) -> None:
        """Wait until there is room for a page of the history."""
        while self.size > self.low and not self.sealed:
            self._lowered = asyncio.get_running_loop().create_future()
            await self._lowered

    def _put(self, heard: Heard, key: Any) -> None:
        if self.sealed:
            return
        position = None
        if heard.offset is not None and self.position is not None:
            position = self.position = Position(self.position.epoch, heard.offset)
        if self._key_of is not None:
            try:
                key = self._key_of(_published(heard, position))
            except Exception as error:
                # The publisher cannot do anything about it.
                self.seal(error)
                return
        size = len(heard)
        if position is None and self.size + size > self.high and not self._makes_room(size):
            return
        key = next(self._numbers) if key is None else ("conflate", key)
        before = self._items.get(key)
        if before is None:
            self._add(key, _Item(position, position, heard, size))
        else:
            # It keeps the place, so that a key whose publications come often is given, too.
            self._items[key] = _Item(before.place, position, heard, size)
            self.size += size - before.size

    def _makes_room(self, size: int) -> bool:
        """Do what the policy says, because there is too much; return whether there is room now."""
        if self._policy in ("disconnect", "conflate"):
            self.seal(
                QueueFullError(f"The listener of the room {self._room!r} is too slow: too much waits for it.")
            )
            return False
        if self.position is not None:
            # What waits is kept, and must not be dropped.
            self._drop(1)
            return False
        count, low = 0, -1 if self._policy == "resync" else self.high - size
        while self._items and self.size > low:
            self.size -= self._items.popitem(last=False)[1].size
            count += 1
        self._drop(count)
        return True

    def _drop(self, count: int) -> None:
        self.dropped += count
        self.untold += count
        self._stats.missed_publications += count

    def _add(self, key: Any, item: _Item) -> None:
        self._items[key] = item
        self.size += item.size
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _lower(self) -> None:
        if self._lowered is not None and not self._lowered.done():
            self._lowered.set_result(None)

    def _wake(self) -> None:
        self._lower()
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)


class Publications:
    """The publications of a room: `async with room.listen() as publications`.

    Iterate over it with `async for`. The iteration ends when the room is closed, when the
    app stops, and when the block is left.

    Attributes:
        name: The name of the room.
        position: The position up to which it has given everything; `None`: the room has no
            history. Pass it as `since` to listen again from there.
    """

    def __init__(self, name: str, waiting: Waiting) -> None:
        self.name = name
        self.position: Position | None = None
        self._waiting = waiting
        self._lost_handlers: list[Callable[[Position], Any]] = []
        self._dropped_handlers: list[Callable[[int], Any]] = []
        self._given = 0

    @property
    def dropped(self) -> int:
        """How many publications were dropped, because the program is too slow.

        These are publications that the room does not keep.
        """
        return self._waiting.dropped

    def on_lost(self, handler: F) -> F:
        """Register a function that is called when publications of the history are lost.

        It is called once for each loss, with the position after which the room goes on, in
        order with the publications. It may be plain or async. If there is no such
        function, the loss is logged.
        """
        self._lost_handlers.append(handler)
        return handler

    def on_dropped(self, handler: F) -> F:
        """Register a function that is called when publications were dropped, with their number.

        It may be plain or async. If there is no such function, the loss is logged.
        """
        self._dropped_handlers.append(handler)
        return handler

    def close(self, code: int, reason: str) -> None:
        """End it with an error: it cannot get what it should."""
        self._waiting.seal(BrokerUnavailableError(f"The listener of the room {self.name!r}: {reason}."))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Publication:
        """Return the next publication.

        Raises:
            QueueFullError: The program is too slow, and the family has
                `slow_consumer="disconnect"` or `"conflate"`.
            BrokerUnavailableError: The history cannot be read.
            Exception: What a function raised that is registered here, or `conflate=`.
        """
        waiting = self._waiting
        self._given += 1
        if not self._given % _AT_ONCE:
            await TURN
        while True:
            if waiting.untold:
                dropped, waiting.untold = waiting.untold, 0
                await self._tell(
                    self._dropped_handlers,
                    dropped,
                    "%d publications of the room %r were dropped, because a listener is too slow.",
                    dropped,
                    self.name,
                )
                continue
            item = waiting.take()
            if item is None:
                if waiting.sealed:
                    if waiting.error is not None:
                        raise waiting.error
                    raise StopAsyncIteration
                await waiting.changed()
                continue
            what = item.what
            if item.place is not None:
                self.position = item.place
            if isinstance(what, Heard):
                return _published(what, item.position)
            await self._tell(
                self._lost_handlers,
                what,
                "Publications of the room %r are lost for a listener: it goes on after the offset %d.",
                self.name,
                what.offset,
            )

    async def _tell(self, handlers: list[Callable[[Any], Any]], value: Any, text: str, *values: Any) -> None:
        if not handlers:
            logger.warning(text, *values)
        for handler in tuple(handlers):
            result = handler(value)
            if inspect.isawaitable(result):
                await result

    def __repr__(self) -> str:
        return f"<Publications of the room {self.name!r}>"


def _published(heard: Heard, position: Position | None) -> Publication:
    """Return a publication with its data decoded."""
    return Publication(heard.event, msgspec.msgpack.decode(heard.packed), position, heard.replaces)
