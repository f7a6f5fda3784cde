"""The lines of earlier sessions, in a file of the user's."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, overload

__all__ = ("History", "state_directory")

MAX_LINES: Final = 1000


class History(Sequence[str]):
    """Lines that were entered, the oldest first; all sessions write to one file.

    A line that begins with a space, or is the same as the one before, is not
    kept. A file that cannot be read or written is done without.

    Args:
        file: Where; only the user may read it.
        limit: How many lines are kept.
    """

    def __init__(self, file: Path, *, limit: int = MAX_LINES) -> None:
        self._file = file
        self._limit = limit
        self._lines = self._load()

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._lines[index]

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, line: str) -> None:
        """Keep a line, in the file too."""
        if not line.strip() or line.startswith(" ") or self._lines[-1:] == [line]:
            return
        self._lines.append(line)
        del self._lines[: -self._limit]
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(self._file, f"{line}\n", os.O_APPEND)

    def _load(self) -> list[str]:
        try:
            lines = self._file.read_text("utf-8", "replace").split("\n")[:-1]
        except OSError:
            return []
        kept = lines[-self._limit :]
        if len(lines) > len(kept):
            # Another session may add a line meanwhile: then that is lost.
            new = self._file.with_name(f"{self._file.name}.{os.getpid()}")
            with suppress(OSError):
                _write(new, "".join(f"{line}\n" for line in kept), os.O_TRUNC)
                new.replace(self._file)
        return kept


def state_directory(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Return where programs keep what should last, but is nobody's work."""
    if platform == "win32" and (local := environ.get("LOCALAPPDATA")):
        return Path(local) / "symphony"
    # XDG base directories: a path that is not absolute is to be ignored.
    state = environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(state):
        return Path(state) / "symphony"
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "symphony"
    return Path.home() / ".local" / "state" / "symphony"


def _write(file: Path, text: str, how: int) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | how, 0o600)
    with open(descriptor, "a", encoding="utf-8", errors="replace", newline="") as opened:
        opened.write(text)
