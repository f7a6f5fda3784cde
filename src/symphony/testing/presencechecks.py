"""The tests that each presence store passes: members, seats and versions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from symphony.broker.attendance import Decision, Diff, Track
from symphony.broker.presence import PresenceStore

__all__ = (
    "MEMBERS",
    "NODE",
    "OTHER",
    "Advance",
    "a_join_that_was_given_up_does_not_come_late",
    "a_member_arrives_once",
    "a_member_who_is_away_keeps_the_seat",
    "a_seat_of_an_anonymous_socket_may_become_free",
    "departed_of",
    "each_change_is_one_diff",
    "kinds_of",
    "repeats_get_the_first_answer",
    "rooms_are_counted_and_found",
    "seats_are_counted",
    "those_who_do_not_count_need_no_seat",
    "track_of",
    "versions_never_go_back",
    "what_others_are_told_follows_the_last_connection",
    "who_is_away_departs_when_dismissed",
    "who_leaves_departs_at_once",
)

Advance = Callable[[float], Awaitable[None]]

NODE, OTHER = "node-1", "node-2"


def track_of(member: str, connection: str, **more: object) -> Track:
    """Return what a member of the room `a` asks for, at the node `NODE`."""
    info = msgspec.msgpack.encode({"name": member})
    return Track("a", member, connection, NODE, anonymous=False, info=info)._replace(**more)


async def kinds_of(store: PresenceStore) -> dict[str, bool]:
    """Return who is in the room `a`, and whether it is away."""
    return {member.member: member.away for member in (await store.read("a")).members}


async def departed_of(store: PresenceStore, node: str) -> list[Decision]:
    """Return the departures that a node is handed."""
    return [decision for decision in await store.reap(node) if decision.kind == "depart"]


async def a_member_arrives_once(store: PresenceStore, advance: Advance) -> None:
    """Its second connection is added, and one that ends leaves it here."""
    first = await store.track(track_of("ann", "c1"))
    second = await store.track(track_of("ann", "c2", node=OTHER))
    assert (first.kind, second.kind) == ("arrived", "added")
    assert first.arrival == second.arrival
    assert first.arrival
    ended = await store.untrack("a", "c1", NODE, left=True)
    assert (ended.kind, ended.joined, ended.arrival) == ("still", "arrived", first.arrival)
    assert await kinds_of(store) == {"ann": False}
    assert (await store.untrack("a", "c2", OTHER, left=True)).kind == "departed"
    assert await kinds_of(store) == {}
    again = await store.track(track_of("ann", "c3"))
    assert again.kind == "arrived"
    assert again.arrival != first.arrival


async def repeats_get_the_first_answer(store: PresenceStore, advance: Advance) -> None:
    """Of an arrival, a return, an end and a refusal."""
    first = await store.track(track_of("ann", "c1", grace=10.0))
    assert await store.track(track_of("ann", "c1", grace=10.0)) == first
    away = await store.untrack("a", "c1", NODE, left=False)
    assert away.kind == "away"
    back = await store.track(track_of("ann", "c2", grace=10.0))
    assert (back.kind, back.arrival) == ("back", first.arrival)
    assert (await store.track(track_of("ann", "c2", grace=10.0))).kind == "back"
    assert await store.untrack("a", "c1", NODE, left=False) == away
    assert (await store.track(track_of("ann", "c1", grace=10.0))).kind == "stale"
    gone = await store.untrack("a", "c2", NODE, left=True)
    assert (gone.kind, gone.joined) == ("departed", "back")
    assert await store.untrack("a", "c2", NODE, left=True) == gone
    assert await kinds_of(store) == {}


async def a_join_that_was_given_up_does_not_come_late(store: PresenceStore, advance: Advance) -> None:
    """Its end may arrive before it, and says what it had decided if it came after it."""
    assert (await store.untrack("a", "c1", NODE, left=True)).kind == "unknown"
    assert (await store.track(track_of("ann", "c1"))).kind == "stale"
    assert await kinds_of(store) == {}
    await store.track(track_of("ann", "c2"))
    assert (await store.untrack("a", "c2", NODE, left=True)).joined == "arrived"


async def seats_are_counted(store: PresenceStore, advance: Advance) -> None:
    """By members, not by connections; a refusal is remembered."""
    assert (await store.track(track_of("ann", "c1", most=2))).kind == "arrived"
    assert (await store.track(track_of("ann", "c2", most=2))).kind == "added"
    assert (await store.track(track_of("bob", "c3", most=2))).kind == "arrived"
    refused = await store.track(track_of("eve", "c4", most=2))
    assert (refused.kind, refused.retryable) == ("full", False)
    assert (await store.track(track_of("ann", "c5", most=2))).kind == "added"
    await store.untrack("a", "c3", NODE, left=True)
    assert (await store.track(track_of("eve", "c4", most=2))).kind == "full"
    assert (await store.track(track_of("eve", "c6", most=2))).kind == "arrived"


async def those_who_do_not_count_need_no_seat(store: PresenceStore, advance: Advance) -> None:
    """Until they count; then they count until they depart."""
    await store.track(track_of("ann", "c1", most=1))
    assert (await store.track(track_of("bob", "c2", most=1, counts=False))).kind == "arrived"
    assert (await store.track(track_of("bob", "c3", most=1))).kind == "full"
    await store.untrack("a", "c1", NODE, left=True)
    assert (await store.track(track_of("bob", "c4", most=1))).kind == "added"
    await store.untrack("a", "c4", NODE, left=True)
    assert (await store.track(track_of("ann", "c5", most=1))).kind == "full"


async def a_member_who_is_away_keeps_the_seat(store: PresenceStore, advance: Advance) -> None:
    """Until the grace has passed, without anybody having called `reap`."""
    first = await store.track(track_of("ann", "c1", most=1, grace=10.0))
    await store.untrack("a", "c1", NODE, left=False)
    assert await kinds_of(store) == {"ann": True}
    refused = await store.track(track_of("bob", "c2", most=1))
    assert (refused.kind, refused.retryable) == ("full", True)
    back = await store.track(track_of("ann", "c3", most=1, grace=10.0))
    assert (back.kind, back.arrival) == ("back", first.arrival)
    await store.untrack("a", "c3", NODE, left=False)
    await advance(10.5)
    assert (await store.track(track_of("bob", "c4", most=1))).kind == "arrived"
    assert [decision.member for decision in await departed_of(store, NODE)] == ["ann"]


async def a_seat_of_an_anonymous_socket_may_become_free(store: PresenceStore, advance: Advance) -> None:
    """So the refusal is retryable."""
    await store.track(track_of("s1", "c1", most=1, anonymous=True))
    refused = await store.track(track_of("bob", "c2", most=1))
    assert (refused.kind, refused.retryable) == ("full", True)


async def who_leaves_departs_at_once(store: PresenceStore, advance: Advance) -> None:
    """And who is lost after the grace."""
    await store.track(track_of("ann", "c1", grace=10.0))
    await store.track(track_of("bob", "c2", grace=10.0))
    left = await store.untrack("a", "c1", NODE, left=True)
    assert left.kind == "departed"
    assert left.decision
    lost = await store.untrack("a", "c2", NODE, left=False)
    assert (lost.kind, lost.decision) == ("away", None)
    await advance(9.5)
    assert await departed_of(store, NODE) == []
    await advance(1)
    assert [decision.member for decision in await departed_of(store, NODE)] == ["bob"]


async def who_is_away_departs_when_dismissed(store: PresenceStore, advance: Advance) -> None:
    """Only in this visit, and only while it is away."""
    first = await store.track(track_of("ann", "c1", grace=10.0))
    assert first.arrival is not None
    assert (await store.dismiss("a", "ann", first.arrival, NODE)).kind == "still"
    await store.untrack("a", "c1", NODE, left=False)
    assert (await store.dismiss("a", "ann", "another visit", NODE)).kind == "unknown"
    assert await kinds_of(store) == {"ann": True}
    dismissed = await store.dismiss("a", "ann", first.arrival, NODE)
    assert (dismissed.kind, dismissed.arrival) == ("departed", first.arrival)
    assert await kinds_of(store) == {}
    assert await store.dismiss("a", "ann", first.arrival, NODE) == dismissed
    second = await store.track(track_of("ann", "c2", grace=10.0))
    assert second.kind == "arrived"
    assert await store.dismiss("a", "ann", first.arrival, NODE) == dismissed
    assert await kinds_of(store) == {"ann": False}
    # Its hook is another node's if this one does not say that it has run.
    await advance(16)
    assert [each.id for each in await departed_of(store, OTHER)] == [dismissed.decision]


async def each_change_is_one_diff(store: PresenceStore, advance: Advance) -> None:
    """With the next version; connections that are added change nothing."""
    heard: list[Diff] = []
    start = await store.subscribe("a", heard.append)
    await store.track(track_of("ann", "c1", grace=10.0))
    await store.track(track_of("ann", "c2", grace=10.0))
    await store.track(track_of("bob", "c3")._replace(room="b"))
    await store.update("a", "ann", b"\xa1x")
    await store.update("a", "ann", b"\xa1x")
    await store.untrack("a", "c1", NODE, left=False)
    await store.untrack("a", "c2", NODE, left=False)
    back = await store.track(track_of("ann", "c4", grace=10.0))
    await store.untrack("a", "c4", NODE, left=True)
    # An answer, so that diffs before it are here.
    end = await store.read("a")
    kinds = ["arrive", "update", "away", "back", "depart"]
    assert [(diff.kind, diff.member, diff.room) for diff in heard] == [(kind, "ann", "a") for kind in kinds]
    assert [diff.version for diff in heard] == [start.version + number for number in range(1, 6)]
    assert {(diff.epoch, diff.arrival) for diff in heard} == {(start.epoch, back.arrival)}
    assert (end.epoch, end.version) == (start.epoch, heard[-1].version)
    store.unsubscribe("a")
    await store.track(track_of("ann", "c5"))
    await store.read("a")
    assert len(heard) == 5


async def versions_never_go_back(store: PresenceStore, advance: Advance) -> None:
    """Also if a room was empty meanwhile, and another one had more changes."""
    last = 0
    for number in range(3):
        for room in ("a", "b"):
            tracked = await store.track(track_of("ann", f"{room}{number}")._replace(room=room))
            if room == "a":
                assert tracked.version > last
                last = tracked.version
            await store.untrack(room, f"{room}{number}", NODE, left=True)
        assert (await store.read("a")).version > last
        last = (await store.read("a")).version


async def rooms_are_counted_and_found(store: PresenceStore, advance: Advance) -> None:
    """Those who are away are still there."""
    await store.track(track_of("ann", "c1", grace=10.0))
    await store.track(track_of("ann", "c2")._replace(room="b"))
    await store.track(track_of("bob", "c3"))
    await store.untrack("a", "c1", NODE, left=False)
    assert [await store.count(room) for room in ("a", "b", "c")] == [2, 1, 0]
    assert sorted(await store.rooms("ann")) == ["a", "b"]
    assert list(await store.rooms("eve")) == []


async def what_others_are_told_follows_the_last_connection(store: PresenceStore, advance: Advance) -> None:
    """And a member keeps its place in the order of arrivals."""
    await store.track(track_of("ann", "c1"))
    await store.track(track_of("bob", "c2"))
    await store.track(track_of("ann", "c3", info=b"\xa3new"))
    members = (await store.read("a")).members
    assert [(member.member, bytes(member.info)) for member in members] == [
        ("ann", b"\xa3new"),
        ("bob", msgspec.msgpack.encode({"name": "bob"})),
    ]


MEMBERS: Final[tuple[Callable[[PresenceStore, Advance], Awaitable[None]], ...]] = (
    a_member_arrives_once,
    repeats_get_the_first_answer,
    a_join_that_was_given_up_does_not_come_late,
    seats_are_counted,
    those_who_do_not_count_need_no_seat,
    a_member_who_is_away_keeps_the_seat,
    a_seat_of_an_anonymous_socket_may_become_free,
    who_leaves_departs_at_once,
    who_is_away_departs_when_dismissed,
    each_change_is_one_diff,
    versions_never_go_back,
    rooms_are_counted_and_found,
    what_others_are_told_follows_the_last_connection,
)
"""What each store does with members."""
