"""A terminal that cannot move its cursor (`TERM=dumb`): the system edits the line."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from prompt_toolkit.completion import Completer
from rich.console import Console
from rich.text import Text

from symphony.cli.connect.line_source import StandardInput

__all__ = ("PlainTerminal",)


class PlainTerminal:
    """`Terminal` without completion, history and keys.

    Args:
        console: Writes to the terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._input: StandardInput | None = None

    @asynccontextmanager
    async def open(self, *, completer: Completer, interrupt: Callable[[], None]) -> AsyncGenerator[None]:
        """Start to read lines. Ctrl+C is a signal here, so *interrupt* is not called."""
        self._input = StandardInput()
        yield

    async def read_line(self) -> str | None:
        """Return the next line, or `None` after Ctrl+D."""
        assert self._input is not None
        return await self._input.read_line()

    def show(self, text: Text) -> None:
        """Print text, even in the middle of a line that is being typed."""
        self._console.print(text, soft_wrap=True)

    def set_prompt(self, prompt: str) -> None:
        """Do nothing: there is no prompt."""
