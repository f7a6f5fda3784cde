"""The presence store whose members are in the file of the `sqlite://` broker."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.links import Network
from symphony import BrokerUnavailableError
from symphony.broker.attendance import Track
from symphony.broker.base import Draft, History
from symphony.broker.hub import Hub
from symphony.broker.memberchanges import MemberChanges
from symphony.broker.presence import PresenceStore
from symphony.broker.presencehub import serve_presence
from symphony.broker.remotepresence import RemotePresence
from symphony.broker.sqlite import _SWEEP, SqliteBroker
from symphony.broker.sqlitetarget import target_of
from symphony.broker.storedpresence import StoredPresence
from symphony.testing import Clock, contracts
from symphony.testing.restartchecks import Restart

Check = Callable[[PresenceStore, Callable[[float], Awaitable[None]]], Awaitable[None]]
RestartCheck = Callable[[Restart, Callable[[float], Awaitable[None]]], Awaitable[None]]


def track(member: str, connection: str, **more: Any) -> Track:
    return Track("a", member, connection, "node", anonymous=False, info=b"\xc0", grace=10.0)._replace(**more)


class File:
    """A file, and the broker that has it open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broker: SqliteBroker | None = None

    async def reopened(self) -> SqliteBroker:
        """Kill the broker, and open what is in its file."""
        self.kill()
        limits = {"max_bytes": 10_000_000, "max_calls": 1000, "max_waiting_bytes": 10_000_000}
        self.broker = await SqliteBroker.open(target_of(f"sqlite:///{self.path}"), **limits)
        return self.broker

    def kill(self) -> None:
        """End the broker without a chance to store what it has not stored."""
        broker, self.broker = self.broker, None
        if broker is not None and not broker._closed:
            assert broker._journal is not None
            broker._thread.submit(broker._journal._database.close).result()
            broker.close()

    def rows(self, table: str) -> int:
        self.kill()
        with closing(sqlite3.connect(self.path)) as database:
            return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[File]:
    file = File(tmp_path / "rooms.db")
    yield file
    file.kill()


@pytest.mark.parametrize("check", contracts.PRESENCE, ids=lambda check: check.__name__)
async def test_it_is_a_presence_store(check: Check, file: File) -> None:
    clock = Clock.of_running_loop()
    await check(StoredPresence((await file.reopened()).kept), clock.advance)


@pytest.mark.parametrize("check", contracts.RESTARTS, ids=lambda check: check.__name__)
async def test_its_members_survive_a_restart(check: RestartCheck, file: File) -> None:
    clock = Clock.of_running_loop()

    async def restart() -> PresenceStore:
        return StoredPresence((await file.reopened()).kept)

    await check(restart, clock.advance)


@pytest.mark.parametrize("check", contracts.RESTARTS, ids=lambda check: check.__name__)
async def test_the_members_of_a_hub_survive_a_restart(check: RestartCheck, file: File) -> None:
    clock = Clock.of_running_loop()
    nodes: list[Any] = []

    async def restart() -> PresenceStore:
        for node in nodes:
            node.close()
        broker = await file.reopened()
        hub = Hub(broker, life=str(len(nodes)))
        numbers = iter(range(1000))
        life = len(nodes)
        serve_presence(hub, clock=clock.time, new_id=lambda: f"id {life} {next(numbers)}", kept=broker.kept)
        nodes.append(await Network(hub).node())
        store = RemotePresence(nodes[-1])
        # Grace periods begin when the first node has started.
        await clock.advance(100)
        await store.count("a")
        return store

    await check(restart, clock.advance)
    nodes[-1].close()


async def test_members_and_publications_share_transactions(file: File) -> None:
    broker = await file.reopened()
    store = StoredPresence(broker.kept)
    stored: list[Any] = []
    assert broker._journal is not None
    store_batch = broker._journal.store
    broker._journal.store = lambda batch: stored.append(batch) or store_batch(batch)
    await store.track(track("first", "0"))
    joins = [store.track(track(f"m{number}", f"c{number}")) for number in range(50)]
    publishing = broker.publish("a", Draft("said", b"\xc0"), History(10))
    await asyncio.gather(publishing, *joins)
    assert len(stored) <= 3
    assert sum(len(batch.members.kept) for batch in stored) == 51
    assert file.rows("members") == 51


async def test_no_answer_is_given_before_it_is_stored(file: File) -> None:
    """A join, an end and an acknowledgement wait; a repeat waits with them."""
    broker = await file.reopened()
    store = StoredPresence(broker.kept)
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    in_thread = broker._in_thread

    async def slow(work: Any, *arguments: Any) -> Any:
        await gate.wait()
        return await in_thread(work, *arguments)

    broker._in_thread = slow
    joining = loop.create_task(store.track(track("ann", "c1")))
    repeat = loop.create_task(store.track(track("ann", "c1")))
    leaving = loop.create_task(store.untrack("a", "c1", "node", left=True))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not any(call.done() for call in (joining, repeat, leaving))
    # One that is cancelled does not cancel the others.
    repeat.cancel()
    gate.set()
    first, ended = await asyncio.gather(joining, leaving)
    assert ended.decision is not None
    assert (first.kind, ended.kind) == ("arrived", "departed")
    await store.ack([ended.decision])
    assert (file.rows("members"), file.rows("decisions")) == (0, 0)


async def test_members_are_kept_in_memory_while_the_file_cannot_be_written(
    file: File, caplog: pytest.LogCaptureFixture
) -> None:
    """They are stored later, also if nothing else happens, and nothing older replaces what is newer."""
    clock = Clock.of_running_loop()
    broker = await file.reopened()
    store = StoredPresence(broker.kept)
    await store.track(track("old", "c0"))
    assert broker._journal is not None
    store_batch, full = broker._journal.store, True

    def fail(batch: Any) -> None:
        if full:
            raise sqlite3.OperationalError("database or disk is full")
        store_batch(batch)

    broker._journal.store = fail
    with caplog.at_level(logging.ERROR, "symphony.app"):
        assert (await store.track(track("ann", "c1"))).kind == "arrived"
        assert (await store.track(track("bob", "c2"))).kind == "arrived"
        assert (await store.untrack("a", "c0", "node", left=True)).kind == "departed"
        assert (await store.untrack("a", "c1", "node", left=True)).kind == "departed"
        await store.track(track("eve", "c3"))
        with pytest.raises(BrokerUnavailableError):
            await broker.publish("a", Draft("said", b"\xc0"), History(10))
    assert caplog.text.count("cannot store publications and members") == 1
    full = False
    await clock.advance(_SWEEP + 1)
    await broker._in_thread(lambda: None)
    store = StoredPresence((await file.reopened()).kept)
    assert [member.member for member in (await store.read("a")).members] == ["bob", "eve"]
    assert sorted(decision.member for decision in await store.reap("other")) == ["ann", "old"]


async def test_a_clean_stop_stores_what_waits(file: File) -> None:
    broker = await file.reopened()
    store = StoredPresence(broker.kept)
    joining = asyncio.ensure_future(store.track(track("ann", "c1")))
    await asyncio.sleep(0)
    broker.close()
    assert (await joining).kind == "arrived"
    store.close()
    store = StoredPresence((await file.reopened()).kept)
    assert await store.count("a") == 1


def test_older_changes_do_not_replace_newer_ones() -> None:
    from symphony.broker.attendance import Decision
    from symphony.broker.memberchanges import KeptMember

    def member(name: str, arrival: str) -> KeptMember:
        return KeptMember("a", name, arrival, False, b"", True, 1.0)

    def decision(name: str) -> Decision:
        return Decision(name, "a", "depart", "ann", "1", False, b"")

    older, newer = MemberChanges(), MemberChanges()
    older.keep(member("ann", "1"))
    older.keep(member("bob", "1"))
    older.keep(member("eve", "1"))
    older.forget("a", "old")
    older.owe(decision("d1"))
    older.owe(decision("d2"))
    newer.forget("a", "ann")
    newer.forget("a", "bob")
    newer.keep(member("bob", "2"))
    newer.keep(member("old", "2"))
    newer.settle(["d1"])
    older.precede(newer)
    assert newer.kept == {
        ("a", "bob"): member("bob", "2"),
        ("a", "eve"): member("eve", "1"),
        ("a", "old"): member("old", "2"),
    }
    assert set(newer.gone) == {("a", "old"), ("a", "ann"), ("a", "bob")}
    assert set(newer.owed) == {"d2"}
    assert set(newer.settled) == {"d1"}
    assert bool(newer)
    assert not MemberChanges()
