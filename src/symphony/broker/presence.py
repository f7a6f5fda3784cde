"""The contract of a presence store: who is in which room, whatever the node.

An engine implements `PresenceStore`. `PresenceTable` (`broker/presencetable.py`) keeps all
of its rules, without a clock, a loop or a connection, so an engine may only have to carry
its calls. `symphony.testing.contracts` has the tests that each engine passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from symphony.broker.attendance import (
    Claimed,
    Decision,
    Diff,
    Renewal,
    Roster,
    Touched,
    Track,
    Tracked,
    Untracked,
)

__all__ = ("PresenceStore", "Receive")

Receive = Callable[[Diff], object]


class PresenceStore(Protocol):
    """Knows the members of rooms, their connections, seats, claims and homes.

    Every operation is atomic, and alone decides what has changed. The store publishes
    each change as one diff, whose version is one more than the one before. A version only
    counts within the *epoch* of the store: one unbroken life of its memory.

    A member is *here* while it has a connection. It is *away* from the loss of its last
    connection until its grace has passed. Then, or when its last connection leaves, it
    departs. Arrivals and departures of one member in one room alternate.

    **Repeats.** An answer may be lost. A caller may repeat each operation, and gets the
    first answer again. It must not repeat the `track` of a connection that has gone: it
    calls `untrack` instead, which says what the `track` had decided.

    **Leases.** A connection, a claim and a home end `LEASE` seconds after they were last
    renewed. A member's grace begins at the *end of the lease* of its last connection.
    If no `touch` came for 1.5 x `REFRESH`, the store was out of reach. Then no connection
    ends before the next `touch` and one `LEASE` have passed.

    **Hooks.** The caller of `untrack` runs the hook of what it has decided. What a lease or
    a grace decides is handed to a node by `reap`. A decision is kept until it is
    acknowledged: after `TAKEN` seconds without that, another node gets it. A departure
    that `untrack` has decided is kept in the same way.

    **Restarts.** A store that keeps its members over a restart has a new epoch after it, and
    knows the members, their arrivals and seats, and the decisions that are not
    acknowledged. Their connections have ended with their nodes, and so have claims and homes.
    So each member is away, and its grace begins with the restart. A member without
    grace departs then. An answer is given when what it says survives a restart.
    """

    async def track(self, track: Track) -> Tracked:
        """Add a connection to a member, if it may have a seat.

        What is overdue in the room is decided before. A member who has a seat is not
        refused. A repeat gets the first answer, also if it was a refusal.

        Raises:
            Exception: The store is out of reach. It may or may not have happened: call
                `untrack`, or repeat it.
        """
        ...

    async def untrack(
        self, room: str, connection: str, node: str, *, left: bool, opened: bool = True
    ) -> Untracked:
        """End a connection, for good: a later `track` of it is refused.

        Args:
            room: The name of the room.
            connection: The connection, whether or not its `track` was answered.
            node: Its node.
            left: If it is the last of its member: whether the member departs at once.
                Otherwise its grace begins, if it has one.
            opened: Whether the membership was completed. If not, it changes nothing, whatever
                *left* is: a member that had just arrived departs, and one that was away is
                away again, until the same time as before.
        """
        ...

    async def dismiss(self, room: str, member: str, arrival: str, node: str) -> Untracked:
        """End the grace of a member who is away: it departs at once.

        Args:
            room: The name of the room.
            member: The id of the member.
            arrival: Its arrival. Another visit of the member goes on.
            node: The node that runs the hook.

        Returns:
            `"departed"`; `"still"`: the member is here; `"unknown"`: this visit has ended.
        """
        ...

    async def touch(self, node: str, rooms: Sequence[Renewal], claims: Sequence[str]) -> Touched:
        """Renew exactly these connections, homes and claims.

        What the store does not know stays unknown. A node that was away for too long
        tracks its sockets again under new connection ids. A home that has ended, and that
        no other node has, is taken again.

        Args:
            node: The node.
            rooms: The rooms in which it has connections or a home. A node with many makes
                several calls.
            claims: The connections that have claims.
        """
        ...

    async def reap(self, node: str) -> Sequence[Decision]:
        """Decide what is due in all rooms, and return decisions whose hooks *node* runs.

        Each call decides and returns a limited number: if there are some, call it again. A
        decision that the node was handed before may be handed to it again.
        """
        ...

    async def ack(self, decisions: Sequence[str]) -> None:
        """Forget decisions whose hooks have run."""
        ...

    async def update(self, room: str, member: str, info: bytes) -> None:
        """Replace what others are told about a member. It changes nothing for others."""
        ...

    async def read(self, room: str) -> Roster:
        """Return the members of a room."""
        ...

    async def count(self, room: str) -> int:
        """Return how many members a room has, those who are away included."""
        ...

    async def rooms(self, member: str) -> Sequence[str]:
        """Return the names of the rooms in which a member is here or away."""
        ...

    async def subscribe(self, room: str, receive: Receive) -> Roster:
        """Receive the diffs of a room that follow the version that this returns.

        Diffs may be lost, repeated, or come in another order. Whoever receives them drops
        those that it has, and calls `read` if one is missing. `touch` tells the version.

        Args:
            room: The name of the room. A process subscribes to it once at a time.
            receive: Called with each diff. It must not raise.
        """
        ...

    def unsubscribe(self, room: str) -> None:
        """End the subscription of this process; *receive* is not called any more."""
        ...

    async def claim(
        self, scope: str, user: str, connection: str, node: str, *, most: int, replace: bool
    ) -> Claimed:
        """Claim the right to be one of the *most* connections of a user.

        Args:
            scope: What is counted, such as the pattern of a route.
            user: The id of the user.
            connection: The connection.
            node: Its node.
            most: How many connections may have it.
            replace: Whether the oldest ones lose theirs if there are too many. Otherwise
                this one is refused. A node that was paused claims again without it.
        """
        ...

    async def claims(self, scope: str, user: str) -> int:
        """Return how many connections have a claim."""
        ...

    async def release(self, connection: str) -> None:
        """End the claim of a connection, for good."""
        ...

    async def settle(self, room: str, node: str, term: str) -> bool:
        """Make a node the home of a room, unless another one is.

        Args:
            room: The name of the room.
            node: The node.
            term: Names this claim. It is used once.

        Returns:
            Whether the node is the home.
        """
        ...

    async def vacate(self, room: str, term: str) -> None:
        """Give up the home of a room, if this claim is the one that holds it."""
        ...

    def close(self) -> None:
        """Free everything, because the app has stopped."""
        ...
