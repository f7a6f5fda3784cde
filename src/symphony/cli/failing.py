"""How a command fails: one line on standard error, and an exit code."""

from __future__ import annotations

from typing import Final, NoReturn

__all__ = ("FAILED", "USAGE", "complain", "fail")

FAILED: Final = 1
USAGE: Final = 2


def complain(message: str) -> None:
    """Print one line that says what is wrong."""
    # Importing rich takes a tenth of a server's start, and only a failure needs it.
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text.assemble(("Error:", "bold red"), " ", message))


def fail(message: str, code: int) -> NoReturn:
    """Print one line that says what is wrong, and exit with *code*."""
    complain(message)
    raise SystemExit(code)
