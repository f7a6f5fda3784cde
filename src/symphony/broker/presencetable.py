"""The rules of a presence store as a state machine: no loop, no clock, no connection.

An engine carries calls to one `PresenceTable` and its diffs to the nodes. The names and
arguments of the methods are those of `PresenceStore`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop
from typing import Final, Literal

from symphony.broker.attendance import (
    LEASE,
    REAP,
    REFRESH,
    Claimed,
    Decision,
    Diff,
    Present,
    Renewal,
    Roster,
    Seen,
    Touched,
    Track,
    Tracked,
    Untracked,
)
from symphony.broker.endings import Endings
from symphony.broker.memberchanges import KeptMembers
from symphony.broker.occupancy import Entry, Occupancy
from symphony.broker.register import Register
from symphony.broker.rights import Rights

__all__ = ("MAX_MEMBERS", "PresenceTable")

# Decided and handed out by one call of `reap`.
_AT_ONCE: Final = 100

MAX_MEMBERS: Final = 1_000_000
"""The most members of all rooms together."""


class PresenceTable:
    """The members of all rooms.

    Args:
        clock: The time of the store, in seconds.
        new_id: Makes a text that was never used before.
        publish: Called with each diff. It must not call the table.
        kept: Where the members are stored; `None`: they end with this table.

    Attributes:
        epoch: Names the life of this table.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        publish: Callable[[Diff], object],
        kept: KeptMembers | None = None,
    ) -> None:
        self._clock = clock
        self._register = register = Register(new_id, publish, None if kept is None else kept.changes)
        self.epoch = register.epoch
        self._rooms = register.rooms
        self._decisions = register.decisions
        self._ended = Endings()
        self._rights = Rights(self._ended)
        self._last_touch = clock()
        self._no_end_before = 0.0

    def begin(self, kept: KeptMembers) -> None:
        """Begin with the members that are stored, because members can come back from now on.

        All their connections have ended, so they are away.
        """
        self._register.restore(kept.members, kept.decisions, self._clock())
        # It stores who has departed with that.
        kept.unstored()

    @property
    def dropped(self) -> int:
        """How many decisions were dropped: see `Decisions`."""
        return self._decisions.dropped

    def track(self, track: Track) -> Tracked:
        """See `PresenceStore.track`."""
        now = self._clock()
        room = self._reaped(track.room, now)
        ended = self._ended.of(track.connection)
        if ended is not None:
            version = room.version if room is not None else self._register.floor
            return ended.refused or Tracked("stale", self.epoch, version)
        member = room.members.get(track.member) if room is not None else None
        if room is not None and member is not None and track.connection in member.connections:
            kind = member.connections[track.connection].kind
            return Tracked(kind, self.epoch, room.version, member.arrival)
        if track.term is not None and not self._rights.settle(track.room, track.node, track.term, now):
            return self._refuse(track, room, "elsewhere", now)
        if track.most is not None and track.counts and not (member is not None and member.counts):
            while (room := self._rooms.get(track.room)) is not None and room.counted >= track.most:
                # One call decides a limited number: a seat may still be overdue.
                if not self._reap_room(room, now):
                    return self._refuse(track, room, "full", now)
            member = room.members.get(track.member) if room is not None else None
        if member is None and self._register.size >= MAX_MEMBERS:
            return self._refuse(track, room, "busy", now)
        if room is None:
            room = self._register.begin(track.room)
        arrival, lease = self._register.admit(room, member, track, now + LEASE)
        return Tracked(lease.kind, self.epoch, room.version, arrival)

    def _refuse(
        self, track: Track, room: Occupancy | None, kind: Literal["full", "elsewhere", "busy"], now: float
    ) -> Tracked:
        version = room.version if room is not None else self._register.floor
        soft = kind == "full" and room is not None and room.soft > 0
        refused = Tracked(kind, self.epoch, version, retryable=soft)
        # A late repeat of this call must not let the connection in: its node has given it up.
        self._ended.add(track.connection, Untracked("unknown"), now, refused)
        return refused

    def untrack(self, room: str, connection: str, node: str, *, left: bool, opened: bool = True) -> Untracked:
        """See `PresenceStore.untrack`."""
        now = self._clock()
        of_room = self._reaped(room, now)
        found = of_room.find(connection) if of_room is not None else None
        if of_room is not None and found is not None:
            id, member = found
            joined = self._register.take_out(of_room, member, connection).kind
            untracked = self._ended_one(of_room, id, member, joined, node, left, opened, now)
        elif (ended := self._ended.of(connection)) is not None:
            return ended.untracked
        else:
            untracked = Untracked("unknown")
        self._ended.add(connection, untracked, now)
        return untracked

    def _ended_one(
        self,
        room: Occupancy,
        id: str,
        member: Entry,
        joined: str,
        node: str,
        left: bool,
        opened: bool,
        now: float,
    ) -> Untracked:
        """Decide what follows from the end of a connection."""
        stays = None if left or member.grace <= 0 else now + member.grace
        if not opened:
            # It changes nothing: the member is what it would be without it.
            stays = member.return_by
        if member.connections:
            member.return_by = stays
            return Untracked("still", joined, member.arrival)
        if stays is None or stays <= now:
            decision = self._register.depart(room, id, member, now, by=node)
            return Untracked("departed", joined, member.arrival, decision)
        self._register.go_away(room, id, member, stays)
        return Untracked("away", joined, member.arrival, stays=stays - now)

    def dismiss(self, room: str, member: str, arrival: str, node: str) -> Untracked:
        """See `PresenceStore.dismiss`."""
        now = self._clock()
        of_room = self._reaped(room, now)
        if (ended := self._ended.of(arrival)) is not None:
            return ended.untracked
        entry = of_room.members.get(member) if of_room is not None else None
        if of_room is None or entry is None or entry.arrival != arrival:
            return Untracked("unknown")
        if entry.connections:
            return Untracked("still", "", arrival)
        decision = self._register.depart(of_room, member, entry, now, by=node)
        untracked = Untracked("departed", "", arrival, decision)
        self._ended.add(arrival, untracked, now)
        return untracked

    def touch(self, node: str, rooms: Sequence[Renewal], claims: Sequence[str]) -> Touched:
        """See `PresenceStore.touch`."""
        now = self._clock()
        if now - self._last_touch > REFRESH * 1.5:
            self._no_end_before = now + LEASE
        self._last_touch = now
        seen: list[Seen] = []
        for renewal in rooms:
            room = self._rooms.get(renewal.room)
            unknown: list[str] = []
            for connection in renewal.connections:
                found = room.find(connection) if room is not None else None
                if found is None:
                    unknown.append(connection)
                else:
                    found[1].connections[connection].until = now + LEASE
            term = renewal.term
            home = term is not None and self._rights.settle(renewal.room, node, term, now)
            version = room.version if room is not None else 0
            seen.append(Seen(renewal.room, self.epoch, version, unknown, home))
        lost = self._rights.renew(claims, now)
        # Nodes whose rooms have no members do not call `reap`.
        self._rights.forget_ended(now)
        return Touched(seen, lost)

    def reap(self, node: str) -> list[Decision]:
        """See `PresenceStore.reap`."""
        now = self._clock()
        left = _AT_ONCE
        for room in self._register.overdue(now):
            left -= self._reap_room(room, now, left)
            if left <= 0:
                break
        self._rights.forget_ended(now)
        self._ended.forget_old(now)
        return self._decisions.take(node, now, _AT_ONCE)

    def node_ended(self, node: str) -> None:
        """End all that a node has, because its process has ended: nothing waits for its leases."""
        now = self._clock()
        for room in tuple(self._rooms.values()):
            for id, member in tuple(room.members.items()):
                if member.node == node:
                    # No other node has to leave it the first seconds of a decision.
                    member.node = ""
                for connection, lease in tuple(member.connections.items()):
                    if lease.node == node:
                        lease.until = min(lease.until, now)
                        self._lease_ended(room, id, member, connection, now)
            self._register.schedule(room)
        self._rights.node_ended(node, now)
        self._decisions.node_ended(node)

    def ack(self, decisions: Sequence[str]) -> None:
        """See `PresenceStore.ack`."""
        self._register.acknowledge(decisions)

    def update(self, room: str, member: str, info: bytes) -> None:
        """See `PresenceStore.update`."""
        of_room = self._rooms.get(room)
        entry = of_room.members.get(member) if of_room is not None else None
        if of_room is not None and entry is not None and entry.info != info:
            self._register.update(of_room, member, entry, info)

    def read(self, room: str) -> Roster:
        """See `PresenceStore.read`."""
        of_room = self._rooms.get(room)
        if of_room is None:
            return Roster(self.epoch, self._register.floor, [])
        members = [
            Present(id, entry.arrival, entry.anonymous, entry.info, not entry.connections)
            for id, entry in of_room.members.items()
        ]
        return Roster(self.epoch, of_room.version, members)

    def count(self, room: str) -> int:
        """See `PresenceStore.count`."""
        of_room = self._rooms.get(room)
        return 0 if of_room is None else len(of_room.members)

    def rooms(self, member: str) -> list[str]:
        """See `PresenceStore.rooms`."""
        return list(self._register.rooms_of.get(member, ()))

    def claim(
        self, scope: str, user: str, connection: str, node: str, *, most: int, replace: bool
    ) -> Claimed:
        """See `PresenceStore.claim`."""
        if connection in self._ended:
            return Claimed(granted=False)
        return self._rights.claim((scope, user), connection, node, most, self._clock(), replace=replace)

    def claims(self, scope: str, user: str) -> int:
        """See `PresenceStore.claims`."""
        return self._rights.claims((scope, user), self._clock())

    def release(self, connection: str) -> None:
        """See `PresenceStore.release`."""
        self._rights.release(connection)
        if connection not in self._ended:
            self._ended.add(connection, Untracked("unknown"), self._clock())

    def settle(self, room: str, node: str, term: str) -> bool:
        """See `PresenceStore.settle`."""
        return self._rights.settle(room, node, term, self._clock())

    def vacate(self, room: str, term: str) -> None:
        """See `PresenceStore.vacate`."""
        self._rights.vacate(room, term, self._clock())

    def _reaped(self, room: str, now: float) -> Occupancy | None:
        """Return a room after what is due in it is decided."""
        of_room = self._rooms.get(room)
        if of_room is not None:
            self._reap_room(of_room, now)
        return self._rooms.get(room)

    def _reap_room(self, room: Occupancy, now: float, most: int = _AT_ONCE) -> int:
        """Decide what is due in a room; return how many decisions that were."""
        decided = 0
        due = room.due
        while due and due[0][0] <= now and decided < most:
            _, _, id, connection = heappop(due)
            member = room.members.get(id)
            if member is None:
                continue
            if not connection:
                # It may have come back, or gone away again.
                if member.away_until is not None and member.away_until <= now:
                    self._register.depart(room, id, member, now)
                    decided += 1
                continue
            lease = member.connections.get(connection)
            if lease is None:
                continue
            if lease.until > now:
                self._register.look_again(room, lease.until, id, connection)
            elif now < self._no_end_before or now - self._last_touch > REFRESH * 1.5:
                # The store was out of reach: that time does not count.
                later = max(self._no_end_before, now + REAP)
                self._register.look_again(room, later, id, connection)
            else:
                self._lease_ended(room, id, member, connection, now)
                decided += 1
        self._register.schedule(room)
        return decided

    def _lease_ended(self, room: Occupancy, id: str, member: Entry, connection: str, now: float) -> None:
        until = self._register.take_out(room, member, connection).until
        member.lease_end = max(member.lease_end, until)
        self._ended.add(connection, Untracked("unknown"), now)
        away_until = member.lease_end + member.grace
        if member.connections:
            member.return_by = away_until if member.grace > 0 else None
        elif away_until <= now:
            self._register.depart(room, id, member, now)
        else:
            self._register.go_away(room, id, member, away_until)
            self._register.await_hook(room, id, member, "away", now)
