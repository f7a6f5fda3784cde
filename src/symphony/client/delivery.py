"""Passes the publications of one room to the program, in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, TypeAlias

from symphony.client.arrivals import Arrival, Arrivals, Beginning, Publication
from symphony.client.dispatch import Call, Dispatch
from symphony.client.handlers import Handler, Handlers
from symphony.client.payload import Decoding, InvalidError, reader
from symphony.client.places import Place
from symphony.client.presence import RoomPresence
from symphony.errors import DisconnectedError, SymphonyError
from symphony.protocol.positions import Position

__all__ = ("Delivery", "End")

logger = logging.getLogger("symphony.client")

End: TypeAlias = Literal["left", "removed", "closed"]

_NORMAL: Final = (1000, 1001)
_LOST: Final = "%s: publications of the room %r are lost: it goes on after the offset %d."


class Delivery:
    """Passes the publications of one room to the program.

    A publication goes to the room's handlers of its event. If there are none, it
    goes to the iteration over the room, if the program has begun one; otherwise
    to the client's handlers.

    A program can register its handlers only when `join` has returned the room.
    Publications that arrive before that are kept. Those that the client's
    handlers do not take are kept until the program registers a first handler or
    begins to iterate.

    Args:
        name: The name of the room.
        where: The server, for messages.
        place: How far the client has the publications of the room.
        dispatch: Runs the handlers.
        decoding: How received data is decoded.
        limit: How many publications may be kept.
        max_bytes: How many bytes of publications may be kept.
        caught_up: Called when the program has taken all publications that
            were kept, after some were refused.

    Attributes:
        handlers: The room's handlers.
        lost_handlers: Called with the new position when publications are lost.
        left_handlers: Called with the error when the membership is ended.
        behind: Whether publications with a position are refused, because too
            many are kept.
        dropped: How many publications without a position were dropped, because
            too many were kept.
        ended: Why the membership has ended.
    """

    __slots__ = (
        "_caught_up",
        "_decoding",
        "_dispatch",
        "_fresh",
        "_given",
        "_holding",
        "_iterated",
        "_kept",
        "_left",
        "_name",
        "_normal",
        "_place",
        "_telling",
        "_waiter",
        "_where",
        "behind",
        "dropped",
        "ended",
        "handlers",
        "left_handlers",
        "lost_handlers",
        "presence_handlers",
    )

    def __init__(
        self,
        name: str,
        where: str,
        place: Place,
        dispatch: Dispatch,
        decoding: Decoding,
        *,
        limit: int,
        max_bytes: int,
        caught_up: Callable[[], None],
    ) -> None:
        self._name = name
        self._where = where
        self._place = place
        self._dispatch = dispatch
        self._decoding = decoding
        self._caught_up = caught_up
        self._kept = Arrivals(limit, max_bytes)
        self._waiter: asyncio.Future[None] | None = None
        # Whether everything is kept: the program has not had its turn yet.
        self._holding = False
        # Whether the program may still choose how it takes the publications.
        self._fresh = False
        self._iterated = False
        # The publication that the iteration has given last.
        self._given: Position | None = None
        # Whether the program has left the room, and whether the iteration ends without an error.
        self._left = self._normal = False
        self.handlers = Handlers()
        self.lost_handlers: list[Callable[[Position], Any]] = []
        self.left_handlers: list[Callable[[SymphonyError], Any]] = []
        self.presence_handlers: list[Callable[[RoomPresence], Any]] = []
        # Whether their call is queued.
        self._telling = False
        self.behind = False
        self.dropped = 0
        self.ended: SymphonyError | None = None

    @property
    def waiting(self) -> int:
        """How many publications, and beginnings, wait for the program."""
        return len(self._kept)

    # What the program does

    def hold(self) -> None:
        """Keep all publications until `release`: the program does not have the room yet."""
        self._holding = self._fresh = True

    def release(self) -> None:
        """Pass on what was kept, when the program has had its turn."""
        asyncio.get_running_loop().call_soon(self._settle)

    def claim(self) -> None:
        """Note that the program registers a handler."""
        if self._fresh:
            self._fresh = False
            if not self._holding:
                self._holding = True
                # It may register more of them now.
                self.release()

    def iterate(self) -> None:
        """Note that the program iterates over the room."""
        self._fresh = False
        self._iterated = True

    async def next(self) -> Publication:
        """Return the next publication of the iteration.

        Raises:
            StopAsyncIteration: The program has left the room, or closed the client.
            RemoteError: The server has ended the membership.
            DisconnectedError: The client has ended for good.
            RuntimeError: Another task waits for it.
        """
        self.iterate()
        if self._given is not None:
            self._place.done(self._given)
            self._given = None
        while True:
            item = self._kept.take()
            if isinstance(item, Beginning):
                await self._tell_lost(item)
                item = item.snapshot
                if item is None:
                    continue
            if item is not None:
                if (publication := self._read(item)) is not None:
                    self._given = item.position
                    return publication
            else:
                self._catch_up()
                if self.ended is not None:
                    if self._normal:
                        raise StopAsyncIteration
                    raise self.ended.with_traceback(None)
                await self._wait()

    # What the server does

    def publish(self, arrival: Arrival) -> bool:
        """Pass on a publication; return `False` if it must be sent again later."""
        return self._keep(arrival) if self._holding else self._pass_on(arrival)

    def begin(self, beginning: Beginning) -> bool:
        """Tell the program that the room begins anew; `False` as for `publish`."""
        if self._holding or self._iterated:
            self._kept.begin(beginning)
            self._wake()
            return True
        if beginning.lost is not None and not self._dispatch.add(lambda: self._tell_lost(beginning), 0):
            return False
        return beginning.snapshot is None or self._pass_on(beginning.snapshot)

    def tell_presence(self, presence: RoomPresence) -> None:
        """Tell the program that the members have changed: once for all changes until it is called."""
        if self.presence_handlers and not self._telling:
            self._telling = self._dispatch.add(lambda: self._tell_presence(presence), 0)

    def end(self, error: SymphonyError, how: End) -> None:
        """End the membership, once.

        Args:
            error: Why.
            how: `"left"`: the program has left the room, and no handler of it is called any more.
                `"removed"`: the server has ended the membership. `"closed"`: the client has ended.
        """
        if self.ended is not None:
            return
        self.ended = error
        self._left = how == "left"
        self._normal = self._left or (isinstance(error, DisconnectedError) and error.code in _NORMAL)
        if how == "removed" and self.left_handlers:
            self._dispatch.add(self._tell_left, 0)
        self._wake()

    def _settle(self) -> None:
        self._holding = False
        for item in self._kept.take_all():
            if isinstance(item, Beginning):
                self.begin(item)
            elif not self._pass_on(item) and item.position is not None and self._place.waits(item.position):
                # The connection is dropped: what is left comes again on the next one.
                self._place.give_back(item.position)
        if self.behind and not self._iterated:
            if self._kept.full:
                self._give_up()
            self._catch_up()

    def _pass_on(self, arrival: Arrival) -> bool:
        name, handlers = arrival.event.event, self._dispatch.handlers
        if own := self.handlers.of(name):
            return self._call(own, arrival)
        if self._iterated:
            return self._keep(arrival)
        if others := handlers.of(name):
            return self._call(others, arrival)
        if self._fresh:
            return self._keep(arrival)
        self._dispatch.event(arrival.event, self._decoding, arrival.size)
        self._done(arrival)
        return True

    def _keep(self, arrival: Arrival) -> bool:
        if not self._kept.full:
            self._kept.put(arrival)
            self._wake()
            return True
        if self._fresh and not self._holding:
            self._give_up()
            return self._pass_on(arrival)
        if arrival.position is not None:
            self.behind = True
            return False
        self.dropped += 1
        # Once each time the number doubles, or a fast server would fill the log.
        if self.dropped & (self.dropped - 1) == 0:
            logger.warning(
                "%s: %d publications of the room %r were dropped so far, because the program iterates too "
                "slowly, and the room's history does not have them.",
                self._where,
                self.dropped,
                self._name,
            )
        return True

    def _give_up(self) -> None:
        """Drop what was kept for a program that takes it in no way."""
        self._fresh = False
        kept = [item for item in self._kept.take_all() if isinstance(item, Arrival)]
        logger.warning(
            "%s: %d publications of the room %r were dropped, because the program has neither registered a "
            "handler for them nor iterated over the room.",
            self._where,
            len(kept),
            self._name,
        )
        for arrival in kept:
            self._done(arrival)

    def _call(self, handlers: tuple[Handler, ...], arrival: Arrival) -> bool:
        return self._dispatch.add(lambda: self._handle(handlers, arrival), arrival.size)

    async def _handle(self, handlers: tuple[Handler, ...], arrival: Arrival) -> None:
        if self._left or not self._waits(arrival):
            return
        try:
            for handler in handlers:
                await self._dispatch.handle(_Publishing(handler, arrival, self._decoding))
        finally:
            self._done(arrival)

    def _waits(self, arrival: Arrival) -> bool:
        """Return whether it is still to be handled; otherwise, the server sends it again."""
        return arrival.position is None or self._place.waits(arrival.position)

    def _done(self, arrival: Arrival) -> None:
        if arrival.position is not None:
            self._place.done(arrival.position)

    def _read(self, arrival: Arrival) -> Publication | None:
        if not self._waits(arrival):
            return None
        event = arrival.event
        try:
            data = reader(Any, self._decoding)(event.data)
        except InvalidError as error:
            logger.warning(
                "%s sent a publication %r of the room %r that cannot be decoded: %s.",
                self._where,
                event.event,
                self._name,
                error,
            )
            self._done(arrival)
            return None
        return Publication(event.event, data, arrival.position, event.replaces)

    async def _tell_lost(self, beginning: Beginning) -> None:
        position = beginning.lost
        if self._left or position is None:
            return
        if not self.lost_handlers and beginning.snapshot is None:
            logger.warning(_LOST, self._where, self._name, position.offset)
        for handler in tuple(self.lost_handlers):
            await self._dispatch.handle(_Hook(handler, position, "on_lost"))

    async def _tell_left(self) -> None:
        for handler in tuple(self.left_handlers):
            await self._dispatch.handle(_Hook(handler, self.ended, "on_left"))

    async def _tell_presence(self, presence: RoomPresence) -> None:
        self._telling = False
        if not self._left:
            for handler in tuple(self.presence_handlers):
                await self._dispatch.handle(_Hook(handler, presence, "on_presence"))

    def _catch_up(self) -> None:
        if self.behind:
            self.behind = False
            self._caught_up()

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError(f"Another task already iterates over the room {self._name!r}.")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Publishing(Call):
    """A handler of publications, and the one to call it with."""

    __slots__ = ("_arrival",)

    def __init__(self, handler: Handler, arrival: Arrival, decoding: Decoding) -> None:
        super().__init__(handler, arrival.event, decoding)
        self._arrival = arrival

    def __call__(self) -> Any:
        (event, _, position), handler = self._arrival, self._handler
        return handler.call(event.event, event.data, self._decoding, position, event.replaces)


class _Hook:
    """A function of the program, and what it is called with."""

    __slots__ = ("_function", "_kind", "_value")

    def __init__(self, function: Callable[[Any], Any], value: Any, kind: str) -> None:
        self._function = function
        self._value = value
        self._kind = kind

    def __call__(self) -> Awaitable[Any] | Any:
        return self._function(self._value)

    def __str__(self) -> str:
        return f"The handler {getattr(self._function, '__qualname__', self._function)} of {self._kind}"
