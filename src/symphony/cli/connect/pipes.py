"""What a script gets: one message a line on standard output, all else on standard error."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, TextIO

from symphony.cli.connect.text import compact, harmless, one_line, to_json
from symphony.errors import RemoteError

__all__ = ("Pipes",)


class Pipes:
    """A `View` for programs.

    Args:
        out: For what the server says; a terminal, it gets nothing that it would obey.
        as_json: Messages of a raw connection are written as JSON on one line.

    Attributes:
        broken: Set when nobody reads any more.
    """

    def __init__(self, out: TextIO, *, as_json: bool) -> None:
        self.broken = asyncio.Event()
        self._out = out
        self._harmless = out.isatty()
        self._as_json = as_json

    def message(self, message: str | bytes) -> None:
        """Write it as it is, and a binary one in hexadecimal digits."""
        text = one_line(message)
        if self._as_json:
            json = compact(text) if isinstance(message, str) else None
            if json is None:
                self.problem("What came is not JSON.")
            text = json or text
        self._write(text)

    def event(self, event: str, data: Any) -> None:
        """Write its frame."""
        self._write(to_json({"event": event, "data": data}))

    def asked(self, event: str, data: Any) -> None:
        """Write it; its id is the client's affair."""
        self._write(to_json({"request": event, "data": data}))

    def reply(self, id: int, data: Any, seconds: float) -> None:
        """Write its frame."""
        self._write(to_json({"reply": id, "data": data}))

    def item(self, id: int, data: Any) -> None:
        """Write its frame."""
        self._write(to_json({"item": id, "data": data}))

    def end(self, id: int, count: int, seconds: float) -> None:
        """Write its frame."""
        self._write(to_json({"end": id}))

    def error(self, id: int, error: RemoteError) -> None:
        """Write its frame."""
        data = {
            "code": error.code,
            "message": error.message,
            "retryable": error.retryable,
            "details": error.details,
        }
        self._write(to_json({"error": id, "data": data}))

    def said(self, message: Any) -> None:
        """Whoever sent it knows."""

    def emitted(self, event: str, data: Any) -> None:
        """Whoever sent it knows."""

    def requested(self, id: int, event: str, data: Any) -> None:
        """Whoever sent it knows."""

    def answered(self, data: Any) -> None:
        """Whoever said so knows."""

    def not_answered(self, event: str) -> None:
        """Say it: it may explain what follows."""
        self.problem(f"The server asks {event!r}, and there is no --answer for it.")

    def cancelled(self, id: int) -> None:
        """Whoever did it knows."""

    def failed(self, id: int, why: str) -> None:
        """Say which."""
        self.problem(f"Request {id}: {why}")

    def help(self, typed: str, does: str) -> None:
        """Say it to whoever tries this out."""
        self.problem(f"{typed:<25} {does}")

    def note(self, text: str) -> None:
        """Say it to whoever watches."""
        self.problem(text)

    def problem(self, text: str) -> None:
        """Say it to whoever watches."""
        print(harmless(text), file=sys.stderr)

    def _write(self, line: str) -> None:
        if self.broken.is_set():
            return
        try:
            self._out.write((harmless(line) if self._harmless else line) + "\n")
            self._out.flush()
        except OSError:
            self.broken.set()
            # What is left in its buffer would fail once more at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
