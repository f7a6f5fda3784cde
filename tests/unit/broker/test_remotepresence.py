"""The presence store of another process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count

import pytest

from support.links import Network
from symphony.broker.attendance import Diff, Track
from symphony.broker.hub import Hub
from symphony.broker.memory import MemoryBroker
from symphony.broker.presence import PresenceStore
from symphony.broker.presencehub import serve_presence
from symphony.broker.remote import RemoteBroker
from symphony.broker.remotepresence import RemotePresence
from symphony.testing import Clock, contracts
from symphony.testing.clock import settle

Check = Callable[[PresenceStore, Callable[[float], Awaitable[None]]], Awaitable[None]]


@pytest.fixture
async def network() -> Network:
    clock = Clock.of_running_loop()
    hub = Hub(MemoryBroker(max_bytes=1_000_000), life="one")
    ids = count()
    serve_presence(hub, clock=clock.time, new_id=lambda: f"id {next(ids)}")
    return Network(hub)


@pytest.fixture
async def nodes(network: Network) -> AsyncIterator[tuple[RemoteBroker, RemoteBroker]]:
    one, two = await network.node(), await network.node()
    yield one, two
    one.close()
    two.close()


@pytest.mark.parametrize("check", contracts.PRESENCE, ids=lambda check: check.__name__)
async def test_it_is_a_presence_store(check: Check, nodes: tuple[RemoteBroker, RemoteBroker]) -> None:
    await check(RemotePresence(nodes[0]), Clock.of_running_loop().advance)


def track(member: str, connection: str) -> Track:
    return Track("a", member, connection, "node", anonymous=False, info=b"\xc0", resume=("epoch", "arrival"))


async def test_each_node_hears_what_the_other_decides(nodes: tuple[RemoteBroker, RemoteBroker]) -> None:
    one, two = RemotePresence(nodes[0]), RemotePresence(nodes[1])
    heard: tuple[list[Diff], list[Diff]] = [], []
    await one.subscribe("a", heard[0].append)
    roster = await two.subscribe("a", heard[1].append)
    assert (roster.members, roster.version) == ([], 0)
    tracked = await one.track(track("ann", "1"))
    await two.track(track("bob", "2"))
    await one.untrack("a", "1", "node", left=True)
    await settle()
    assert heard[0] == heard[1]
    assert [(diff.kind, diff.member) for diff in heard[0]] == [
        (heard[0][0].kind, "ann"),
        (heard[0][1].kind, "bob"),
        ("depart", "ann"),
    ]
    assert heard[0][0].arrival == tracked.arrival
    two.close()
    await one.untrack("a", "2", "node", left=True)
    await settle()
    assert (len(heard[0]), len(heard[1])) == (4, 3)


async def test_a_repeat_after_a_lost_link_gets_the_first_answer(
    network: Network, nodes: tuple[RemoteBroker, RemoteBroker]
) -> None:
    clock = Clock.of_running_loop()
    store = RemotePresence(nodes[0])
    network.fate = lambda way, message: () if way == "down" else (0.0,)
    tracking = asyncio.ensure_future(store.track(track("ann", "1")))
    await settle()
    network.fate = lambda way, message: (0.0,)
    network.cut()
    await clock.advance(1)
    assert (await tracking).kind in ("arrived", "restored")
    assert await store.count("a") == 1
    assert network.methods().count("presence:track") == 2
