import logging

import pytest

from symphony.misnamed import MAX_CHARACTERS, MAX_COMPARED, MAX_LOOKED_AT, Misnamed, nearest

EVENTS = ["say", "leave", "userJoined", "game.{id:int}.move", "{anything}.x"]
PATHS = ["/", "/chat", "/chat/{room}", "/files/{rest:path}", "/ws/news"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("sya", "say"),
        ("Say", "say"),
        ("user_joined", "userJoined"),
        ("game.7.mvoe", "game.{id:int}.move"),
        # The parameter is not an integer.
        ("game.seven.move", "game.{id:int}.move"),
        ("gmae.7.move", "game.{id:int}.move"),
        ("weather", None),
        ("", None),
        ("__proto__", None),
    ],
)
def test_the_event_that_was_probably_meant(name: str, meant: str | None) -> None:
    assert nearest(name, EVENTS, ".") == meant


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chta", "/chat"),
        ("/chat/", "/chat"),
        ("/Chat", "/chat"),
        ("/chta/a-room-with-a-long-name", "/chat/{room}"),
        ("/news", "/ws/news"),
        ("/admin.php", None),
    ],
)
def test_the_path_that_was_probably_meant(path: str, meant: str | None) -> None:
    assert nearest(path, PATHS, "/") == meant


def test_each_name_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    misnamed = Misnamed(logging.getLogger("symphony.test"), "No '%s' in %s, but '%s'.", ".")
    for _ in range(3):
        misnamed.look("sya", ["say"], "a")
        misnamed.look("sya", ["say"], "b")
        misnamed.look("weather", ["say"], "a")
    assert caplog.messages == ["No 'sya' in a, but 'say'.", "No 'sya' in b, but 'say'."]


def test_text_of_a_peer_stays_on_its_line(caplog: pytest.LogCaptureFixture) -> None:
    misnamed = Misnamed(logging.getLogger("symphony.test"), "No '%s', but '%s'.", ".")
    for end in ("\n", "\x1b", "\u202e", "\x9b", "\ud800"):
        misnamed.look(f"message{end}", ["message"])
    assert len(caplog.messages) == 5
    assert all(line.isprintable() for line in caplog.messages)


class Names:
    """Names that count how often they are looked through."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.given = 0

    def __iter__(self):
        for number in range(self.count):
            self.given += 1
            yield f"event{number}"


@pytest.mark.within("misnamed.MAX_LOOKED_AT", "misnamed.MAX_COMPARED")
@pytest.mark.beyond("misnamed.MAX_LOOKED_AT", "misnamed.MAX_COMPARED", "misnamed.MAX_CHARACTERS")
def test_a_stranger_can_cause_a_limited_number_of_looks(caplog: pytest.LogCaptureFixture) -> None:
    misnamed = Misnamed(logging.getLogger("symphony.test"), "No '%s', but '%s'.", ".")
    names = Names(10 * MAX_COMPARED)
    misnamed.look("e" * (MAX_CHARACTERS + 1), names)
    assert names.given == 0
    for number in range(10 * MAX_LOOKED_AT):
        misnamed.look(f"evnt{number}", names)
    assert names.given == MAX_LOOKED_AT * MAX_COMPARED
    assert len(caplog.messages) == MAX_LOOKED_AT


@pytest.mark.within("misnamed.MAX_CHARACTERS")
def test_the_longest_name_is_compared(caplog: pytest.LogCaptureFixture) -> None:
    misnamed = Misnamed(logging.getLogger("symphony.test"), "No '%s', but '%s'.", ".")
    misnamed.look("e" * MAX_CHARACTERS, ["e" * (MAX_CHARACTERS + 1)])
    assert len(caplog.messages) == 1


def test_a_long_name_that_exists_is_not_compared() -> None:
    assert nearest("x" * MAX_CHARACTERS, ["x" * (2 * MAX_CHARACTERS + 1)], ".") is None
