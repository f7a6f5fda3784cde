from __future__ import annotations

from itertools import permutations
from typing import Any

import msgspec
import pytest

from symphony.errors import ConfigurationError, Reject
from symphony.protocol.envelopes import Event
from symphony.protocol.reading import UNREADABLE
from symphony.routing.events import EventTable, names_in, payload_of
from symphony.routing.plan import EVENT, NAMED_EVENT
from unit.routing.stages import CONNECT, Socket, on_message

RAW = {
    "json": lambda value: msgspec.Raw(msgspec.json.encode(value)),
    "msgpack": lambda value: msgspec.Raw(msgspec.msgpack.encode(value)),
    "plain": lambda value: value,
}


def add(table: EventTable, event: str, handler: Any) -> None:
    plan = on_message(handler, known=CONNECT, payload=payload_of(event), pattern_names=names_in(event))
    table.add(event, plan, plan.call)


def table_of(*events: str) -> EventTable:
    """Make a table whose handlers give back the name they stand for."""
    table = EventTable("plain", lambda name, names: None)
    for event in events:
        plan = on_message(lambda data: data, payload=payload_of(event), pattern_names=names_in(event))
        table.add(event, plan, lambda socket, subject, event=event: event)
    return table


ALL = ("a.b", "a.{x}", "a.{x:int}", "*")


@pytest.mark.parametrize("order", list(permutations(ALL)))
def test_the_most_specific_wins_in_any_order(order: tuple[str, ...]) -> None:
    table = table_of(*order)
    chosen = {name: table.handle(None, Event(name, None)) for name in ("a.b", "a.c", "a.7", "b", "a.b.c")}
    assert chosen == {"a.b": "a.b", "a.c": "a.{x}", "a.7": "a.{x:int}", "b": "*", "a.b.c": "*"}


def test_without_a_handler_it_is_not_found_and_names_the_event_in_short() -> None:
    table = table_of("a")
    with pytest.raises(Reject) as caught:
        table.handle(None, Event("b", None))
    assert (caught.value.code, caught.value.details) == ("not_found", {"event": "b"})
    with pytest.raises(Reject) as caught:
        table.handle(None, Event("b" * 256, None))
    assert len(caught.value.details["event"]) < 256


def test_two_patterns_of_the_same_names_are_refused() -> None:
    table = table_of("a.{x}")
    with pytest.raises(ConfigurationError, match="matches the same as"):
        add(table, "a.{y}", lambda data: data)


def test_the_payload_of_a_pattern_is_in_its_subject() -> None:
    assert (payload_of("a"), payload_of("a.{x}"), payload_of("*")) == (EVENT, NAMED_EVENT, NAMED_EVENT)
    assert (names_in("a"), names_in("a.{x:int}"), names_in("*")) == ({}, {"x": "int"}, {"event": "str"})


@pytest.mark.parametrize("kind", RAW)
async def test_data_and_parameters_are_read(kind: str) -> None:
    table = EventTable(kind, lambda name, names: None)

    async def exact(data: list[int]) -> Any:
        return data

    async def pattern(x: int, data: list[int]) -> Any:
        return x, data

    async def rest(event: str) -> Any:
        return event

    add(table, "exact", exact)
    add(table, "pattern.{x:int}", pattern)
    add(table, "*", rest)
    data = RAW[kind]([1, 2])
    assert await table.handle(Socket(), Event("exact", data)) == [1, 2]
    assert await table.handle(Socket(), Event("pattern.3", data)) == (3, [1, 2])
    # What takes no payload reads none, whatever it is.
    assert await table.handle(Socket(), Event("other", msgspec.Raw(b"\xc1"))) == "other"
    for event in ("exact", "pattern.3"):
        with pytest.raises(Reject) as caught:
            table.handle(Socket(), Event(event, RAW[kind]([1, "x"])))
        assert (caught.value.code, caught.value.details) == ("invalid", {"path": "$[1]"})


@pytest.mark.parametrize("error", UNREADABLE)
async def test_what_the_body_of_a_handler_raises_is_its_own(error: type[Exception]) -> None:
    table = EventTable("plain", lambda name, names: None)

    async def handler() -> None:
        raise error("of the body")

    add(table, "a", handler)
    with pytest.raises(error):
        await table.handle(Socket(), Event("a", None))
