"""Targets: what handlers send messages and events to."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol, cast

from symphony.errors import WrongThreadError
from symphony.outgoing.encoding import Emitted, Sent
from symphony.protocol.positions import Position
from symphony.rooms.excluding import Excluded, left_out_of
from symphony.rooms.options import PLAIN, Delivery, delivery_of
from symphony.rooms.topics import EVERYONE_TOPIC, topic_of
from symphony.socket import Socket, recipient_of

if TYPE_CHECKING:
    from symphony.outgoing.batch import Batch, Recipient
    from symphony.outgoing.encoding import Content, Once
    from symphony.rooms.listener import Conflate, Publications
    from symphony.rooms.members import Member, Presence
    from symphony.rooms.publishing import Publication
    from symphony.rooms.room import Room

__all__ = ("RoomTable", "RoomTarget", "Target")


class RoomTable(Protocol):
    """What a room needs of the table it is in."""

    thread: int

    def room(self, name: str) -> Room:
        """Return a handle of a room; raises `Reject` if no room can have this name."""
        ...

    def batch(self, name: str) -> Batch | None:
        """Return the room's members, `None` if it has none."""
        ...

    def publish(self, batch: Batch, message: Any, exclude: Iterable[Recipient]) -> Awaitable[None]:
        """Hand a message to the members; return what the publisher awaits."""
        ...

    def announce(
        self,
        name: str,
        message: Sent | Emitted | Content | Once,
        exclude: Sequence[Recipient],
        delivery: Delivery,
    ) -> Awaitable[Position | None]:
        """Publish to a room that clients are told about, or that has no members."""
        ...

    def reach(
        self,
        group: str,
        batch: Batch,
        message: Sent | Emitted,
        exclude: Sequence[Recipient],
        delivery: Delivery,
    ) -> Awaitable[None]:
        """Publish to the sockets of a route or router, which other nodes know by the name *group*."""
        ...

    def keeps(self, name: str) -> bool:
        """Return whether a room has a history."""
        ...

    async def history(self, name: str, limit: int, before: Position | None) -> list[Publication]:
        """Return the last publications that a room keeps."""
        ...

    def listen(
        self, name: str, since: Position | str | None, conflate: Conflate
    ) -> AbstractAsyncContextManager[Publications]:
        """Listen to a room."""
        ...

    async def open_room(self, name: str, state: Any, ttl: float) -> bool:
        """Make a room before anybody joins; return whether this call has made it."""
        ...

    async def close_room(self, name: str, code: int, reason: str) -> None:
        """End a room and its memberships."""
        ...

    async def count_elsewhere(self, names: Sequence[str]) -> int:
        """Return how many sockets other nodes have that one of these names is for."""
        ...

    def paced(self) -> Awaitable[None]:
        """Return what a call awaits that may be repeated in a loop."""
        ...

    def state(self, name: str) -> Any:
        """Return the room's state."""
        ...

    def touch(self, name: str) -> None:
        """Note that the room's state has changed."""
        ...

    def params(self, name: str) -> Mapping[str, Any]:
        """Return the parameters in the room's name."""
        ...

    def members(self, name: str) -> Mapping[str, Member[Any]]:
        """Return the members of a room on this node."""
        ...

    async def presence(self, name: str) -> list[Presence]:
        """Return the members of a room on all nodes."""
        ...

    def count(self, name: str) -> Awaitable[int]:
        """Return how many members a room has, or how many sockets."""
        ...


class Target:
    """A target for messages: a room, or everyone.

    It is only a handle. Creating one costs nothing, and does not keep a room
    alive.

    Attributes:
        name: The full name of a room; empty for everyone.
    """

    __slots__ = ("_table", "name")

    def __init__(self, table: RoomTable, name: str) -> None:
        self._table = table
        self.name = name

    def send(
        self,
        message: object,
        *,
        exclude: Excluded = (),
        volatile: bool = False,
        conflate: str | None = None,
    ) -> Awaitable[Position | None]:
        """Send a message to every socket in it; on event connections, the event `"message"`.

        All members receive the publications of one process in the same order.
        Delivery is at most once: a member that leaves or reads too slowly does
        not receive the message. The message is encoded before this returns.
        Awaiting the result does not wait for members. It suspends for one turn of
        the event loop if much was published in this turn, so a loop of publications
        does not keep others waiting.

        Args:
            message: Text and bytes are sent unchanged, anything else as JSON.
            exclude: The sockets that do not receive it: one or several sockets, or
                targets such as `app.user(id)`.
            volatile: Skip sockets with more unsent bytes than `Limits.low_water_bytes`. Use
                it for what is out of date at once, such as the state of a game.
            conflate: A key. For each socket, it takes the place of the message with the
                same key that is not written yet. Use it for prices, for example.

        Raises:
            WrongThreadError: Called from another thread than the app's.
            TypeError: The message cannot be encoded.
        """
        delivery = delivery_of(volatile=volatile, conflate=conflate)
        return self._publish("send", Sent(message), exclude, delivery)

    def emit(
        self,
        event: str,
        data: object = None,
        *,
        exclude: Excluded = (),
        volatile: bool = False,
        conflate: str | None = None,
    ) -> Awaitable[Position | None]:
        """Send an event to every socket in it; otherwise as `send`.

        It is encoded once for each protocol in use. Raw connections receive the
        event as JSON text.

        Args:
            event: The name of the event.
            data: Data that all these protocols can encode.
            exclude: The sockets that do not receive it: one or several sockets, or
                targets such as `app.user(id)`.
            volatile: As in `send`.
            conflate: As in `send`.

        Raises:
            WrongThreadError: Called from another thread than the app's.
            TypeError: The data cannot be encoded.
        """
        delivery = delivery_of(volatile=volatile, conflate=conflate)
        return self._publish("emit", Emitted(event, data), exclude, delivery)

    def _publish(
        self,
        verb: str,
        publication: Sent | Emitted,
        exclude: Excluded,
        delivery: Delivery = PLAIN,
    ) -> Awaitable[Any]:
        self._check_thread(verb)
        table = self._table
        batch = table.batch(self.name)
        left_out = left_out_of(exclude) if exclude != () else ()
        if batch is None or not batch.direct or delivery is not PLAIN:
            return table.announce(self.name, publication, left_out, delivery)
        return table.publish(batch, publication, left_out)

    @property
    def _batch(self) -> Batch | None:
        return self._table.batch(self.name)

    @property
    def _names(self) -> tuple[str, ...]:
        """What other nodes call it."""
        return (topic_of(self.name) if self.name else EVERYONE_TOPIC,)

    @property
    def _shown_threadsafe(self) -> str:
        return f"app.threadsafe.room({self.name!r})" if self.name else "app.threadsafe.everyone"

    @property
    def sockets(self) -> tuple[Socket[Any], ...]:
        """The sockets of this process in it."""
        batch = self._batch
        return () if batch is None else tuple(batch.owners)

    def count(self) -> Awaitable[int]:
        """Return how many sockets are in it.

        Raises:
            WrongThreadError: Called from another thread than the app's.
        """
        self._check_thread("count")
        return self._count()

    async def _count(self) -> int:
        await self._table.paced()
        here = len(self._batch or ())
        return here + await self._table.count_elsewhere(self._names)

    # The name that users know, for the warnings about a missing `await`.
    _count.__qualname__ = "Target.count"

    def _check_thread(self, verb: str) -> None:
        if get_ident() != self._table.thread:
            raise WrongThreadError(
                f"{self!r}.{verb}() was called from another thread than the event loop's. "
                f"Use {self._shown_threadsafe}.{verb}(…) there."
            )

    def __contains__(self, socket: object) -> bool:
        batch = self._batch
        return (
            batch is not None
            and isinstance(socket, Socket)
            and recipient_of(cast("Socket[Any]", socket)) in batch
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name or 'everyone'}>"


class RoomTarget(Target):
    """A target that is a room: it may have a history."""

    __slots__ = ()

    def send(
        self,
        message: object,
        *,
        exclude: Excluded = (),
        transient: bool = False,
        volatile: bool = False,
        conflate: str | None = None,
        key: str | None = None,
        replaces: Position | None = None,
    ) -> Awaitable[Position | None]:
        """Send a message to every socket in it; on event connections, the event `"message"`.

        In a room with a history, the publication is kept there. Members whose connection
        breaks get it when they come back, in order and once, as long as it is kept.

        In other rooms, delivery is at most once: a member that leaves or reads too slowly
        does not receive the message. All members receive the publications of one process
        in the same order.

        The message is encoded before this returns. Awaiting the result does not wait for
        members. It suspends for one turn of the event loop if much was published in this
        turn, so a loop of publications does not keep others waiting. In a room with a
        history, it waits until the broker has accepted the publication. Cancelling stops
        the waiting, not the publishing. If you do not await the result, `on_error` gets
        the error of a publication that fails later.

        Args:
            message: Text and bytes are sent unchanged, anything else as JSON.
            exclude: The sockets that do not receive it: one or several sockets, or
                targets such as `app.user(id)`. In a room with a history
                only with *transient*, since it would be missing in what they recover.
            transient: In a room with a history, do not keep it: a member that is away does
                not get it. Use it for what is soon out of date, such as "is typing".
            volatile: Do not keep it, and skip members that are behind: with more unsent
                bytes than `Limits.low_water_bytes`. Use it for what is out of date at once,
                such as the state of a game.
            conflate: A key. For each member, it takes the place of the publication of this
                room with the same key that is not written yet, so that a slow member gets
                the newest. Use it for prices, for example. In a room with a history only
                with *transient* or *volatile*.
            key: Publish it once: for 5 minutes, a repeat with the same key, on any node of
                the app, publishes nothing and returns the first position. Only for what is
                kept.
            replaces: The position of a publication that this one replaces, such as an
                edited message. Members get it as a new publication that names the replaced
                one. Members that recover get only the last of them. Only for what is kept.

        Returns:
            When awaited, the position in the history, or `None` if it is not kept.

        Raises:
            WrongThreadError: Called from another thread than the app's.
            TypeError: The message cannot be encoded.
            ValueError: An option is not possible in this room, or not together with another.
            Reject: `conflict`: *key* was used for another message.
            BrokerUnavailableError: The broker cannot be reached. Nothing was published.
            OutcomeUnknownError: The broker did not answer in time. It may have been
                published. Only with a *key* is it safe to repeat it.
        """
        return self._publish(
            "send", Sent(message), exclude, delivery_of(transient, volatile, conflate, key, replaces)
        )

    def emit(
        self,
        event: str,
        data: object = None,
        *,
        exclude: Excluded = (),
        transient: bool = False,
        volatile: bool = False,
        conflate: str | None = None,
        key: str | None = None,
        replaces: Position | None = None,
    ) -> Awaitable[Position | None]:
        """Send an event to every socket in it; otherwise as `send`.

        It is encoded once for each protocol in use. Raw connections receive the
        event as JSON text.

        Args:
            event: The name of the event.
            data: Data that all these protocols can encode.
            exclude: As in `send`.
            transient: As in `send`.
            volatile: As in `send`.
            conflate: As in `send`.
            key: As in `send`.
            replaces: As in `send`.

        Returns:
            As `send`.

        Raises:
            WrongThreadError: Called from another thread than the app's.
            TypeError: The data cannot be encoded.
            ValueError: As in `send`; likewise the other errors.
        """
        return self._publish(
            "emit", Emitted(event, data), exclude, delivery_of(transient, volatile, conflate, key, replaces)
        )

    def history(self, limit: int = 100, *, before: Position | None = None) -> Awaitable[list[Publication]]:
        """Return the last publications that the room keeps, the oldest first.

        Args:
            limit: The most publications.
            before: Only those before this position; `None`: the newest.

        Raises:
            WrongThreadError: Called from another thread than the app's.
            ValueError: The room has no history.
            Reject: `invalid`: *before* is not a position of this history.
        """
        self._check_thread("history")
        if not isinstance(limit, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"limit is a number of publications, not {limit!r}.")
        if before is not None and not isinstance(before, Position):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"before is a Position, not {before!r}.")
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}.")
        return self._table.history(self.name, limit, before)
