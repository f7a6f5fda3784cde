"""A terminal: a line is typed at the bottom, all else appears above it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.text import Text

from symphony.cli.connect.editor import Editor
from symphony.cli.connect.history import History
from symphony.cli.connect.keys import Keys
from symphony.cli.connect.prompt import Prompt

__all__ = ("Terminal",)

_STDIN: Final = 0
_LOCAL_FLAGS: Final = 3
_CONTROL_CHARACTERS: Final = 6
_PASTE_ON: Final = "\x1b[?2004h"
_PASTE_OFF: Final = "\x1b[?2004l"
_CLEAR: Final = "\x1b[H\x1b[2J"
_GREEN: Final = "\x1b[32m"


class Terminal:
    """Standard input and output, both of them one terminal; a `Source` while it is entered.

    Needs `termios`, which Windows has not.

    Args:
        console: Writes to it.
        history: The lines of earlier sessions.

    Attributes:
        complete: See `Editor`.
    """

    def __init__(self, console: Console, history: History) -> None:
        self.complete: Callable[[str], Sequence[str]] = lambda before: ()
        self._mark = ""
        self._console = console
        self._history = history
        self._keys = Keys()
        self._editor = Editor(history, lambda before: self.complete(before))
        self._prompt = Prompt()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._redraw: asyncio.Handle | None = None
        self._before: list[Any] = []
        self._entered = False

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(_STDIN)
        self._entered = True
        self._take_over()
        self._loop.add_reader(_STDIN, self._readable)
        self._loop.add_signal_handler(signal.SIGWINCH, self._resized)
        # Whoever stopped us (Ctrl+Z) has changed the terminal.
        self._loop.add_signal_handler(signal.SIGCONT, self._take_over)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.remove_reader(_STDIN)
        self._loop.remove_signal_handler(signal.SIGWINCH)
        self._loop.remove_signal_handler(signal.SIGCONT)
        self._entered = False
        self._write(self._prompt.erase() + _PASTE_OFF)
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(_STDIN, termios.TCSADRAIN, self._before)

    async def line(self) -> str | None:
        """Return the next line that was entered; `None` after Ctrl+D."""
        return await self._lines.get()

    def show(self, text: Text) -> None:
        """Put text above the line that is being typed."""
        self._write(self._prompt.erase())
        with suppress(OSError):
            # Broken by the terminal, so that what is copied from it is whole.
            self._console.print(text, soft_wrap=True)
        self._draw_soon()

    def set_mark(self, mark: str) -> None:
        """Change what stands in front of the line."""
        self._mark = mark
        self._draw_soon()

    def _take_over(self) -> None:
        mode = termios.tcgetattr(_STDIN)
        # Key by key, and nothing shown by itself. Ctrl+C and Ctrl+Z stay signals.
        mode[_LOCAL_FLAGS] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
        mode[_CONTROL_CHARACTERS][termios.VMIN] = 1
        mode[_CONTROL_CHARACTERS][termios.VTIME] = 0
        termios.tcsetattr(_STDIN, termios.TCSADRAIN, mode)
        self._prompt.forget()
        self._write(_PASTE_ON)
        self._draw_soon()

    def _readable(self) -> None:
        try:
            data = os.read(_STDIN, 4096)
        except OSError:
            data = b""
        if not data:  # the terminal is gone
            self._loop.remove_reader(_STDIN)
            self._lines.put_nowait(None)
            return
        for key in self._keys.feed(data):
            line = self._editor.press(key)
            if line is not None:
                self._history.add(line)
                self._lines.put_nowait(line)
            if self._editor.ended:
                self._lines.put_nowait(None)
            if self._editor.cleared:
                self._write(self._prompt.erase() + _CLEAR)
            if self._editor.offers:
                words = (offer.split()[-1] for offer in self._editor.offers)
                self.show(Text("   ".join(words), "dim"))
        self._draw_soon()

    def _resized(self) -> None:
        width, _ = self._size()
        self._write(self._prompt.erase(width))
        self._draw_soon()

    def _draw_soon(self) -> None:
        # Once, however many messages have come.
        if self._entered and self._redraw is None:
            self._redraw = self._loop.call_soon(self._draw)

    def _draw(self) -> None:
        self._redraw = None
        if not self._entered:
            return
        width, height = self._size()
        color = _GREEN if self._console.color_system else ""
        erased = self._prompt.erase()
        text, cursor = self._editor.text, self._editor.cursor
        self._write(
            erased + self._prompt.draw(self._mark, text, cursor, width=width, height=height, color=color)
        )

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(_STDIN)
        except OSError:
            return 80, 24
        # Some terminals say 0 for what they do not know.
        return size.columns or 80, size.lines or 24

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the terminal is gone; SIGHUP ends the program
            sys.stdout.write(text)
            sys.stdout.flush()
