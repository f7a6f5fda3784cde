"""The members in the file of the `sqlite://` broker. All functions block."""

from __future__ import annotations

import sqlite3
from typing import Final

from symphony.broker.attendance import Decision
from symphony.broker.memberchanges import KeptMember, MemberChanges

__all__ = ("SCHEMA", "read_decisions", "read_members", "write")

# A member keeps its row, and with it its place, when something of it changes.
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS members (
    number INTEGER PRIMARY KEY AUTOINCREMENT, room TEXT, member TEXT, arrival TEXT, anonymous INTEGER,
    info BLOB, counts INTEGER, grace REAL, UNIQUE (room, member)
);
CREATE TABLE IF NOT EXISTS decisions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, room TEXT, kind TEXT, member TEXT, arrival TEXT,
    anonymous INTEGER, info BLOB
);
"""

_KEEP: Final = """
INSERT INTO members (room, member, arrival, anonymous, info, counts, grace) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (room, member) DO UPDATE SET
    arrival = excluded.arrival, info = excluded.info, counts = excluded.counts, grace = excluded.grace
"""

_OWE: Final = """
INSERT OR IGNORE INTO decisions (id, room, kind, member, arrival, anonymous, info)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""


def read_members(database: sqlite3.Connection) -> list[KeptMember]:
    """Return the members, the one that arrived first is the first."""
    query = "SELECT room, member, arrival, anonymous, info, counts, grace FROM members ORDER BY number"
    return [
        KeptMember(room, member, arrival, bool(anonymous), info, bool(counts), grace)
        for room, member, arrival, anonymous, info, counts, grace in database.execute(query)
    ]


def read_decisions(database: sqlite3.Connection) -> list[Decision]:
    """Return the decisions whose hooks are not acknowledged, the oldest first."""
    query = "SELECT id, room, kind, member, arrival, anonymous, info FROM decisions ORDER BY number"
    return [
        Decision(id, room, kind, member, arrival, bool(anonymous), info)
        for id, room, kind, member, arrival, anonymous, info in database.execute(query)
    ]


def write(database: sqlite3.Connection, changes: MemberChanges) -> None:
    """Store changes, inside a transaction."""
    database.executemany("DELETE FROM members WHERE room = ? AND member = ?", changes.gone)
    database.executemany(_KEEP, changes.kept.values())
    database.executemany(_OWE, changes.owed.values())
    database.executemany("DELETE FROM decisions WHERE id = ?", [(id,) for id in changes.settled])
