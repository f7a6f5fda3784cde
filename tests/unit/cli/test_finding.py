"""From what the user wrote to the app, and what is said when there is none."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from symphony import Symphony
from symphony.cli.finding import AppImportError, TargetError, load, locate


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def problem(target: str) -> str:
    with pytest.raises(TargetError) as caught:
        load(locate(target))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_without_a_name_means_its_app() -> None:
    write("served1.py", "from symphony import Symphony\napp = Symphony()\napp.state.it = 1")
    assert load(locate("served1.py")).state.it == 1


def test_the_only_symphony_is_found_whatever_its_name() -> None:
    write(
        "served2.py",
        "from symphony import Symphony\napp = object()\nchat = Symphony()\nchat.state.it = 2\nalso = chat",
    )
    assert load(locate("served2.py")).state.it == 2


def test_a_name_may_lead_into_an_object() -> None:
    write("served3.py", "from symphony import Symphony\nclass Apps:\n    two = Symphony()\n")
    assert isinstance(load(locate("served3.py:Apps.two")), Symphony)


def test_a_module_is_found_from_the_current_folder() -> None:
    write("served4/chat.py", "from symphony import Symphony\napp = Symphony()")
    assert isinstance(load(locate("served4.chat:app")), Symphony)


def test_a_file_of_a_package_may_import_its_siblings() -> None:
    write("deep/served5/__init__.py", "")
    write("deep/served5/made.py", "from symphony import Symphony\nmade = Symphony()")
    write("deep/served5/main.py", "from .made import made as app")
    source = locate("deep/served5/main.py")
    assert isinstance(load(source), Symphony)
    assert source.module == "served5.main"


def test_what_is_watched_is_the_folder_of_the_file_or_the_whole_package(folder: Path) -> None:
    write("alone/served6.py", "")
    write("deep/served7/__init__.py", "")
    write("deep/served7/inner/__init__.py", "")
    write("deep/served7/inner/main.py", "")
    assert locate("alone/served6.py").watched == folder / "alone"
    assert locate("deep/served7/inner/main.py").watched == folder / "deep/served7"


def test_what_is_watched_for_a_module_is_where_it_is(folder: Path) -> None:
    write("served8.py", "")
    write("served9/__init__.py", "")
    write("served9/main.py", "")
    assert locate("served8:app").watched == folder
    assert locate("served9.main:app").watched == folder / "served9"


def test_a_missing_file_is_said_with_where_it_was_looked_for(folder: Path) -> None:
    assert problem("absent.py") == f"There is no file absent.py (seen from {folder})."


def test_a_missing_module_is_said() -> None:
    assert "There is no module 'absent'" in problem("absent:app")


def test_a_missing_submodule_is_said() -> None:
    write("served10/__init__.py", "")
    assert problem("served10.absent:app") == "served10.absent:app: there is no module 'served10.absent'."


def test_a_file_without_its_ending_is_hinted_at() -> None:
    write("place/served11.py", "")
    assert "write path/to/file.py" in problem("place/served11")


def test_a_target_that_is_neither_is_refused() -> None:
    assert "names no app" in problem("not an app")


def test_a_missing_name_is_said_with_those_that_are_there() -> None:
    write("served12.py", "from symphony import Symphony\none = Symphony()\ntwo = Symphony()")
    assert (
        problem("served12.py:three")
        == "served12.py:three: there is no 'three'. Symphony apps there: one, two."
    )


def test_something_else_than_a_symphony_is_refused_with_its_type() -> None:
    write("served13.py", "app = 7")
    assert "'app' is of type int, not a Symphony app or another ASGI app." in problem("served13:app")


def test_a_module_without_an_app_is_refused() -> None:
    write("served14.py", "")
    assert "served14.py has no Symphony app: write app = Symphony()" in problem("served14.py")


def test_several_apps_without_a_name_are_refused() -> None:
    write("served15.py", "from symphony import Symphony\none = Symphony()\ntwo = Symphony()")
    assert problem("served15.py").endswith("several apps (one, two): say which, as in served15.py:one.")


OUTER = """
from fastapi import APIRouter, FastAPI
from symphony import Symphony
ws = Symphony()
router = APIRouter()
outer = FastAPI()
outer.include_router(router)
"""


def test_an_app_of_another_framework_is_served_with_what_is_mounted_in_it() -> None:
    """The mounted Symphony was served alone, without a word, and its routes answered under other paths."""
    write("served20.py", OUTER + "outer.mount('/ws', ws)")
    assert load(locate("served20.py")) is sys.modules["served20"].outer


def test_a_mount_is_found_through_mounts_and_middleware() -> None:
    write(
        "served21.py",
        OUTER
        + "from starlette.applications import Starlette\n"
        + "from starlette.middleware.gzip import GZipMiddleware\n"
        + "inner = Starlette()\n"
        + "inner.mount('/ws', GZipMiddleware(ws))\n"
        + "outer.mount('/inner', inner)\n"
        + "app = GZipMiddleware(outer)\n",
    )
    assert load(locate("served21.py")) is sys.modules["served21"].app


def test_a_route_that_has_a_name_of_its_own_is_a_part_too() -> None:
    write(
        "served36.py",
        OUTER
        + "from starlette.applications import Starlette\n"
        + "from starlette.routing import Mount\n"
        + "mount = Mount('/ws', ws)\n"
        + "site = Starlette(routes=[mount])\n"
        + "site.mount('/again', site)\n",
    )
    assert load(locate("served36.py")) is sys.modules["served36"].site


def test_an_app_given_as_http_is_a_part_of_the_symphony() -> None:
    write("served22.py", OUTER + "app = outer\nchat = Symphony(http=app)\ndel ws")
    assert load(locate("served22.py")) is sys.modules["served22"].chat


def test_an_app_without_any_symphony_in_the_module_is_served_if_it_is_called_app() -> None:
    write("served23.py", "async def app(scope, receive, send): ...")
    assert load(locate("served23.py")) is sys.modules["served23"].app


def test_two_apps_of_which_none_contains_the_other_are_refused_with_how_to_serve_both() -> None:
    write("served24.py", OUTER + "app = outer\ndel outer")
    assert problem("served24.py") == (
        "served24.py has several apps (ws, app): say which, as in served24.py:ws. "
        "To serve both, write ws = Symphony(http=app), or mount one in the other."
    )


def test_an_app_called_app_is_not_preferred_to_another() -> None:
    write("served25.py", "from symphony import Symphony\nother = Symphony()\napp = Symphony()")
    assert "several apps (other, app)" in problem("served25.py")


def test_the_app_that_is_named_is_served_whatever_contains_it() -> None:
    write("served26.py", OUTER + "outer.mount('/ws', ws)")
    assert load(locate("served26:ws")) is sys.modules["served26"].ws
    assert load(locate("served26:outer")) is sys.modules["served26"].outer


@pytest.mark.parametrize("target", ["served27.py:create", "served27:create", "served27:create()"])
def test_a_factory_is_called(target: str) -> None:
    write(
        "served27.py",
        "from symphony import Symphony\ndef create(it=7):\n    app = Symphony()\n"
        "    app.state.it = it\n    return app",
    )
    assert load(locate(target)).state.it == 7


def test_a_factory_that_no_name_leads_to_is_hinted_at() -> None:
    write("served28.py", "def create_app(): ...")
    assert problem("served28.py").endswith("to call its create_app(), write served28.py:create_app.")


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("async def f(): ...", "f() is async"),
        ("def f(debug): ...", "f() cannot be called without arguments: missing a required argument: 'debug'"),
        ("def f(): ...", "f() returned of type NoneType"),
        ("from symphony import Symphony as f", "'f' is the class Symphony"),
        ("def f(environ, start_response): ...", "f() cannot be called without arguments"),
        ("import json as f", "'f' is a module"),
    ],
)
def test_something_that_makes_no_app_is_refused(factory: str, expected: str) -> None:
    write("served29.py", factory)
    assert expected in problem("served29:f")


def test_an_error_of_a_factory_keeps_only_the_frames_of_the_user() -> None:
    write("served30.py", "def create():\n    raise ValueError('no')\n")
    with pytest.raises(AppImportError, match=r"served30:create\(\) failed") as caught:
        load(locate("served30:create"))
    cause = caught.value.__cause__
    assert isinstance(cause, ValueError)
    assert cause.__traceback__ is not None
    assert Path(cause.__traceback__.tb_frame.f_code.co_filename).name == "served30.py"


def test_a_dot_for_the_colon_is_hinted_at() -> None:
    write("served31.py", "from symphony import Symphony\napp = Symphony()")
    assert problem("served31.app").endswith("there is no module 'served31.app'. Did you mean served31:app?")


def test_a_file_written_like_a_module_is_hinted_at() -> None:
    write("served32.py", "from symphony import Symphony\napp = Symphony()")
    assert problem("served32.py.app").endswith("For the file write served32.py:app.")


def test_names_that_are_close_are_suggested() -> None:
    write("served33.py", "from symphony import Symphony\nchat_app = Symphony()")
    assert problem("served33:chat_ap").endswith("there is no 'chat_ap'. Did you mean chat_app?")
    assert problem("servd33:chat_app").endswith("Did you mean served33:chat_app?")
    assert problem("servd33.py").endswith("Did you mean served33.py?")


def test_a_folder_is_refused_unless_it_is_a_package() -> None:
    write("served34/main.py", "")
    write("served35/__init__.py", "from symphony import Symphony\napp = Symphony()")
    assert problem("served34").startswith("served34 is a folder: name a file in it")
    assert isinstance(load(locate("served35")), Symphony)


def test_a_file_with_the_name_of_a_loaded_module_is_refused() -> None:
    write("json.py", "from symphony import Symphony\napp = Symphony()")
    assert "Rename the file" in problem("json.py")


def test_an_error_of_the_module_keeps_only_the_frames_of_the_user() -> None:
    write("served16.py", "def fails():\n    raise ValueError('no')\nfails()")
    with pytest.raises(AppImportError) as caught:
        load(locate("served16.py"))
    cause = caught.value.__cause__
    assert isinstance(cause, ValueError)
    files = []
    frames = cause.__traceback__
    while frames is not None:
        files.append(Path(frames.tb_frame.f_code.co_filename).name)
        frames = frames.tb_next
    assert files == ["served16.py", "served16.py"]


def test_a_module_missing_inside_the_module_is_an_error_of_the_module() -> None:
    write("served17.py", "import absent_library")
    with pytest.raises(AppImportError):
        load(locate("served17.py"))
