"""What the handles of rooms need of the table of all rooms."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from symphony.outgoing.batch import Batch, Recipient
    from symphony.outgoing.encoding import Content, Emitted, Sent
    from symphony.protocol.positions import Position
    from symphony.rooms.listener import Conflate, Publications
    from symphony.rooms.members import Member, Presence
    from symphony.rooms.options import Delivery
    from symphony.rooms.publishing import Publication
    from symphony.rooms.room import Room

__all__ = ("RoomTable",)


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
        self, name: str, message: Sent | Emitted | Content, exclude: Sequence[Recipient], delivery: Delivery
    ) -> Awaitable[Position | None]:
        """Publish to a room that clients are told about, or that has no members."""
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
