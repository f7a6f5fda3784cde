"""The members of a room on this node: users, or sockets without a user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple

from typing_extensions import TypeVar

if TYPE_CHECKING:
    from symphony.broker.attendance import Diff
    from symphony.identity import Identity
    from symphony.rooms.leave import Leave
    from symphony.socket import Socket

__all__ = ("NO_MEMBERS", "Attendance", "Member", "Presence", "Visit")

MemberT = TypeVar("MemberT", default=Any)


class Member(Generic[MemberT]):
    """A user in a room, or a socket without a user.

    It is here while it has a socket in the room. It is away while it has none, and the
    grace period of the room runs.

    Attributes:
        id: The id of the user, or of the socket.
        user: The user, or `None` for a socket without one.
        state: What `members=` of the family has created, from its arrival to its departure.
        away_until: When the grace period ends, in the time of the event loop, while the
            member is away. Otherwise `None`.
        arrival: A text that names this visit, from the arrival to the departure. Use it as a
            key for what must happen once a visit.
    """

    __slots__ = ("_epoch", "_sockets", "arrival", "away_until", "id", "state", "user")

    def __init__(self, id: str, user: Identity | None, arrival: str, state: MemberT) -> None:
        self.id = id
        self.user = user
        self.arrival = arrival
        self.state = state
        self.away_until: float | None = None
        # The epoch in which the presence store has said that it is there.
        self._epoch = ""
        # With the connection of each in the presence store.
        self._sockets: dict[Socket[Any], str] = {}

    @property
    def info(self) -> Mapping[str, Any]:
        """What others may know about the user: `Identity.info`."""
        return self.user.info if self.user is not None else {}

    @property
    def sockets(self) -> tuple[Socket[Any], ...]:
        """Its sockets in the room, on this node."""
        return tuple(self._sockets)

    def __repr__(self) -> str:
        where = "away" if self.away_until is not None else f"{len(self._sockets)} sockets"
        return f"<Member {self.id!r} {where}>"


class Presence(NamedTuple):
    """A member of a room, on any node: see `Room.presence`.

    Attributes:
        id: The id of the user, or of the socket.
        user: The user, or `None` for a socket without one.
        away: Whether it has no socket in the room, and its grace period runs.
        arrival: Names this visit: see `Member.arrival`.
    """

    id: str
    user: Identity | None
    away: bool
    arrival: str


NO_MEMBERS: Final[Mapping[str, Member[Any]]] = MappingProxyType({})


class Visit:
    """What a hook about a member is called with.

    Attributes:
        room: The handle of the room.
        member: The member; `None` in rooms without members.
        leave: Why the last of its sockets is gone, in `on_away` and `on_depart`.
    """

    __slots__ = ("leave", "member", "room")

    def __init__(self, room: Any, member: Member[Any] | None, leave: Leave | None = None) -> None:
        self.room = room
        self.member = member
        self.leave = leave

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters in the name of the room."""
        return self.room.params


class Attendance:
    """The members of one room on this node.

    Attributes:
        by_id: Those who are here, or away and were here last.
        public: The same, for handlers.
        of_socket: The member of each socket.
        ending: Of how many sockets that have gone the store does not know yet, by member.
        is_open: Whether this node hears of changes.
        returning: The sockets that the store did not know and that are tracked again, with
            why they have left meanwhile.
    """

    __slots__ = ("by_id", "ending", "is_open", "of_socket", "public", "returning")

    def __init__(self) -> None:
        self.by_id: dict[str, Member[Any]] = {}
        self.public: Mapping[str, Member[Any]] = MappingProxyType(self.by_id)
        self.of_socket: dict[Socket[Any], Member[Any]] = {}
        self.ending: Counter[str] = Counter()
        self.is_open = False
        self.returning: dict[Socket[Any], Leave | None] = {}

    def add(self, member: Member[Any], socket: Socket[Any], connection: str) -> None:
        """Add a socket of a member."""
        self.by_id[member.id] = member
        member.away_until = None
        member._sockets[socket] = connection  # pyright: ignore[reportPrivateUsage]
        self.of_socket[socket] = member

    def remove(self, socket: Socket[Any]) -> tuple[Member[Any], str] | None:
        """Remove a socket; return its member and its connection."""
        member = self.of_socket.pop(socket, None)
        if member is None:
            return None
        return member, member._sockets.pop(socket)  # pyright: ignore[reportPrivateUsage]

    def forget(self, member: Member[Any]) -> None:
        """Forget a member that has departed, or is on another node now."""
        if not member.sockets and self.by_id.get(member.id) is member:
            del self.by_id[member.id]

    @property
    def connections(self) -> dict[str, Socket[Any]]:
        """The connections of this node, with their sockets."""
        return {
            connection: socket
            for member in self.by_id.values()
            for socket, connection in member._sockets.items()  # pyright: ignore[reportPrivateUsage]
        }

    def is_elsewhere(self, diff: Diff, node: str) -> Member[Any] | None:
        """Return the member that a diff says is on another node now, and has no socket here."""
        member = self.by_id.get(diff.member)
        moved = diff.kind in ("back", "arrive", "restore") and diff.node != node
        return member if member is not None and moved and not member.sockets else None
