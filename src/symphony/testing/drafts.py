"""Publications for the contract tests of brokers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from symphony.broker.base import Broker, Draft, Record

__all__ = ("PAGE", "content", "data_of", "draft", "read_all")

PAGE: Final = 1_000_000
"""More bytes than a test publishes."""


def draft(data: object, event: str | None = "said") -> Draft:
    """Return a publication."""
    return Draft(event, msgspec.msgpack.encode(data))


def data_of(record: Record) -> object:
    """Return the data of a publication."""
    return msgspec.msgpack.decode(record.payload)


def content(records: Sequence[Record]) -> list[object]:
    """Return the data of publications."""
    return [data_of(record) for record in records]


async def read_all(broker: Broker, room: str) -> list[object]:
    """Return the data of all publications that a room keeps."""
    page = await broker.after(room, None, limit=1000, max_bytes=PAGE)
    assert page.complete
    return content(page.records)
