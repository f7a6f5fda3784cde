"""What a node and the broker of another process say to each other, and the contract of a link.

A link carries whole messages. Each is a MessagePack array.

A node sends calls: `[number, floor, method, *arguments]`. The numbers of one node rise, also
over several links. All its calls below *floor* are answered, so their answers need not be
kept. A call with the number 0 has no answer. The first message is
`[0, 0, "hello", name, process, last]`: the random name of the node, the id of its process, and
the number of the last numbered message that it has, or -1. The last one of a node that stops is
`[0, 0, "bye"]`.

The broker sends the messages of `Said`. The first is `WELCOME`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import IntEnum
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from symphony.broker.base import Draft, History, Key, Page, Record
from symphony.protocol.positions import Position

__all__ = (
    "MAX_MESSAGE_BYTES",
    "Dial",
    "Link",
    "LinkEnd",
    "Said",
    "decode",
    "encode",
    "pack_draft",
    "pack_history",
    "pack_page",
    "pack_position",
    "pack_record",
    "unpack_draft",
    "unpack_history",
    "unpack_page",
    "unpack_position",
    "unpack_record",
)

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""The largest message on a link."""


class Said(IntEnum):
    """What a message of the broker is: its first element.

    Attributes:
        WELCOME: `[life, known, complete, last]`: which life of the broker it is; whether it
            remembers the answers that this node may have missed; whether all numbered messages
            follow that it has missed; the number of the last one of these.
        ANSWER: `[number, result]`.
        ERROR: `[number, kind, text]`.
        PUBLISHED: `[room, *record]`.
        RELAYED: `[topic, message]`, and a number if the broker keeps the message for nodes whose
            link is interrupted.
    """

    WELCOME = 0
    ANSWER = 1
    ERROR = 2
    PUBLISHED = 3
    RELAYED = 4


class Link(Protocol):
    """One connection between a node and the broker.

    Messages arrive whole and in order, or the link ends.

    Attributes:
        size: How many bytes were sent and are not written yet.
    """

    @property
    def size(self) -> int:
        """See the attributes of the class."""
        ...

    def send(self, message: bytes) -> None:
        """Send a message. It is lost if the link has ended."""
        ...

    def drained(self) -> Awaitable[None]:
        """Return what waits until much less is unsent, or the link has ended."""
        ...

    def close(self) -> None:
        """End the link at once. `LinkEnd.lost` is called later, if it was not called yet."""
        ...

    def finish(self) -> None:
        """End the link after what was sent, if the other side reads."""
        ...


class LinkEnd(Protocol):
    """What takes the messages of a link."""

    def received(self, message: bytes) -> None:
        """Take a message. It must not raise."""
        ...

    def lost(self) -> None:
        """Learn that the link has ended, whichever side has ended it. Called once."""
        ...


Dial: TypeAlias = "Callable[[LinkEnd], Awaitable[Link]]"
"""Connects to the broker. Raises `OSError` if that fails."""

encode: Final = msgspec.msgpack.Encoder().encode
decode: Final = msgspec.msgpack.Decoder().decode


def pack_position(position: Position | None) -> tuple[str, int] | None:
    """Return a position as it is sent."""
    return None if position is None else (position.epoch, position.offset)


def unpack_position(packed: Sequence[Any] | None) -> Position | None:
    """Return the position that was sent."""
    return None if packed is None else Position(packed[0], packed[1])


def pack_draft(draft: Draft) -> tuple[Any, ...]:
    """Return a draft as it is sent, without its source."""
    key = None if draft.key is None else tuple(draft.key)
    return draft.event, draft.payload, key, pack_position(draft.replaces)


def unpack_draft(packed: Sequence[Any], source: Any) -> Draft:
    """Return the draft that was sent."""
    event, payload, key, replaces = packed
    return Draft(event, payload, source, None if key is None else Key(*key), unpack_position(replaces))


def pack_record(record: Record) -> tuple[Any, ...]:
    """Return a record as it is sent, without its source."""
    epoch, offset = record.position.epoch, record.position.offset
    return epoch, offset, record.event, record.payload, pack_position(record.replaces)


def unpack_record(packed: Sequence[Any]) -> Record:
    """Return the record that was sent."""
    epoch, offset, event, payload, replaces = packed
    return Record(Position(epoch, offset), event, payload, replaces=unpack_position(replaces))


def pack_page(page: Page) -> tuple[Any, ...]:
    """Return a page as it is sent."""
    records = [pack_record(record) for record in page.records]
    return records, pack_position(page.top), page.complete, pack_position(page.end)


def unpack_page(packed: Sequence[Any]) -> Page:
    """Return the page that was sent."""
    records, top, complete, end = packed
    return Page([unpack_record(each) for each in records], Position(*top), complete, Position(*end))


def pack_history(history: History) -> tuple[Any, ...]:
    """Return how much a room keeps, as it is sent."""
    return history.size, history.ttl, history.bytes


def unpack_history(packed: Sequence[Any]) -> History:
    """Return how much a room keeps, as it was sent."""
    size, ttl, most = packed
    return History(size, ttl=ttl, bytes=most)
