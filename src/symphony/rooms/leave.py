"""Why a membership ended, as hooks and clients are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from symphony.rooms.room import Room
    from symphony.websocket.close import Close

__all__ = ("LEFT", "LOST", "REMOVED", "Leave", "Parting", "Unopened", "leave_of")

Reason = Literal["left", "lost", "replaced", "removed", "closed"]

_REPLACED: Final = 4410


class Leave(NamedTuple):
    """Why a socket is no longer a member of a room; a parameter of `on_leave`.

    Attributes:
        reason: `"left"`: the client or the app has ended the membership, or one of them
            has closed the connection for good. `"lost"`: the connection has ended
            otherwise, so the client may come back. `"replaced"`: another connection of the
            user has taken its place. `"removed"`: a hook of the join raised, or the user
            may no longer be in the room. `"closed"`: the room was closed.
        code: The close code of the connection, or of `room.close`; `None` if neither closed.
    """

    reason: Reason
    code: int | None = None


class Unopened(Leave):
    """The end of a socket before it was open: as if it had not come."""

    __slots__ = ()


LEFT: Final = Leave("left")
LOST: Final = Leave("lost", 1006)
REMOVED: Final = Leave("removed")


class Parting(NamedTuple):
    """What the hooks of a leave are called for.

    Attributes:
        room: The room.
        leave: Why.
    """

    room: Room
    leave: Leave

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters in the name of the room."""
        return self.room.params


def leave_of(close: Close, *, by_server: bool, retryable: bool | None = None, opened: bool = True) -> Leave:
    """Return how the end of a connection ends its memberships.

    Args:
        close: How the connection ended.
        by_server: Whether the server closed it.
        retryable: Whether the client may come back, if the server gave an error for the end.
        opened: Whether it was open. Otherwise its client has not been in a room with it, so
            it decides nothing about the member.
    """
    if not opened:
        return Unopened("left", close.code)
    if by_server and close.code == _REPLACED:
        return Leave("replaced", close.code)
    is_final = close.is_final(by_server) if retryable is None or not by_server else not retryable
    return Leave("left" if is_final else "lost", close.code)
