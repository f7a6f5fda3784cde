"""The history of a room, page by page."""

from __future__ import annotations

import msgspec
import pytest

from symphony.broker.base import Draft, History
from symphony.broker.memory import MemoryBroker
from symphony.outgoing.announced import Announced
from symphony.outgoing.encoding import V1_DIALECTS as DIALECTS
from symphony.outgoing.encoding import Content, Message, SharedEncoding
from symphony.protocol.positions import Position
from symphony.rooms.feed import Feed


class Frames:
    """An encoding that counts what it makes."""

    def __init__(self) -> None:
        self.made = 0

    def encode(self, message: Message) -> Message:
        self.made += 1
        return message

    def encode_text(self, payload: bytes) -> bytes:
        return payload

    def join(self, frames: list[bytes]) -> bytes:
        return b"".join(frames)


async def feed_of(count: int, size: int = 10) -> tuple[Feed, Position]:
    """Return a room with so many publications of a size, and the position before the first."""
    broker = MemoryBroker(max_bytes=100_000_000)
    for _ in range(count):
        top = await broker.publish(
            "a", Draft("said", msgspec.msgpack.encode("x" * size)), History(10_000, bytes=100_000_000)
        )
    delivered: list[tuple[Announced, Position]] = []
    failed: list[Exception] = []
    feed = Feed(broker, "a", lambda *each: delivered.append(each), failed.append)
    await feed.open()
    return feed, Position(top.epoch, 0)


@pytest.mark.within("rooms.feed._MAX_PAGE")
@pytest.mark.beyond("rooms.feed._MAX_PAGE")
@pytest.mark.parametrize(("count", "page"), [(99, 99), (100, 100), (101, 100), (500, 100)])
async def test_a_page_has_at_most_so_many_publications(count: int, page: int) -> None:
    feed, before = await feed_of(count)
    assert len(await feed.page(before)) == page


@pytest.mark.within("rooms.feed._MAX_PAGE_BYTES")
@pytest.mark.beyond("rooms.feed._MAX_PAGE_BYTES")
@pytest.mark.parametrize(("size", "page"), [(6_000, 10), (10_000, 6), (60_000, 1), (200_000, 1)])
async def test_a_page_has_at_most_so_many_bytes(size: int, page: int) -> None:
    feed, before = await feed_of(12, size)
    assert len(await feed.page(before)) == page


async def test_the_frames_of_each_codec_are_those_of_the_publication() -> None:
    feed, before = await feed_of(1, 2)
    page = await feed.page(before)
    for dialect, decode in zip(DIALECTS, (msgspec.json.decode, msgspec.msgpack.decode), strict=True):
        [frame] = feed.frames(page, SharedEncoding(dialect, Frames()))
        assert decode(frame) == {"event": "said", "data": "xx", "room": "a", "offset": 1}


async def test_content_is_the_same_in_json_live_and_from_the_history() -> None:
    from symphony.outgoing.encoding import Emitted

    live = Content.of(Emitted("said", {"a": [1, 2.5, None, True, "ž"], "b": b"\x00\xff"}))
    kept = Content(live.event, live.packed)
    for dialect in DIALECTS:
        assert live.data(dialect) == kept.data(dialect)
