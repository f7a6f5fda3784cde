"""The broker whose publications survive a restart."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from symphony import (
    BrokerUnavailableError,
    ConfigurationError,
    OutcomeUnknownError,
    Position,
    QueueFullError,
    Reject,
)
from symphony.broker import journal, sqlite
from symphony.broker.base import Broker, Draft, History, Key, Record
from symphony.broker.sqlite import SqliteBroker
from symphony.broker.sqlitetarget import target_of
from symphony.testing import Clock, contracts

HISTORY = History(100)


def draft(data: object, key: str | None = None, replaces: Position | None = None) -> Draft:
    payload = msgspec.msgpack.encode(data)
    return Draft("said", payload, key=None if key is None else Key("ann", key, payload), replaces=replaces)


async def opened(path: Path, query: str = "", **limits: int) -> SqliteBroker:
    given = {"max_bytes": 10_000_000, "max_calls": 10_000, "max_waiting_bytes": 10_000_000, **limits}
    return await SqliteBroker.open(target_of(f"sqlite:///{path}{query}"), **given)


async def kept(broker: SqliteBroker, room: str = "a") -> list[tuple[int, Any]]:
    page = await broker.after(room, None, limit=1000, max_bytes=10_000_000)
    return [(record.position.offset, msgspec.msgpack.decode(record.payload)) for record in page.records]


def rows(path: Path, query: str) -> list[Any]:
    with sqlite3.connect(path) as database:
        found = database.execute(query).fetchall()
    database.close()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rooms.db"


@pytest.mark.parametrize("check", contracts.BROKER, ids=lambda check: check.__name__)
async def test_it_is_a_broker(check: Callable[[Broker], Awaitable[None]], path: Path) -> None:
    broker = await opened(path)
    await check(broker)
    broker.close()


async def test_everything_is_there_after_a_restart(path: Path) -> None:
    broker = await opened(path)
    first = await broker.publish("a", draft("one", key="1"), HISTORY)
    await broker.publish("a", draft("two"), HISTORY)
    edited = await broker.publish("a", draft("one, edited", replaces=first), HISTORY)
    nothing = await broker.subscribe("quiet", lambda record: None)
    await broker.publish("b", Draft(None, b"\xc0"), HISTORY)
    broker.close()
    broker = await opened(path)
    assert await kept(broker) == [(2, "two"), (3, "one, edited")]
    page = await broker.after("a", first, limit=10, max_bytes=1000)
    assert (page.complete, page.top, page.records[-1].replaces) == (True, edited, first)
    # A key is known, and a conflict.
    assert await broker.publish("a", draft("one", key="1"), HISTORY) == first
    with pytest.raises(Reject, match="conflict"):
        await broker.publish("a", draft("other", key="1"), HISTORY)
    # A second edit names the first of the chain.
    heard: list[Record] = []
    await broker.subscribe("a", heard.append)
    await broker.publish("a", draft("again", replaces=edited), HISTORY)
    assert heard[0].replaces == first
    assert await kept(broker) == [(2, "two"), (4, "again")]
    assert (await broker.after("quiet", nothing, limit=1, max_bytes=1)).complete
    assert (await broker.before("b", None, limit=1)).records[0].event is None
    broker.close()


async def test_a_position_whose_successors_were_trimmed_is_noticed_after_a_restart(path: Path) -> None:
    broker = await opened(path)
    positions = [await broker.publish("a", draft(n), History(3)) for n in range(10)]
    broker.close()
    broker = await opened(path)
    assert [offset for offset, _ in await kept(broker)] == [8, 9, 10]
    assert (await broker.after("a", positions[6], limit=10, max_bytes=1000)).complete
    assert not (await broker.after("a", positions[5], limit=10, max_bytes=1000)).complete
    broker.close()


async def test_the_file_has_what_the_rooms_keep(path: Path) -> None:
    clock = Clock.of_running_loop()
    broker = await opened(path)
    for number in range(200):
        last = await broker.publish("a", draft(number), History(10, ttl=60))
    for number in range(50):
        last = await broker.publish(
            "b", draft(number, replaces=last if number else None), History(10, ttl=60)
        )
    await clock.advance(sqlite._SWEEP + 1)
    await broker._in_thread(lambda: None)
    await broker.publish("c", draft("c"), HISTORY)
    assert len(broker._floors) == 3
    broker.close()
    assert rows(path, "SELECT room, count(*) FROM records GROUP BY room") == [("a", 10), ("b", 1), ("c", 1)]


async def test_rooms_that_keep_nothing_any_more_remember_where_they_were(path: Path) -> None:
    clock = Clock.of_running_loop()
    broker = await opened(path)
    first = await broker.publish("a", draft(1), History(10, ttl=5))
    top = await broker.publish("a", draft(2), History(10, ttl=5))
    await clock.advance(sqlite._SWEEP * 2 + 1)
    broker.close()
    assert rows(path, "SELECT count(*) FROM records") == [(0,)]
    broker = await opened(path)
    assert (await broker.after("a", top, limit=1, max_bytes=1)).complete
    assert not (await broker.after("a", first, limit=1, max_bytes=1)).complete
    assert (await broker.publish("a", draft(3), HISTORY)).offset == 3
    broker.close()


async def test_publications_that_come_together_are_stored_together(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await opened(path)
    assert broker._journal is not None
    sizes: list[int] = []
    store = broker._journal.store

    def counted(batch: journal.Batch) -> None:
        sizes.append(len(batch.records))
        store(batch)

    monkeypatch.setattr(broker._journal, "store", counted)
    results = await asyncio.gather(*(broker.publish(f"r{n % 7}", draft(n), HISTORY) for n in range(500)))
    assert sum(sizes) == 500
    assert len(sizes) <= 3
    assert [result.offset for result in results] == [n // 7 + 1 for n in range(500)]
    broker.close()


async def test_repeats_and_edits_within_one_batch_are_seen(path: Path) -> None:
    broker = await opened(path)
    first = await broker.publish("a", draft("one"), HISTORY)
    together = [
        broker.publish("a", draft("k", key="k"), HISTORY),
        broker.publish("a", draft("k", key="k"), HISTORY),
        broker.publish("a", draft("edit", replaces=first), HISTORY),
        broker.publish("a", draft("edit of the edit", replaces=Position(first.epoch, 3)), HISTORY),
        broker.publish("a", draft("other", key="k"), HISTORY),
    ]
    results = await asyncio.gather(*together, return_exceptions=True)
    assert [each.offset for each in results[:4] if isinstance(each, Position)] == [2, 2, 3, 4]
    assert isinstance(results[4], Reject)
    assert await kept(broker) == [(2, "k"), (4, "edit of the edit")]
    broker.close()


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        ("database or disk is full", BrokerUnavailableError),
        ("disk I/O error", OutcomeUnknownError),
        ("database disk image is malformed", OutcomeUnknownError),
    ],
)
async def test_a_disk_that_fails_is_told_and_nothing_acknowledged_is_lost(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    problem: str,
    error: type[Exception],
) -> None:
    broker = await opened(path)
    assert broker._journal is not None
    heard: list[int] = []
    await broker.subscribe("a", lambda record: heard.append(record.position.offset))
    await broker.publish("a", draft("before"), HISTORY)

    write = broker._journal._write

    def fail(database: sqlite3.Connection, batch: journal.Batch) -> None:
        # In the transaction, after all of it was written.
        write(database, batch)
        raise sqlite3.OperationalError(problem)

    with monkeypatch.context() as patch:
        patch.setattr(broker._journal, "_write", fail)
        results = await asyncio.gather(
            *(broker.publish("a", draft(n), HISTORY) for n in range(3)), return_exceptions=True
        )
        assert [type(each) for each in results] == [error] * 3
        assert problem in str(results[0])
    assert caplog.text.count("cannot store publications") == 1
    assert (await broker.publish("a", draft("after"), HISTORY)).offset == 2
    assert heard == [1, 2]
    broker.close()
    broker = await opened(path)
    assert await kept(broker) == [(1, "before"), (2, "after")]
    broker.close()


async def test_a_full_disk_is_told(path: Path) -> None:
    """A real one: the file may not grow."""
    broker = await opened(path)
    assert broker._journal is not None
    (pages,) = broker._journal._database.execute("PRAGMA page_count").fetchone()
    broker._journal._database.execute(f"PRAGMA max_page_count = {pages + 10}")
    acknowledged = 0
    problem: Exception | None = None
    while problem is None and acknowledged < 100:
        try:
            await broker.publish("a", draft("x" * 3000), HISTORY)
            acknowledged += 1
        except BrokerUnavailableError as error:
            problem = error
    assert "full" in str(problem)
    assert acknowledged > 0
    assert len(await kept(broker)) == acknowledged
    broker.close()
    broker = await opened(path)
    assert len(await kept(broker)) == acknowledged
    broker.close()


async def test_a_file_that_is_in_use_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_LOCK_PATIENCE", 0.01)
    broker = await opened(path)
    with pytest.raises(ConfigurationError, match="used by another process"):
        await opened(path)
    assert (await broker.publish("a", draft(1), HISTORY)).offset == 1
    broker.close()
    (await opened(path)).close()


@pytest.mark.parametrize("content", [b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_a_file_that_is_no_database_is_named_and_not_changed(path: Path, content: bytes) -> None:
    await asyncio.to_thread(path.write_bytes, content)
    with pytest.raises(ConfigurationError, match=r"rooms\.db"):
        await opened(path)
    assert await asyncio.to_thread(path.read_bytes) == content


async def test_a_file_in_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        await opened(tmp_path / "nowhere" / "rooms.db")


async def test_a_file_of_another_version_is_named(path: Path) -> None:
    (await opened(path)).close()
    rows(path, "UPDATE life SET version = 99 RETURNING version")
    with pytest.raises(ConfigurationError, match="another version"):
        await opened(path)


@pytest.mark.parametrize(
    ("query", "machine", "is_told"),
    [("?sync=normal", "another", True), ("?sync=normal", "the same", False), ("", "another", False)],
)
async def test_members_are_told_if_the_machine_crashed_and_the_end_may_be_missing(
    path: Path, monkeypatch: pytest.MonkeyPatch, query: str, machine: str, is_told: bool
) -> None:
    monkeypatch.setattr(journal, "_boot_id", lambda: "the same")
    broker = await opened(path, query)
    top = await broker.publish("a", draft(1, key="1"), HISTORY)
    # It ends without a close.
    assert broker._journal is not None
    await broker._in_thread(broker._journal._database.close)
    monkeypatch.setattr(journal, "_boot_id", lambda: machine)
    broker._thread.shutdown()
    again = await opened(path, query)
    page = await again.after("a", top, limit=1, max_bytes=1)
    assert page.complete is not is_told
    assert (page.top.epoch != top.epoch) is is_told
    assert await kept(again) == [(1, 1)]
    # The key may have been lost with the end, so it is not trusted either.
    assert (await again.publish("a", draft(1, key="1"), HISTORY)).offset == (2 if is_told else 1)
    again.close()


async def test_too_much_that_waits_is_refused(path: Path) -> None:
    broker = await opened(path, max_calls=10)
    results = await asyncio.gather(
        *(broker.publish("a", draft(n), HISTORY) for n in range(15)), return_exceptions=True
    )
    assert [type(each) for each in results].count(QueueFullError) == 5
    assert len(await kept(broker)) == 10
    broker.close()
    with pytest.raises(BrokerUnavailableError):
        await broker.publish("a", draft(1), HISTORY)


async def test_what_waits_when_it_is_closed_was_not_published(path: Path) -> None:
    broker = await opened(path)
    waiting = broker.publish("a", draft(1), HISTORY)
    broker.close()
    with pytest.raises(BrokerUnavailableError):
        await waiting
    broker = await opened(path)
    assert await kept(broker) == []
    broker.close()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite://host/file",
        "sqlite:///a?sync=none",
        "sqlite:///a?mode=x",
        "sqlite:a",
    ],
)
def test_a_wrong_url_is_a_mistake_of_the_app(url: str) -> None:
    with pytest.raises(ConfigurationError):
        target_of(url)


def test_the_path_of_a_url() -> None:
    assert target_of("sqlite:///rooms.db") == ("rooms.db", "full")
    assert target_of("sqlite:////var/rooms.db?sync=normal") == ("/var/rooms.db", "normal")
