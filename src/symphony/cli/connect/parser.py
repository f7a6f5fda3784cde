"""Parse a typed line into an action: something to send, or a command. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias, cast

import msgspec

from symphony.errors import valid_close_code
from symphony.protocol.v1 import MAX_CREDIT, MAX_ID, MAX_NAME

__all__ = (
    "COMMANDS",
    "Action",
    "Answer",
    "Cancel",
    "Close",
    "Command",
    "Emit",
    "Help",
    "Join",
    "Leave",
    "LineError",
    "Publish",
    "Request",
    "Send",
    "commands_for",
    "parse",
    "parse_raw",
)

_DEFAULT_CREDIT: Final = 64
_NUMBER: Final = re.compile(r"[0-9]{1,16}")
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*+"')
_CLOSE_CODE: Final = re.compile(r"[0-9]{4}")


class LineError(Exception):
    """A line cannot be executed; the message is one line and says what to type instead."""


class _ArgumentError(Exception):
    """The arguments of a command are wrong."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message: unchanged on a raw connection, otherwise as the event `message`."""

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
        event: The name of the event.
        data: The data to send with it.
        id: The number that the user chose; `None` means the next free one.
        timeout: Seconds to wait for the reply; `None` means the client's default.
        credit: Credit of a stream, in items; `None` asks for a single reply.
    """

    event: str
    data: Any
    id: int | None = None
    timeout: float | None = None
    credit: int | None = None


@dataclass(frozen=True, slots=True)
class Join:
    """Join a room."""

    room: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Leave a room."""

    room: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish an event to a room."""

    room: str
    event: str
    data: Any


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel a request; `None` means the newest one."""

    id: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the server's requests for an event from now on."""

    event: str
    data: Any


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection and quit."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Help:
    """Show the commands."""


Action: TypeAlias = Send | Emit | Request | Join | Leave | Publish | Cancel | Answer | Close | Help


class Command(NamedTuple):
    """A command that begins with `/`.

    Attributes:
        arguments: Its arguments, as the help shows them.
        description: One line of help.
        on: The connections that have it: "events", "raw" or "both".
        parse: Makes an action from the arguments.
    """

    arguments: str
    description: str
    on: str
    parse: Callable[[str], Action]


def parse(line: str, *, events: bool, as_json: bool) -> Action | None:
    """Return what a line asks for, or `None` for a blank line.

    Args:
        line: The line, without its line ending.
        events: Whether the connection speaks events; otherwise it is raw.
        as_json: Whether messages of a raw connection must be JSON.

    Raises:
        LineError: The line is invalid.
    """
    if not line.strip():
        return None
    if line.startswith("/") and not line.startswith("//"):
        return _command(line, events=events, as_json=as_json)
    if not events:
        return parse_raw(line[1:] if line.startswith("//") else line, as_json=as_json)
    return Send(line[1:]) if line.startswith("//") else _envelope(line)


def parse_raw(line: str, *, as_json: bool) -> Send:
    """Return a line as a message of a raw connection, even if it begins with `/`.

    Raises:
        LineError: The line must be JSON, but is not.
    """
    if as_json:
        try:
            msgspec.json.decode(line)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            raise LineError(f"Not sent because it is not JSON: {_reason(error)}.") from None
    return Send(line)


def commands_for(*, events: bool) -> Mapping[str, Command]:
    """Return the commands of one kind of connection.

    Args:
        events: Whether the connection speaks events; otherwise it is raw.
    """
    kind = "events" if events else "raw"
    return {name: command for name, command in COMMANDS.items() if command.on in (kind, "both")}


def _envelope(line: str) -> Action:
    """Parse a line on an event connection: an envelope, JSON data, or text."""
    begin = line.lstrip()[0]
    if begin not in "{[":
        return Send(line)
    try:
        value: Any = msgspec.json.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        if begin == "[":
            return Send(line)
        raise LineError(f"Not sent because it is not JSON: {_reason(error)}.") from None
    if isinstance(value, dict):
        envelope = cast("dict[str, Any]", value)
        if "event" in envelope:
            return _event(envelope)
        if envelope.keys() == {"cancel"} and _is_id(envelope["cancel"]):
            return Cancel(envelope["cancel"])
    return Send(value)


def _event(envelope: dict[str, Any]) -> Emit | Request:
    event, data, id = envelope["event"], envelope.get("data"), envelope.get("id")
    timeout, credit = envelope.get("timeout"), envelope.get("credit")
    _check_name(event)
    if id is None:
        return Emit(event, data)
    if not _is_id(id):
        raise LineError(f"The id of a request must be an integer from 0 to 2^53 - 1, not {id!r}.")
    if timeout is not None and not (_is_number(timeout) and timeout > 0):
        raise LineError(f"The timeout must be a number of seconds above 0, not {timeout!r}.")
    if credit is not None and not (_is_id(credit) and 1 <= credit <= MAX_CREDIT):
        raise LineError(f"The credit must be a number of items, 1 or more, not {credit!r}.")
    return Request(event, data, id, timeout, credit)


def _command(line: str, *, events: bool, as_json: bool) -> Action:
    name, _, rest = line.partition(" ")
    command = COMMANDS.get(name)
    if command is None and not events:
        return parse_raw(line, as_json=as_json)
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"Did you mean {near[0]}?" if near else "Type /help for a list."
        raise LineError(f"There is no command {name}. {hint} To send it as text, type /{name}")
    if command.on not in ("both", "events" if events else "raw"):
        here = "speaks events" if events else "is raw and has no events"
        raise LineError(f"{name} does not work here: the connection {here}. To send it as text, type /{name}")
    try:
        return command.parse(rest.strip())
    except _ArgumentError as error:
        raise LineError(f"{error} Usage: {name} {command.arguments}") from None


def _name_and_rest(arguments: str, what: str) -> tuple[str, str]:
    """Split a name and the rest; a name with spaces is in quotes, like a JSON string."""
    if arguments.startswith('"'):
        quoted = _QUOTED.match(arguments)
        try:
            name = msgspec.json.decode(quoted[0], type=str) if quoted is not None else ""
        except (msgspec.MsgspecError, UnicodeError):
            name = ""
        if quoted is None or not name:
            raise _ArgumentError(f"The name of the {what} is not a JSON string.")
        text = arguments[quoted.end() :]
        if text and not text.startswith(" "):
            raise _ArgumentError(f"A space is missing after the name of the {what}.")
    else:
        name, _, text = arguments.partition(" ")
    if not name:
        raise _ArgumentError(f"The name of the {what} is missing.")
    return name, text.strip()


def _event_and_data(arguments: str) -> tuple[str, Any]:
    event, text = _name_and_rest(arguments, "event")
    _check_name(event)
    return event, _data(text)


def _room(arguments: str) -> str:
    room, rest = _name_and_rest(arguments, "room")
    if rest:
        raise _ArgumentError(f"There is something after the name of the room: {rest!r}.")
    return room


def _data(text: str) -> Any:
    if not text:
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        if text[0] in '{["':
            raise LineError(f"The data is not JSON: {_reason(error)}.") from None
        quoted = msgspec.json.encode(text).decode()
        raise LineError(f"The data is not JSON. Put text in quotes: {quoted}") from None


def _emit(arguments: str) -> Emit:
    return Emit(*_event_and_data(arguments))


def _request(arguments: str) -> Request:
    return Request(*_event_and_data(arguments))


def _stream(arguments: str) -> Request:
    event, data = _event_and_data(arguments)
    return Request(event, data, credit=_DEFAULT_CREDIT)


def _join(arguments: str) -> Join:
    return Join(_room(arguments))


def _leave(arguments: str) -> Leave:
    return Leave(_room(arguments))


def _publish(arguments: str) -> Publish:
    room, rest = _name_and_rest(arguments, "room")
    return Publish(room, *_event_and_data(rest))


def _cancel(arguments: str) -> Cancel:
    if not arguments:
        return Cancel(None)
    number = arguments.removeprefix("#")
    if not _NUMBER.fullmatch(number):
        raise _ArgumentError(f"{arguments!r} is not the number of a request.")
    return Cancel(int(number))


def _answer(arguments: str) -> Answer:
    return Answer(*_event_and_data(arguments))


def _binary(arguments: str) -> Send:
    try:
        return Send(bytes.fromhex(arguments))
    except ValueError:
        raise _ArgumentError(f"{arguments!r} is not a row of hexadecimal bytes.") from None


def _close(arguments: str) -> Close:
    number, _, reason = arguments.partition(" ")
    if not number:
        return Close(1000, "")
    if not _CLOSE_CODE.fullmatch(number) or not valid_close_code(int(number)):
        raise LineError(f"{number!r} is not a close code that you can send. Use 1000, or 3000 to 4999.")
    return Close(int(number), reason.strip())


def _help(arguments: str) -> Help:
    return Help()


COMMANDS: Final[Mapping[str, Command]] = {
    "/emit": Command(
        "EVENT [DATA]", "send an event; DATA is JSON, and a name with spaces is in quotes", "events", _emit
    ),
    "/request": Command("EVENT [DATA]", "send a request and show its reply", "events", _request),
    "/stream": Command("EVENT [DATA]", "send a request and show each item of the stream", "events", _stream),
    "/join": Command("ROOM", "join a room and show what is published there", "events", _join),
    "/leave": Command("ROOM", "leave a room", "events", _leave),
    "/publish": Command(
        "ROOM EVENT [DATA]", "publish an event to a room and show its position", "events", _publish
    ),
    "/cancel": Command(
        "[NUMBER]", "cancel a request or a stream; without NUMBER, the newest", "events", _cancel
    ),
    "/answer": Command(
        "EVENT [DATA]", "answer the server's requests with this name from now on", "events", _answer
    ),
    "/binary": Command("HEX", "send a binary message, for example /binary 00 ff", "raw", _binary),
    "/close": Command("[CODE] [REASON]", "close the connection and quit", "both", _close),
    "/help": Command("", "show this help", "both", _help),
}


def _check_name(event: Any) -> None:
    if not isinstance(event, str) or not 0 < len(event) <= MAX_NAME:
        raise LineError(f"The name of an event must be text of 1 to {MAX_NAME} characters.")
    if event == "error":
        raise LineError("The event name 'error' is reserved: only servers send it.")


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_ID


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text = str(error).removeprefix("JSON is malformed: ")
    return text.replace("Input data was truncated", "it ends too early")
