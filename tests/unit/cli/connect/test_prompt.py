"""The line at the bottom of a terminal, on a terminal made of a list."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import get_character_cell_size

from symphony.cli.connect.prompt import Prompt

_CODE = re.compile(r"\x1b\[(\d*)([ACJm])")


class Screen:
    """As much of a terminal as a prompt uses: rows, a cursor, and how they wrap."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        self.rows = [""]
        self.row = 0
        self.column = 0
        self.hangs = False

    def write(self, text: str) -> None:
        while text:
            if found := _CODE.match(text):
                self._obey(found[2], int(found[1] or 1))
                text = text[found.end() :]
                continue
            self._put(text[0])
            text = text[1:]

    def shown(self) -> list[str]:
        return [row.replace("\0", "").rstrip() for row in self.rows]

    def _obey(self, code: str, number: int) -> None:
        if code == "A":
            top = max(0, len(self.rows) - self.height)
            self.row = max(top, self.row - number)
            self.hangs = False
        elif code == "C":
            self.column = min(self.width - 1, self.column + number)
            self.hangs = False
        elif code == "J":
            self.rows[self.row] = self.rows[self.row][: self.column]
            del self.rows[self.row + 1 :]

    def _put(self, character: str) -> None:
        if character == "\r":
            self.column, self.hangs = 0, False
        elif character == "\n":
            self._down()
        else:
            cells = get_character_cell_size(character)
            if not cells:  # it belongs to the one before
                return
            if self.hangs or self.column + cells > self.width:
                self._down()
                self.column = 0
            row = self.rows[self.row].ljust(self.column)
            # A wide character takes two cells.
            self.rows[self.row] = (
                row[: self.column] + character + "\0" * (cells - 1) + row[self.column + cells :]
            )
            self.hangs = self.column + cells == self.width
            self.column = min(self.column + cells, self.width - 1)

    def _down(self) -> None:
        self.row += 1
        self.hangs = False
        if self.row == len(self.rows):
            self.rows.append("")


def drawn(text: str, cursor: int, *, width: int = 10, height: int = 8) -> Screen:
    screen = Screen(width, height)
    screen.write(Prompt().draw("> ", text, cursor, width=width, height=height))
    return screen


def test_a_line_stands_behind_its_mark_and_the_cursor_in_it() -> None:
    screen = drawn("hello", 2)
    assert (screen.shown(), screen.row, screen.column) == (["> hello"], 0, 4)


def test_a_long_line_takes_more_rows() -> None:
    screen = drawn("abcdefghijklm", 13)
    assert (screen.shown(), screen.row, screen.column) == (["> abcdefgh", "ijklm"], 1, 5)


def test_a_line_that_fills_its_row_has_the_cursor_on_the_next() -> None:
    screen = drawn("abcdefgh", 8)
    assert (screen.shown(), screen.row, screen.column) == (["> abcdefgh", ""], 1, 0)


def test_a_wide_character_that_does_not_fit_goes_to_the_next_row() -> None:
    screen = drawn("abcdefg日x", 9)
    assert (screen.shown(), screen.row, screen.column) == (["> abcdefg", "日x"], 1, 3)


def test_a_line_longer_than_the_terminal_is_shown_around_the_cursor() -> None:
    screen = drawn("".join(chr(65 + number % 26) for number in range(500)), 250, height=4)
    shown = screen.shown()
    assert len(shown) <= 3
    assert shown[0].startswith("> …")
    assert shown[-1].endswith("…")
    assert shown[screen.row][screen.column] == chr(65 + 250 % 26)


def test_what_a_terminal_would_obey_is_not_written() -> None:
    assert drawn("a\x1b[2Jb\t", 0).shown() == ["> a\ufffd[2Jb\ufffd"]


def test_text_comes_above_the_line_that_is_typed() -> None:
    prompt, screen = Prompt(), Screen(10, 8)
    screen.write(prompt.draw("> ", "half a long li", 3, width=10, height=8))
    screen.write(prompt.erase() + "a message\r\n")
    screen.write(prompt.draw("> ", "half a long li", 3, width=10, height=8))
    assert screen.shown() == ["a message", "> half a l", "ong li"]
    assert (screen.row, screen.column) == (1, 5)


def test_a_terminal_that_became_narrower_has_broken_the_line_anew() -> None:
    prompt, screen = Prompt(), Screen(10, 20)
    screen.write(prompt.draw("> ", "abcdefgh1234", 12, width=10, height=20))
    narrow = Screen(5, 20)
    narrow.rows, narrow.row, narrow.column = ["> abc", "defgh", "1234"], 2, 4
    narrow.write(prompt.erase(5))
    assert (narrow.shown(), narrow.row, narrow.column) == ([""], 0, 0)


def test_a_prompt_whose_place_was_lost_is_left_alone() -> None:
    prompt = Prompt()
    prompt.draw("> ", "abc", 3, width=10, height=8)
    prompt.forget()
    assert prompt.erase() == ""


@pytest.mark.parametrize("width", [4, 7, 20])
@given(
    st.lists(
        st.text("ab日本\u0301 ", max_size=30).flatmap(
            lambda text: st.tuples(st.just(text), st.integers(0, len(text)))
        ),
        min_size=1,
        max_size=5,
    )
)
def test_drawing_again_and_again_leaves_nothing_behind(width: int, lines: list[tuple[str, int]]) -> None:
    prompt, screen = Prompt(), Screen(width, 40)
    for text, cursor in lines:
        screen.write(prompt.erase() + prompt.draw("> ", text, cursor, width=width, height=40))
    text, cursor = lines[-1]
    once = drawn(text, cursor, width=width, height=40)
    assert (screen.shown(), screen.row, screen.column) == (once.shown(), once.row, once.column)
    screen.write(prompt.erase())
    assert (screen.shown(), screen.row, screen.column) == ([""], 0, 0)
