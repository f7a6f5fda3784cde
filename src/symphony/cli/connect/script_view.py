"""Show a session to a program: one message per line on standard output, the rest on standard error."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, TextIO

from symphony.cli.connect.text import compact, escape_controls, plain, text_or_hex, to_json
from symphony.client import Position, Publication, RoomPresence
from symphony.errors import RemoteError, SymphonyError

__all__ = ("ScriptView",)


class ScriptView:
    """A `View` for programs.

    Args:
        out: Gets what the server sends. If it is a terminal, control
            characters are escaped.
        as_json: Write messages of a raw connection as JSON on one line.

    Attributes:
        broken: Set when the reader of `out` has closed it.
    """

    def __init__(self, out: TextIO, *, as_json: bool) -> None:
        self.broken = asyncio.Event()
        self._out = out
        self._escape = out.isatty()
        self._as_json = as_json

    def message(self, message: str | bytes) -> None:
        """Write it unchanged; a binary message as hexadecimal digits."""
        text = text_or_hex(message)
        if self._as_json:
            json = compact(text) if isinstance(message, str) else None
            if json is None:
                self.problem("Received a message that is not JSON.")
            text = json or text
        self._write(text)

    def event(self, event: str, data: Any) -> None:
        """Write its envelope."""
        self._write(to_json({"event": event, "data": data}))

    def server_request(self, event: str, data: Any) -> None:
        """Write it, without its id."""
        self._write(to_json({"request": event, "data": data}))

    def reply(self, id: int, data: Any, seconds: float) -> None:
        """Write its envelope."""
        self._write(to_json({"reply": id, "data": data}))

    def item(self, id: int, data: Any) -> None:
        """Write its envelope."""
        self._write(to_json({"item": id, "data": data}))

    def end(self, id: int, count: int, seconds: float) -> None:
        """Write its envelope."""
        self._write(to_json({"end": id}))

    def joined(self, id: int, room: str, position: Position | None, presence: RoomPresence) -> None:
        """Write its envelope, who is there, and the reply."""
        self._write(to_json({"joined": room, "position": plain(position)}))
        if presence.is_known or presence.total:
            self.presence(room, presence)
        self._write(to_json({"reply": id, "data": None}))

    def publication(self, room: str, publication: Publication) -> None:
        """Write its envelope, with its position."""
        event, data, position, replaces = publication
        envelope = {"event": event, "data": data, "room": room, "position": plain(position)}
        self._write(to_json(envelope if replaces is None else {**envelope, "replaces": plain(replaces)}))

    def presence(self, room: str, presence: RoomPresence) -> None:
        """Write all members, or null if they are not known."""
        members = dict(presence) if presence.is_known else None
        self._write(to_json({"presence": room, "members": members, "total": presence.total}))

    def lost(self, room: str, position: Position) -> None:
        """Write its envelope."""
        self._write(to_json({"lost": room, "position": plain(position)}))

    def removed(self, room: str, error: SymphonyError) -> None:
        """Write its envelope."""
        data = _data_of(error) if isinstance(error, RemoteError) else {"message": str(error)}
        self._write(to_json({"left": room, "data": data}))

    def error(self, id: int, error: RemoteError) -> None:
        """Write its envelope."""
        self._write(to_json({"error": id, "data": _data_of(error)}))

    def sent(self, message: Any) -> None:
        """Write nothing: the script has sent it."""

    def emitted(self, event: str, data: Any) -> None:
        """Write nothing: the script has sent it."""

    def requested(self, id: int, event: str, data: Any) -> None:
        """Write nothing: the script has sent it."""

    def asked(self, id: int, verb: str, room: str) -> None:
        """Write nothing: the script has asked."""

    def published(self, id: int, room: str, event: str, data: Any) -> None:
        """Write nothing: the script has published it."""

    def answered(self, data: Any) -> None:
        """Write nothing: the answer is on the command line."""

    def refused(self, event: str) -> None:
        """Report it, because it may explain an error that follows."""
        self.problem(f"The server sent a request {event!r}, and there is no --answer for it.")

    def cancelled(self, id: int) -> None:
        """Write nothing: the script has cancelled it."""

    def failed(self, id: int, why: str) -> None:
        """Report it with the number of the request."""
        self.problem(f"Request {id}: {why}")

    def help(self, typed: str, does: str) -> None:
        """Report it."""
        self.problem(f"{typed:<25} {does}")

    def note(self, text: str) -> None:
        """Report it."""
        self.problem(text)

    def problem(self, text: str) -> None:
        """Report it."""
        print(escape_controls(text), file=sys.stderr)

    def _write(self, line: str) -> None:
        if self.broken.is_set():
            return
        try:
            self._out.write((escape_controls(line) if self._escape else line) + "\n")
            self._out.flush()
        except OSError:
            self.broken.set()
            # Python flushes the rest of the buffer at exit, and would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())


def _data_of(error: RemoteError) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "details": error.details,
    }
