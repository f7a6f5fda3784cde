"""From bytes to keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony.cli.connect.keys import Key, Keys


def keys(*pieces: bytes) -> list[Key]:
    reader = Keys()
    return [key for piece in pieces for key in reader.feed(piece)]


def text(shown: str) -> Key:
    return Key("text", shown)


def test_text_comes_as_it_was_typed() -> None:
    assert keys("hé 日本".encode()) == [text("hé 日本")]


def test_a_character_may_come_in_pieces() -> None:
    assert keys(b"\xe6", b"\x97\xa5") == [text("日")]


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert keys(b"a\xffb") == [text("a\ufffdb")]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\r", "enter"),
        (b"\n", "enter"),
        (b"\t", "tab"),
        (b"\x7f", "backspace"),
        (b"\x08", "backspace"),
        (b"\x01", "ctrl-a"),
        (b"\x04", "ctrl-d"),
        (b"\x1b[A", "up"),
        (b"\x1bOA", "up"),
        (b"\x1b[3~", "delete"),
        (b"\x1b[1;5C", "alt-f"),
        (b"\x1bb", "alt-b"),
        (b"\x1b\x7f", "alt-backspace"),
    ],
)
def test_a_key_has_a_name_however_it_comes_in_pieces(data: bytes, name: str) -> None:
    assert keys(data) == [Key(name)]
    assert keys(*(bytes([byte]) for byte in data)) == [Key(name)]


def test_a_key_that_means_nothing_here_is_swallowed_whole() -> None:
    assert keys(b"\x1b[15~\x1b[1;2P\x1bxa\x00\x1e") == [text("a")]


def test_what_is_pasted_stays_on_one_line() -> None:
    pasted = b'\x1b[200~{\r\n  "a": 1,\r\n\t"b": 2\r\n}\x1b[201~'
    assert keys(pasted) == [text('{ "a": 1, "b": 2 }')]
    assert keys(pasted[:9], pasted[9:-3], pasted[-3:]) == [text('{ "a": 1, "b": 2 }')]


def test_what_is_pasted_holds_nothing_that_a_terminal_would_obey() -> None:
    assert keys(b"\x1b[200~a\x1b[2Jb\x1b[201~c") == [text("a[2Jb"), text("c")]


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_any_bytes_are_some_keys_and_their_text_is_printable(pieces: list[bytes]) -> None:
    for key in keys(*pieces):
        assert key.name
        assert not any(ord(character) < 32 for character in key.text)
