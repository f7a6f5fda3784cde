"""The line that is being typed."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony.cli.connect.completion import completion
from symphony.cli.connect.editor import Editor
from symphony.cli.connect.keys import Key

NAMED = [
    *("left", "right", "home", "end", "delete", "backspace", "up", "down", "tab", "unknown"),
    *("alt-b", "alt-d", "alt-f", "alt-backspace", *(f"ctrl-{letter}" for letter in "abdefklnptuwy")),
]


def nothing(before: str) -> Sequence[str]:
    return ()


def edited(start: str, *names: str) -> str:
    """Type a line, press keys, and show the line with a bar where the cursor is."""
    editor = Editor((), nothing)
    editor.press(Key("text", start))
    for name in names:
        editor.press(Key(name))
    return f"{editor.text[: editor.cursor]}|{editor.text[editor.cursor :]}"


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ("", "one two.abcde|"),
        ("left left", "one two.abc|de"),
        ("home right", "o|ne two.abcde"),
        ("ctrl-a left", "|one two.abcde"),
        ("ctrl-a ctrl-f ctrl-e", "one two.abcde|"),
        ("alt-b", "one two.|abcde"),
        ("alt-b alt-b alt-b alt-b", "|one two.abcde"),
        ("home alt-f alt-f", "one two|.abcde"),
        ("backspace", "one two.abcd|"),
        ("home backspace", "|one two.abcde"),
        ("home delete", "|ne two.abcde"),
        ("end delete", "one two.abcde|"),
        ("left ctrl-d", "one two.abcd|"),
        ("ctrl-w", "one |"),
        ("ctrl-w ctrl-w", "|"),
        ("alt-backspace", "one two.|"),
        ("home alt-d", "| two.abcde"),
        ("alt-b ctrl-k", "one two.|"),
        ("alt-b ctrl-u", "|abcde"),
        ("alt-b ctrl-k home ctrl-y", "abcde|one two."),
        ("left left ctrl-t", "one two.abdc|e"),
        ("unknown", "one two.abcde|"),
    ],
)
def test_keys_edit_the_line(names: str, line: str) -> None:
    assert edited("one two.abcde", *names.split()) == line


def test_enter_gives_the_line_and_begins_anew() -> None:
    editor = Editor((), nothing)
    editor.press(Key("text", "hello"))
    editor.press(Key("home"))
    assert editor.press(Key("enter")) == "hello"
    assert (editor.text, editor.cursor) == ("", 0)


def test_ctrl_d_ends_only_on_an_empty_line() -> None:
    editor = Editor((), nothing)
    editor.press(Key("text", "x"))
    editor.press(Key("ctrl-d"))
    assert not editor.ended
    editor.press(Key("ctrl-u"))
    editor.press(Key("ctrl-d"))
    assert editor.ended


def test_earlier_lines_come_back_and_the_new_one_is_not_lost() -> None:
    lines = ["first", "second"]
    editor = Editor(lines, nothing)
    editor.press(Key("text", "new"))
    seen: list[str] = []
    for name in ("up", "up", "up", "down", "down", "down"):
        editor.press(Key(name))
        seen.append(editor.text)
    assert seen == ["second", "first", "first", "second", "new", "new"]


def test_a_line_that_was_entered_is_the_first_to_come_back() -> None:
    lines = ["first"]
    editor = Editor(lines, nothing)
    editor.press(Key("up"))
    lines.append(str(editor.press(Key("enter"))))
    editor.press(Key("up"))
    editor.press(Key("up"))
    assert editor.text == "first"


def tabbed(line: str, *, events: bool = True) -> tuple[str, list[str]]:
    editor = Editor((), lambda before: completion(before, ["said", "say", "sum", "\x1b[2J"], events=events))
    editor.press(Key("text", line))
    editor.press(Key("tab"))
    return editor.text, list(editor.offers)


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("/em", "/emit "),
        ("/he", "/help"),
        ("/emit su", "/emit sum "),
        ("/request sa", "/request sa"),
        ("/emit say {", "/emit say {"),
        ("/close s", "/close s"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_tab_completes_commands_and_names_of_events(line: str, completed: str) -> None:
    assert tabbed(line)[0] == completed


def test_tab_offers_what_could_stand_there() -> None:
    assert tabbed("/emit sa") == ("/emit sa", ["/emit said ", "/emit say "])


def test_a_raw_connection_has_fewer_commands() -> None:
    assert tabbed("/", events=False)[1] == ["/binary ", "/close ", "/help"]


def test_what_stands_behind_the_cursor_stays_when_tab_completes() -> None:
    editor = Editor((), lambda before: completion(before, ["sum"], events=True))
    editor.press(Key("text", "/request su[1]"))
    for _ in "[1]":
        editor.press(Key("left"))
    editor.press(Key("tab"))
    assert editor.text == "/request sum [1]"


@given(st.lists(st.one_of(st.sampled_from(NAMED), st.text("ab c", min_size=1, max_size=4)), max_size=40))
def test_the_cursor_is_always_in_the_line(presses: list[str]) -> None:
    editor = Editor(["an earlier line", ""], lambda before: [f"{before}x", f"{before}xy"])
    for press in presses:
        editor.press(Key(press) if press in NAMED else Key("text", press))
        assert 0 <= editor.cursor <= len(editor.text)
