"""The lines of earlier sessions."""

import stat
from pathlib import Path

import pytest

from symphony.cli.connect.history import History, state_directory


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "history"


def test_the_next_session_has_the_lines_of_this_one(file: Path) -> None:
    history = History(file)
    history.add("first")
    history.add("zwölf 日本")
    assert list(History(file)) == ["first", "zwölf 日本"] == list(history)


def test_only_the_user_may_read_it(file: Path) -> None:
    History(file).add("/emit login {}")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("line", ["", "  ", " secret"])
def test_a_line_that_begins_with_a_space_is_not_kept(file: Path, line: str) -> None:
    history = History(file)
    history.add(line)
    assert list(history) == []
    assert not file.exists()


def test_the_same_line_twice_is_kept_once(file: Path) -> None:
    history = History(file)
    for line in ("a", "a", "b", "a"):
        history.add(line)
    assert list(History(file)) == ["a", "b", "a"]


def test_two_sessions_at_once_lose_nothing(file: Path) -> None:
    one, other = History(file), History(file)
    one.add("one")
    other.add("other")
    assert list(History(file)) == ["one", "other"]


def test_it_is_bounded_in_memory_and_on_the_disk(file: Path) -> None:
    history = History(file, limit=3)
    for number in range(10):
        history.add(str(number))
    assert list(history) == ["7", "8", "9"]
    assert list(History(file, limit=3)) == ["7", "8", "9"]
    assert file.read_text() == "7\n8\n9\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["history"]


def test_a_place_where_nothing_can_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    history = History(tmp_path / "taken" / "history")
    history.add("kept for now")
    assert list(history) == ["kept for now"]


@pytest.mark.parametrize(
    ("platform", "environ", "place"),
    [
        ("linux", {"XDG_STATE_HOME": "/state"}, Path("/state/symphony")),
        ("linux", {"XDG_STATE_HOME": "relative"}, Path.home() / ".local/state/symphony"),
        ("linux", {}, Path.home() / ".local/state/symphony"),
        ("darwin", {}, Path.home() / "Library/Application Support/symphony"),
        ("darwin", {"XDG_STATE_HOME": "/state"}, Path("/state/symphony")),
        ("win32", {"LOCALAPPDATA": "C:/Local"}, Path("C:/Local/symphony")),
    ],
)
def test_it_lies_where_the_system_keeps_such_things(
    platform: str, environ: dict[str, str], place: Path
) -> None:
    assert state_directory(environ, platform) == place
