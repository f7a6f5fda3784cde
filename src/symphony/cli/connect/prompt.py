"""Draws the line that is being typed, and takes it away again. Pure: text for a terminal."""

from __future__ import annotations

import re
from typing import Final

from rich.cells import get_character_cell_size

__all__ = ("Prompt",)

_MORE: Final = "…"
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Prompt:
    """What stands at the bottom of the terminal, over as many rows as it needs.

    Whoever draws it writes what these return, and nothing else until it is
    erased.
    """

    def __init__(self) -> None:
        # What was drawn up to the cursor, `None`: nothing.
        self._before: str | None = None
        self._width = 0

    def erase(self, width: int | None = None) -> str:
        """Return what takes it away; the cursor is then where it began.

        Args:
            width: Of the terminal, if it has changed: terminals break lines
                anew when they are resized.
        """
        if self._before is None:
            return ""
        row, _ = _place(self._before, width or self._width)
        self._before = None
        return f"{_up(row)}\r\x1b[J"

    def forget(self) -> None:
        """Hear that others have written: it is where it was no more, and stays there."""
        self._before = None

    def draw(self, mark: str, text: str, cursor: int, *, width: int, height: int, color: str = "") -> str:
        """Return what draws it where the cursor of the terminal is: at the begin of a row.

        Args:
            mark: Stands in front of the text.
            text: The line.
            cursor: Where the cursor is, in the text.
            width: Of the terminal.
            height: Of the terminal; a longer text is shown in part.
            color: Of the mark: what switches it on.
        """
        text = _UNPRINTABLE.sub("\ufffd", text)
        text, cursor = _part(text, cursor, width * (height - 1) - len(mark) - 1)
        before = mark + text[:cursor]
        row, column = _place(before, width)
        last, end = _place(mark + text, width)
        colored = f"{color}{mark}\x1b[0m" if color else mark
        # At the end of a row the cursor hangs there until more is written.
        full = (mark + text) != "" and end == 0
        self._before = before
        self._width = width
        right = f"\x1b[{column}C" if column else ""
        return f"{colored}{text}{chr(10) if full else ''}{_up(last - row)}\r{right}"


def _place(text: str, width: int) -> tuple[int, int]:
    """Return row and column of the cursor behind a text."""
    row = column = 0
    for character in text:
        cells = get_character_cell_size(character)
        if column + cells > width:
            row, column = row + 1, 0
        column += cells
    return (row + 1, 0) if column >= width else (row, column)


def _part(text: str, cursor: int, room: int) -> tuple[str, int]:
    """Return as much of a text as there is room for, the cursor in it."""
    room = max(room if text.isascii() else room // 2, 4)
    if len(text) <= room:
        return text, cursor
    begin = max(0, min(cursor - room // 2, len(text) - room + 2))
    end = begin + room - 2
    shown = f"{_MORE if begin else ''}{text[begin:end]}{_MORE if end < len(text) else ''}"
    return shown, cursor - begin + (1 if begin else 0)


def _up(rows: int) -> str:
    return f"\x1b[{rows}A" if rows else ""
