"""The state machine of a presence store: its bounds, and that it forgets what has ended."""

from __future__ import annotations

from itertools import count

import pytest

from symphony.broker import decisions, endings, presencetable
from symphony.broker.attendance import LEASE, REMEMBERED, Diff, Renewal, Track
from symphony.broker.presencetable import PresenceTable


class Store:
    """A table with a time of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.diffs: list[Diff] = []
        number = count()
        self.table = PresenceTable(
            clock=lambda: self.now, new_id=lambda: f"id-{next(number)}", publish=self.diffs.append
        )

    def track(self, member: str, connection: str, **more: object) -> str:
        track = Track("a", member, connection, "node", anonymous=False, info=b"\xc0")._replace(**more)
        return self.table.track(track).kind


@pytest.mark.within("broker.presencetable.MAX_MEMBERS")
@pytest.mark.beyond("broker.presencetable.MAX_MEMBERS")
def test_a_store_has_a_limited_number_of_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presencetable, "MAX_MEMBERS", 3)
    store = Store()
    assert [store.track(f"m{n}", f"c{n}", room=f"r{n}") for n in range(4)] == [*["arrived"] * 3, "busy"]
    assert store.track("m1", "c5", room="r1") == "added"
    store.table.untrack("r0", "c0", "node", left=True)
    assert store.track("m3", "c6", room="r3") == "arrived"


@pytest.mark.within("broker.endings._MAX_ENDED")
@pytest.mark.beyond("broker.endings._MAX_ENDED")
def test_the_ends_of_a_limited_number_of_connections_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "_MAX_ENDED", 3)
    store = Store()
    for n in range(4):
        store.track("ann", f"c{n}")
        store.table.untrack("a", f"c{n}", "node", left=True)
    assert [store.track("ann", f"c{n}") for n in (1, 2, 3, 0)] == ["stale", "stale", "stale", "arrived"]


@pytest.mark.within("broker.decisions.MAX_DECISIONS")
@pytest.mark.beyond("broker.decisions.MAX_DECISIONS")
def test_a_limited_number_of_decisions_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "MAX_DECISIONS", 3)
    store = Store()
    for n in range(3):
        store.track(f"m{n}", f"c{n}")
        store.table.untrack("a", f"c{n}", "node", left=True)
    assert store.table.dropped == 0
    store.track("m3", "c3")
    store.table.untrack("a", "c3", "node", left=True)
    assert store.table.dropped == 1
    store.now += 20
    assert [decision.member for decision in store.table.reap("node")] == ["m1", "m2", "m3"]


def test_the_end_of_a_connection_is_remembered_for_two_minutes() -> None:
    store = Store()
    store.track("ann", "c1")
    store.table.untrack("a", "c1", "node", left=True)
    store.now += REMEMBERED - 1
    store.table.reap("node")
    assert store.track("ann", "c1") == "stale"
    store.now += 2
    store.table.reap("node")
    assert store.track("ann", "c1") == "arrived"


def test_nothing_is_left_of_members_that_have_come_and_gone() -> None:
    """Heaps have entries of connections that have ended: these go with time."""
    store = Store()
    for round in range(200):
        for n in range(5):
            store.track(f"m{n}", f"c{round}-{n}", room=f"r{n}", grace=3.0, term=f"t{round}-{n}")
        for n in range(5):
            store.table.untrack(f"r{n}", f"c{round}-{n}", "node", left=bool(round % 2))
            store.table.claim("/", f"m{n}", f"k{round}-{n}", "node", most=1, replace=True)
            store.table.vacate(f"r{n}", f"t{round}-{n}")
        store.now += 1
        store.table.touch("node", [], [])
        store.table.ack([decision.id for decision in store.table.reap("node")])
    for _ in range(30):
        store.now += 10
        store.table.touch("node", [], [])
        store.table.ack([decision.id for decision in store.table.reap("node")])
    table = store.table
    register = table._register
    assert (register.rooms, register.rooms_of, register.size, register.due) == ({}, {}, 0, [])
    assert (len(table._ended._ended), len(table._decisions._pending)) == (0, 0)
    rights = table._rights
    assert (rights._claims, rights._keys, rights._homes, rights._due) == ({}, {}, {}, [])


def test_a_room_that_lives_for_long_does_not_grow() -> None:
    store = Store()
    store.track("ann", "c1", grace=10.0)
    sizes: set[tuple[int, int]] = set()
    for round in range(300):
        store.track("bob", f"b{round}", grace=2.0)
        store.now += 1
        store.table.untrack("a", f"b{round}", "node", left=False)
        store.table.touch("node", [Renewal("a", ["c1"])], [])
        store.table.ack([decision.id for decision in store.table.reap("node")])
        if round > 100:
            sizes.add((len(store.table._register.due), len(store.table._rooms["a"].due)))
    assert max(sizes) < (40, 80)
    assert max(size for _, size in sizes) < 80


def test_the_grace_begins_at_the_end_of_the_last_lease() -> None:
    store = Store()
    store.track("ann", "c1", grace=100.0)
    store.now += 5
    store.track("ann", "c2", grace=100.0)
    for _ in range(8):
        store.now += 10
        store.table.touch("node", [], [])
    assert [decision.kind for decision in store.table.reap("other")] == []
    assert store.diffs[-1].kind == "away"
    store.now = 1000 + 5 + LEASE + 99
    store.table.touch("node", [], [])
    store.table.reap("node")
    assert store.diffs[-1].kind == "away"
    store.now += 1
    store.table.reap("node")
    assert store.diffs[-1].kind == "depart"


def test_a_refused_claim_of_a_home_takes_it_at_no_later_time() -> None:
    """A node was refused, and came back with another claim. The first request then arrived once more."""
    store = Store()
    table = store.table
    assert table.settle("a", "one", "one.0")
    assert not table.settle("a", "two", "two.0")
    table.vacate("a", "one.0")
    assert table.settle("a", "two", "two.1")
    assert not table.settle("a", "two", "two.0")
    (seen,) = table.touch("two", [Renewal("a", [], "two.1")], ()).rooms
    assert seen.home


def test_a_claim_of_a_home_that_another_one_has_replaced_takes_it_at_no_later_time() -> None:
    """The answer to the first was lost, so the node made another one."""
    store = Store()
    table = store.table
    assert table.settle("a", "one", "one.0")
    assert table.settle("a", "one", "one.1")
    assert not table.settle("a", "one", "one.0")
    assert store.track("ann", "c0", node="one", term="one.1") == "arrived"


def test_a_node_whose_home_has_moved_does_not_get_it_back_with_its_old_claim() -> None:
    store = Store()
    table = store.table
    assert table.settle("a", "one", "one.0")
    store.now += LEASE
    assert table.settle("a", "two", "two.0")
    assert store.track("ann", "c0", node="one", term="one.0") == "elsewhere"
    table.vacate("a", "two.0")
    (seen,) = table.touch("one", [Renewal("a", [], "one.0")], ()).rooms
    assert not seen.home


def test_what_a_node_that_has_ended_had_is_free_at_once() -> None:
    """Its connections, claims, homes and decisions; those of other nodes stay."""
    store = Store()
    store.track("ann", "c1", node="one", grace=10.0)
    store.track("bob", "c2", node="one")
    store.track("eve", "c3", node="one", grace=10.0)
    store.track("eve", "c4", node="two", grace=10.0)
    store.track("sue", "c5", node="two", grace=10.0)
    store.track("tom", "c6", node="one")
    store.table.untrack("a", "c6", "one", left=True)
    store.table.claim("/", "ann", "k1", "one", most=1, replace=False)
    store.table.claim("/", "sue", "k2", "two", most=1, replace=False)
    assert store.table.settle("h1", "one", "t1")
    assert store.table.settle("h2", "two", "t2")
    store.table.node_ended("one")
    members = {member.member: member.away for member in store.table.read("a").members}
    assert members == {"ann": True, "eve": False, "sue": False}
    assert [store.table.claims("/", user) for user in ("ann", "sue")] == [0, 1]
    assert [store.table.settle(home, "two", f"new {home}") for home in ("h1", "h2")] == [True, True]
    assert not store.table.settle("h1", "one", "t1")
    # At once, and not after a head start of a node that is gone.
    decided = store.table.reap("two")
    assert sorted((each.kind, each.member) for each in decided) == [
        ("away", "ann"), ("depart", "bob"), ("depart", "tom"),
    ]  # fmt: skip
    # A late repeat lets nobody in.
    assert store.track("ann", "c1", node="one", grace=10.0) == "stale"
    # The grace began with the end of the node.
    store.now += 9
    store.table.touch("two", [], [])
    assert store.table.reap("two") == []
    store.now += 2
    assert [each.member for each in store.table.reap("two")] == ["ann"]


def test_a_connection_that_does_not_open_changes_nothing() -> None:
    """Whatever else the member has had meanwhile."""
    for opened_between in (False, True):
        store = Store()
        store.track("ann", "c1", grace=10.0)
        store.table.untrack("a", "c1", "node", left=False)
        store.now += 6
        assert store.track("ann", "c2", grace=10.0) == "back"
        if opened_between:
            store.track("ann", "c3", grace=10.0)
            store.now += 1
            assert store.table.untrack("a", "c3", "node", left=False).kind == "still"
        ended = store.table.untrack("a", "c2", "node", left=True, opened=False)
        assert (ended.kind, ended.stays) == ("away", 10 if opened_between else 4)
        assert store.table.untrack("a", "c2", "node", left=True, opened=False) == ended
        store.now += ended.stays - 0.5
        assert store.table.count("a") == 1
        store.now += 1
        assert [each.member for each in store.table.reap("node")] == ["ann"]
    # It left explicitly, while another one was opening.
    store.track("ann", "d1", grace=10.0)
    store.track("ann", "d2", grace=10.0)
    store.table.untrack("a", "d1", "node", left=True)
    assert store.table.untrack("a", "d2", "node", left=True, opened=False).kind == "departed"
    # A first arrival.
    store.track("bob", "e1", grace=10.0)
    assert store.table.untrack("a", "e1", "node", left=True, opened=False).kind == "departed"
    # Its grace was over meanwhile.
    store.track("eve", "f1", grace=2.0)
    store.table.untrack("a", "f1", "node", left=False)
    store.track("eve", "f2", grace=2.0)
    store.now += 5
    assert store.table.untrack("a", "f2", "node", left=True, opened=False).kind == "departed"
