"""The documentation is code: it runs, its links lead somewhere, its tables are what the source says."""

import ast
import inspect
import os
import re
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

import symphony
from support.clients import connect
from support.pages import CLIENT, ROOT, RUN, Reader, anchors, blocks, links, rows
from support.process import launch, outcome
from symphony import Limits, Router, Stats
from symphony.errors import CODES
from symphony.rooms.policy import RoomPolicy

SOURCE = ROOT / "src" / "symphony"
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
LINKED = [*PAGES, *sorted((ROOT / "examples").rglob("*.md"))]


def _named(page: Path) -> str:
    return str(page.relative_to(ROOT))


# Node, Chromium and tests of tests take their time on a busy machine.
@pytest.mark.timeout(60)
@pytest.mark.parametrize("page", PAGES, ids=_named)
async def test_everything_a_page_says_can_be_done(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Reader(page, tmp_path, monkeypatch).follow()


async def test_the_first_server_of_the_readme_answers_as_shown(tmp_path: Path) -> None:
    shown = blocks(ROOT / "README.md")
    (server,) = [block for block in shown if block.title == "hello.py"]
    lines = [line for line in server.text.splitlines() if line]
    assert len(lines) == 5
    (tmp_path / "hello.py").write_text(server.text)
    talk = next(block.text for block in shown if block.text.startswith("$ wscat"))
    command = (sys.executable, "-W", "error", "-m", "symphony", "run", "hello.py", "--port", "0")
    async with launch(*command, cwd=tmp_path) as running, connect(running.url) as client:
        for line in talk.splitlines()[1:]:
            if line.startswith("> "):
                await client.send(line[2:])
            else:
                assert f"< {await client.recv()}" == line


# Two processes, which take their time on a busy machine.
@pytest.mark.timeout(60)
@pytest.mark.parametrize("title", ["server.py", "hello.py"])
async def test_symphony_connect_prints_what_the_readme_shows(title: str, tmp_path: Path) -> None:
    shown = blocks(ROOT / "README.md")
    (server,) = [block for block in shown if block.title == title]
    (tmp_path / title).write_text(server.text)
    console = next(
        block.text for block in shown if block.line > server.line and block.text.startswith("$ echo ")
    )
    command, _, printed = console.removeprefix("$ ").partition("\n")
    run = (sys.executable, "-W", "error", "-m", "symphony", "run", title, "--port", "0")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    async with launch(*run, cwd=tmp_path) as running:
        here = command.replace("ws://127.0.0.1:8080", running.url)
        result = await outcome("sh", "-c", here, env={"PATH": path})
    assert (result.output, result.errors) == (printed, "")


@pytest.mark.parametrize("page", LINKED, ids=_named)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken: list[str] = []
    for link in links(page):
        if link.startswith(("https://", "http://127.0.0.1")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_can_be_found_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        waiting += [
            (page.parent / path).resolve()
            for link in links(page)
            if (path := link.partition("#")[0]) and "://" not in link
        ]
    assert set(PAGES) <= reached


def test_whatever_is_not_run_is_no_code_of_ours() -> None:
    # Other programs and other frameworks have to be taken on trust; our own code has not.
    not_run = [block for page in PAGES for block in blocks(page) if block.not_run]
    assert not_run
    assert not [str(block) for block in not_run if block.language == "python" and _imports_us(block.text)]


def _imports_us(text: str) -> bool:
    imported = [
        name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module])
    ]
    assert imported, f"what is it a part of?\n{text}"
    return any(name is not None and name.partition(".")[0] == "symphony" for name in imported)


def _shown(name: str, value: float | None) -> str:
    """Write a limit as its table does."""
    if value is None:
        return "`None`"
    if not name.endswith("_bytes"):
        return f"{value:,.0f}" if isinstance(value, int) else f"{value:g} s"
    mebibytes, rest = divmod(value, 1024 * 1024)
    return f"{value / 1024:g} KiB" if rest else f"{mebibytes:g} MiB"


def test_the_table_of_limits_has_each_with_its_default() -> None:
    table = rows(DOCS / "limits.md", "## The table")
    table.pop("limit")
    defaults = {field.name: _shown(field.name, field.default) for field in fields(Limits)}
    assert {name: cells[0] for name, cells in table.items()} == defaults


def test_the_table_of_codes_has_each_as_it_is() -> None:
    table = rows(DOCS / "errors.md", "## The codes")
    table.pop("code")
    own = table.pop('"shop.sold_out"')
    assert own[:3] == ["400", "4400", "no"]
    assert {name: cells[:3] for name, cells in table.items()} == {
        name: [str(code.status), str(code.close), "yes" if code.retryable else "no"]
        for name, code in CODES.items()
    }


def _close_codes(file: Path) -> set[int]:
    """Collect the close codes that a module of ours uses."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in _CLOSING:
                found |= {argument.value for argument in node.args if _is_number(argument)}
        elif isinstance(node, ast.Assign | ast.AnnAssign) and _is_number(node.value):
            names = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            if any(ast.unparse(name) in _CLOSE_CONSTANTS for name in names):
                found.add(node.value.value)
    return {code for code in found if 1000 <= code <= 4999}


_CLOSING = {"Close", "Code", "ProtocolError", "close", "close_frame", "fail", "_Last"}
_CLOSE_CONSTANTS = {"SERVICE_RESTART", "_UNSUPPORTED_DATA"}


def _is_number(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def test_the_table_of_close_codes_has_each_that_the_source_uses() -> None:
    table = rows(DOCS / "errors.md", "## The close codes")
    table.pop("code")
    used = set[int]().union(*map(_close_codes, SOURCE.rglob("*.py")))
    # What a user's own `socket.close()` sends, and what an empty close frame stands for.
    assert set(map(int, table)) == used | {1000, 1005}


def test_the_table_of_counters_has_each() -> None:
    table = rows(DOCS / "logging.md", "## Counters")
    table.pop("counter")
    assert list(table) == [field.name for field in fields(Stats)]


def test_the_table_of_the_options_of_rooms_has_each() -> None:
    table = rows(DOCS / "rooms.md", "## Rooms with one policy")
    table.pop("option")
    options = {name.partition("=")[0] for name in table}
    assert options == {field.name for field in fields(RoomPolicy)} - {"pattern"}
    assert options == set(inspect.signature(Router.rooms).parameters) - {"self", "pattern"}


def test_the_table_of_options_has_each() -> None:
    table = rows(DOCS / "deployment.md", "## `symphony run`")
    table.pop("option")
    options = {option.opts[0]: option for option in RUN.params if option.opts[0].startswith("--")}
    options.pop("--help", None)
    assert set(table) == set(options)
    for name, cells in table.items():
        default = options[name].default
        if default not in (None, False):
            assert cells[0] == f"`{default}`"


def test_the_table_of_the_clients_options_has_each_of_both_with_its_default() -> None:
    table = rows(DOCS / "clients.md", "## Options")
    table.pop("Python")
    options = dict(inspect.signature(symphony.connect).parameters)
    options.pop("url")
    assert set(table) == {*options, "\u2013"}
    for name, option in options.items():
        if isinstance(option.default, float) or name == "max_queue":
            assert table[name][1] == f"{option.default:g}"
    typedef = CLIENT.read_text().partition("@typedef {object} Options")[2].partition("*/")[0]
    in_javascript = {cells[0].strip("`") for cells in table.values()} - {"\u2013"}
    only_in_javascript = set(rows(DOCS / "clients.md", "### Options in JavaScript only")) - {"option"}
    assert not only_in_javascript & in_javascript
    in_javascript |= only_in_javascript
    assert in_javascript == set(re.findall(r"@property .+? \[(\w+)\]", typedef))


def test_the_memory_of_a_connection_is_what_was_measured() -> None:
    measured = re.search(
        r"^\| \*\*symphony\*\* \|.* ([\d.]+) KiB \|", (DOCS / "performance.md").read_text(), re.MULTILINE
    )
    said = re.search(r"about (\d+) KiB", (DOCS / "production.md").read_text())
    assert measured is not None
    assert said is not None
    assert int(said[1]) == round(float(measured[1]))


def test_the_map_of_the_architecture_has_every_floor() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = [layer for contract in contracts for layer in contract.get("layers", ())]
    missing = [name for floor in floors for name in floor.split(" | ") if f"`{name}" not in text]
    assert not missing


def test_the_map_of_the_architecture_walks_through_every_numbered_step() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    steps = [
        file.relative_to(SOURCE)
        for file in SOURCE.rglob("*.py")
        if file.read_text().startswith('"""Hot path, step')
    ]
    assert steps
    assert not [step for step in steps if f"`{step}`" not in text]


def test_the_map_of_the_architecture_is_short() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 200
