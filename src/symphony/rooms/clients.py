"""What clients do in rooms besides joining: they publish, and read the history."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from symphony.errors import (
    BrokerUnavailableError,
    OutcomeUnknownError,
    QueueFullError,
    Reject,
)
from symphony.outgoing.encoding import Content, Emitted
from symphony.protocol.invalid import shortened
from symphony.protocol.reading import UNREADABLE, unreadable
from symphony.protocol.unencodable import UnencodableError
from symphony.rooms.options import Delivery
from symphony.socket import recipient_of

if TYPE_CHECKING:
    from symphony.protocol.envelopes import Publish, ReadHistory
    from symphony.protocol.positions import Position
    from symphony.rooms.live import Live
    from symphony.rooms.publishing import Publication, Publishing
    from symphony.rooms.room import Room
    from symphony.socket import Socket

__all__ = ("ClientRooms", "OnPublish", "Said")

# The most publications that one answer has, and their most bytes: the answer must fit into a message.
_MAX_READ: Final = 1000
_MAX_READ_BYTES: Final = 256 * 1024

_VOLATILE: Final = Delivery(volatile=True)


class Said(NamedTuple):
    """What an `on_publish` hook is called with.

    Attributes:
        room: The room.
        data: What the client publishes.
        params: The parameters in the name of the room.
    """

    room: Room
    data: Any
    params: Mapping[str, Any]


class OnPublish(NamedTuple):
    """A compiled `on_publish` hook.

    Attributes:
        readers: Decode the data, by `Protocol.payload`.
        call: Called with the socket and a `Said`; what it returns is published.
    """

    readers: Mapping[str, Callable[[Any], Any]]
    call: Callable[[Any, Said], Coroutine[Any, Any, Any]]


class ClientRooms:
    """The rooms of a node, as clients use them.

    Args:
        rooms: The rooms that exist.
        handle: Returns the handle of a room.
        publishing: Publishes.
    """

    def __init__(
        self, rooms: Mapping[str, Live], handle: Callable[[str], Room], publishing: Publishing
    ) -> None:
        self._rooms = rooms
        self._handle = handle
        self._publishing = publishing
        # Publications with a key that are in progress, by room, publisher and key: what ends
        # with the last one, and with all before it.
        self._running: dict[tuple[str, str, str], asyncio.Future[None]] = {}

    async def publish(self, socket: Socket[Any], asked: Publish, kind: str) -> Position | None:
        """Publish what a client publishes: what the `on_publish` of the event makes of it.

        The hooks of one room run one after the other, and each publication takes its place
        when its hook has returned. So what they store and what members hear has one order.

        A repeat of what was published is not refused, even if the client may not publish any
        more: otherwise, it would take the refusal for that of the first.

        Args:
            socket: The socket of the client.
            asked: What it publishes.
            kind: The form of its data, as `Protocol.payload`.

        Returns:
            The position, `None` if the room has no history.
        """
        try:
            if asked.key is None or asked.id is None:
                return await (await self._begin(socket, asked, kind))
            return await self._publish_once(socket, asked, kind, asked.key)
        except QueueFullError as error:
            raise Reject("too_many", "too much is published", retryable=True) from error
        except BrokerUnavailableError as error:
            raise Reject("unavailable", f"{shortened(asked.room)!r} cannot be published to") from error
        except OutcomeUnknownError as error:
            # With its key, the client may repeat it.
            raise Reject("timeout", "it may or may not have been published", retryable=True) from error

    async def _begin(self, socket: Socket[Any], asked: Publish, kind: str) -> Awaitable[Position | None]:
        """Begin to publish; return what waits until it is kept."""
        live = self._of_member(socket, asked.room)
        hook = live.family.publishes.get(asked.event)
        if hook is None:
            event = shortened(asked.event)
            raise Reject(
                "forbidden",
                f"clients may not publish {event!r} to {live.name!r}: no on_publish of its rooms is for it",
                details={"room": live.name, "event": event},
            )
        if asked.key is not None and live.family.policy.history is None:
            raise Reject("invalid", f"{live.name!r} has no history that could remember a key")
        read = hook.readers[kind]
        try:
            data = read(asked.data)
        except UNREADABLE as error:
            raise unreadable(error) from None
        if live.speaking is None:
            live.speaking = asyncio.Lock()
        async with live.speaking:
            if recipient_of(socket) not in live:
                raise _not_a_member(live.name)
            made = await hook.call(socket, Said(self._handle(live.name), data, live.params))
            message = Emitted(asked.event, made) if made is not None else _of_client(asked.event, data)
            delivery = _VOLATILE if asked.id is None else Delivery(key=asked.key)
            by = _publisher(socket, asked)
            return self._publishing.publish_for(live, message, delivery, by=by, said=asked.data)

    async def _publish_once(
        self, socket: Socket[Any], asked: Publish, kind: str, key: str
    ) -> Position | None:
        by = _publisher(socket, asked)
        name = asked.room, by, key
        earlier = self._running.get(name)
        done = self._running[name] = asyncio.get_running_loop().create_future()
        try:
            try:
                kept = await self._begin(socket, asked, kind)
            except Reject:
                if earlier is not None:
                    # The hook of the first may still run, for a connection that is lost.
                    await asyncio.wait((earlier,))
                # Only now: a look at the keys costs a call of the broker.
                first = await self._first(asked, key, by)
                if first is None:
                    raise
                return first
            return await kept
        finally:
            if earlier is None or earlier.done():
                self._over(name, done)
            else:
                earlier.add_done_callback(lambda _: self._over(name, done))

    def _over(self, name: tuple[str, str, str], done: asyncio.Future[None]) -> None:
        done.set_result(None)
        if self._running[name] is done:
            del self._running[name]

    async def _first(self, asked: Publish, key: str, by: str) -> Position | None:
        """Return where the publication is that is refused now, if it is a repeat."""
        try:
            return await self._publishing.first(asked.room, asked.event, key, by=by, said=asked.data)
        except Reject:
            # No room has this name, or the key is that of another publication.
            return None
        except (BrokerUnavailableError, QueueFullError) as error:
            raise OutcomeUnknownError("The broker does not say whether it was published.") from error

    async def read(self, socket: Socket[Any], asked: ReadHistory) -> dict[str, Any]:
        """Return what a member reads of a room's history."""
        live = self._of_member(socket, asked.history)
        if live.family.policy.history is None:
            raise Reject("invalid", f"{live.name!r} has no history")
        limit = min(asked.limit or _MAX_READ, _MAX_READ)
        kept, size = await self._publishing.newest(live.name, limit, asked.before, _MAX_READ_BYTES)
        return {
            "publications": [_shown(each) for each in kept],
            "more": len(kept) < size or size == limit,
        }

    def _of_member(self, socket: Socket[Any], name: str) -> Live:
        live = self._rooms.get(name)
        if live is None or recipient_of(socket) not in live:
            raise _not_a_member(name)
        return live


def _of_client(event: str, data: Any) -> Content:
    """Return the publication of a client's own data, which members with either codec can get.

    Raises:
        Reject: `invalid`: some cannot. One codec has integers and keys that the other has not.
    """
    try:
        return Content.of(Emitted(event, data))
    except UnencodableError as error:
        raise Reject("invalid", f"not all members can get this: {shortened(str(error))}") from None


def _not_a_member(name: str) -> Reject:
    shown = shortened(name)
    return Reject("forbidden", f"you are not a member of {shown!r}", details={"room": shown})


def _publisher(socket: Socket[Any], asked: Publish) -> str:
    """Return whose key it is: also after the client has come back with another connection."""
    if socket.user is not None:
        return f"user:{socket.user.id}"
    return f"socket:{socket.id}" if asked.client is None else f"client:{asked.client}"


def _shown(publication: Publication) -> dict[str, Any]:
    event, data, position, replaces = publication
    shown: dict[str, Any] = {"event": event, "data": data, "position": position}
    return shown if replaces is None else {**shown, "replaces": replaces}
