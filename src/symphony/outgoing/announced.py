"""A publication of a room that clients are told about."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from symphony.outgoing.encoding import Content, Dialect, Emitted, Message, Sent
    from symphony.protocol.positions import Position

__all__ = ("Announced",)


class Announced:
    """A publication of a room that clients are told about: it has the room's name.

    Args:
        content: Event and data.
        room: The name of the room.
        offset: The number in the room's history, if it is kept.
        after: All places between this offset and *offset* are empty; `None`: there are none.
        replaces: The publication that this one replaces; `None`: none.
    """

    __slots__ = ("_after", "_content", "_offset", "_replaces", "_room")

    def __init__(
        self,
        content: Sent | Emitted | Content,
        room: str,
        offset: int | None = None,
        after: int | None = None,
        replaces: Position | None = None,
    ) -> None:
        self._content = content
        self._room = room
        self._offset = offset
        self._after = after
        self._replaces = replaces

    def encode(self, dialect: Dialect) -> Message:
        """Return its message in *dialect*."""
        return dialect.publication(self._content, self._room, self._offset, self._after, self._replaces)
