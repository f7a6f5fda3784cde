"""A terminal that only prints, as on Windows or with TERM=dumb: lines come in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.text import Text

from symphony.cli.connect.source import StandardInput

__all__ = ("PlainTerminal",)


class PlainTerminal:
    """What `Terminal` is, without keys of its own: the system edits the line.

    Args:
        console: Writes to it.

    Attributes:
        complete: Never called.
    """

    def __init__(self, console: Console) -> None:
        self.complete: Callable[[str], Sequence[str]] = lambda before: ()
        self._console = console
        self._input: StandardInput | None = None

    def __enter__(self) -> Self:
        self._input = StandardInput()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def line(self) -> str | None:
        """Return the next line, `None`: there are no more."""
        assert self._input is not None
        return await self._input.line()

    def show(self, text: Text) -> None:
        """Print text, whatever is being typed."""
        self._console.print(text, soft_wrap=True)

    def set_mark(self, mark: str) -> None:
        """Nothing stands in front of the line."""
