"""What a typed line means."""

from typing import Any

import pytest

from symphony.cli.connect.parser import (
    Action,
    Answer,
    Cancel,
    Close,
    Emit,
    Help,
    Join,
    Leave,
    LineError,
    Publish,
    Request,
    Send,
    parse,
    parse_raw,
)


def on_events(line: str) -> Action | None:
    return parse(line, events=True, as_json=False)


def on_raw(line: str) -> Action | None:
    return parse(line, events=False, as_json=False)


def complaint(line: str, *, events: bool = True, as_json: bool = False) -> str:
    with pytest.raises(LineError) as caught:
        parse(line, events=events, as_json=as_json)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("line", "action"),
    [
        ('/emit say {"text":"hi"}', Emit("say", {"text": "hi"})),
        ("/emit typing", Emit("typing", None)),
        ("/request sum   [1,2]", Request("sum", [1, 2])),
        ("/stream count 5", Request("count", 5, credit=64)),
        ("/cancel", Cancel(None)),
        ("/cancel 2", Cancel(2)),
        ("/cancel #2", Cancel(2)),
        ('/answer name "Ada"', Answer("name", "Ada")),
        ("/join chat:lobby", Join("chat:lobby")),
        ('/join  "a room" ', Join("a room")),
        ("/leave chat:lobby", Leave("chat:lobby")),
        ('/publish chat:lobby said "hi"', Publish("chat:lobby", "said", "hi")),
        ("/publish chat:lobby typing", Publish("chat:lobby", "typing", None)),
        ('/publish "a room" "said it" [1]', Publish("a room", "said it", [1])),
        ("/close", Close(1000, "")),
        ("/close 4000 so long", Close(4000, "so long")),
        ("/help", Help()),
        ('{"event":"say","data":1}', Emit("say", 1)),
        ('{"event":"say"}', Emit("say", None)),
        (' {"event":"sum","data":[1],"id":7,"timeout":2.5}', Request("sum", [1], 7, 2.5)),
        ('{"event":"count","id":0,"credit":2}', Request("count", None, 0, credit=2)),
        ('{"cancel":7}', Cancel(7)),
        ('{"text":"hi"}', Send({"text": "hi"})),
        ("[1,2]", Send([1, 2])),
        ("[hi] all", Send("[hi] all")),
        ("42", Send("42")),
        (" hello  there ", Send(" hello  there ")),
        ("//who", Send("/who")),
        ("", None),
        ("   ", None),
    ],
)
def test_a_line_on_an_event_connection_means(line: str, action: Action | None) -> None:
    assert on_events(line) == action


@pytest.mark.parametrize(
    ("line", "action"),
    [
        ("hello", Send("hello")),
        ('{"event":"say"}', Send('{"event":"say"}')),
        ("{broken", Send("{broken")),
        ("/who", Send("/who")),
        ("//help", Send("/help")),
        ("/binary 00 ff", Send(b"\x00\xff")),
        ("/binary", Send(b"")),
        ("/help", Help()),
        ("/close", Close(1000, "")),
    ],
)
def test_a_line_on_a_raw_connection_means(line: str, action: Action) -> None:
    assert on_raw(line) == action


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/emti say", "Did you mean /emit?"),
        ("/who", "To send it as text, type //who"),
        ("/emit", "Usage: /emit EVENT [DATA]"),
        ("/emit say hi there", 'Put text in quotes: "hi there"'),
        ('/emit say {"a"', "not JSON: it ends too early"),
        ("/emit error 1", "is reserved"),
        (f"/emit {'x' * 257}", "1 to 256 characters"),
        ("/binary 00", "the connection speaks events"),
        ("/join", "The name of the room is missing. Usage: /join ROOM"),
        ("/join a b", "There is something after the name of the room: 'b'. Usage: /join ROOM"),
        ('/leave "a', "The name of the room is not a JSON string. Usage: /leave ROOM"),
        ('/leave ""', "The name of the room is not a JSON string."),
        ("/publish chat:a", "The name of the event is missing. Usage: /publish ROOM EVENT [DATA]"),
        ("/publish chat:a error 1", "is reserved"),
        ("/publish chat:a say hi", 'Put text in quotes: "hi"'),
        ("/cancel all", "Usage: /cancel [NUMBER]"),
        (f"/cancel {'9' * 5000}", "Usage: /cancel [NUMBER]"),
        ("/close 1006", "not a close code that you can send"),
        (f"/close {'9' * 5000}", "not a close code that you can send"),
        ("/close soon", "not a close code that you can send"),
        ('{"event":"say"', "not JSON: it ends too early"),
        ("{" * 100_000, "not JSON"),
        ("/emit say " + "[" * 100_000, "nested too deeply"),
        ('{"event":1}', "The name of an event must be text"),
        ('{"event":"x","id":-1}', "The id of a request"),
        ('{"event":"x","id":true}', "The id of a request"),
        ('{"event":"x","id":1,"timeout":0}', "The timeout must be"),
        ('{"event":"x","id":1,"credit":0}', "The credit must be"),
    ],
)
def test_a_line_that_means_nothing_is_told_what_would(line: str, said: str) -> None:
    assert said in complaint(line)


def test_commands_for_events_are_refused_on_a_raw_connection() -> None:
    assert "is raw and has no events" in complaint("/emit say 1", events=False)


@pytest.mark.parametrize("line", ["hello", "{", "/who", "//help", "[1,", "1 2"])
def test_with_json_a_raw_message_must_be_json(line: str) -> None:
    assert "Not sent because it is not JSON" in complaint(line, events=False, as_json=True)


@pytest.mark.parametrize("line", ["/close", "//x", "", " "])
def test_a_line_of_a_script_is_a_raw_message_whatever_it_begins_with(line: str) -> None:
    assert parse_raw(line, as_json=False) == Send(line)


@pytest.mark.parametrize("data", [{"a": [1, None, "ü"]}, 1.5, "x", None, [[]]])
def test_data_is_json(data: Any) -> None:
    import msgspec

    action = on_events(f"/emit x {msgspec.json.encode(data).decode()}")
    assert action == Emit("x", data)


@pytest.mark.parametrize(
    ("line", "action"),
    [
        ('/request "join room" {"a":1}', Request("join room", {"a": 1})),
        ('/emit "say it"', Emit("say it", None)),
        ('/stream "a \\"b\\" c" 3', Request('a "b" c', 3, credit=64)),
        ('/answer "my name" "Ada"', Answer("my name", "Ada")),
        ('/emit "plain" 1', Emit("plain", 1)),
        ('/emit " " 1', Emit(" ", 1)),
        ('/emit say "hi there"', Emit("say", "hi there")),
        ("/emit it's 1", Emit("it's", 1)),
    ],
)
def test_a_name_with_spaces_is_in_quotes(line: str, action: Action) -> None:
    assert on_events(line) == action


@pytest.mark.parametrize(
    "line", ['/request "join room', '/emit "" 1', '/emit "a"b', '/emit "\\x" 1', '/emit "']
)
def test_a_name_in_bad_quotes(line: str) -> None:
    assert "Usage: /" in complaint(line)
