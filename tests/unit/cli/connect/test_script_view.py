"""What scripts get on standard output and standard error."""

import io
from typing import Any

import msgspec
import pytest

from symphony.cli.connect.script_view import ScriptView
from symphony.client import Position, Publication, RoomPresence
from symphony.client.presence import Roster
from symphony.errors import RemoteError
from symphony.protocol.rosters import MemberInfo, MembersState

INVALID = RemoteError("invalid", "Expected `int`", details={"path": "$"})


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def test_a_script_gets_a_line_for_each_message(out: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    view = ScriptView(out, as_json=False)
    view.event("said", {"text": "hi\nthere"})
    view.reply(1, None, 0.1)
    view.error(2, INVALID)
    view.item(3, [1])
    view.end(3, 1, 0.1)
    view.server_request("name", 1)
    view.message("as it is")
    view.message(b"\x00\xff")
    view.emitted("say", 1)
    view.requested(1, "sum", 1)
    view.sent("x")
    assert out.getvalue().splitlines() == [
        '{"event":"said","data":{"text":"hi\\nthere"}}',
        '{"reply":1,"data":null}',
        '{"error":2,"data":{"code":"invalid","message":"Expected `int`","retryable":false,'
        '"details":{"path":"$"}}}',
        '{"item":3,"data":[1]}',
        '{"end":3}',
        '{"request":"name","data":1}',
        "as it is",
        "00ff",
    ]
    assert capsys.readouterr() == ("", "")


def test_with_json_a_script_gets_each_message_on_one_line(
    out: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    view = ScriptView(out, as_json=True)
    view.message('{\n  "a": 1.0\n}')
    view.message("hello")
    assert out.getvalue() == '{"a":1.0}\nhello\n'
    assert capsys.readouterr().err == "Received a message that is not JSON.\n"


def test_what_is_no_message_goes_to_standard_error(
    out: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    view = ScriptView(out, as_json=False)
    view.failed(1, "too late")
    view.refused("name")
    view.note("Lost.")
    assert out.getvalue() == ""
    assert capsys.readouterr().err.splitlines() == [
        "Request 1: too late",
        "The server sent a request 'name', and there is no --answer for it.",
        "Lost.",
    ]


def test_data_that_json_has_not_is_written_as_python_does(out: io.StringIO) -> None:
    view = ScriptView(out, as_json=False)
    values: list[Any] = [msgspec.msgpack.Ext(1, b"x"), b"\x00", 1j]
    for value in values:
        view.event("x", value)
    assert len(out.getvalue().splitlines()) == 3


def test_a_script_gets_envelopes_of_what_happens_in_rooms(out: io.StringIO) -> None:
    view = ScriptView(out, as_json=False)
    roster = Roster()
    view.asked(1, "join", "chat:a")
    view.joined(1, "plain:a", None, RoomPresence(roster))
    roster.restart(MembersState("k", 1, 1, [MemberInfo("ann", {"name": "Ann"})]))
    view.joined(2, "chat:a", Position("e", 41), RoomPresence(roster))
    view.published(3, "chat:a", "say", "hi")
    view.publication("chat:a", Publication("said", "hi", Position("e", 42)))
    view.publication("chat:a", Publication("said", "ho", Position("e", 43), Position("e", 42)))
    view.publication("chat:a", Publication("typing", None, None))
    view.lost("chat:a", Position("e", 50))
    roster.restart(MembersState("k", 2, 5000))
    view.presence("chat:a", RoomPresence(roster))
    view.removed("chat:a", INVALID)
    assert out.getvalue().splitlines() == [
        '{"joined":"plain:a","position":null}',
        '{"reply":1,"data":null}',
        '{"joined":"chat:a","position":{"epoch":"e","offset":41}}',
        '{"presence":"chat:a","members":{"ann":{"name":"Ann"}},"total":1}',
        '{"reply":2,"data":null}',
        '{"event":"said","data":"hi","room":"chat:a","position":{"epoch":"e","offset":42}}',
        '{"event":"said","data":"ho","room":"chat:a","position":{"epoch":"e","offset":43},'
        '"replaces":{"epoch":"e","offset":42}}',
        '{"event":"typing","data":null,"room":"chat:a","position":null}',
        '{"lost":"chat:a","position":{"epoch":"e","offset":50}}',
        '{"presence":"chat:a","members":null,"total":5000}',
        '{"left":"chat:a","data":{"code":"invalid","message":"Expected `int`","retryable":false,'
        '"details":{"path":"$"}}}',
    ]
