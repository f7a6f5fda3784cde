"""The lines of earlier sessions."""

import stat
from pathlib import Path

import pytest

from symphony.cli.connect.history import LineHistory, state_directory


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "history"


def lines(history: LineHistory) -> list[str]:
    """Return the lines of the file as the prompt loads them, the oldest first."""
    return [*history.load_history_strings()][::-1]


def test_the_next_session_has_the_lines_of_this_one(file: Path) -> None:
    history = LineHistory(file)
    assert lines(history) == []
    history.append_string("first")
    history.append_string("zwölf 日本")
    assert lines(LineHistory(file)) == ["first", "zwölf 日本"] == history.get_strings()


def test_only_the_user_may_read_it(file: Path) -> None:
    LineHistory(file).append_string("/emit login {}")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("line", ["", "  ", " secret"])
def test_a_line_that_begins_with_a_space_is_not_kept(file: Path, line: str) -> None:
    history = LineHistory(file)
    history.append_string(line)
    assert history.get_strings() == []
    assert not file.exists()


def test_a_line_ending_in_a_line_becomes_a_space_in_the_file(file: Path) -> None:
    LineHistory(file).append_string("one\ntwo")
    assert lines(LineHistory(file)) == ["one two"]


def test_two_sessions_at_once_lose_nothing(file: Path) -> None:
    one, other = LineHistory(file), LineHistory(file)
    one.append_string("one")
    other.append_string("other")
    assert lines(LineHistory(file)) == ["one", "other"]


@pytest.mark.within("cli.connect.history.MAX_LINES")
@pytest.mark.beyond("cli.connect.history.MAX_LINES")
def test_the_newest_lines_are_kept_and_the_file_is_cut_at_the_next_start(file: Path) -> None:
    history = LineHistory(file)
    for number in range(10):
        history.append_string(str(number))
    assert lines(LineHistory(file, limit=3)) == ["7", "8", "9"]
    assert file.read_text() == "7\n8\n9\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["history"]


def test_without_a_place_to_write_it_lasts_for_the_session(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    history = LineHistory(tmp_path / "taken" / "history")
    assert lines(history) == []
    history.append_string("kept for now")
    assert history.get_strings() == ["kept for now"]


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
