"""What people see in a terminal."""

from datetime import datetime

import msgspec
import pytest
from rich.text import Text

from symphony.cli.connect.terminal_view import TerminalView
from symphony.client import Position, Publication, RoomPresence
from symphony.client.presence import Roster
from symphony.errors import RemoteError
from symphony.protocol.rosters import MemberInfo, MembersState

INVALID = RemoteError("invalid", "Expected `int`", details={"path": "$"})


class Seen:
    """A screen that keeps its lines; the time is always noon."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.texts: list[Text] = []
        self.view = TerminalView(self.texts.append, as_json=as_json, now=lambda: datetime(2026, 1, 31, 12))

    @property
    def lines(self) -> list[str]:
        assert all(text.plain.startswith("12:00:00 ") for text in self.texts)
        return [text.plain.removeprefix("12:00:00 ") for text in self.texts]


def test_a_person_sees_direction_number_and_data() -> None:
    seen = Seen()
    view = seen.view
    view.emitted("say", {"text": "hi"})
    view.event("said", None)
    view.requested(1, "sum", [1, 2])
    view.reply(1, 3, 0.0042)
    view.error(2, INVALID)
    view.item(3, "a")
    view.end(3, 1, 2.5)
    view.cancelled(4)
    view.server_request("name", None)
    view.answered("Ada")
    view.refused("name")
    view.failed(5, "nobody answers")
    view.sent({"a": 1})
    view.note("a note")
    view.problem("a problem")
    assert seen.lines == [
        '> say {"text":"hi"}',
        "< said",
        "> #1 sum [1,2]",
        "< #1 3 (4.2 ms)",
        '< #2 invalid: Expected `int` {"path":"$"}',
        '< #3 "a"',
        "< #3 (end of 1 item, 2.5 s)",
        "> #4 (cancelled)",
        "< name?",
        '> "Ada"',
        "> not_found (type /answer name DATA to answer the next one)",
        "! #5 nobody answers",
        '> {"a":1}',
        "* a note",
        "! a problem",
    ]


def test_an_event_error_reads_like_an_error() -> None:
    seen = Seen()
    seen.view.event("error", {"code": "not_found", "message": "no handler", "details": {"event": "x"}})
    seen.view.event("error", "something else")
    assert seen.lines == ['< not_found: no handler {"event":"x"}', '< error "something else"']


def everything(view: TerminalView, evil: str) -> None:
    """Show a text wherever a server can put one."""
    view.message(evil)
    view.event(evil, evil)
    view.event("error", {"code": evil, "message": evil, "details": evil})
    view.server_request(evil, evil)
    view.refused(evil)
    view.reply(1, evil, 0.1)
    view.item(1, {evil: evil})
    view.error(1, RemoteError("internal", evil, details=evil))
    view.failed(1, evil)
    view.note(evil)
    view.problem(evil)


@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_that_a_server_sends_is_obeyed_by_the_terminal(as_json: bool) -> None:
    seen = Seen(as_json=as_json)
    everything(seen.view, "\x1b[2J\x07\x9b\r[red]\u202e\u2066\u2028\x7f")
    for text in seen.texts:
        assert "\\x1b[2J" in text.plain or "\\u001b[2J" in text.plain
        assert not set(text.plain) & set("\x1b\x07\x9b\r\u202e\u2066\u2028\x7f")


def test_no_text_of_a_server_looks_like_another_line() -> None:
    seen = Seen()
    everything(seen.view, "x\n12:00:00 * Closed.\n* Closed.\n> bye")
    for text in seen.texts:
        first, *others = text.plain.split("\n")
        assert first.startswith("12:00:00 ")
        assert all(line.startswith(" " * len("12:00:00 < ")) for line in others)


@pytest.mark.parametrize("size", [10_001, 1_000_000])
def test_no_text_of_a_server_fills_the_terminal(size: int) -> None:
    seen = Seen()
    everything(seen.view, "x" * size)
    # An event has a name and data, and an error has a message and details.
    assert max(len(text.plain) for text in seen.texts) < 21_000


def test_further_lines_of_a_message_stand_under_its_first() -> None:
    seen = Seen()
    seen.view.message("one\ntwo")
    assert seen.lines == ["< one\n           two"]


@pytest.mark.within("cli.connect.terminal_view._MAX_SHOWN", "cli.connect.terminal_view._MAX_BYTES")
@pytest.mark.beyond("cli.connect.terminal_view._MAX_SHOWN", "cli.connect.terminal_view._MAX_BYTES")
def test_a_message_that_is_too_long_to_read_is_cut() -> None:
    seen = Seen()
    seen.view.message("x" * 20_000)
    seen.view.message(b"\x01" * 20_000)
    assert [len(line) < 11_000 for line in seen.lines] == [True, True]
    assert seen.lines[0].endswith("… (20,000 characters in all)")
    assert seen.lines[1].endswith("… (binary, 20,000 bytes)")


def test_with_json_a_long_message_is_indented_and_a_wrong_one_marked() -> None:
    seen = Seen(as_json=True)
    seen.view.message('{"a": [1, 2.50, 12345678901234567890]}')
    seen.view.message(msgspec.json.encode({"list": list(range(40))}).decode())
    seen.view.message("hello")
    assert seen.lines[0] == '< {"a":[1,2.50,12345678901234567890]}'
    assert seen.lines[1].count("\n") == 43
    assert seen.lines[2] == "< hello (not JSON)"


def members(*ids: str, total: int | None = None) -> RoomPresence:
    """Return members; with a total and no ids, those of a crowded room."""
    roster = Roster()
    listed = [MemberInfo(id) for id in ids] if ids or total is None else None
    roster.restart(MembersState("k", 1, len(ids) if total is None else total, listed))
    return RoomPresence(roster)


def test_a_person_sees_what_happens_in_rooms() -> None:
    seen = Seen()
    view = seen.view
    view.asked(1, "join", "chat:a")
    view.joined(1, "chat:a", Position("e", 41), members("ann"))
    view.published(2, "chat:a", "say", "hi")
    view.publication("chat:a", Publication("said", "hi", Position("e", 42)))
    view.publication("chat:a", Publication("said", None, Position("e", 43), Position("e", 42)))
    view.publication("chat:a", Publication("typing", {"by": "ann"}, None))
    view.presence("chat:a", members())
    view.presence("chat:a", members(total=5000))
    view.lost("chat:a", Position("e", 50))
    view.removed("chat:a", RemoteError("closed", "it is over"))
    view.asked(3, "join", "plain:a")
    view.joined(3, "plain:a", None, RoomPresence(Roster()))
    view.publication("a\nb", Publication("c\x1b[2J", "\x1b[2J", None))
    assert seen.lines == [
        "> #1 join chat:a",
        "< #1 joined chat:a, after the offset 41",
        "* chat:a 1 member: ann",
        '> #2 chat:a say "hi"',
        '< chat:a said "hi" (offset 42)',
        "< chat:a said (offset 43, replaces 42)",
        '< chat:a typing {"by":"ann"}',
        "* chat:a 0 members",
        "* chat:a 5,000 members",
        "! chat:a publications are lost: the room goes on after the offset 50",
        "! chat:a you are no longer in this room: closed: it is over",
        "> #3 join plain:a",
        "< #3 joined plain:a",
        '< a\\nb c\\x1b[2J "\\u001b[2J"',
    ]


@pytest.mark.within("cli.connect.terminal_view._MAX_MEMBERS")
@pytest.mark.beyond("cli.connect.terminal_view._MAX_MEMBERS")
def test_a_person_sees_the_first_members_of_a_large_room() -> None:
    seen = Seen()
    ids = [f"user{number}" for number in range(23)]
    seen.view.presence("a", members(*ids[:20]))
    seen.view.presence("a", members(*ids))
    assert seen.lines == [
        f"* a 20 members: {', '.join(ids[:20])}",
        f"* a 23 members: {', '.join(ids[:20])}, and 3 more",
    ]
