"""A room, as handlers see it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic

from typing_extensions import TypeVar

from symphony.errors import Reject
from symphony.protocol.invalid import shortened
from symphony.rooms.target import RoomTarget

if TYPE_CHECKING:
    from symphony.rooms.members import Member, Presence

__all__ = ("Room", "check_room_name")

# Control characters, and the halves of characters that no codec writes.
_UNUSABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

StateT = TypeVar("StateT", default=Any)
MemberT = TypeVar("MemberT", default=Any)


def check_room_name(name: object, most: int) -> None:
    """Refuse what cannot be the name of a room.

    Args:
        name: The name.
        most: `Limits.max_room_name`.

    Raises:
        Reject: `invalid`, because a client may have chosen the name.
    """
    problem = ""
    if not isinstance(name, str):
        problem = "it must be text"
    elif not 1 <= len(name) <= most:
        problem = f"it must have 1 to {most} characters"
    elif "{" in name or "}" in name:
        problem = "braces are for patterns, as in app.rooms()"
    elif found := _UNUSABLE.search(name):
        surrogate = found[0] >= "\ud800"
        problem = "it is not valid Unicode" if surrogate else "it contains a control character"
    if problem:
        shown = shortened(repr(name))
        raise Reject("invalid", f"{shown} is not the name of a room: {problem}", details={"room": shown})


class Room(RoomTarget, Generic[StateT, MemberT]):
    """A named set of sockets that share what is sent to it.

    Two handles of one name are the same room.
    """

    __slots__ = ()

    @property
    def state(self) -> StateT:
        """The room's state, created by the `state=` of `app.rooms` at the first join.

        `None` if the rooms have no `state=`, or while the room does not exist.
        """
        return self._table.state(self.name)

    def count(self) -> Awaitable[int]:
        """Return how many members it has on all nodes, those who are away included.

        In rooms without members, it is the number of sockets.

        Raises:
            WrongThreadError: Called from another thread than the app's.
        """
        self._check_thread("count")
        return self._table.count(self.name)

    @property
    def members(self) -> Mapping[str, Member[MemberT]]:
        """The members on this node, by id: users, or sockets without a user.

        It changes when they come and go. Members who are away are there, too. `presence`
        has those of all nodes.

        Raises:
            RuntimeError: The rooms have no members: see `app.rooms`.
        """
        return self._table.members(self.name)

    def presence(self) -> Awaitable[list[Presence]]:
        """Return the members on all nodes, in the order of their arrivals.

        Raises:
            WrongThreadError: Called from another thread than the app's.
            RuntimeError: The rooms have no members.
        """
        self._check_thread("presence")
        return self._table.presence(self.name)

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters in its name, converted as the family's pattern says."""
        return self._table.params(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Room) and other.name == self.name and other._table is self._table

    def __hash__(self) -> int:
        return hash(self.name)
