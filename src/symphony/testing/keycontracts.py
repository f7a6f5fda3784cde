"""The tests of a broker that are about keys and replacements."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec.structs import replace

from symphony.broker.base import Broker, Draft, History, Key, Record
from symphony.errors import Reject
from symphony.protocol.positions import Position
from symphony.testing.drafts import PAGE, content, data_of, draft, read_all

__all__ = (
    "KEYS",
    "a_key_and_a_replacement_are_one_edit",
    "a_key_belongs_to_its_publisher_and_room",
    "a_key_is_known_after_its_publication",
    "a_repeat_has_the_position_of_the_first",
    "a_replaced_publication_leaves_its_place_empty",
    "an_empty_place_does_not_count_as_lost",
    "another_content_with_the_same_key_is_a_conflict",
    "of_a_chain_of_replacements_only_the_last_is_kept",
    "what_replaces_something_unknown_is_published",
)

_LARGE: Final = History(1000)


async def a_repeat_has_the_position_of_the_first(broker: Broker) -> None:
    """It is neither kept nor passed on, even if the first is no longer kept."""
    heard: list[Record] = []
    await broker.subscribe("a", heard.append)
    first = await broker.publish("a", _keyed("ann", "k1", "hi"), History(2))
    other = await broker.publish("a", _keyed("ann", "k2", "hi"), History(2))
    assert [first.offset, other.offset] == [1, 2]
    assert await broker.publish("a", _keyed("ann", "k1", "hi"), History(2)) == first
    await broker.publish("a", draft("bye"), History(2))
    assert await broker.publish("a", _keyed("ann", "k1", "hi"), History(2)) == first
    assert await read_all(broker, "a") == ["hi", "bye"]
    assert content(heard) == ["hi", "hi", "bye"]


async def a_key_belongs_to_its_publisher_and_room(broker: Broker) -> None:
    """Others may use the same one."""
    offsets = [
        (await broker.publish(room, _keyed(publisher, "k", "hi"), _LARGE)).offset
        for room, publisher in (("a", "ann"), ("a", "bob"), ("b", "ann"))
    ]
    assert offsets == [1, 2, 1]


async def a_key_is_known_after_its_publication(broker: Broker) -> None:
    """To ask for it publishes nothing, and a key of others or of another room is not known."""
    keyed = _keyed("ann", "k", "hi")
    assert keyed.key is not None
    assert await broker.known("a", keyed.key) is None
    first = await broker.publish("a", keyed, History(1))
    await broker.publish("a", draft("bye"), History(1))
    assert await broker.known("a", keyed.key) == first
    assert await broker.known("b", keyed.key) is None
    for other in (keyed.key._replace(publisher="bob"), keyed.key._replace(key="k2")):
        assert await broker.known("a", other) is None
    assert await _code(broker.known("a", keyed.key._replace(digest=b"another"))) == "conflict"
    assert await read_all(broker, "a") == ["bye"]


async def another_content_with_the_same_key_is_a_conflict(broker: Broker) -> None:
    """Nothing is published, and the key stays what it was."""
    first = await broker.publish("a", _keyed("ann", "k", "hi"), _LARGE)
    assert await _refusal(broker, "a", _keyed("ann", "k", "bye")) == "conflict"
    assert await read_all(broker, "a") == ["hi"]
    assert await broker.publish("a", _keyed("ann", "k", "hi"), _LARGE) == first


async def a_replaced_publication_leaves_its_place_empty(broker: Broker) -> None:
    """The replacement has a new position, and pages cover the empty place."""
    heard: list[Record] = []
    await broker.subscribe("a", heard.append)
    one, two, three = [await broker.publish("a", draft(number), _LARGE) for number in (1, 2, 3)]
    edit = await broker.publish("a", _replacing(two, "two"), _LARGE)
    assert edit.offset == 4
    assert heard[-1].replaces == two
    page = await broker.after("a", None, limit=10, max_bytes=PAGE)
    assert (content(page.records), page.complete, page.end) == ([1, 3, "two"], True, edit)
    assert [(record.position.offset, record.replaces) for record in page.records] == [
        (1, None),
        (3, None),
        (4, two),
    ]
    for after in (one, two):
        page = await broker.after("a", after, limit=1, max_bytes=PAGE)
        assert (content(page.records), page.complete, page.end) == ([3], True, three)
    page = await broker.after("a", three, limit=1, max_bytes=PAGE)
    assert (content(page.records), page.complete, page.end) == (["two"], True, edit)
    page = await broker.before("a", edit, limit=10)
    assert (content(page.records), page.end) == ([1, 3], three)
    page = await broker.before("a", three, limit=10)
    assert (content(page.records), page.end) == ([1], two)


async def of_a_chain_of_replacements_only_the_last_is_kept(broker: Broker) -> None:
    """It replaces the first of the chain, whichever was named."""
    first = await broker.publish("a", draft(1), _LARGE)
    await broker.publish("a", draft("between"), _LARGE)
    second = await broker.publish("a", _replacing(first, 2), _LARGE)
    third = await broker.publish("a", _replacing(second, 3), _LARGE)
    assert await _replaced(broker, "a") == [("between", None), (3, first)]
    await broker.publish("a", _replacing(first, 4), _LARGE)
    assert await _replaced(broker, "a") == [("between", None), (4, first)]
    # The third is not kept any more, so nothing says what it stood for.
    await broker.publish("a", _replacing(third, 5), _LARGE)
    assert await _replaced(broker, "a") == [("between", None), (4, first), (5, third)]


async def what_replaces_something_unknown_is_published(broker: Broker) -> None:
    """It was trimmed, never there, or is of another epoch."""
    positions = [await broker.publish("a", draft(number), History(2)) for number in range(3)]
    epoch = positions[0].epoch
    unknown = [positions[0], Position(epoch, 1000), Position("another", 2)]
    for number, position in enumerate(unknown, start=4):
        assert (await broker.publish("a", _replacing(position, number), History(5))).offset == number
    assert await _replaced(broker, "a") == [(1, None), (2, None)] + [
        (number, position) for number, position in enumerate(unknown, start=4)
    ]
    # And each can be replaced in its turn.
    for number, position in enumerate(unknown, start=7):
        await broker.publish("a", _replacing(position, number), History(5))
    assert await _replaced(broker, "a") == [(1, None), (2, None)] + [
        (number, position) for number, position in enumerate(unknown, start=7)
    ]


async def an_empty_place_does_not_count_as_lost(broker: Broker) -> None:
    """A member that stands before, at or after it has missed nothing; one before the oldest has."""
    history = History(2)
    positions = [await broker.publish("a", draft(number), history) for number in (1, 2)]
    for number in (3, 4, 5):
        positions.append(await broker.publish("a", _replacing(positions[1], number), history))
    for position in positions[:4]:
        page = await broker.after("a", position, limit=10, max_bytes=PAGE)
        expected = [5]
        assert (content(page.records), page.complete, page.end) == (expected, True, positions[4])
    top = await broker.publish("a", draft(6), history)
    page = await broker.after("a", positions[0], limit=10, max_bytes=PAGE)
    assert (content(page.records), page.complete, page.end) == ([5, 6], True, top)
    await broker.publish("a", draft(7), history)
    page = await broker.after("a", positions[4], limit=10, max_bytes=PAGE)
    assert (content(page.records), page.complete) == ([6, 7], True)
    page = await broker.after("a", positions[3], limit=10, max_bytes=PAGE)
    assert (list(page.records), page.complete) == ([], False)


async def a_key_and_a_replacement_are_one_edit(broker: Broker) -> None:
    """It is done once."""
    first = await broker.publish("a", draft(1), _LARGE)
    edit = replace(_keyed("ann", "k", 2), replaces=first)
    position = await broker.publish("a", edit, _LARGE)
    await broker.publish("a", _replacing(first, 3), _LARGE)
    assert await broker.publish("a", edit, _LARGE) == position
    assert await _replaced(broker, "a") == [(3, first)]


KEYS: Final[tuple[Callable[[Broker], Awaitable[None]], ...]] = (
    a_repeat_has_the_position_of_the_first,
    a_key_belongs_to_its_publisher_and_room,
    a_key_is_known_after_its_publication,
    another_content_with_the_same_key_is_a_conflict,
    a_replaced_publication_leaves_its_place_empty,
    of_a_chain_of_replacements_only_the_last_is_kept,
    what_replaces_something_unknown_is_published,
    an_empty_place_does_not_count_as_lost,
    a_key_and_a_replacement_are_one_edit,
)
"""What each broker does; each function takes a broker that is new."""


def _keyed(publisher: str, key: str, data: object) -> Draft:
    made = draft(data)
    return replace(made, key=Key(publisher, key, made.payload))


def _replacing(position: Position, data: object) -> Draft:
    return replace(draft(data), replaces=position)


async def _refusal(broker: Broker, room: str, draft: Draft) -> str | None:
    async def publish() -> Position:
        return await broker.publish(room, draft, _LARGE)

    return await _code(publish())


async def _code(call: Awaitable[Position | None]) -> str | None:
    try:
        await call
    except Reject as refusal:
        return refusal.code
    return None


async def _replaced(broker: Broker, room: str) -> list[tuple[object, Position | None]]:
    page = await broker.after(room, None, limit=1000, max_bytes=PAGE)
    return [(data_of(record), record.replaces) for record in page.records]
