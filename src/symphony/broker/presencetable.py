"""The rules of a presence store as a state machine: no loop, no clock, no connection.

An engine carries calls to one `PresenceTable` and its diffs to the nodes. The names and
arguments of the methods are those of `PresenceStore`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
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
from symphony.broker.decisions import Decisions
from symphony.broker.endings import Endings
from symphony.broker.occupancy import NEVER, Entry, Lease, Occupancy
from symphony.broker.rights import Rights

__all__ = ("PresenceTable",)

# Decided and handed out by one call of `reap`.
_AT_ONCE: Final = 100

# What the table keeps at most, over all rooms. See docs/limits.md.
_MAX_MEMBERS: Final = 1_000_000


class PresenceTable:
    """The members of all rooms.

    Args:
        clock: The time of the store, in seconds.
        new_id: Makes a text that was never used before.
        publish: Called with each diff. It must not call the table.

    Attributes:
        epoch: Names the life of this table.
    """

    def __init__(
        self, *, clock: Callable[[], float], new_id: Callable[[], str], publish: Callable[[Diff], object]
    ) -> None:
        self.epoch = new_id()
        self._clock = clock
        self._new_id = new_id
        self._publish = publish
        self._rooms: dict[str, Occupancy] = {}
        self._rooms_of: dict[str, dict[str, None]] = {}
        self._size = 0
        # The first version of a room that has no members. It is not below the last version
        # of a room that is forgotten, so versions of one room never go back.
        self._floor = 0
        self._due: list[tuple[float, int, str]] = []
        self._number = count()
        self._ended = Endings()
        self._decisions = Decisions()
        self._rights = Rights(self._ended)
        self._last_touch = clock()
        self._no_end_before = 0.0

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
            version = room.version if room is not None else self._floor
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
        if member is None and self._size >= _MAX_MEMBERS:
            return self._refuse(track, room, "busy", now)
        if room is None:
            room = self._rooms[track.room] = Occupancy(track.room, self._floor)
        return self._admit(room, member, track, now)

    def _admit(self, room: Occupancy, member: Entry | None, track: Track, now: float) -> Tracked:
        kind: Literal["arrived", "back", "added", "restored"]
        lease = Lease("added", now + LEASE)
        if member is None:
            resume = track.resume
            known = resume is not None and resume[0] != self.epoch
            kind = "restored" if known else "arrived"
            member = Entry(track, resume[1] if resume is not None and known else self._new_id())
            room.members[track.member] = member
            self._rooms_of.setdefault(track.member, {})[room.name] = None
            self._size += 1
        else:
            room.weigh(member, -1)
            kind = "added" if member.connections else "back"
        changed = kind == "added" and member.info != track.info
        member.node, member.info, member.grace = track.node, track.info, track.grace
        member.counts = member.counts or track.counts
        member.away_until = None
        lease.kind = kind
        member.connections[track.connection] = lease
        room.places[track.connection] = track.member
        room.weigh(member, 1)
        self._push(room, lease.until, track.member, track.connection)
        self._schedule(room)
        if kind != "added" or changed:
            told: dict[str, Literal["arrive", "back", "restore"]]
            told = {"arrived": "arrive", "back": "back", "restored": "restore"}
            self._decide(room, track.member, member, told.get(kind, "update"))
        return Tracked(kind, self.epoch, room.version, member.arrival)

    def _refuse(
        self, track: Track, room: Occupancy | None, kind: Literal["full", "elsewhere", "busy"], now: float
    ) -> Tracked:
        version = room.version if room is not None else self._floor
        soft = kind == "full" and room is not None and room.soft > 0
        refused = Tracked(kind, self.epoch, version, retryable=soft)
        # A late repeat of this call must not let the connection in: its node has given it up.
        self._ended.add(track.connection, Untracked("unknown"), now, refused)
        return refused

    def untrack(self, room: str, connection: str, node: str, *, left: bool) -> Untracked:
        """See `PresenceStore.untrack`."""
        now = self._clock()
        of_room = self._reaped(room, now)
        found = of_room.find(connection) if of_room is not None else None
        if of_room is not None and found is not None:
            untracked = self._end(of_room, *found, connection, node, left, now)
        elif (ended := self._ended.of(connection)) is not None:
            return ended.untracked
        else:
            untracked = Untracked("unknown")
        self._ended.add(connection, untracked, now)
        return untracked

    def _end(
        self, room: Occupancy, id: str, member: Entry, connection: str, node: str, left: bool, now: float
    ) -> Untracked:
        room.weigh(member, -1)
        joined = self._take_out(room, member, connection).kind
        room.weigh(member, 1)
        if member.connections:
            return Untracked("still", joined, member.arrival)
        if left or member.grace <= 0:
            decision = self._depart(room, id, member, now, by=node)
            return Untracked("departed", joined, member.arrival, decision)
        self._go_away(room, id, member, now + member.grace)
        return Untracked("away", joined, member.arrival)

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
        untracked = Untracked("departed", "", arrival, self._depart(of_room, member, entry, now, by=node))
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
            seen.append(Seen(renewal.room, version, unknown, home))
        lost = self._rights.renew(claims, now)
        # Nodes whose rooms have no members do not call `reap`.
        self._rights.forget_ended(now)
        return Touched(self.epoch, seen, lost)

    def reap(self, node: str) -> list[Decision]:
        """See `PresenceStore.reap`."""
        now = self._clock()
        left = _AT_ONCE
        while left > 0 and self._due and self._due[0][0] <= now:
            at, _, name = heappop(self._due)
            room = self._rooms.get(name)
            # Another entry is later than this one if something was due before it.
            if room is not None and room.scheduled == at:
                room.scheduled = NEVER
                left -= self._reap_room(room, now, left)
        self._rights.forget_ended(now)
        self._ended.forget_old(now)
        return self._decisions.take(node, now, _AT_ONCE)

    def ack(self, decisions: Sequence[str]) -> None:
        """See `PresenceStore.ack`."""
        self._decisions.forget(decisions)

    def update(self, room: str, member: str, info: bytes) -> None:
        """See `PresenceStore.update`."""
        of_room = self._rooms.get(room)
        entry = of_room.members.get(member) if of_room is not None else None
        if of_room is not None and entry is not None and entry.info != info:
            entry.info = info
            self._decide(of_room, member, entry, "update")

    def read(self, room: str) -> Roster:
        """See `PresenceStore.read`."""
        of_room = self._rooms.get(room)
        if of_room is None:
            return Roster(self.epoch, self._floor, [])
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
        return list(self._rooms_of.get(member, ()))

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
                    self._depart(room, id, member, now)
                    decided += 1
                continue
            lease = member.connections.get(connection)
            if lease is None:
                continue
            if lease.until > now:
                self._push(room, lease.until, id, connection)
            elif now < self._no_end_before or now - self._last_touch > REFRESH * 1.5:
                # The store was out of reach: that time does not count.
                self._push(room, max(self._no_end_before, now + REAP), id, connection)
            else:
                self._lease_ended(room, id, member, connection, now)
                decided += 1
        self._schedule(room)
        return decided

    def _lease_ended(self, room: Occupancy, id: str, member: Entry, connection: str, now: float) -> None:
        room.weigh(member, -1)
        member.lease_end = max(member.lease_end, self._take_out(room, member, connection).until)
        room.weigh(member, 1)
        self._ended.add(connection, Untracked("unknown"), now)
        if member.connections:
            return
        away_until = member.lease_end + member.grace
        if away_until <= now:
            self._depart(room, id, member, now)
        else:
            self._go_away(room, id, member, away_until)
            self._await_hook(room, id, member, "away", now, None)

    def _go_away(self, room: Occupancy, id: str, member: Entry, until: float) -> None:
        member.away_until = until
        self._push(room, until, id, "")
        self._schedule(room)
        self._decide(room, id, member, "away")

    def _depart(self, room: Occupancy, id: str, member: Entry, now: float, by: str | None = None) -> str:
        room.weigh(member, -1)
        del room.members[id]
        self._size -= 1
        rooms = self._rooms_of[id]
        del rooms[room.name]
        if not rooms:
            del self._rooms_of[id]
        self._decide(room, id, member, "depart")
        if not room.members:
            del self._rooms[room.name]
            self._floor = max(self._floor, room.version)
        return self._await_hook(room, id, member, "depart", now, by)

    def _take_out(self, room: Occupancy, member: Entry, connection: str) -> Lease:
        del room.places[connection]
        return member.connections.pop(connection)

    def _decide(
        self,
        room: Occupancy,
        id: str,
        member: Entry,
        kind: Literal["arrive", "away", "back", "depart", "restore", "update"],
    ) -> None:
        room.version += 1
        whose = id, member.arrival, member.anonymous, member.info, member.node
        self._publish(Diff(room.name, self.epoch, room.version, kind, *whose))

    def _await_hook(
        self,
        room: Occupancy,
        id: str,
        member: Entry,
        kind: Literal["away", "depart"],
        now: float,
        by: str | None,
    ) -> str:
        name = self._new_id()
        decision = Decision(name, room.name, kind, id, member.arrival, member.anonymous, member.info)
        self._decisions.add(decision, member.node, now, by)
        return name

    def _push(self, room: Occupancy, at: float, id: str, connection: str) -> None:
        heappush(room.due, (at, next(self._number), id, connection))

    def _schedule(self, room: Occupancy) -> None:
        """Enter a room in the heap of all rooms, for the first thing that is due in it."""
        if room.due and room.members and room.due[0][0] < room.scheduled:
            room.scheduled = room.due[0][0]
            heappush(self._due, (room.scheduled, next(self._number), room.name))
