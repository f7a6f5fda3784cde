"""What a presence store takes and returns, and its times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

__all__ = (
    "HEAD_START",
    "LEASE",
    "REAP",
    "REFRESH",
    "REMEMBERED",
    "TAKEN",
    "Claimed",
    "Decision",
    "Diff",
    "Present",
    "Renewal",
    "Roster",
    "Seen",
    "Touched",
    "Track",
    "Tracked",
    "Untracked",
)

# All durations are in seconds, in the time of the store.
LEASE: Final = 30.0
"""How long a connection, a claim or a home lasts after it was last renewed."""
REFRESH: Final = 10.0
"""How often a node renews them."""
REAP: Final = 5.0
"""How often a node calls `reap`."""
TAKEN: Final = 15.0
"""How long a node has to run the hook of a decision. After that another one takes over."""
HEAD_START: Final = 3.0
"""How long only the node where a member was last is handed the decision about it."""
REMEMBERED: Final = 120.0
"""How long the end of a connection, and a refusal, are remembered."""


class Track(NamedTuple):
    """A connection that is to be one of a member's.

    Attributes:
        room: The name of the room.
        member: The id of the user, or of an anonymous socket.
        connection: Names this membership of one socket. It is used once: a socket that
            joins again has a new one.
        node: The node of the connection.
        anonymous: Whether the member is a socket without a user.
        info: What others are told about the member, in MessagePack. The last one counts.
        counts: Whether the member needs a seat. One that has counted counts until it
            departs.
        most: How many members that count may be in the room; `None`: any number.
        grace: For how many seconds the member stays after its last connection was lost.
        term: The node's claim of the room's home; `None`: the room has no home.
        resume: Epoch and arrival of a member that this node knows already. If the store
            has another epoch and does not know the member, that is no new arrival.
    """

    room: str
    member: str
    connection: str
    node: str
    anonymous: bool
    info: bytes
    counts: bool = True
    most: int | None = None
    grace: float = 0.0
    term: str | None = None
    resume: tuple[str, str] | None = None


class Tracked(NamedTuple):
    """What `PresenceStore.track` has decided.

    Attributes:
        kind: The member has `"arrived"`; came `"back"` within its grace; has one more
            connection (`"added"`); is known to the node and was not to the store
            (`"restored"`). Or the connection is refused: no seat is free (`"full"`);
            another node is the home of the room (`"elsewhere"`); it has ended before
            (`"stale"`); the store has no room for more (`"busy"`).
        epoch: The epoch of the store.
        version: The version of the room after it.
        arrival: Names the time from the member's arrival to its departure; `None` if it
            is refused.
        retryable: Whether a seat may become free soon, if no seat is free: one of them
            belongs to a member who is away, or to an anonymous socket.
    """

    kind: Literal["arrived", "back", "added", "restored", "full", "elsewhere", "stale", "busy"]
    epoch: str
    version: int
    arrival: str | None = None
    retryable: bool = False


class Untracked(NamedTuple):
    """What `PresenceStore.untrack` has decided.

    Attributes:
        kind: The member has another connection (`"still"`), is `"away"`, or has
            `"departed"`. `"unknown"`: the connection was not there.
        joined: What the `track` of this connection had decided; empty if there was none.
        arrival: The arrival of the member; `None` if the connection was not there.
        decision: What to acknowledge after the hook of a departure.
        stays: For how many seconds the member is away, if it is.
    """

    kind: Literal["still", "away", "departed", "unknown"]
    joined: str = ""
    arrival: str | None = None
    decision: str | None = None
    stays: float = 0.0


class Renewal(NamedTuple):
    """What a node renews in one room.

    Attributes:
        room: The name of the room.
        connections: The connections, without those that are about to end.
        term: The node's claim of the home; `None`: it has none.
    """

    room: str
    connections: Sequence[str]
    term: str | None = None


class Seen(NamedTuple):
    """What became of a `Renewal`.

    Attributes:
        room: The name of the room.
        epoch: The epoch of the store that has the room.
        version: The version of the room; 0 if the store knows no member of it.
        unknown: The connections that the store does not know.
        home: Whether the node is the home of the room, if it said so.
    """

    room: str
    epoch: str
    version: int
    unknown: Sequence[str]
    home: bool


class Touched(NamedTuple):
    """What `PresenceStore.touch` has found.

    Attributes:
        rooms: One for each `Renewal`, in their order. Those are missing whose part of the store could
            not be reached.
        lost: The connections whose claims are gone.
    """

    rooms: Sequence[Seen]
    lost: Sequence[str]


class Decision(NamedTuple):
    """A decision whose hook has to run.

    Attributes:
        id: What to acknowledge.
        room: The name of the room.
        kind: The member is `"away"`, or has departed (`"depart"`).
        member: The id of the member.
        arrival: Its arrival.
        anonymous: Whether it is a socket without a user.
        info: What others were told about it, in MessagePack.
    """

    id: str
    room: str
    kind: Literal["away", "depart"]
    member: str
    arrival: str
    anonymous: bool
    info: bytes


class Diff(NamedTuple):
    """One change of a room.

    Attributes:
        room: The name of the room.
        epoch: The epoch of the store.
        version: The version of the room, one more than that of the change before it.
        kind: The member arrives, goes away, comes back or departs; is restored to a store
            that has lost its memory; has other *info* (`"update"`).
        member: The id of the member.
        arrival: Its arrival.
        anonymous: Whether it is a socket without a user.
        info: What others are told about it, in MessagePack.
        node: The node where it is, or where it was last.
    """

    room: str
    epoch: str
    version: int
    kind: Literal["arrive", "away", "back", "depart", "restore", "update"]
    member: str
    arrival: str
    anonymous: bool
    info: bytes
    node: str


class Present(NamedTuple):
    """A member of a room.

    Attributes:
        member: The id of the member.
        arrival: Its arrival.
        anonymous: Whether it is a socket without a user.
        info: What others are told about it, in MessagePack.
        away: Whether it has no connection, and its grace runs.
    """

    member: str
    arrival: str
    anonymous: bool
    info: bytes
    away: bool


class Roster(NamedTuple):
    """All members of a room, in the order of their arrivals.

    Attributes:
        epoch: The epoch of the store.
        version: The version of the room. The next diff has one more.
        members: The members.
    """

    epoch: str
    version: int
    members: Sequence[Present]


class Claimed(NamedTuple):
    """What `PresenceStore.claim` has decided.

    Attributes:
        granted: Whether the connection has the claim.
        evicted: The connections that have lost theirs to it, with their nodes. The caller
            tells these nodes.
    """

    granted: bool
    evicted: Sequence[tuple[str, str]] = ()
