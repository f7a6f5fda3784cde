"""What a presence store keeps of one room: its members and their connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from symphony.broker.attendance import Track

__all__ = ("NEVER", "Entry", "Lease", "Occupancy")

NEVER: Final = float("inf")


class Lease:
    """A connection of a member."""

    __slots__ = ("kind", "node", "until")

    def __init__(
        self, kind: Literal["arrived", "back", "added", "restored"], node: str, until: float
    ) -> None:
        self.kind: Literal["arrived", "back", "added", "restored"] = kind
        self.node = node
        self.until = until


class Entry:
    """A member of a room: here while it has connections, otherwise away."""

    __slots__ = (
        "anonymous",
        "arrival",
        "away_until",
        "connections",
        "counts",
        "grace",
        "info",
        "lease_end",
        "node",
        "return_by",
    )

    def __init__(self, track: Track, arrival: str) -> None:
        self.arrival = arrival
        self.anonymous = track.anonymous
        self.counts = track.counts
        self.info = track.info
        self.node = track.node
        self.grace = track.grace
        self.connections: dict[str, Lease] = {}
        self.away_until: float | None = None
        # The latest end of a lease: its grace begins there if that was the last connection.
        self.lease_end = 0.0
        # Until when it would be away without its present connections: if none of them opens,
        # this holds. `None`: it would not be a member.
        self.return_by: float | None = None


class Occupancy:
    """The members of a room.

    Attributes:
        members: By their ids, in the order of their arrivals.
        places: The member of each connection.
        version: How many changes there were.
        due: A heap of when leases and graces end: time, number, member, and connection
            (empty for a grace). An entry may be out of date.
        scheduled: For when the room is in the heap of all rooms.
        counted: How many members count.
        soft: How many of these are away or anonymous.
    """

    __slots__ = ("counted", "due", "members", "name", "places", "scheduled", "soft", "version")

    def __init__(self, name: str, version: int) -> None:
        self.name = name
        self.members: dict[str, Entry] = {}
        self.places: dict[str, str] = {}
        self.version = version
        self.due: list[tuple[float, int, str, str]] = []
        self.scheduled = NEVER
        self.counted = self.soft = 0

    def find(self, connection: str) -> tuple[str, Entry] | None:
        """Return the member of a connection, with its id."""
        id = self.places.get(connection)
        return None if id is None else (id, self.members[id])

    def weigh(self, member: Entry, sign: int) -> None:
        """Count a member in (1) or out (-1)."""
        if member.counts:
            self.counted += sign
            if member.anonymous or not member.connections:
                self.soft += sign
