"""The tests that each presence store passes whose members survive a restart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from symphony.broker.attendance import REFRESH, Renewal
from symphony.broker.presence import PresenceStore
from symphony.testing.presencechecks import NODE, OTHER, Advance, departed_of, kinds_of, track_of

__all__ = (
    "RESTARTS",
    "Restart",
    "claims_and_homes_end_with_their_nodes",
    "decisions_survive_a_restart_until_they_are_acknowledged",
    "grace_begins_with_the_restart",
    "members_are_away_after_a_restart",
    "members_without_grace_depart_at_a_restart",
    "seats_survive_a_restart",
    "the_last_information_survives_a_restart",
    "who_has_departed_does_not_come_back",
)

Restart = Callable[[], Awaitable[PresenceStore]]
"""Kills the present store, if there is one, and opens what it has kept."""


async def members_are_away_after_a_restart(restart: Restart, advance: Advance) -> None:
    """Whether they were here or away. Who comes back has not arrived a second time."""
    store = await restart()
    ann = await store.track(track_of("ann", "c1", grace=10.0))
    bob = await store.track(track_of("bob", "c2", grace=10.0))
    await store.untrack("a", "c1", NODE, left=False)
    store = await restart()
    roster = await store.read("a")
    assert [(member.member, member.arrival, member.away) for member in roster.members] == [
        ("ann", ann.arrival, True),
        ("bob", bob.arrival, True),
    ]
    assert roster.epoch != ann.epoch
    assert sorted(await store.rooms("ann")) == ["a"]
    for member, arrival in (("ann", ann.arrival), ("bob", bob.arrival)):
        back = await store.track(track_of(member, f"new {member}", node=OTHER, grace=10.0))
        assert (back.kind, back.arrival) == ("back", arrival)
    await advance(11)
    await store.touch(OTHER, [Renewal("a", ["new ann", "new bob"])], [])
    assert list(await store.reap(OTHER)) == []
    assert await kinds_of(store) == {"ann": False, "bob": False}


async def grace_begins_with_the_restart(restart: Restart, advance: Advance) -> None:
    """And who does not come back departs once."""
    store = await restart()
    ann = await store.track(track_of("ann", "c1", grace=10.0))
    await store.track(track_of("bob", "c2", grace=10.0))
    await store.untrack("a", "c1", NODE, left=False)
    await advance(8)
    await store.touch(NODE, [Renewal("a", ["c2"])], [])
    store = await restart()
    await advance(9)
    assert await departed_of(store, OTHER) == []
    assert await kinds_of(store) == {"ann": True, "bob": True}
    assert (await store.track(track_of("bob", "c3", node=OTHER, grace=10.0))).kind == "back"
    await advance(6)
    decided = await departed_of(store, OTHER)
    assert [(decision.member, decision.arrival) for decision in decided] == [("ann", ann.arrival)]
    await store.ack([decision.id for decision in decided])
    store = await restart()
    assert await departed_of(store, OTHER) == []
    assert await kinds_of(store) == {"bob": True}


async def members_without_grace_depart_at_a_restart(restart: Restart, advance: Advance) -> None:
    """Their sockets are gone, and nothing says that they come back."""
    store = await restart()
    ann = await store.track(track_of("ann", "c1"))
    await store.track(track_of("socket", "c2", anonymous=True))
    store = await restart()
    assert await store.count("a") == 0
    decided = await departed_of(store, OTHER)
    assert [(decision.member, decision.anonymous) for decision in decided] == [
        ("ann", False),
        ("socket", True),
    ]
    again = await store.track(track_of("ann", "c3"))
    assert again.kind == "arrived"
    assert again.arrival != ann.arrival


async def seats_survive_a_restart(restart: Restart, advance: Advance) -> None:
    """Of those who count, until they depart."""
    store = await restart()
    await store.track(track_of("ann", "c1", most=1, grace=10.0))
    await store.track(track_of("eve", "c2", most=1, grace=10.0, counts=False))
    store = await restart()
    refused = await store.track(track_of("bob", "c3", most=1, grace=10.0))
    assert (refused.kind, refused.retryable) == ("full", True)
    # Who has no seat needs one now.
    assert (await store.track(track_of("eve", "c4", most=1, grace=10.0))).kind == "full"
    assert (await store.track(track_of("ann", "c5", most=1, grace=10.0))).kind == "back"
    await store.untrack("a", "c5", NODE, left=True)
    assert (await store.track(track_of("bob", "c6", most=1, grace=10.0))).kind == "arrived"


async def decisions_survive_a_restart_until_they_are_acknowledged(restart: Restart, advance: Advance) -> None:
    """So that each departure has its hook, on some node."""
    store = await restart()
    for member in ("ann", "bob"):
        await store.track(track_of(member, f"of {member}", grace=10.0))
    left = {member: await store.untrack("a", f"of {member}", NODE, left=True) for member in ("ann", "bob")}
    await store.ack([str(left["ann"].decision)])
    store = await restart()
    for _ in range(2):
        decided = await departed_of(store, OTHER)
        assert [(decision.id, decision.member) for decision in decided] == [(left["bob"].decision, "bob")]
        store = await restart()
    await store.ack([str(left["bob"].decision)])
    store = await restart()
    assert list(await store.reap(OTHER)) == []


async def who_has_departed_does_not_come_back(restart: Restart, advance: Advance) -> None:
    """Not even a member who has departed and arrived again: it has the last arrival."""
    store = await restart()
    for number in range(3):
        for member in ("ann", "bob"):
            await store.track(track_of(member, f"{member}{number}", grace=10.0))
            await store.untrack("a", f"{member}{number}", NODE, left=True)
    last = await store.track(track_of("ann", "c8", grace=10.0))
    await store.track(track_of("eve", "c9", grace=10.0)._replace(room="b"))
    store = await restart()
    assert [member.arrival for member in (await store.read("a")).members] == [last.arrival]
    assert [await store.count(room) for room in ("a", "b", "c")] == [1, 1, 0]


async def the_last_information_survives_a_restart(restart: Restart, advance: Advance) -> None:
    """Of the last connection, or of an update; and so does the order of the arrivals."""
    store = await restart()
    for member in ("ann", "bob", "eve"):
        await store.track(track_of(member, f"of {member}", grace=10.0))
    await store.update("a", "ann", b"\xa7updated")
    await store.track(track_of("bob", "more", grace=20.0, info=b"\xa5later"))
    store = await restart()
    members = (await store.read("a")).members
    assert [member.member for member in members] == ["ann", "bob", "eve"]
    assert [bytes(member.info) for member in members[:2]] == [b"\xa7updated", b"\xa5later"]
    await advance(15)
    # The last grace counts, too.
    assert await kinds_of(store) == {"bob": True, "ann": True, "eve": True}
    assert sorted(decision.member for decision in await departed_of(store, OTHER)) == ["ann", "eve"]
    assert await kinds_of(store) == {"bob": True}


async def claims_and_homes_end_with_their_nodes(restart: Restart, advance: Advance) -> None:
    """Nobody waits for the lease of a node that has ended with the store."""
    store = await restart()
    await store.claim("/chat", "ann", "k1", NODE, most=1, replace=False)
    assert await store.settle("a", NODE, "t1")
    store = await restart()
    assert await store.claims("/chat", "ann") == 0
    assert (await store.claim("/chat", "ann", "k2", OTHER, most=1, replace=False)).granted
    assert await store.settle("a", OTHER, "t2")
    await advance(REFRESH)
    touched = await store.touch(OTHER, [Renewal("a", [], "t2")], ["k2"])
    assert ([seen.home for seen in touched.rooms], list(touched.lost)) == ([True], [])


RESTARTS: Final[tuple[Callable[[Restart, Advance], Awaitable[None]], ...]] = (
    members_are_away_after_a_restart,
    grace_begins_with_the_restart,
    members_without_grace_depart_at_a_restart,
    seats_survive_a_restart,
    decisions_survive_a_restart_until_they_are_acknowledged,
    who_has_departed_does_not_come_back,
    the_last_information_survives_a_restart,
    claims_and_homes_end_with_their_nodes,
)
"""What each `PresenceStore` does that keeps its members over a restart.

Each function takes one that restarts the store, and one that lets its time pass.
"""
