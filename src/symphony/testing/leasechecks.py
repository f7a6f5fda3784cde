"""The tests that each presence store passes: leases, decisions, claims and homes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from symphony.broker.attendance import HEAD_START, LEASE, REAP, REFRESH, TAKEN, Renewal
from symphony.broker.presence import PresenceStore
from symphony.testing.presencechecks import MEMBERS, NODE, OTHER, Advance, departed_of, kinds_of, track_of

__all__ = (
    "PRESENCE",
    "a_decision_is_kept_until_it_is_acknowledged",
    "a_departure_of_a_dead_node_is_handed_to_another",
    "a_room_has_one_home",
    "a_store_that_has_forgotten_restores_members",
    "claims_belong_to_the_last_or_the_first",
    "claims_end_unless_they_are_renewed",
    "leases_end_unless_they_are_renewed",
    "no_lease_ends_while_the_store_is_out_of_reach",
    "one_lost_connection_takes_no_other_with_it",
    "reaping_is_done_in_pieces",
    "touch_tells_the_version",
)


async def leases_end_unless_they_are_renewed(store: PresenceStore, advance: Advance) -> None:
    """The grace begins at the end of the lease."""
    await store.track(track_of("ann", "c1", grace=10.0))
    await store.track(track_of("bob", "c2", grace=10.0))
    for _ in range(4):
        await advance(REFRESH)
        touched = await store.touch(NODE, [Renewal("a", ["c1"])], [])
        assert [list(seen.unknown) for seen in touched.rooms] == [[]]
    decided = {decision.member: decision for decision in await store.reap(NODE)}
    assert decided.keys() == {"bob"}
    # The lease has ended 10 s ago.
    assert decided["bob"].kind == "depart"
    touched = await store.touch(NODE, [Renewal("a", ["c1", "c2"])], [])
    assert [list(seen.unknown) for seen in touched.rooms] == [["c2"]]
    assert await kinds_of(store) == {"ann": False}


async def one_lost_connection_takes_no_other_with_it(store: PresenceStore, advance: Advance) -> None:
    """Of the same member."""
    await store.track(track_of("ann", "c1"))
    await store.track(track_of("ann", "c2", node=OTHER))
    for _ in range(4):
        await advance(REFRESH)
        await store.touch(OTHER, [Renewal("a", ["c2"])], [])
    assert list(await store.reap(OTHER)) == []
    assert await kinds_of(store) == {"ann": False}


async def no_lease_ends_while_the_store_is_out_of_reach(store: PresenceStore, advance: Advance) -> None:
    """Nor in the lease after that."""
    await store.track(track_of("ann", "c1"))
    await advance(LEASE * 3)
    assert list(await store.reap(NODE)) == []
    await store.touch(NODE, [], [])
    for _ in range(2):
        await advance(REFRESH)
        await store.touch(NODE, [], [])
        assert list(await store.reap(NODE)) == []
    assert await kinds_of(store) == {"ann": False}
    for _ in range(2):
        await advance(REFRESH)
        await store.touch(NODE, [], [])
    assert [decision.member for decision in await store.reap(NODE)] == ["ann"]


async def a_decision_is_kept_until_it_is_acknowledged(store: PresenceStore, advance: Advance) -> None:
    """One node at a time has it; first, the one where the member was last."""
    await store.track(track_of("ann", "c1", grace=1.0))
    await store.untrack("a", "c1", NODE, left=False)
    await advance(2)
    assert list(await store.reap(OTHER)) == []
    await advance(HEAD_START + 0.5)
    (decision,) = await store.reap(OTHER)
    assert (decision.kind, decision.member, decision.room) == ("depart", "ann", "a")
    assert list(await store.reap(NODE)) == []
    await advance(TAKEN + 0.5)
    assert list(await store.reap(NODE)) == [decision]
    await store.ack([decision.id])
    await advance(TAKEN + 0.5)
    assert list(await store.reap(NODE)) == []
    assert list(await store.reap(OTHER)) == []


async def a_departure_of_a_dead_node_is_handed_to_another(store: PresenceStore, advance: Advance) -> None:
    """If the node has not acknowledged what its own `untrack` has decided."""
    arrived = await store.track(track_of("ann", "c1"))
    ended = await store.untrack("a", "c1", NODE, left=True)
    assert list(await store.reap(OTHER)) == []
    await advance(TAKEN + 0.5)
    (decision,) = await store.reap(OTHER)
    assert (decision.id, decision.arrival) == (ended.decision, arrived.arrival)


async def touch_tells_the_version(store: PresenceStore, advance: Advance) -> None:
    """So that a node notices that it has missed the last diff."""
    tracked = await store.track(track_of("ann", "c1"))
    touched = await store.touch(NODE, [Renewal("a", ["c1"]), Renewal("b", [])], [])
    assert touched.rooms[0].epoch == tracked.epoch
    assert [(seen.room, seen.version) for seen in touched.rooms] == [("a", tracked.version), ("b", 0)]


async def a_store_that_has_forgotten_restores_members(store: PresenceStore, advance: Advance) -> None:
    """That is no new arrival. With its own epoch it is one: the member has departed meanwhile."""
    restored = await store.track(track_of("ann", "c1", resume=("of another life", "known")))
    assert (restored.kind, restored.arrival) == ("restored", "known")
    arrived = await store.track(track_of("bob", "c2", resume=(restored.epoch, "known too")))
    assert arrived.kind == "arrived"
    assert arrived.arrival != "known too"


async def claims_belong_to_the_last_or_the_first(store: PresenceStore, advance: Advance) -> None:
    """As the caller says."""
    first = await store.claim("/chat", "ann", "k1", NODE, most=1, replace=True)
    assert (first.granted, list(first.evicted)) == (True, [])
    other = await store.claim("/other", "ann", "k2", NODE, most=1, replace=False)
    assert other.granted
    refused = await store.claim("/chat", "ann", "k3", OTHER, most=1, replace=False)
    assert not refused.granted
    later = await store.claim("/chat", "ann", "k4", OTHER, most=1, replace=True)
    assert later.granted
    assert [tuple(one) for one in later.evicted] == [("k1", NODE)]
    assert list((await store.touch(NODE, [], ["k1", "k2"])).lost) == ["k1"]
    # A late repeat takes nothing back.
    assert not (await store.claim("/chat", "ann", "k1", NODE, most=1, replace=True)).granted
    assert (await store.claim("/chat", "ann", "k4", OTHER, most=1, replace=True)).granted
    assert await store.claims("/chat", "ann") == 1
    await store.release("k4")
    assert await store.claims("/chat", "ann") == 0
    assert not (await store.claim("/chat", "ann", "k4", OTHER, most=1, replace=True)).granted


async def claims_end_unless_they_are_renewed(store: PresenceStore, advance: Advance) -> None:
    """So that a dead node locks no user out."""
    await store.claim("/chat", "ann", "k1", NODE, most=1, replace=False)
    await store.claim("/chat", "bob", "k2", NODE, most=1, replace=False)
    await advance(LEASE - 1)
    assert list((await store.touch(NODE, [], ["k1"])).lost) == []
    await advance(2)
    assert not (await store.claim("/chat", "ann", "k3", OTHER, most=1, replace=False)).granted
    assert (await store.claim("/chat", "bob", "k4", OTHER, most=1, replace=False)).granted


async def a_room_has_one_home(store: PresenceStore, advance: Advance) -> None:
    """Until it is given up, or its lease has ended."""
    assert await store.settle("a", NODE, "t1")
    assert await store.settle("a", NODE, "t1")
    assert not await store.settle("a", OTHER, "t2")
    assert (await store.track(track_of("ann", "c1", node=OTHER, term="t2"))).kind == "elsewhere"
    assert (await store.track(track_of("ann", "c2", term="t1"))).kind == "arrived"
    await store.vacate("a", "t2")
    assert not await store.settle("a", OTHER, "t3")
    await store.vacate("a", "t1")
    # A late repeat takes nothing back.
    assert not await store.settle("a", NODE, "t1")
    assert await store.settle("a", OTHER, "t4")
    touched = await store.touch(NODE, [Renewal("a", [], "t1"), Renewal("b", [], "t5")], [])
    assert [seen.home for seen in touched.rooms] == [False, True]
    await advance(LEASE + 1)
    assert await store.settle("a", NODE, "t6")


async def reaping_is_done_in_pieces(store: PresenceStore, advance: Advance) -> None:
    """Until nothing is left; each member departs once."""
    for number in range(250):
        await store.track(track_of(f"m{number}", f"c{number}"))
    for _ in range(3):
        await advance(REFRESH)
        await store.touch(OTHER, [], [])
    await advance(REAP)
    departed: list[str] = []
    while decisions := await departed_of(store, NODE):
        departed += [decision.member for decision in decisions]
        await store.ack([decision.id for decision in decisions])
    assert sorted(departed) == sorted(f"m{number}" for number in range(250))
    assert await store.count("a") == 0


PRESENCE: Final[tuple[Callable[[PresenceStore, Advance], Awaitable[None]], ...]] = (
    *MEMBERS,
    leases_end_unless_they_are_renewed,
    one_lost_connection_takes_no_other_with_it,
    no_lease_ends_while_the_store_is_out_of_reach,
    a_decision_is_kept_until_it_is_acknowledged,
    a_departure_of_a_dead_node_is_handed_to_another,
    touch_tells_the_version,
    a_store_that_has_forgotten_restores_members,
    claims_belong_to_the_last_or_the_first,
    claims_end_unless_they_are_renewed,
    a_room_has_one_home,
    reaping_is_done_in_pieces,
)
"""What each `PresenceStore` does.

Each function takes a store that is new, and a function that lets its time pass.
"""
