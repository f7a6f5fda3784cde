"""Keep the lines of earlier sessions in a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from prompt_toolkit.history import History

__all__ = ("LineHistory", "state_directory")

MAX_LINES: Final = 1000


class LineHistory(History):
    """Keeps the newest lines in one file that all sessions share.

    prompt_toolkit's `FileHistory` grows without a limit, and its file gets the
    permissions of the umask.

    A line that begins with a space is not kept. If the file cannot be read or
    written, the history lasts for this session only.

    Args:
        file: The file; only the user may read it.
        limit: The number of lines to keep.
    """

    def __init__(self, file: Path, *, limit: int = MAX_LINES) -> None:
        super().__init__()
        self._file = file
        self._limit = limit

    def append_string(self, string: str) -> None:
        """Keep a line, unless it is blank or begins with a space."""
        if string.strip() and not string.startswith(" "):
            super().append_string(string)

    def store_string(self, string: str) -> None:
        """Append a line to the file."""
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Quoted insert (Ctrl+Q) can put a line ending into a line.
            _write(self._file, f"{' '.join(string.splitlines())}\n", os.O_APPEND)

    def load_history_strings(self) -> Iterable[str]:
        """Return the lines of the file, the newest first."""
        try:
            lines = self._file.read_text("utf-8", "replace").split("\n")[:-1]
        except OSError:
            return []
        kept = lines[-self._limit :]
        if len(lines) > len(kept):
            # A line that another session adds at this moment is lost.
            new = self._file.with_name(f"{self._file.name}.{os.getpid()}")
            with suppress(OSError):
                _write(new, "".join(f"{line}\n" for line in kept), os.O_TRUNC)
                new.replace(self._file)
        return reversed(kept)


def state_directory(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Return the directory for files that should persist but are not the user's documents."""
    if platform == "win32" and (local := environ.get("LOCALAPPDATA")):
        return Path(local) / "symphony"
    # XDG base directories: ignore a path that is not absolute.
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
