"""What a person sees: every message with its time, its direction and its colours."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, cast

from rich.highlighter import JSONHighlighter
from rich.text import Text

from symphony.cli.connect.text import compact, harmless, indented, to_json
from symphony.errors import RemoteError

__all__ = ("Screen",)

_OUT: Final = (">", "green")
_IN: Final = ("<", "cyan")
_ASIDE: Final = ("*", "yellow")
_WRONG: Final = ("!", "red")
# Longer is not read on a terminal, and would push away what was.
_MAX_SHOWN: Final = 10_000
_MAX_BYTES: Final = 1000
_INDENT: Final = "\n" + " " * len("00:00:00 < ")

_highlight = JSONHighlighter()


class Screen:
    """A `View` for people.

    Args:
        show: Puts a line on the terminal.
        as_json: Long JSON is shown over several lines.
        now: The time of day.
    """

    def __init__(
        self, show: Callable[[Text], None], *, as_json: bool, now: Callable[[], datetime] = datetime.now
    ) -> None:
        self._show = show
        self._as_json = as_json
        self._now = now

    def message(self, message: str | bytes) -> None:
        """Show it; a binary one in hexadecimal digits."""
        self._line(_IN, *self._message(message))

    def event(self, event: str, data: Any) -> None:
        """Show it; one that says what went wrong stands out."""
        if event == "error" and isinstance(data, dict) and "code" in data:
            said = cast("dict[str, Any]", data)
            self._error(said.get("code"), said.get("message"), said.get("details"))
        else:
            self._line(_IN, self._name(event), *self._data(data))

    def asked(self, event: str, data: Any) -> None:
        """Show it with a question mark."""
        self._line(_IN, self._name(f"{event}?"), *self._data(data))

    def reply(self, id: int, data: Any, seconds: float) -> None:
        """Show it with its number."""
        self._line(_IN, self._tag(id), self._json(data), self._aside(_duration(seconds)))

    def item(self, id: int, data: Any) -> None:
        """Show it with the number of the request."""
        self._line(_IN, self._tag(id), self._json(data))

    def end(self, id: int, count: int, seconds: float) -> None:
        """Show how many there were."""
        said = f"end of {_counted(count, 'item')}, {_duration(seconds)}"
        self._line(_IN, self._tag(id), self._aside(said))

    def error(self, id: int, error: RemoteError) -> None:
        """Show it with the number of the request."""
        self._error(error.code, error.message, error.details, self._tag(id))

    def said(self, message: Any) -> None:
        """Show it as it was sent."""
        parts = self._message(message) if isinstance(message, str | bytes) else (self._json(message),)
        self._line(_OUT, *parts)

    def emitted(self, event: str, data: Any) -> None:
        """Show name and data."""
        self._line(_OUT, self._name(event), *self._data(data))

    def requested(self, id: int, event: str, data: Any) -> None:
        """Show it with the number that its answer will have."""
        self._line(_OUT, self._tag(id), self._name(event), *self._data(data))

    def answered(self, data: Any) -> None:
        """Show it."""
        self._line(_OUT, self._json(data))

    def not_answered(self, event: str) -> None:
        """Show it, and how to change that."""
        self._line(_OUT, Text("not_found", "red"), self._aside(f"/answer {event} DATA answers from now on"))

    def cancelled(self, id: int) -> None:
        """Show it."""
        self._line(_OUT, self._tag(id), self._aside("cancelled"))

    def failed(self, id: int, why: str) -> None:
        """Show it with the number of the request."""
        self._line(_WRONG, self._tag(id), Text(harmless(why)))

    def help(self, typed: str, does: str) -> None:
        """Show it as it is: nothing has happened."""
        self._show(Text.assemble(f"  {typed:<25} ", (does, "dim")))

    def note(self, text: str) -> None:
        """Show it."""
        self._line(_ASIDE, Text(harmless(text)))

    def typed(self, line: str) -> None:
        """Show a line that was typed, and could not be done."""
        self._show(Text(harmless(f"> {line}"), "dim"))

    def problem(self, text: str) -> None:
        """Show it."""
        self._line(_WRONG, Text(harmless(text)))

    def _line(self, mark: tuple[str, str], *parts: Text) -> None:
        time = Text(f"{self._now():%H:%M:%S}", "dim")
        line = Text(" ").join((time, Text(*mark), *parts))
        self._show(line)

    def _error(self, code: Any, message: Any, details: Any, *tag: Text) -> None:
        said = harmless(f"{code}: {message}" if message else f"{code}")
        self._line(_IN, *tag, Text(said, "red"), *self._data(details))

    def _tag(self, id: int) -> Text:
        return Text(f"#{id}", "magenta")

    def _name(self, name: str) -> Text:
        return Text(harmless(name), "bold")

    def _aside(self, text: str) -> Text:
        return Text(f"({text})", "dim")

    def _data(self, data: Any) -> tuple[Text, ...]:
        return () if data is None else (self._json(data),)

    def _json(self, data: Any) -> Text:
        json = to_json(data)
        return _highlight(_shown(indented(json) if self._as_json else json))

    def _message(self, message: str | bytes) -> tuple[Text, ...]:
        if isinstance(message, bytes):
            shown = message[:_MAX_BYTES].hex(" ") + (" …" if len(message) > _MAX_BYTES else "")
            return Text(shown), self._aside(f"binary, {_counted(len(message), 'byte')}")
        if not self._as_json:
            return (_shown(message),)
        if compact(message) is None:
            return _shown(message), self._aside("not JSON")
        return (_highlight(_shown(indented(message))),)


def _shown(text: str) -> Text:
    cut = text[:_MAX_SHOWN]
    shown = Text(harmless(cut).replace("\n", _INDENT))
    if len(text) > len(cut):
        shown.append(f"… ({len(text):,} characters in all)", "dim")
    return shown


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"
