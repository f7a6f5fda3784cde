"""Show a session to a person: each message with its time, direction and colours."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, cast

from rich.highlighter import JSONHighlighter
from rich.text import Text

from symphony.cli.connect.text import compact, escape_controls, indented, to_json
from symphony.client import Position, Publication, RoomPresence
from symphony.errors import RemoteError, SymphonyError
from symphony.printable import printable

__all__ = ("TerminalView",)

_OUT: Final = (">", "green")
_IN: Final = ("<", "cyan")
_NOTE: Final = ("*", "yellow")
_PROBLEM: Final = ("!", "red")
# More is unreadable on a terminal, and scrolls everything else away.
_MAX_SHOWN: Final = 10_000
_MAX_BYTES: Final = 1000
_MAX_MEMBERS: Final = 20
_INDENT: Final = "\n" + " " * len("00:00:00 < ")

_highlight = JSONHighlighter()


class TerminalView:
    """A `View` for people.

    Args:
        show: Prints a line on the terminal.
        as_json: Show long JSON over several lines.
        now: Returns the time of day.
    """

    def __init__(
        self, show: Callable[[Text], None], *, as_json: bool, now: Callable[[], datetime] = datetime.now
    ) -> None:
        self._show = show
        self._as_json = as_json
        self._now = now

    def message(self, message: str | bytes) -> None:
        """Show it; a binary message as hexadecimal digits."""
        self._line(_IN, *self._message(message))

    def event(self, event: str, data: Any) -> None:
        """Show it; highlight an event that reports an error."""
        if event == "error" and isinstance(data, dict) and "code" in data:
            error = cast("dict[str, Any]", data)
            self._error(error.get("code"), error.get("message"), error.get("details"))
        else:
            self._line(_IN, self._name(event), *self._data(data))

    def server_request(self, event: str, data: Any) -> None:
        """Show it with a question mark."""
        self._line(_IN, self._name(f"{event}?"), *self._data(data))

    def reply(self, id: int, data: Any, seconds: float) -> None:
        """Show it after the number of the request, with the duration."""
        self._line(_IN, self._tag(id), self._json(data), self._dim(_duration(seconds)))

    def item(self, id: int, data: Any) -> None:
        """Show it after the number of the request."""
        self._line(_IN, self._tag(id), self._json(data))

    def end(self, id: int, count: int, seconds: float) -> None:
        """Show the number of items and the duration."""
        summary = f"end of {_counted(count, 'item')}, {_duration(seconds)}"
        self._line(_IN, self._tag(id), self._dim(summary))

    def joined(self, id: int, room: str, position: Position | None, presence: RoomPresence) -> None:
        """Show where the room is in its history, and who is there."""
        after = "" if position is None else f", after the offset {position.offset}"
        self._line(_IN, self._tag(id), self._name(f"joined {room}{after}"))
        if presence.is_known or presence.total:
            self.presence(room, presence)

    def publication(self, room: str, publication: Publication) -> None:
        """Show it after the room, with its offset."""
        event, data, position, replaces = publication
        where = () if position is None else (self._dim(_place(position, replaces)),)
        self._line(_IN, self._room(room), self._name(event), *self._data(data), *where)

    def presence(self, room: str, presence: RoomPresence) -> None:
        """Show their number, and the first ids."""
        shown = [printable(id) for id in list(presence)[:_MAX_MEMBERS]]
        more = presence.total - len(shown)
        who = ", ".join([*shown, f"and {more} more"] if shown and more > 0 else shown)
        count = _counted(presence.total, "member")
        self._line(_NOTE, self._room(room), _shown(f"{count}: {who}" if who else count))

    def lost(self, room: str, position: Position) -> None:
        """Show it."""
        text = f"publications are lost: the room goes on after the offset {position.offset}"
        self._line(_PROBLEM, self._room(room), Text(text))

    def removed(self, room: str, error: SymphonyError) -> None:
        """Show it."""
        self._line(_PROBLEM, self._room(room), _shown(f"you are no longer in this room: {error}"))

    def error(self, id: int, error: RemoteError) -> None:
        """Show it after the number of the request."""
        self._error(error.code, error.message, error.details, self._tag(id))

    def sent(self, message: Any) -> None:
        """Show it as it was sent."""
        parts = self._message(message) if isinstance(message, str | bytes) else (self._json(message),)
        self._line(_OUT, *parts)

    def emitted(self, event: str, data: Any) -> None:
        """Show its name and data."""
        self._line(_OUT, self._name(event), *self._data(data))

    def requested(self, id: int, event: str, data: Any) -> None:
        """Show it with its number, which its replies repeat."""
        self._line(_OUT, self._tag(id), self._name(event), *self._data(data))

    def asked(self, id: int, verb: str, room: str) -> None:
        """Show it with its number."""
        self._line(_OUT, self._tag(id), Text(verb), self._room(room))

    def published(self, id: int, room: str, event: str, data: Any) -> None:
        """Show it with its number."""
        self._line(_OUT, self._tag(id), self._room(room), self._name(event), *self._data(data))

    def answered(self, data: Any) -> None:
        """Show it."""
        self._line(_OUT, self._json(data))

    def refused(self, event: str) -> None:
        """Show it, and how to answer the next one."""
        self._line(
            _OUT,
            Text("not_found", "red"),
            self._dim(f"type /answer {printable(event)} DATA to answer the next one"),
        )

    def cancelled(self, id: int) -> None:
        """Show it."""
        self._line(_OUT, self._tag(id), self._dim("cancelled"))

    def failed(self, id: int, why: str) -> None:
        """Show it after the number of the request."""
        self._line(_PROBLEM, self._tag(id), _shown(why))

    def help(self, typed: str, does: str) -> None:
        """Show it without a time."""
        self._show(Text.assemble(f"  {typed:<25} ", (does, "dim")))

    def note(self, text: str) -> None:
        """Show it."""
        self._line(_NOTE, _shown(text))

    def typed(self, line: str) -> None:
        """Show a line that was typed but not executed."""
        self._show(Text(escape_controls(f"> {line}"), "dim"))

    def problem(self, text: str) -> None:
        """Show it."""
        self._line(_PROBLEM, _shown(text))

    def _line(self, mark: tuple[str, str], *parts: Text) -> None:
        time = Text(f"{self._now():%H:%M:%S}", "dim")
        line = Text(" ").join((time, Text(*mark), *parts))
        self._show(line)

    def _error(self, code: Any, message: Any, details: Any, *tag: Text) -> None:
        text = _shown(f"{code}: {message}" if message else f"{code}", "red")
        self._line(_IN, *tag, text, *self._data(details))

    def _tag(self, id: int) -> Text:
        return Text(f"#{id}", "magenta")

    def _name(self, name: str) -> Text:
        # On one line: a name with line breaks could look like other lines.
        return Text(printable(name), "bold")

    def _room(self, name: str) -> Text:
        return Text(printable(name), "blue")

    def _dim(self, text: str) -> Text:
        return Text(f"({text})", "dim")

    def _data(self, data: Any) -> tuple[Text, ...]:
        return () if data is None else (self._json(data),)

    def _json(self, data: Any) -> Text:
        json = to_json(data)
        return _highlight(_shown(indented(json) if self._as_json else json))

    def _message(self, message: str | bytes) -> tuple[Text, ...]:
        if isinstance(message, bytes):
            shown = message[:_MAX_BYTES].hex(" ") + (" …" if len(message) > _MAX_BYTES else "")
            return Text(shown), self._dim(f"binary, {_counted(len(message), 'byte')}")
        if not self._as_json:
            return (_shown(message),)
        if compact(message) is None:
            return _shown(message), self._dim("not JSON")
        return (_highlight(_shown(indented(message))),)


def _shown(text: str, style: str = "") -> Text:
    cut = text[:_MAX_SHOWN]
    shown = Text(escape_controls(cut).replace("\n", _INDENT), style)
    if len(text) > len(cut):
        shown.append(f"… ({len(text):,} characters in all)", "dim")
    return shown


def _place(position: Position, replaces: Position | None) -> str:
    more = "" if replaces is None else f", replaces {replaces.offset}"
    return f"offset {position.offset}{more}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"
