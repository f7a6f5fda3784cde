"""The tests that each presence store passes: see `symphony.testing.contracts`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from symphony.broker.attendance import (
    HEAD_START,
    LEASE,
    REAP,
    REFRESH,
    TAKEN,
    Decision,
    Diff,
    Renewal,
    Track,
)
from symphony.broker.presence import PresenceStore

__all__ = ("PRESENCE",)

Advance = Callable[[float], Awaitable[None]]

NODE, OTHER = "node-1", "node-2"


def _track(member: str, connection: str, **more: object) -> Track:
    info = msgspec.msgpack.encode({"name": member})
    return Track("a", member, connection, NODE, anonymous=False, info=info)._replace(**more)


async def _kinds(store: PresenceStore) -> dict[str, bool]:
    return {member.member: member.away for member in (await store.read("a")).members}


async def _departed(store: PresenceStore, node: str) -> list[Decision]:
    return [decision for decision in await store.reap(node) if decision.kind == "depart"]


async def a_member_arrives_once(store: PresenceStore, advance: Advance) -> None:
    """Its second connection is added, and one that ends leaves it here."""
    first = await store.track(_track("ann", "c1"))
    second = await store.track(_track("ann", "c2", node=OTHER))
    assert (first.kind, second.kind) == ("arrived", "added")
    assert first.arrival == second.arrival
    assert first.arrival
    ended = await store.untrack("a", "c1", NODE, left=True)
    assert (ended.kind, ended.joined, ended.arrival) == ("still", "arrived", first.arrival)
    assert await _kinds(store) == {"ann": False}
    assert (await store.untrack("a", "c2", OTHER, left=True)).kind == "departed"
    assert await _kinds(store) == {}
    again = await store.track(_track("ann", "c3"))
    assert again.kind == "arrived"
    assert again.arrival != first.arrival


async def repeats_get_the_first_answer(store: PresenceStore, advance: Advance) -> None:
    """Of an arrival, a return, an end and a refusal."""
    first = await store.track(_track("ann", "c1", grace=10.0))
    assert await store.track(_track("ann", "c1", grace=10.0)) == first
    away = await store.untrack("a", "c1", NODE, left=False)
    assert away.kind == "away"
    back = await store.track(_track("ann", "c2", grace=10.0))
    assert (back.kind, back.arrival) == ("back", first.arrival)
    assert (await store.track(_track("ann", "c2", grace=10.0))).kind == "back"
    assert await store.untrack("a", "c1", NODE, left=False) == away
    assert (await store.track(_track("ann", "c1", grace=10.0))).kind == "stale"
    gone = await store.untrack("a", "c2", NODE, left=True)
    assert (gone.kind, gone.joined) == ("departed", "back")
    assert await store.untrack("a", "c2", NODE, left=True) == gone
    assert await _kinds(store) == {}


async def a_join_that_was_given_up_does_not_come_late(store: PresenceStore, advance: Advance) -> None:
    """Its end may arrive before it, and says what it had decided if it came after it."""
    assert (await store.untrack("a", "c1", NODE, left=True)).kind == "unknown"
    assert (await store.track(_track("ann", "c1"))).kind == "stale"
    assert await _kinds(store) == {}
    await store.track(_track("ann", "c2"))
    assert (await store.untrack("a", "c2", NODE, left=True)).joined == "arrived"


async def seats_are_counted(store: PresenceStore, advance: Advance) -> None:
    """By members, not by connections; a refusal is remembered."""
    assert (await store.track(_track("ann", "c1", most=2))).kind == "arrived"
    assert (await store.track(_track("ann", "c2", most=2))).kind == "added"
    assert (await store.track(_track("bob", "c3", most=2))).kind == "arrived"
    refused = await store.track(_track("eve", "c4", most=2))
    assert (refused.kind, refused.retryable) == ("full", False)
    assert (await store.track(_track("ann", "c5", most=2))).kind == "added"
    await store.untrack("a", "c3", NODE, left=True)
    assert (await store.track(_track("eve", "c4", most=2))).kind == "full"
    assert (await store.track(_track("eve", "c6", most=2))).kind == "arrived"


async def those_who_do_not_count_need_no_seat(store: PresenceStore, advance: Advance) -> None:
    """Until they count; then they count until they depart."""
    await store.track(_track("ann", "c1", most=1))
    assert (await store.track(_track("bob", "c2", most=1, counts=False))).kind == "arrived"
    assert (await store.track(_track("bob", "c3", most=1))).kind == "full"
    await store.untrack("a", "c1", NODE, left=True)
    assert (await store.track(_track("bob", "c4", most=1))).kind == "added"
    await store.untrack("a", "c4", NODE, left=True)
    assert (await store.track(_track("ann", "c5", most=1))).kind == "full"


async def a_member_who_is_away_keeps_the_seat(store: PresenceStore, advance: Advance) -> None:
    """Until the grace has passed, without anybody having called `reap`."""
    first = await store.track(_track("ann", "c1", most=1, grace=10.0))
    await store.untrack("a", "c1", NODE, left=False)
    assert await _kinds(store) == {"ann": True}
    refused = await store.track(_track("bob", "c2", most=1))
    assert (refused.kind, refused.retryable) == ("full", True)
    back = await store.track(_track("ann", "c3", most=1, grace=10.0))
    assert (back.kind, back.arrival) == ("back", first.arrival)
    await store.untrack("a", "c3", NODE, left=False)
    await advance(10.5)
    assert (await store.track(_track("bob", "c4", most=1))).kind == "arrived"
    assert [decision.member for decision in await _departed(store, NODE)] == ["ann"]


async def a_seat_of_an_anonymous_socket_may_become_free(store: PresenceStore, advance: Advance) -> None:
    """So the refusal is retryable."""
    await store.track(_track("s1", "c1", most=1, anonymous=True))
    refused = await store.track(_track("bob", "c2", most=1))
    assert (refused.kind, refused.retryable) == ("full", True)


async def who_leaves_departs_at_once(store: PresenceStore, advance: Advance) -> None:
    """And who is lost after the grace."""
    await store.track(_track("ann", "c1", grace=10.0))
    await store.track(_track("bob", "c2", grace=10.0))
    left = await store.untrack("a", "c1", NODE, left=True)
    assert left.kind == "departed"
    assert left.decision
    lost = await store.untrack("a", "c2", NODE, left=False)
    assert (lost.kind, lost.decision) == ("away", None)
    await advance(9.5)
    assert await _departed(store, NODE) == []
    await advance(1)
    assert [decision.member for decision in await _departed(store, NODE)] == ["bob"]


async def leases_end_unless_they_are_renewed(store: PresenceStore, advance: Advance) -> None:
    """The grace begins at the end of the lease."""
    await store.track(_track("ann", "c1", grace=10.0))
    await store.track(_track("bob", "c2", grace=10.0))
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
    assert await _kinds(store) == {"ann": False}


async def one_lost_connection_takes_no_other_with_it(store: PresenceStore, advance: Advance) -> None:
    """Of the same member."""
    await store.track(_track("ann", "c1"))
    await store.track(_track("ann", "c2", node=OTHER))
    for _ in range(4):
        await advance(REFRESH)
        await store.touch(OTHER, [Renewal("a", ["c2"])], [])
    assert list(await store.reap(OTHER)) == []
    assert await _kinds(store) == {"ann": False}


async def no_lease_ends_while_the_store_is_out_of_reach(store: PresenceStore, advance: Advance) -> None:
    """Nor in the lease after that."""
    await store.track(_track("ann", "c1"))
    await advance(LEASE * 3)
    assert list(await store.reap(NODE)) == []
    await store.touch(NODE, [], [])
    for _ in range(2):
        await advance(REFRESH)
        await store.touch(NODE, [], [])
        assert list(await store.reap(NODE)) == []
    assert await _kinds(store) == {"ann": False}
    for _ in range(2):
        await advance(REFRESH)
        await store.touch(NODE, [], [])
    assert [decision.member for decision in await store.reap(NODE)] == ["ann"]


async def a_decision_is_kept_until_it_is_acknowledged(store: PresenceStore, advance: Advance) -> None:
    """One node at a time has it; first, the one where the member was last."""
    await store.track(_track("ann", "c1", grace=1.0))
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
    arrived = await store.track(_track("ann", "c1"))
    ended = await store.untrack("a", "c1", NODE, left=True)
    assert list(await store.reap(OTHER)) == []
    await advance(TAKEN + 0.5)
    (decision,) = await store.reap(OTHER)
    assert (decision.id, decision.arrival) == (ended.decision, arrived.arrival)


async def each_change_is_one_diff(store: PresenceStore, advance: Advance) -> None:
    """With the next version; connections that are added change nothing."""
    heard: list[Diff] = []
    start = await store.subscribe("a", heard.append)
    await store.track(_track("ann", "c1", grace=10.0))
    await store.track(_track("ann", "c2", grace=10.0))
    await store.track(_track("bob", "c3")._replace(room="b"))
    await store.update("a", "ann", b"\xa1x")
    await store.update("a", "ann", b"\xa1x")
    await store.untrack("a", "c1", NODE, left=False)
    await store.untrack("a", "c2", NODE, left=False)
    back = await store.track(_track("ann", "c4", grace=10.0))
    await store.untrack("a", "c4", NODE, left=True)
    # An answer, so that diffs before it are here.
    end = await store.read("a")
    kinds = ["arrive", "update", "away", "back", "depart"]
    assert [(diff.kind, diff.member, diff.room) for diff in heard] == [(kind, "ann", "a") for kind in kinds]
    assert [diff.version for diff in heard] == [start.version + number for number in range(1, 6)]
    assert {(diff.epoch, diff.arrival) for diff in heard} == {(start.epoch, back.arrival)}
    assert (end.epoch, end.version) == (start.epoch, heard[-1].version)
    store.unsubscribe("a")
    await store.track(_track("ann", "c5"))
    await store.read("a")
    assert len(heard) == 5


async def versions_never_go_back(store: PresenceStore, advance: Advance) -> None:
    """Also if a room was empty meanwhile, and another one had more changes."""
    last = 0
    for number in range(3):
        for room in ("a", "b"):
            tracked = await store.track(_track("ann", f"{room}{number}")._replace(room=room))
            if room == "a":
                assert tracked.version > last
                last = tracked.version
            await store.untrack(room, f"{room}{number}", NODE, left=True)
        assert (await store.read("a")).version > last
        last = (await store.read("a")).version


async def touch_tells_the_version(store: PresenceStore, advance: Advance) -> None:
    """So that a node notices that it has missed the last diff."""
    tracked = await store.track(_track("ann", "c1"))
    touched = await store.touch(NODE, [Renewal("a", ["c1"]), Renewal("b", [])], [])
    assert touched.epoch == tracked.epoch
    assert [(seen.room, seen.version) for seen in touched.rooms] == [("a", tracked.version), ("b", 0)]


async def rooms_are_counted_and_found(store: PresenceStore, advance: Advance) -> None:
    """Those who are away are still there."""
    await store.track(_track("ann", "c1", grace=10.0))
    await store.track(_track("ann", "c2")._replace(room="b"))
    await store.track(_track("bob", "c3"))
    await store.untrack("a", "c1", NODE, left=False)
    assert [await store.count(room) for room in ("a", "b", "c")] == [2, 1, 0]
    assert sorted(await store.rooms("ann")) == ["a", "b"]
    assert list(await store.rooms("eve")) == []


async def what_others_are_told_follows_the_last_connection(store: PresenceStore, advance: Advance) -> None:
    """And a member keeps its place in the order of arrivals."""
    await store.track(_track("ann", "c1"))
    await store.track(_track("bob", "c2"))
    await store.track(_track("ann", "c3", info=b"\xa3new"))
    members = (await store.read("a")).members
    assert [(member.member, bytes(member.info)) for member in members] == [
        ("ann", b"\xa3new"),
        ("bob", msgspec.msgpack.encode({"name": "bob"})),
    ]


async def a_store_that_has_forgotten_restores_members(store: PresenceStore, advance: Advance) -> None:
    """That is no new arrival. With its own epoch it is one: the member has departed meanwhile."""
    restored = await store.track(_track("ann", "c1", resume=("of another life", "known")))
    assert (restored.kind, restored.arrival) == ("restored", "known")
    arrived = await store.track(_track("bob", "c2", resume=(restored.epoch, "known too")))
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
    assert (await store.track(_track("ann", "c1", node=OTHER, term="t2"))).kind == "elsewhere"
    assert (await store.track(_track("ann", "c2", term="t1"))).kind == "arrived"
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
        await store.track(_track(f"m{number}", f"c{number}"))
    for _ in range(3):
        await advance(REFRESH)
        await store.touch(OTHER, [], [])
    await advance(REAP)
    departed: list[str] = []
    while decisions := await _departed(store, NODE):
        departed += [decision.member for decision in decisions]
        await store.ack([decision.id for decision in decisions])
    assert sorted(departed) == sorted(f"m{number}" for number in range(250))
    assert await store.count("a") == 0


PRESENCE: Final[tuple[Callable[[PresenceStore, Advance], Awaitable[None]], ...]] = (
    a_member_arrives_once,
    repeats_get_the_first_answer,
    a_join_that_was_given_up_does_not_come_late,
    seats_are_counted,
    those_who_do_not_count_need_no_seat,
    a_member_who_is_away_keeps_the_seat,
    a_seat_of_an_anonymous_socket_may_become_free,
    who_leaves_departs_at_once,
    leases_end_unless_they_are_renewed,
    one_lost_connection_takes_no_other_with_it,
    no_lease_ends_while_the_store_is_out_of_reach,
    a_decision_is_kept_until_it_is_acknowledged,
    a_departure_of_a_dead_node_is_handed_to_another,
    each_change_is_one_diff,
    versions_never_go_back,
    touch_tells_the_version,
    rooms_are_counted_and_found,
    what_others_are_told_follows_the_last_connection,
    a_store_that_has_forgotten_restores_members,
    claims_belong_to_the_last_or_the_first,
    claims_end_unless_they_are_renewed,
    a_room_has_one_home,
    reaping_is_done_in_pieces,
)
"""What each `PresenceStore` does.

Each function takes a store that is new, and a function that lets its time pass.
"""
