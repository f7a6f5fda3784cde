"""How publications and positions stand in a Redis server.

A publication is a blob: the length of its event in four bytes, the event, the payload. A position
is its epoch and its offset, with a space between.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any, Final

from symphony.broker.base import Draft, Key, Page, Record
from symphony.protocol.positions import Position

__all__ = (
    "DIGEST_BYTES",
    "digest_of",
    "key_of",
    "pack_draft",
    "pack_position",
    "page_of",
    "position_of",
    "unpack_position",
    "unpack_record",
)

DIGEST_BYTES: Final = 16
"""The bytes of what `digest_of` returns."""

_LENGTH: Final = Struct(">I")
_NO_EVENT: Final = 0xFFFFFFFF
_NO_DIGEST: Final = bytes(DIGEST_BYTES)


def pack_draft(draft: Draft) -> bytes:
    """Return the blob of a publication."""
    event = draft.event
    if event is None:
        return _LENGTH.pack(_NO_EVENT) + draft.payload
    name = event.encode()
    return _LENGTH.pack(len(name)) + name + draft.payload


def unpack_record(position: Position, blob: bytes, replaces: bytes | str, source: Any = None) -> Record:
    """Return the publication at a position."""
    (length,) = _LENGTH.unpack_from(blob)
    start = _LENGTH.size
    if length == _NO_EVENT:
        return Record(position, None, blob[start:], source, unpack_position(replaces))
    event = blob[start : start + length].decode()
    return Record(position, event, blob[start + length :], source, unpack_position(replaces))


def digest_of(key: Key) -> bytes:
    """Return a digest of what was to be published; its length is always the same."""
    return blake2b(key.digest, digest_size=DIGEST_BYTES).digest() if key.digest else _NO_DIGEST


def key_of(key: Key) -> str:
    """Return how the name of a key in the server ends."""
    return f"k:{len(key.publisher)}:{key.publisher}:{key.key}"


def pack_position(position: Position | None) -> str:
    """Return a position as text; empty: none."""
    return "" if position is None else f"{position.epoch} {position.offset}"


def unpack_position(packed: bytes | str) -> Position | None:
    """Return the position of a text; `None`: it is empty."""
    text = packed if isinstance(packed, str) else packed.decode()
    if not text:
        return None
    epoch, _, offset = text.rpartition(" ")
    return Position(epoch, int(offset))


def position_of(epoch: bytes, offset: bytes) -> Position:
    """Return the position in an answer."""
    return Position(epoch.decode(), int(offset))


def page_of(answer: Sequence[Any]) -> Page:
    """Return the page in an answer."""
    epoch, top, complete, end, entries = answer
    of = epoch.decode()
    records = [unpack_record(Position(of, int(offset)), blob, replaces) for offset, blob, replaces in entries]
    return Page(records, Position(of, int(top)), bool(complete), Position(of, int(end)))
