"""The state machine of a presence store, against a model that is slow and plain.

The model looks at everything each time. The table has heaps, counters and indexes instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from symphony.broker.attendance import LEASE, REFRESH, REMEMBERED, Diff, Renewal, Track
from symphony.broker.presencetable import PresenceTable

ROOMS = ("a", "b")
NODES = ("n1", "n2")
MEMBERS = ("ann", "bob", "eve", "dan")
GRACES = {"ann": 0.0, "bob": 8.0, "eve": 20.0, "dan": 20.0}
MOST = {"a": 2, "b": None}


@dataclass
class Known:
    """A member in the model."""

    arrival: str
    counts: bool
    connections: dict[str, tuple[float, str]] = field(default_factory=dict)
    away_until: float | None = None
    lease_end: float = 0.0


class Model:
    """What a store must do, without anything that makes it fast."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rooms: dict[str, dict[str, Known]] = {room: {} for room in ROOMS}
        # Until when an end is remembered, and what repeats of `track` and `untrack` are told.
        self.ended: dict[str, tuple[float, str, str]] = {}
        self.last_touch = 0.0
        self.no_end_before = 0.0
        self.departed: list[tuple[str, str]] = []

    def end(self, connection: str, track: str, untrack: str) -> None:
        self.ended[connection] = self.now + REMEMBERED, track, untrack

    def forget(self) -> None:
        self.ended = {name: ended for name, ended in self.ended.items() if ended[0] > self.now}

    def reap(self, room: str) -> None:
        members = self.rooms[room]
        ends = self.now >= self.no_end_before and self.now - self.last_touch <= REFRESH * 1.5
        for id, member in list(members.items()):
            if ends:
                for connection, (until, _) in list(member.connections.items()):
                    if until <= self.now:
                        del member.connections[connection]
                        self.end(connection, "stale", "unknown")
                        member.lease_end = max(member.lease_end, until)
                        if not member.connections:
                            member.away_until = member.lease_end + GRACES[id]
            if not member.connections and member.away_until is not None and member.away_until <= self.now:
                del members[id]
                self.departed.append((room, member.arrival))

    def track(self, room: str, id: str, connection: str, counts: bool) -> str:
        self.reap(room)
        members = self.rooms[room]
        if connection in self.ended:
            return self.ended[connection][1]
        member = members.get(id)
        if member is not None and connection in member.connections:
            return member.connections[connection][1]
        most = MOST[room]
        seated = sum(each.counts for each in members.values())
        if most is not None and counts and not (member and member.counts) and seated >= most:
            self.end(connection, "full", "unknown")
            return "full"
        if member is None:
            kind = "arrived"
            member = members[id] = Known("?", counts)
        else:
            kind = "added" if member.connections else "back"
        member.connections[connection] = self.now + LEASE, kind
        member.counts = member.counts or counts
        member.away_until = None
        return kind

    def untrack(self, room: str, connection: str, *, left: bool) -> str:
        self.reap(room)
        for id, member in self.rooms[room].items():
            if connection in member.connections:
                del member.connections[connection]
                kind = "still" if member.connections else "away"
                if kind == "away" and (left or not GRACES[id]):
                    kind = "departed"
                    del self.rooms[room][id]
                elif kind == "away":
                    member.away_until = self.now + GRACES[id]
                self.end(connection, "stale", kind)
                return kind
        if connection in self.ended:
            return self.ended[connection][2]
        self.end(connection, "stale", "unknown")
        return "unknown"

    def dismiss(self, room: str, id: str, arrival: str) -> str:
        self.reap(room)
        member = self.rooms[room].get(id)
        if member is None or member.arrival != arrival:
            return "unknown"
        if member.connections:
            return "still"
        del self.rooms[room][id]
        return "departed"

    def touch(self, room: str, connections: list[str]) -> list[str]:
        if self.now - self.last_touch > REFRESH * 1.5:
            self.no_end_before = self.now + LEASE
        self.last_touch = self.now
        unknown = list(connections)
        for member in self.rooms[room].values():
            for connection, (_, kind) in member.connections.items():
                if connection in unknown:
                    unknown.remove(connection)
                    member.connections[connection] = self.now + LEASE, kind
        return unknown


class Presence(RuleBasedStateMachine):
    """Calls in any order: repeated, late, from nodes that have forgotten to renew."""

    @initialize()
    def begin(self) -> None:
        self.model = Model()
        self.diffs: list[Diff] = []
        number = count()
        self.table = PresenceTable(
            clock=lambda: self.model.now, new_id=lambda: f"id-{next(number)}", publish=self.diffs.append
        )
        self.connections: list[tuple[str, str, str, bool]] = []
        self.taken: list[tuple[str, str]] = []
        self.by_untrack: set[str] = set()
        self.answered: dict[str, str] = {}

    @rule(room=st.sampled_from(ROOMS), id=st.sampled_from(MEMBERS), counts=st.booleans())
    def track(self, room: str, id: str, counts: bool) -> None:
        self.connections.append((room, id, f"c{len(self.connections)}", counts))
        self.track_again(len(self.connections) - 1)

    @precondition(lambda self: self.connections)
    @rule(which=st.integers(0, 10_000))
    def repeat(self, which: int) -> None:
        self.track_again(which % len(self.connections))

    def track_again(self, which: int) -> None:
        room, id, connection, counts = self.connections[which]
        track = Track(
            room,
            id,
            connection,
            NODES[which % 2],
            anonymous=id == "ann",
            info=b"\xc0",
            counts=counts,
            most=MOST[room],
            grace=GRACES[id],
        )
        tracked = self.table.track(track)
        assert tracked.kind == self.model.track(room, id, connection, counts)
        if tracked.arrival is not None:
            self.model.rooms[room][id].arrival = tracked.arrival
        if tracked.kind == "full" and connection not in self.answered:
            seated = [(each, known) for each, known in self.model.rooms[room].items() if known.counts]
            assert len(seated) == MOST[room]
            soft = any(each == "ann" or not known.connections for each, known in seated)
            assert tracked.retryable == soft
        self.answered[connection] = tracked.kind

    @precondition(lambda self: self.connections)
    @rule(which=st.integers(0, 10_000), left=st.booleans())
    def untrack(self, which: int, left: bool) -> None:
        room, _, connection, _ = self.connections[which % len(self.connections)]
        untracked = self.table.untrack(room, connection, NODES[which % 2], left=left)
        expected = self.model.untrack(room, connection, left=left)
        assert untracked.kind == expected
        assert (untracked.decision is not None) == (expected == "departed")
        if untracked.decision is not None:
            self.by_untrack.add(untracked.decision)

    @rule(room=st.sampled_from(ROOMS), id=st.sampled_from(MEMBERS))
    def dismiss(self, room: str, id: str) -> None:
        known = self.model.rooms[room].get(id)
        arrival = known.arrival if known is not None else "?"
        dismissed = self.table.dismiss(room, id, arrival, NODES[0])
        assert dismissed.kind == self.model.dismiss(room, id, arrival)
        if dismissed.decision is not None:
            self.by_untrack.add(dismissed.decision)

    @precondition(lambda self: self.connections)
    @rule(room=st.sampled_from(ROOMS), keep=st.integers(0, 7))
    def touch(self, room: str, keep: int) -> None:
        names = [name for of, _, name, _ in self.connections if of == room]
        names = [name for index, name in enumerate(names) if index % 8 >= keep][-20:]
        (seen,) = self.table.touch("n1", [Renewal(room, names)], []).rooms
        assert list(seen.unknown) == self.model.touch(room, names)

    @rule(seconds=st.sampled_from([1.0, 5.0, 10.0, 14.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.model.now += seconds

    @rule(node=st.sampled_from(NODES), acknowledges=st.booleans())
    def reap(self, node: str, acknowledges: bool) -> None:
        decisions = self.table.reap(node)
        for room in ROOMS:
            self.model.reap(room)
        self.model.forget()
        for decision in decisions:
            if decision.kind == "depart" and decision.id not in self.by_untrack and acknowledges:
                self.taken.append((decision.room, decision.arrival))
        if acknowledges:
            self.table.ack([decision.id for decision in decisions])
        departed = [pair for pair in self.taken if pair not in self.model.departed]
        assert not departed
        assert len(set(self.taken)) == len(self.taken)

    @invariant()
    def it_is_what_the_model_says(self) -> None:
        for room, members in self.model.rooms.items():
            roster = self.table.read(room)
            assert {each.member: each.away for each in roster.members} == {
                id: not known.connections for id, known in members.items()
            }
            assert self.table.count(room) == len(members)
        for id in MEMBERS:
            assert set(self.table.rooms(id)) == {room for room in ROOMS if id in self.model.rooms[room]}

    @invariant()
    def changes_alternate(self) -> None:
        allowed = {
            "arrive": {None},
            "away": {"arrive", "back"},
            "back": {"away"},
            "depart": {"arrive", "back", "away"},
        }
        state: dict[tuple[str, str], str | None] = {}
        versions: dict[str, int] = {}
        arrivals: dict[tuple[str, str], str] = {}
        for diff in self.diffs:
            who = diff.room, diff.member
            assert state.get(who) in allowed[diff.kind]
            state[who] = None if diff.kind == "depart" else diff.kind
            if diff.kind == "arrive":
                arrivals[who] = diff.arrival
            assert arrivals[who] == diff.arrival
            assert diff.version > versions.get(diff.room, 0)
            versions[diff.room] = diff.version

    def teardown(self) -> None:
        """In the end, every departure is handed out, once."""
        for _ in range(12):
            self.model.now += 10
            self.table.touch("n1", [], [])
            self.model.touch("a", [])
            self.reap("n1", acknowledges=True)
        assert sorted(self.taken) == sorted(self.model.departed)


Presence.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestPresenceStore = Presence.TestCase
