"""The keys of publications."""

from __future__ import annotations

import logging

import pytest

from symphony.broker import keys
from symphony.broker.base import Key
from symphony.broker.keys import KEY_WINDOW, Keys
from symphony.errors import Reject
from symphony.protocol.positions import Position


def key(name: str, digest: bytes = b"x") -> Key:
    return Key("ann", name, digest)


def remembered(table: Keys, names: list[str], now: float = 0.0) -> list[str]:
    return [name for name in names if table.find("a", key(name), now) is not None]


def test_a_key_is_remembered_for_the_window() -> None:
    table = Keys()
    table.remember("a", key("first"), Position("e", 1), 0.0)
    table.remember("a", key("second"), Position("e", 2), 10.0)
    assert table.find("a", key("first"), KEY_WINDOW - 0.1) == Position("e", 1)
    assert table.find("a", key("first"), KEY_WINDOW) is None
    assert table.find("a", key("second"), KEY_WINDOW + 9) == Position("e", 2)
    assert table.find("a", key("second"), KEY_WINDOW + 10) is None
    assert (len(table), table.size, table.forgotten) == (0, 0, 0)


def test_another_digest_is_a_conflict_until_the_window_has_passed() -> None:
    table = Keys()
    table.remember("a", key("k"), Position("e", 1), 0.0)
    with pytest.raises(Reject) as refused:
        table.find("a", key("k", b"y"), KEY_WINDOW - 1)
    assert (refused.value.code, refused.value.details) == ("conflict", {"key": "k"})
    assert table.find("a", key("k", b"y"), KEY_WINDOW) is None


@pytest.mark.within("broker.keys._MAX_KEYS")
@pytest.mark.beyond("broker.keys._MAX_KEYS")
def test_above_a_number_the_oldest_key_is_forgotten_and_it_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keys, "_MAX_KEYS", 3)
    table, names = Keys(), ["1", "2", "3", "4", "5"]
    for offset, name in enumerate(names[:3]):
        table.remember("a", key(name), Position("e", offset), 0.0)
    assert (remembered(table, names), table.forgotten) == (["1", "2", "3"], 0)
    with caplog.at_level(logging.WARNING):
        for offset, name in enumerate(names[3:], start=4):
            table.remember("a", key(name), Position("e", offset), 0.0)
    assert (remembered(table, names), table.forgotten) == (["3", "4", "5"], 2)
    assert len(caplog.records) == 1


@pytest.mark.within("broker.keys._MAX_KEY_BYTES")
@pytest.mark.beyond("broker.keys._MAX_KEY_BYTES")
def test_above_a_number_of_bytes_the_oldest_keys_are_forgotten(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keys, "_MAX_KEY_BYTES", 5000)
    table, names = Keys(), [letter * 1000 for letter in "abcd"]
    for offset, name in enumerate(names[:3]):
        table.remember("a", key(name), Position("e", offset), 0.0)
    assert (remembered(table, names), table.forgotten) == (names[:3], 0)
    with caplog.at_level(logging.WARNING):
        table.remember("a", key(names[3]), Position("e", 4), 0.0)
    assert (remembered(table, names), table.forgotten) == (names[1:], 1)
    assert table.size <= 5000
