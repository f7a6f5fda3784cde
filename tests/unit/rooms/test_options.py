"""Which options of a publication go together: each cell of the table in docs/rooms.md."""

from __future__ import annotations

from typing import Any

import pytest

from symphony.protocol.positions import Position
from symphony.rooms.options import PLAIN, Delivery, check, delivery_of

SINCE = Position("e", 1)

# Whether an option is allowed: in a room without a history, for a publication that is kept, and for
# one in a room with a history that is not kept.
CELLS: list[tuple[dict[str, Any], tuple[bool, bool, bool]]] = [
    ({}, (True, True, True)),
    ({"exclude": True}, (True, False, True)),
    ({"conflate": "k"}, (True, False, True)),
    ({"key": "k"}, (False, True, False)),
    ({"replaces": SINCE}, (False, True, False)),
    ({"exclude": True, "conflate": "k"}, (True, False, True)),
    ({"key": "k", "replaces": SINCE}, (False, True, False)),
    ({"exclude": True, "key": "k"}, (False, False, False)),
    ({"exclude": True, "replaces": SINCE}, (False, False, False)),
    ({"conflate": "k", "key": "k"}, (False, False, False)),
    ({"conflate": "k", "replaces": SINCE}, (False, False, False)),
    ({"exclude": True, "conflate": "k", "key": "k", "replaces": SINCE}, (False, False, False)),
]
ROOMS = {
    "without a history": (False, {}),
    "without a history, transient": (False, {"transient": True}),
    "without a history, volatile": (False, {"volatile": True}),
    "kept": (True, {}),
    "transient": (True, {"transient": True}),
    "volatile": (True, {"volatile": True}),
    "transient and volatile": (True, {"transient": True, "volatile": True}),
}


@pytest.mark.parametrize("where", ROOMS)
@pytest.mark.parametrize(("options", "allowed"), CELLS)
def test_each_combination_is_allowed_or_refused(
    options: dict[str, Any], allowed: tuple[bool, bool, bool], where: str
):
    history, given = ROOMS[where]
    options = {**options, **given}
    column = 0 if not history else 2 if given else 1
    excludes = options.pop("exclude", False)
    delivery = delivery_of(**options)
    if allowed[column]:
        check(delivery, room="r", history=history, excludes=excludes)
    else:
        with pytest.raises(ValueError, match=r"gap in the history of 'r'|needs a history|that is kept"):
            check(delivery, room="r", history=history, excludes=excludes)


def test_no_options_are_one_object():
    assert delivery_of() is PLAIN
    assert PLAIN.is_kept


def test_volatile_implies_transient():
    assert not Delivery(volatile=True).is_kept
    assert not Delivery(transient=True).is_kept


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"conflate": 1}, TypeError),
        ({"conflate": True}, TypeError),
        ({"conflate": ""}, ValueError),
        ({"key": b"k"}, TypeError),
        ({"key": ""}, ValueError),
        ({"replaces": 7}, TypeError),
        ({"replaces": {"epoch": "e", "offset": 1}}, TypeError),
    ],
)
def test_an_option_of_another_type_is_refused(options: dict[str, Any], error: type[Exception]):
    with pytest.raises(error, match=next(iter(options))):
        delivery_of(**options)
