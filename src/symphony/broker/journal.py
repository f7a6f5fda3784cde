"""The file of the `sqlite://` broker: what it has, and how a batch of changes is stored.

All functions block. They run in the broker's own thread.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from symphony.broker.attendance import Decision
from symphony.broker.base import History, Key, Record
from symphony.broker.memberchanges import KeptMember, MemberChanges
from symphony.broker.memberrows import SCHEMA, read_decisions, read_members, write
from symphony.errors import ConfigurationError
from symphony.protocol.positions import Position

__all__ = ("Batch", "Journal", "StoredKey", "StoredRoom")

_VERSION: Final = 1

# How long another process may take to close the file, such as one that is being replaced.
_LOCK_PATIENCE: Final = 2.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS life (version INTEGER, machine TEXT, is_safe INTEGER, first_epoch TEXT);
CREATE TABLE IF NOT EXISTS rooms (
    name TEXT PRIMARY KEY, epoch TEXT, top INTEGER, floor INTEGER, size INTEGER, ttl REAL, bytes INTEGER,
    used REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    room TEXT, offset INTEGER, at REAL, event TEXT, payload BLOB, epoch TEXT, first INTEGER,
    PRIMARY KEY (room, offset)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
    room TEXT, publisher TEXT, key TEXT, digest BLOB, epoch TEXT, offset INTEGER, at REAL,
    PRIMARY KEY (room, publisher, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS keys_by_time ON keys (at);
"""


class StoredRoom(NamedTuple):
    """A room in the file.

    Attributes:
        name: Its name.
        top: The position of its last publication.
        floor: The offset up to which publications may have been trimmed.
        history: How much it keeps.
        records: What it keeps, each with its age in seconds.
    """

    name: str
    top: Position
    floor: int
    history: History
    records: Sequence[tuple[float, Record]]


class StoredKey(NamedTuple):
    """A key in the file, with its age in seconds."""

    room: str
    key: Key
    position: Position
    age: float


class Batch:
    """Changes that are stored together, or not at all."""

    __slots__ = ("first_epoch", "floors", "forgotten", "keys", "members", "records", "rooms", "trims")

    def __init__(self) -> None:
        self.rooms: dict[str, tuple[Any, ...]] = {}
        self.records: list[tuple[Any, ...]] = []
        self.keys: list[tuple[Any, ...]] = []
        self.trims: list[tuple[str, int, int]] = []
        self.floors: list[tuple[int, str]] = []
        self.forgotten: list[tuple[str]] = []
        self.first_epoch: str | None = None
        self.members = MemberChanges()

    def __bool__(self) -> bool:
        return bool(self.rooms or self.records or self.trims or self.forgotten or self.members)

    def add_room(self, name: str, top: Position, floor: int, history: History) -> None:
        """Store the position of a room, and how much it keeps."""
        self.rooms[name] = (
            name, top.epoch, top.offset, floor, history.size, history.ttl, history.bytes, time.time(),
        )  # fmt: skip

    def add_record(self, room: str, record: Record) -> None:
        """Store a publication."""
        first = record.replaces
        self.records.append(
            (
                room,
                record.position.offset,
                time.time(),
                record.event,
                record.payload,
                None if first is None else first.epoch,
                None if first is None else first.offset,
            )
        )

    def add_key(self, room: str, key: Key, position: Position) -> None:
        """Store the key of a publication."""
        self.keys.append(
            (room, key.publisher, key.key, key.digest, position.epoch, position.offset, time.time())
        )

    def remove(self, room: str, offset: int) -> None:
        """Remove a publication that is replaced."""
        self.trims.append((room, offset - 1, offset))

    def trim(self, room: str, floor: int) -> None:
        """Remove the publications up to an offset."""
        self.trims.append((room, 0, floor))
        self.floors.append((floor, room))


class Journal:
    """One open file.

    Args:
        path: The file, which is made if it is not there.
        sync: `"full"`: a batch that is stored survives a crash of the machine. `"normal"`: it
            survives a crash of the process.

        new_epoch: Makes a text that was never used as an epoch.

    Attributes:
        may_have_lost: Whether publications that were acknowledged may be missing.
        first_epoch: The epoch of rooms to which nothing was ever published.

    Raises:
        ConfigurationError: The file cannot be opened, is in use, or is no file of a broker.
    """

    def __init__(self, path: str, sync: Literal["full", "normal"], new_epoch: Callable[[], str]) -> None:
        self._new_epoch = new_epoch
        try:
            self._database = database = sqlite3.connect(
                path, timeout=_LOCK_PATIENCE, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise ConfigurationError(f"The file of the broker, {path}, cannot be opened: {error}.") from None
        try:
            # In this mode no other process can open it, from here until it is closed.
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(f"PRAGMA synchronous = {'FULL' if sync == 'full' else 'NORMAL'}")
            if sync == "full":
                # macOS: an `fsync` that reaches the disk.
                database.execute("PRAGMA fullfsync = 1")
            database.execute("PRAGMA journal_size_limit = 67108864")
            database.executescript(_SCHEMA + SCHEMA)
            database.execute("BEGIN IMMEDIATE")
            self.first_epoch = new_epoch()
            self.may_have_lost = self._begin_life(sync)
            database.execute("COMMIT")
        except sqlite3.Error as error:
            database.close()
            if "locked" in str(error):
                raise ConfigurationError(
                    f"The file of the broker, {path}, is used by another process. Several workers share one "
                    "broker: name it on the command line, `symphony run --workers N --broker …`."
                ) from None
            raise ConfigurationError(
                f"The file of the broker, {path}, cannot be used: {error}. If it is damaged, move it away. "
                "Rooms then begin anew."
            ) from None

    def rooms(self) -> Iterator[StoredRoom]:
        """Yield all rooms, those that were used least recently first."""
        now = time.time()
        query = "SELECT name, epoch, top, floor, size, ttl, bytes FROM rooms ORDER BY used"
        for name, epoch, top, floor, size, ttl, most in self._database.execute(query).fetchall():
            found = self._database.execute(
                "SELECT offset, at, event, payload, epoch, first FROM records WHERE room = ? ORDER BY offset",
                (name,),
            )
            records = [
                (
                    max(now - at, 0.0),
                    Record(
                        Position(epoch, offset),
                        event,
                        payload,
                        replaces=None if replaced is None else Position(replaced, first),
                    ),
                )
                for offset, at, event, payload, replaced, first in found
            ]
            yield StoredRoom(name, Position(epoch, top), floor, History(size, ttl=ttl, bytes=most), records)

    def keys(self, window: float) -> Iterator[StoredKey]:
        """Yield the keys of the last *window* seconds, the oldest first."""
        now = time.time()
        query = "SELECT room, publisher, key, digest, epoch, offset, at FROM keys WHERE at > ? ORDER BY at"
        for room, publisher, key, digest, epoch, offset, at in self._database.execute(query, (now - window,)):
            yield StoredKey(room, Key(publisher, key, digest), Position(epoch, offset), max(now - at, 0.0))

    def members(self) -> list[KeptMember]:
        """Return the members of rooms, the one that arrived first is the first."""
        return read_members(self._database)

    def decisions(self) -> list[Decision]:
        """Return the decisions about members whose hooks are not acknowledged."""
        return read_decisions(self._database)

    def store(self, batch: Batch) -> None:
        """Store a batch: when this returns, it is safe.

        Raises:
            sqlite3.Error: Nothing of it was stored.
        """
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        try:
            self._write(database, batch)
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def expire(self, window: float) -> None:
        """Remove the keys that are older than *window* seconds."""
        self._database.execute("DELETE FROM keys WHERE at <= ?", (time.time() - window,))

    def begin_epochs(self) -> None:
        """Begin a new life of each room, and forget the keys."""
        database = self._database
        names = database.execute("SELECT name FROM rooms").fetchall()
        database.execute("BEGIN IMMEDIATE")
        database.executemany(
            "UPDATE rooms SET epoch = ? WHERE name = ?", [(self._new_epoch(), name) for (name,) in names]
        )
        database.execute("DELETE FROM keys")
        database.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        try:
            self._database.execute("UPDATE life SET is_safe = 1")
        finally:
            self._database.close()

    def _write(self, database: sqlite3.Connection, batch: Batch) -> None:
        database.executemany(
            "INSERT OR REPLACE INTO rooms VALUES (?, ?, ?, ?, ?, ?, ?, ?)", batch.rooms.values()
        )
        database.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", batch.records)
        database.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?, ?)", batch.keys)
        database.executemany("DELETE FROM records WHERE room = ? AND offset > ? AND offset <= ?", batch.trims)
        database.executemany("UPDATE rooms SET floor = max(floor, ?) WHERE name = ?", batch.floors)
        database.executemany("DELETE FROM rooms WHERE name = ?", batch.forgotten)
        database.executemany("DELETE FROM records WHERE room = ?", batch.forgotten)
        write(database, batch.members)
        if batch.first_epoch is not None:
            database.execute("UPDATE life SET first_epoch = ?", (batch.first_epoch,))

    def _begin_life(self, sync: str) -> bool:
        """Note that the file is in use; return whether acknowledged publications may be missing."""
        database = self._database
        found = database.execute("SELECT version, machine, is_safe, first_epoch FROM life").fetchone()
        machine = _boot_id()
        lost = False
        if found is not None:
            version, before, is_safe, first_epoch = found
            if version != _VERSION:
                raise sqlite3.DatabaseError(f"it is of another version ({version})")
            lost = not is_safe and (machine is None or machine != before)
            if not lost:
                self.first_epoch = first_epoch
        # With `full`, what was acknowledged is safe at any time.
        database.execute("DELETE FROM life")
        values = _VERSION, machine, sync == "full", self.first_epoch
        database.execute("INSERT INTO life VALUES (?, ?, ?, ?)", values)
        return lost


def _boot_id() -> str | None:
    """Return what names the time since the machine was started, where that is known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
