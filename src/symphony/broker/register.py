"""Who is a member of which room, and what each change of a member brings about: a diff, a hook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Literal

from symphony.broker.attendance import Decision, Diff, Track
from symphony.broker.decisions import Decisions
from symphony.broker.memberchanges import KeptMember, MemberChanges
from symphony.broker.occupancy import NEVER, Entry, Lease, Occupancy

__all__ = ("Register",)


class Register:
    """The members of all rooms, and when something is due in these.

    Args:
        new_id: Makes a text that was never used before.
        publish: Called with each diff. It must not call the register.
        changes: Returns what notes the changes that are to be stored; `None`: nothing is.

    Attributes:
        epoch: Names the life of this register.
        rooms: The rooms that have members.
        rooms_of: The names of the rooms of each member.
        decisions: The decisions whose hooks have to run.
        size: How many members all rooms have together.
        floor: The first version of a room that has no members. It is not below the last version
            of a room that is forgotten, so versions of one room never go back.
    """

    def __init__(
        self,
        new_id: Callable[[], str],
        publish: Callable[[Diff], object],
        changes: Callable[[], MemberChanges] | None,
    ) -> None:
        self.epoch = new_id()
        self.rooms: dict[str, Occupancy] = {}
        self.rooms_of: dict[str, dict[str, None]] = {}
        self.decisions = Decisions()
        self.size = 0
        self.floor = 0
        self.due: list[tuple[float, int, str]] = []
        self._new_id = new_id
        self._publish = publish
        self._changes = changes
        self._number = count()

    def restore(self, members: Iterable[KeptMember], decisions: Iterable[Decision], now: float) -> None:
        """Begin with what an earlier register has stored. All its connections have ended."""
        # Its nodes have gone, so no node runs a hook first.
        for decision in decisions:
            self.decisions.add(decision, "", now, None)
        for room, id, arrival, anonymous, info, counts, grace in members:
            of_room = self.rooms.get(room) or self.begin(room)
            track = Track(room, id, "", "", anonymous, info, counts, grace=grace)
            member = self._enter(of_room, track, arrival)
            of_room.weigh(member, 1)
            if grace > 0:
                member.away_until = now + grace
                self.look_again(of_room, now + grace, id)
            else:
                self.depart(of_room, id, member, now)
        for of_room in self.rooms.values():
            self.schedule(of_room)

    def begin(self, name: str) -> Occupancy:
        """Return a room that had no members."""
        room = self.rooms[name] = Occupancy(name, self.floor)
        return room

    def admit(self, room: Occupancy, member: Entry | None, track: Track, until: float) -> tuple[str, Lease]:
        """Add a connection to a member, who may be new; return its arrival, and the connection."""
        kind: Literal["arrived", "back", "added", "restored"]
        # The arrival that its node knows from an earlier life of the store.
        known = track.resume[1] if track.resume is not None and track.resume[0] != self.epoch else None
        told: Literal["arrive", "back", "restore", "update"]
        if member is None:
            kind, told = ("arrived", "arrive") if known is None else ("restored", "restore")
            member = self._enter(room, track, known or self._new_id())
            is_new = True
        else:
            room.weigh(member, -1)
            kind, told = ("added", "update") if member.connections else ("back", "back")
            if kind == "back":
                member.return_by = member.away_until
                if known == member.arrival:
                    kind = "restored"
            is_new = (member.info, member.grace, member.counts) != (
                track.info, track.grace, member.counts or track.counts,
            )  # fmt: skip
        changed = kind == "added" and member.info != track.info
        member.node, member.info, member.grace = track.node, track.info, track.grace
        member.counts = member.counts or track.counts
        member.away_until = None
        lease = member.connections[track.connection] = Lease(kind, track.node, until)
        room.places[track.connection] = track.member
        room.weigh(member, 1)
        if is_new:
            self._keep(room, track.member, member)
        self.look_again(room, until, track.member, track.connection)
        self.schedule(room)
        if kind != "added" or changed:
            self._tell(room, track.member, member, told)
        return member.arrival, lease

    def take_out(self, room: Occupancy, member: Entry, connection: str) -> Lease:
        """Remove a connection of a member."""
        room.weigh(member, -1)
        del room.places[connection]
        lease = member.connections.pop(connection)
        room.weigh(member, 1)
        return lease

    def go_away(self, room: Occupancy, id: str, member: Entry, until: float) -> None:
        """Let the grace of a member begin, who has no connection any more."""
        member.away_until = until
        self.look_again(room, until, id)
        self.schedule(room)
        self._tell(room, id, member, "away")

    def depart(self, room: Occupancy, id: str, member: Entry, now: float, by: str | None = None) -> str:
        """Remove a member; return what is to be acknowledged after its hook.

        Args:
            room: The room.
            id: The id of the member.
            member: The member.
            now: The time.
            by: The node that runs the hook, if it knows of this already.
        """
        room.weigh(member, -1)
        del room.members[id]
        self.size -= 1
        rooms = self.rooms_of[id]
        del rooms[room.name]
        if not rooms:
            del self.rooms_of[id]
        if self._changes is not None:
            self._changes().forget(room.name, id)
        self._tell(room, id, member, "depart")
        if not room.members:
            del self.rooms[room.name]
            self.floor = max(self.floor, room.version)
        return self.await_hook(room, id, member, "depart", now, by)

    def await_hook(
        self,
        room: Occupancy,
        id: str,
        member: Entry,
        kind: Literal["away", "depart"],
        now: float,
        by: str | None = None,
    ) -> str:
        """Keep a decision until its hook is acknowledged; return its name."""
        name = self._new_id()
        decision = Decision(name, room.name, kind, id, member.arrival, member.anonymous, member.info)
        dropped = self.decisions.add(decision, member.node, now, by)
        if self._changes is not None:
            self._changes().owe(decision)
            if dropped is not None:
                self._changes().settle((dropped,))
        return name

    def acknowledge(self, decisions: Iterable[str]) -> None:
        """Forget decisions whose hooks have run."""
        known = self.decisions.forget(decisions)
        if self._changes is not None and known:
            self._changes().settle(known)

    def update(self, room: Occupancy, id: str, member: Entry, info: bytes) -> None:
        """Replace what others are told about a member."""
        member.info = info
        self._keep(room, id, member)
        self._tell(room, id, member, "update")

    # When something is due

    def look_again(self, room: Occupancy, at: float, id: str, connection: str = "") -> None:
        """Note when to look at a connection of a member; at its grace, without one."""
        heappush(room.due, (at, next(self._number), id, connection))

    def schedule(self, room: Occupancy) -> None:
        """Enter a room in the heap of all rooms, for the first thing that is due in it."""
        if room.due and room.members and room.due[0][0] < room.scheduled:
            room.scheduled = room.due[0][0]
            heappush(self.due, (room.scheduled, next(self._number), room.name))

    def overdue(self, now: float) -> Iterator[Occupancy]:
        """Yield the rooms in which something may be due. Schedule each again."""
        while self.due and self.due[0][0] <= now:
            at, _, name = heappop(self.due)
            room = self.rooms.get(name)
            # Another entry is later than this one if something was due before it.
            if room is not None and room.scheduled == at:
                room.scheduled = NEVER
                yield room

    def _enter(self, room: Occupancy, track: Track, arrival: str) -> Entry:
        member = room.members[track.member] = Entry(track, arrival)
        self.rooms_of.setdefault(track.member, {})[room.name] = None
        self.size += 1
        return member

    def _keep(self, room: Occupancy, id: str, member: Entry) -> None:
        if self._changes is not None:
            values = member.arrival, member.anonymous, member.info, member.counts, member.grace
            self._changes().keep(KeptMember(room.name, id, *values))

    def _tell(
        self,
        room: Occupancy,
        id: str,
        member: Entry,
        kind: Literal["arrive", "away", "back", "depart", "restore", "update"],
    ) -> None:
        room.version += 1
        whose = id, member.arrival, member.anonymous, member.info, member.node
        self._publish(Diff(room.name, self.epoch, room.version, kind, *whose))
