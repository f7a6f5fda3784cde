"""The pages about the architecture name files that exist, and unit tests are where their modules are."""

import re
from pathlib import Path

import pytest

import symphony

PACKAGE = Path(symphony.__file__).parent
ROOT = Path(__file__).parent.parent.parent
PAGES = (ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs" / "decisions").glob("*.md")))
UNIT = ROOT / "tests" / "unit"

# Paths in code spans: `session/lane.py`, `rooms/`, `clients/javascript/symphony.js`.
_PATH = re.compile(r"`([\w./-]+(?:\.(?:py|js|toml|md)|/))`")


def named_in(text: str) -> list[str]:
    """Return the files and folders that a page names."""
    return _PATH.findall(text)


def exists(path: str) -> bool:
    """Return whether a file, or a folder with files, is in the package or the repository."""
    for found in (PACKAGE / path, ROOT / path):
        if found.is_file() and not path.endswith("/"):
            return True
        # Python leaves `__pycache__` behind in a folder whose modules have moved.
        if any(file.is_file() and file.suffix != ".pyc" for file in found.rglob("*")):
            return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    assert [path for path in named_in(page.read_text()) if not exists(path)] == []


def listed_modules() -> dict[str, list[str]]:
    """Return the modules that the table of the larger folders names, by folder."""
    rows = re.findall(
        r"^\| `([\w/]+)/` \| (.*) \|$", _table("The modules of the larger folders"), re.MULTILINE
    )
    return {folder: re.findall(r"`(\w+)`", modules) for folder, modules in rows}


def _table(caption: str) -> str:
    return (
        (ROOT / "ARCHITECTURE.md").read_text().partition(caption)[2].partition("\n\n")[2].partition("\n\n")[0]
    )


@pytest.mark.parametrize("folder", listed_modules())
def test_the_modules_of_a_large_folder_are_listed_once_each(folder: str) -> None:
    modules = [file.stem for file in (PACKAGE / folder).glob("*.py") if file.stem != "__init__"]
    modules += [file.parent.name for file in (PACKAGE / folder).glob("*/__init__.py")]
    assert sorted(listed_modules()[folder]) == sorted(modules)


def test_every_folder_with_many_modules_is_listed() -> None:
    large = {
        str(folder.relative_to(PACKAGE))
        for folder in PACKAGE.rglob("*")
        if folder.is_dir() and len(list(folder.glob("*.py"))) > 8
    }
    assert large <= set(listed_modules())


def test_the_name_of_a_file_that_has_moved_is_found() -> None:
    text = "see `lane.py`, `session/lane.py`, `compiling/` and `rooms/`, but not socket.py"
    assert [path for path in named_in(text) if not exists(path)] == ["lane.py", "compiling/"]
    assert len(named_in(text)) == 4


def modules_of(test: Path) -> list[Path]:
    """Return the modules that a test may belong to: `test_lane.py` or `test_lane_order.py` to `lane.py`."""
    words = test.stem.removeprefix("test_").split("_")
    folder = PACKAGE / test.parent.relative_to(UNIT)
    return [folder / f"{'_'.join(words[:count])}.py" for count in range(1, len(words) + 1)]


def test_every_unit_test_is_where_its_module_is() -> None:
    tests = list(UNIT.rglob("test_*.py"))
    assert tests
    lost = [test for test in tests if not any(module.is_file() for module in modules_of(test))]
    assert [str(test.relative_to(UNIT)) for test in lost] == []


def test_a_unit_test_in_the_wrong_folder_is_found() -> None:
    assert not any(module.is_file() for module in modules_of(UNIT / "transport" / "test_lane.py"))
    assert any(module.is_file() for module in modules_of(UNIT / "session" / "test_lane_order.py"))
