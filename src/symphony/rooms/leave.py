"""Why a membership ended, as hooks and clients are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from symphony.rooms.room import Room
    from symphony.websocket.close import Close

__all__ = ("LEFT", "LOST", "REMOVED", "Departure", "Leave", "leave_of")

Reason = Literal["left", "lost", "replaced", "removed", "closed"]

# After these, the client comes back: the table of close codes in docs/protocol.md.
_RETRYABLE: Final = frozenset({1001, 1005, 1006, 1011, 1012, 1013, 1014, 4408, 4421, 4429, 4503})
_REPLACED: Final = 4410
_NORMAL: Final = 1000


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


LEFT: Final = Leave("left")
LOST: Final = Leave("lost", 1006)
REMOVED: Final = Leave("removed")


class Departure(NamedTuple):
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


def leave_of(close: Close, *, by_server: bool, retryable: bool | None = None) -> Leave:
    """Return how the end of a connection ends its memberships.

    Args:
        close: How the connection ended.
        by_server: Whether the server closed it.
        retryable: Whether the client may come back, if the server gave an error for the end.
    """
    code = close.code
    if not by_server:
        return Leave("left" if code == _NORMAL else "lost", code)
    if code == _REPLACED:
        return Leave("replaced", code)
    comes_back = code in _RETRYABLE if retryable is None else retryable
    return Leave("lost" if comes_back else "left", code)
