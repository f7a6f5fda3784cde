"""Pages of a history that members share: read once, encoded once for each encoding."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from symphony.broker.base import Page, Record
from symphony.protocol.positions import Position
from symphony.rooms.pages import Excerpt, Pages
from symphony.testing import Clock

TOP = 5000


class History:
    """A history of many publications, of which the oldest may be gone."""

    def __init__(self, oldest: int = 1, page: int = 100) -> None:
        self.oldest = oldest
        self.reads: list[Position | None] = []
        self.at_once = self.most_at_once = 0
        self._page = page

    async def read(self, position: Position | None) -> Page:
        self.reads.append(position)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        first = self.oldest if position is None else position.offset + 1
        if first < self.oldest or (position is not None and position.epoch != "e"):
            return Page((), at(TOP), complete=False, end=at(TOP))
        numbers = range(first, min(first + self._page, TOP + 1))
        records = [Record(at(number), "said", str(number).encode()) for number in numbers]
        end = records[-1].position if records else at(TOP)
        return Page(records, at(TOP), complete=True, end=end)


def at(offset: int) -> Position:
    return Position("e", offset)


def offsets(page: Excerpt, encoded: list[int] | None = None) -> list[int]:
    def encode(record: Record, before: Position, encoding: Any) -> int:
        if encoded is not None:
            encoded.append(record.position.offset)
        return record.position.offset

    return page.frames("an encoding", encode)  # pyright: ignore[reportArgumentType]


async def test_a_thousand_positions_cost_a_few_reads() -> None:
    history = History()
    pages = Pages(history.read)
    encoded: list[int] = []

    async def come_back(offset: int) -> None:
        position = at(offset)
        had: list[int] = []
        while position.offset < offset + 300:
            page = await pages.after(position, at(TOP))
            assert page.complete
            had += offsets(page, encoded)
            position = page.end
        assert had == list(range(offset + 1, position.offset + 1))

    await asyncio.gather(*(come_back(4000 + index % 97) for index in range(1000)))
    assert history.most_at_once == 1
    assert len(history.reads) <= 16
    # Each is encoded once a read.
    assert len(encoded) <= 100 * len(history.reads)


@pytest.mark.within("rooms.pages._MAX_CACHED_PAGES")
@pytest.mark.beyond("rooms.pages._MAX_CACHED_PAGES")
async def test_a_number_of_pages_is_shared() -> None:
    history = History()
    pages = Pages(history.read)
    for index in range(16):
        await pages.after(at(index * 200), at(TOP))
    for index in range(16):
        assert offsets(await pages.after(at(index * 200 + 50), at(TOP)))[0] == index * 200 + 51
    assert len(history.reads) == 16
    # One more: the first is read again.
    await pages.after(at(16 * 200), at(TOP))
    await pages.after(at(15 * 200), at(TOP))
    assert len(history.reads) == 17
    await pages.after(at(0), at(TOP))
    assert len(history.reads) == 18


async def test_a_page_is_shared_for_a_short_time() -> None:
    clock = Clock.of_running_loop()
    history = History()
    pages = Pages(history.read)
    await pages.after(at(0), at(TOP))
    await clock.advance(0.9)
    await pages.after(at(10), at(TOP))
    assert len(history.reads) == 1
    await clock.advance(0.2)
    await pages.after(at(10), at(TOP))
    assert len(history.reads) == 2
    pages.forget()
    await pages.after(at(10), at(TOP))
    assert len(history.reads) == 3
    pages.forget()


async def test_a_page_from_the_oldest_serves_those_who_have_some_of_it() -> None:
    history = History(oldest=1000)
    pages = Pages(history.read)
    page = await pages.after(None, at(TOP))
    assert page.first == at(1000)
    for offset in (999, 1000, 1050, 1098):
        assert offsets(await pages.after(at(offset), at(TOP)))[0] == offset + 1
    assert len(history.reads) == 1
    for gone in (at(998), at(1), Position("another", 1050)):
        page = await pages.after(gone, at(TOP))
        assert (page.complete, len(page), page.first) == (False, 0, None)
    assert len(history.reads) == 4
    # Only the first page knows what is the oldest.
    await pages.after(None, at(TOP))
    assert len(history.reads) == 5
    pages.forget()


async def test_what_no_frame_can_be_made_of_is_left_out_and_tried_once() -> None:
    pages = Pages(History().read)
    tried: list[int] = []

    def encode(record: Record, before: Position, encoding: Any) -> int | None:
        tried.append(record.position.offset)
        return None if record.position.offset % 2 else record.position.offset

    page = await pages.after(at(0), at(TOP))
    for _ in range(2):
        frames = page.frames("an encoding", encode)  # pyright: ignore[reportArgumentType]
        assert frames == list(range(2, 101, 2))
    assert tried == list(range(1, 101))
    pages.forget()


async def test_empty_places_are_between_the_positions_that_are_encoded() -> None:
    """Each publication is encoded with the position before it, also for those who are in between."""

    async def read(position: Position | None) -> Page:
        reads.append(position)
        records = [Record(at(number), "said", b"") for number in (5, 9, 10)]
        return Page(records, at(TOP), complete=True, end=at(12))

    def encode(record: Record, before: Position, encoding: Any) -> tuple[int, int]:
        return before.offset, record.position.offset

    reads: list[Position | None] = []
    pages = Pages(read)
    for position, frames in [
        (2, [(2, 5), (5, 9), (9, 10)]),
        (4, [(2, 5), (5, 9), (9, 10)]),
        (5, [(5, 9), (9, 10)]),
        (7, [(5, 9), (9, 10)]),
        (9, [(9, 10)]),
        (10, []),
        (11, []),
    ]:
        page = await pages.after(at(position), at(TOP))
        assert page.frames("an encoding", encode) == frames  # pyright: ignore[reportArgumentType]
        assert page.end == at(12)
    assert reads == [at(2)]
    await pages.after(at(12), at(TOP))
    assert len(reads) == 2
    pages.forget()
