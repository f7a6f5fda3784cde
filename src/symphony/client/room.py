"""A room that a client has joined."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Protocol, Self, overload

from typing_extensions import TypeVar

from symphony.client.arrivals import Publication
from symphony.client.delivery import Delivery
from symphony.client.handlers import check_name
from symphony.client.presence import RoomPresence
from symphony.errors import SymphonyError
from symphony.protocol.positions import Position

__all__ = ("Held", "Room")

logger = logging.getLogger("symphony.client")

F = TypeVar("F", bound=Callable[..., Any])


class Held(Protocol):
    """What a client knows of a room."""

    name: str
    recovered: bool | None
    delivery: Delivery
    presence: RoomPresence

    @property
    def position(self) -> Position | None:
        """The position up to which the program has the publications."""
        ...

    def leave(self) -> Awaitable[None]:
        """End the membership."""
        ...

    def emit(self, event: str, data: Any, key: str | None, *, volatile: bool) -> Awaitable[Position | None]:
        """Publish an event."""
        ...

    def history(self, limit: int, before: Position | None) -> Awaitable[list[Publication]]:
        """Return the last publications."""
        ...

    def count(self) -> Awaitable[int]:
        """Return how many members the room has."""
        ...


class Room:
    """A room that a client has joined; `await client.join(name)` returns it.

    After a lost connection, the client joins the room again. If the room has a
    history, it then gets the publications that it has missed.

    A publication goes to the room's handlers of its event. If there are none, it
    goes to `async for publication in room`, if the program has begun that; otherwise
    to the client's handlers. Handlers of the room and of the client run one after the
    other, in the order in which the events have arrived.
    """

    __slots__ = ("__weakref__", "_held")

    def __init__(self, held: Held) -> None:
        self._held = held

    @property
    def name(self) -> str:
        """The name of the room."""
        return self._held.name

    @property
    def position(self) -> Position | None:
        """The position up to which all publications are handled.

        A publication is handled when its handlers have returned, or when the
        iteration asks for the next one. `None`: the room has no history. Pass it
        as `since` to `client.join`, also in another process, to continue there.
        """
        return self._held.position

    @property
    def presence(self) -> RoomPresence:
        """Who is in the room: a mapping of ids to infos, which changes as they come and go."""
        return self._held.presence

    @property
    def recovered(self) -> bool | None:
        """Whether the last join with a position has got everything after it; `None`: there was none."""
        return self._held.recovered

    @property
    def ended(self) -> SymphonyError | None:
        """Why the client is no longer in the room; `None` while it is, or joins it again.

        A `RemoteError` from the server, with the code `left` if the program has
        left it; a `DisconnectedError` if the client is closed for good.
        """
        return self._held.delivery.ended

    @property
    def dropped(self) -> int:
        """How many publications were dropped, because the program iterates too slowly.

        These are publications without a position. The client gets the others from
        the history when the program has taken what is queued.
        """
        return self._held.delivery.dropped

    @overload
    def on(self, event: str) -> Callable[[F], F]: ...
    @overload
    def on(self, event: str, handler: F) -> F: ...
    def on(self, event: str, handler: F | None = None) -> F | Callable[[F], F]:
        """Register a handler for an event that is published to this room.

        Handlers are as for `Client.on`. To miss nothing, register them before the
        next `await` after `client.join`.

        Args:
            event: The name; `"*"` for all events without another handler of this
                room, called with event and data.
            handler: The function; omit it to use `on` as a decorator.

        Raises:
            ConfigurationError: As for `Client.on`.
        """
        delivery = self._held.delivery
        if handler is not None:
            delivery.handlers.add(event, handler)
            delivery.claim()
            return handler
        check_name(event)

        def register(handler: F) -> F:
            delivery.handlers.add(event, handler)
            delivery.claim()
            return handler

        return register

    def off(self, event: str, handler: Callable[..., Any]) -> None:
        """Remove a handler; if it is not registered, nothing happens."""
        self._held.delivery.handlers.remove(event, handler)

    def on_lost(self, handler: F) -> F:
        """Register a function that is called when publications are lost.

        It is called once for each loss, with the position after which the room goes on,
        in order with the publications. It may be plain or async. Load what you need
        anew there. If there is no such function, the client logs the loss.
        """
        self._held.delivery.lost_handlers.append(handler)
        return handler

    def on_left(self, handler: F) -> F:
        """Register a function that is called when the membership ends without `leave`.

        It is called with the error, as `ended` has it. It may be plain or async.
        """
        self._held.delivery.left_handlers.append(handler)
        return handler

    def on_presence(self, handler: F) -> F:
        """Register a function that is called when the members in `presence` have changed.

        It is called with `presence`, once for several changes that arrive together. It may be
        plain or async. It is not called for the members that `presence` has after the join.
        """
        presence = self.presence
        if not (presence.is_known or presence.total):
            logger.warning(
                "The server does not tell who is in the room %r, so %s is not called. "
                "The server tells it in rooms with presence=True.",
                self.name,
                getattr(handler, "__name__", handler),
            )
        self._held.delivery.presence_handlers.append(handler)
        return handler

    def emit(
        self, event: str, data: Any = None, *, key: str | None = None, volatile: bool = False
    ) -> Awaitable[Position | None]:
        """Publish an event to the room, if the app lets its clients do that.

        It is sent in the order of the calls, also if you do not await the result. Without a
        connection it waits for one. In a room with a history, the client repeats it after a
        lost connection, for up to 4 minutes, and the server publishes it once. You hear it
        yourself, before its position is there.

        Cancelling stops the waiting, not the publishing. If nothing waits, the client logs
        a failure.

        Args:
            event: The name of the event.
            data: The data. It is encoded in the call.
            key: Makes your own repeats safe: for 5 minutes, the same key publishes nothing
                again. By default, each call has a random one.
            volatile: Send it only if that is possible at once, and wait for no answer. It
                is not kept, and members that are behind do not get it.

        Returns:
            When awaited, the position in the history. `None`: the room has none, or
            *volatile*.

        Raises:
            RemoteError: When awaited: the server refused it, such as `forbidden` or, with a
                *key* that was used for other data, `conflict`. Or the client is no longer in
                the room.
            OutcomeUnknownError: When awaited: it may or may not have been published.
            RequestTimeoutError: When awaited: there was no connection for 4 minutes.
            DisconnectedError: The client is closed. It was not published.
            MessageTooLargeError: When awaited: it is larger than the server accepts.
            QueueFullError: Too many publications wait: `max_queue`, or `max_queue_bytes`.
            ValueError: The name or the key is not valid, or there is a key in a room without
                a history.
            TypeError: The data cannot be encoded.
        """
        check_name(event)
        return self._held.emit(event, data, key, volatile=volatile)

    async def history(self, limit: int = 100, *, before: Position | None = None) -> list[Publication]:
        """Return the last publications that the room keeps, the oldest first.

        Args:
            limit: The most publications.
            before: Only those before this position; `None`: the newest.

        Raises:
            RemoteError: `invalid`: the room has no history, or not this position. `forbidden`:
                the client is not a member.
            RequestTimeoutError: No answer arrived in time.
            DisconnectedError: The connection was lost, or the client is closed.
            ValueError: *limit* is not above 0.
            TypeError: *limit* is not a number, or *before* is not a position.
        """
        if not isinstance(limit, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"limit is a number of publications, not {limit!r}.")
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}.")
        if before is not None and not isinstance(before, Position):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"before is a Position, not {before!r}.")
        return await self._held.history(limit, before)

    async def count(self) -> int:
        """Return how many members the room has, on all nodes; also if clients are not told who they are.

        Without members, see `app.rooms`, it counts connections.

        Raises:
            RemoteError: `forbidden`: the client is not a member.
            RequestTimeoutError: No answer arrived in time.
            DisconnectedError: The client is closed.
        """
        return await self._held.count()

    async def leave(self) -> None:
        """Leave the room. Afterwards, no handler of it is called.

        If the client has left it already, or is not connected, this returns at once.

        Raises:
            RemoteError: The server answered with an error. The client no longer
                holds the room.
            RequestTimeoutError: No answer arrived in time. Likewise.
        """
        await self._held.leave()

    def __aiter__(self) -> Self:
        """Iterate over the publications, in order, that no handler of the room takes.

        At most `max_queue` publications wait here. When they are too many, the client
        gets the rest from the history of the room after the program has taken
        those; publications that are not kept there are dropped, logged and
        counted in `dropped`.
        """
        self._held.delivery.iterate()
        return self

    async def __anext__(self) -> Publication:
        """Return the next publication.

        The iteration ends when the program leaves the room, or closes the client.

        Raises:
            RemoteError: The server has ended the membership.
            DisconnectedError: The client has ended for good.
        """
        return await self._held.delivery.next()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()

    def __repr__(self) -> str:
        state = "" if self.ended is None else " ended"
        return f"<Room {self.name!r} of a client{state}>"
