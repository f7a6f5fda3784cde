"""The line that is being typed. Pure: keys in, a line out."""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Sequence
from typing import Final

from symphony.cli.connect.keys import Key

__all__ = ("Editor",)

_WORD_BEHIND: Final = re.compile(r"\w+\W*\Z|\W+\Z")
_WORD_AHEAD: Final = re.compile(r"\W*\w+|\W+")
_SPACED_BEHIND: Final = re.compile(r"\S+\s*\Z|\s+\Z")


class Editor:
    """A line, a cursor in it, and the lines before.

    Args:
        lines: Those that were entered before, the oldest first; may grow.
        complete: Returns what could stand where the cursor is, for the text
            in front of it: whole texts.

    Attributes:
        text: The line.
        cursor: Where in it, from 0.
        offers: What could stand here, after Tab: to be shown.
        ended: Whether Ctrl+D was pressed on an empty line.
        cleared: Whether the screen is to be cleared.
    """

    def __init__(self, lines: Sequence[str], complete: Callable[[str], Sequence[str]]) -> None:
        self.text = ""
        self.cursor = 0
        self.offers: Sequence[str] = ()
        self.ended = False
        self.cleared = False
        self._lines = lines
        self._complete = complete
        # Counted from the newest line; 0: the one that is new.
        self._back = 0
        self._draft = ""
        self._killed = ""
        self._keys: dict[str, Callable[[], object]] = {
            "left": lambda: self._move(self.cursor - 1),
            "right": lambda: self._move(self.cursor + 1),
            "home": lambda: self._move(0),
            "end": lambda: self._move(len(self.text)),
            "alt-b": lambda: self._move(self._behind(_WORD_BEHIND)),
            "alt-f": lambda: self._move(self._ahead()),
            "backspace": lambda: self._cut(self.cursor - 1, self.cursor),
            "delete": lambda: self._cut(self.cursor, self.cursor + 1),
            "alt-backspace": lambda: self._kill(self._behind(_WORD_BEHIND), self.cursor),
            "alt-d": lambda: self._kill(self.cursor, self._ahead()),
            "up": lambda: self._recall(self._back + 1),
            "down": lambda: self._recall(self._back - 1),
            "tab": self._tab,
            "ctrl-d": self._delete_or_end,
            "ctrl-k": lambda: self._kill(self.cursor, len(self.text)),
            "ctrl-l": self._clear,
            "ctrl-t": self._transpose,
            "ctrl-u": lambda: self._kill(0, self.cursor),
            "ctrl-w": lambda: self._kill(self._behind(_SPACED_BEHIND), self.cursor),
            "ctrl-y": lambda: self._insert(self._killed),
        }
        for alias, name in _ALIASES.items():
            self._keys[alias] = self._keys[name]

    def press(self, key: Key) -> str | None:
        """Take a key; return the line if that was Enter."""
        self.offers = ()
        self.cleared = False
        if key.name == "enter":
            return self._enter()
        if key.name == "text":
            self._insert(key.text)
        elif (does := self._keys.get(key.name)) is not None:
            does()
        return None

    def _enter(self) -> str:
        line = self.text
        self._replace("")
        self._back = 0
        self._draft = ""
        return line

    def _insert(self, text: str) -> None:
        self.text = self.text[: self.cursor] + text + self.text[self.cursor :]
        self.cursor += len(text)

    def _replace(self, text: str) -> None:
        self.text = text
        self.cursor = len(text)

    def _move(self, to: int) -> None:
        self.cursor = min(max(to, 0), len(self.text))

    def _cut(self, begin: int, end: int) -> str:
        begin = max(begin, 0)
        cut = self.text[begin:end]
        self.text = self.text[:begin] + self.text[end:]
        self.cursor = begin
        return cut

    def _kill(self, begin: int, end: int) -> None:
        self._killed = self._cut(begin, end) or self._killed

    def _behind(self, word: re.Pattern[str]) -> int:
        found = word.search(self.text[: self.cursor])
        return found.start() if found else 0

    def _ahead(self) -> int:
        found = _WORD_AHEAD.match(self.text, self.cursor)
        return found.end() if found else len(self.text)

    def _recall(self, back: int) -> None:
        if not 0 <= back <= len(self._lines):
            return
        if self._back == 0:
            self._draft = self.text
        self._back = back
        self._replace(self._lines[-back] if back else self._draft)

    def _tab(self) -> None:
        before = self.text[: self.cursor]
        found = self._complete(before)
        common = os.path.commonprefix(list(found))  # noqa: RUF071 - characters are meant
        if len(found) == 1 or len(common) > len(before):
            # What stands behind the cursor stays.
            self.text = common + self.text[self.cursor :]
            self.cursor = len(common)
        else:
            self.offers = found

    def _delete_or_end(self) -> None:
        if self.text:
            self._cut(self.cursor, self.cursor + 1)
        else:
            self.ended = True

    def _transpose(self) -> None:
        at = min(self.cursor, len(self.text) - 1)
        if at > 0:
            before, after = self.text[at - 1], self.text[at]
            self.text = f"{self.text[: at - 1]}{after}{before}{self.text[at + 1 :]}"
            self.cursor = at + 1

    def _clear(self) -> None:
        self.cleared = True


_ALIASES: Final = {
    "ctrl-a": "home",
    "ctrl-b": "left",
    "ctrl-e": "end",
    "ctrl-f": "right",
    "ctrl-n": "down",
    "ctrl-p": "up",
}
