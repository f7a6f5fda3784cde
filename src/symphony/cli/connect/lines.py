"""What a line that was typed means: something to send, or a command. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias, cast

import msgspec

from symphony.protocol.v1 import MAX_CREDIT, MAX_ID, MAX_NAME
from symphony.websocket.frames import valid_close_code

__all__ = (
    "COMMANDS",
    "Action",
    "Answer",
    "Cancel",
    "Command",
    "Emit",
    "Help",
    "Leave",
    "LineError",
    "Request",
    "Say",
    "parse",
    "verbatim",
)

_DEFAULT_CREDIT: Final = 64
_NUMBER: Final = re.compile(r"[0-9]{1,16}")
_CLOSE_CODE: Final = re.compile(r"[0-9]{4}")


class LineError(Exception):
    """A line means nothing; the message is one line and says what to type instead."""


class _ArgumentError(Exception):
    """What stands behind a command is not what it takes."""


@dataclass(frozen=True, slots=True)
class Say:
    """Send a message: as it is on a raw connection, else as the event `message`."""

    message: Any


@dataclass(frozen=True, slots=True)
class Emit:
    """Send an event."""

    event: str
    data: Any


@dataclass(frozen=True, slots=True)
class Request:
    """Send a request.

    Attributes:
        event: Its name.
        data: What it carries.
        id: What the user calls it, `None`: the next number.
        timeout: Seconds, `None`: as long as all others.
        credit: Of a stream; `None`: one reply is wanted.
    """

    event: str
    data: Any
    id: int | None = None
    timeout: float | None = None
    credit: int | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel a request, `None`: the newest."""

    id: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the server's requests of an event from now on."""

    event: str
    data: Any


@dataclass(frozen=True, slots=True)
class Leave:
    """Close and end."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Help:
    """Show the commands."""


Action: TypeAlias = Say | Emit | Request | Cancel | Answer | Leave | Help


class Command(NamedTuple):
    """A command that begins with `/`.

    Attributes:
        arguments: How they are written.
        does: One line for people.
        on: The kind of connections that has it: "events", "raw" or "both".
        parse: Makes an action of the arguments.
    """

    arguments: str
    does: str
    on: str
    parse: Callable[[str], Action]


def parse(line: str, *, events: bool, as_json: bool) -> Action | None:
    """Return what a line means, `None`: nothing.

    Args:
        line: Without its end.
        events: Whether the connection speaks events; else it is raw.
        as_json: Whether messages of a raw connection must be JSON.

    Raises:
        LineError: It means nothing that could be done.
    """
    if not line.strip():
        return None
    if line.startswith("/") and not line.startswith("//"):
        return _command(line, events=events, as_json=as_json)
    if not events:
        return verbatim(line[1:] if line.startswith("//") else line, as_json=as_json)
    return Say(line[1:]) if line.startswith("//") else _frame(line)


def verbatim(line: str, *, as_json: bool) -> Say:
    """Return a line as a message of a raw connection, whatever it begins with.

    Raises:
        LineError: It must be JSON, and is not.
    """
    if as_json:
        try:
            msgspec.json.decode(line)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            raise LineError(f"Not sent, for it is not JSON: {_reason(error)}.") from None
    return Say(line)


def _frame(line: str) -> Action:
    """Take a line on an event connection: a frame, data in JSON, or text."""
    begin = line.lstrip()[0]
    if begin not in "{[":
        return Say(line)
    try:
        value: Any = msgspec.json.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        if begin == "[":
            return Say(line)
        raise LineError(f"Not sent, for it is not JSON: {_reason(error)}.") from None
    if isinstance(value, dict):
        frame = cast("dict[str, Any]", value)
        if "event" in frame:
            return _event(frame)
        if frame.keys() == {"cancel"} and _is_id(frame["cancel"]):
            return Cancel(frame["cancel"])
    return Say(value)


def _event(frame: dict[str, Any]) -> Emit | Request:
    event, data, id = frame["event"], frame.get("data"), frame.get("id")
    timeout, credit = frame.get("timeout"), frame.get("credit")
    _check_name(event)
    if id is None:
        return Emit(event, data)
    if not _is_id(id):
        raise LineError(f"The id of a request is a number from 0 to 2^53 - 1, not {id!r}.")
    if timeout is not None and not (_is_number(timeout) and timeout > 0):
        raise LineError(f"timeout is seconds, above 0, not {timeout!r}.")
    if credit is not None and not (_is_id(credit) and 1 <= credit <= MAX_CREDIT):
        raise LineError(f"credit is a number of items, 1 or more, not {credit!r}.")
    return Request(event, data, id, timeout, credit)


def _command(line: str, *, events: bool, as_json: bool) -> Action:
    name, _, rest = line.partition(" ")
    command = COMMANDS.get(name)
    if command is None and not events:
        return verbatim(line, as_json=as_json)
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "/help shows them."
        raise LineError(f"There is no command {name}; {hint} To send it, write /{name}")
    if command.on not in ("both", "events" if events else "raw"):
        here = "speaks events" if events else "is raw and has no events"
        raise LineError(f"{name} does nothing here: the connection {here}. To send it, write /{name}")
    try:
        return command.parse(rest.strip())
    except _ArgumentError as error:
        raise LineError(f"{error} It is written {name} {command.arguments}") from None


def _event_and_data(arguments: str) -> tuple[str, Any]:
    event, _, text = arguments.partition(" ")
    if not event:
        raise _ArgumentError("The name of the event is missing.")
    _check_name(event)
    return event, _data(text.strip())


def _data(text: str) -> Any:
    if not text:
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        if text[0] in '{["':
            raise LineError(f"The data is not JSON: {_reason(error)}.") from None
        quoted = msgspec.json.encode(text).decode()
        raise LineError(f"The data is not JSON. Text has quotes: {quoted}.") from None


def _emit(arguments: str) -> Emit:
    return Emit(*_event_and_data(arguments))


def _request(arguments: str) -> Request:
    return Request(*_event_and_data(arguments))


def _stream(arguments: str) -> Request:
    event, data = _event_and_data(arguments)
    return Request(event, data, credit=_DEFAULT_CREDIT)


def _cancel(arguments: str) -> Cancel:
    if not arguments:
        return Cancel(None)
    number = arguments.removeprefix("#")
    if not _NUMBER.fullmatch(number):
        raise _ArgumentError(f"{arguments!r} is not the number of a request.")
    return Cancel(int(number))


def _answer(arguments: str) -> Answer:
    return Answer(*_event_and_data(arguments))


def _binary(arguments: str) -> Say:
    try:
        return Say(bytes.fromhex(arguments))
    except ValueError:
        raise _ArgumentError(f"{arguments!r} is not a row of bytes.") from None


def _close(arguments: str) -> Leave:
    number, _, reason = arguments.partition(" ")
    if not number:
        return Leave(1000, "")
    if not _CLOSE_CODE.fullmatch(number) or not valid_close_code(int(number)):
        raise LineError(f"{number!r} is not a close code that may be sent, such as 1000 or 3000 to 4999.")
    return Leave(int(number), reason.strip())


def _help(arguments: str) -> Help:
    return Help()


COMMANDS: Final[Mapping[str, Command]] = {
    "/emit": Command("EVENT [DATA]", "send an event; DATA is JSON", "events", _emit),
    "/request": Command("EVENT [DATA]", "send a request and show its reply", "events", _request),
    "/stream": Command("EVENT [DATA]", "send a request and show the items that answer it", "events", _stream),
    "/cancel": Command(
        "[NUMBER]", "cancel a request or a stream; without NUMBER the newest", "events", _cancel
    ),
    "/answer": Command(
        "EVENT [DATA]", "answer the server's requests of that name, from now on", "events", _answer
    ),
    "/binary": Command("HEX", "send a binary message, as in /binary 00 ff", "raw", _binary),
    "/close": Command("[CODE] [REASON]", "close the connection and end", "both", _close),
    "/help": Command("", "show this", "both", _help),
}


def _check_name(event: Any) -> None:
    if not isinstance(event, str) or not 0 < len(event) <= MAX_NAME:
        raise LineError(f"The name of an event is text of 1 to {MAX_NAME} characters.")
    if event == "error":
        raise LineError("The event 'error' is Symphony's own, and no client sends it.")


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_ID


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error).removeprefix("JSON is malformed: ").replace("Input data was truncated", "it breaks off")
