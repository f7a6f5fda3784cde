"""Pages of the documentation, and a reader who does everything that they say."""

import ast
import importlib
import importlib.util
import logging
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from inspect import isawaitable, signature
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import msgspec
import pytest
import typer.main

from support.process import outcome
from symphony import Symphony
from symphony.cli.finding import TargetError, locate
from symphony.cli.main import cli
from symphony.testing import Refused, TestClient, TestConnection

__all__ = ("ROOT", "RUN", "Block", "Reader", "anchors", "blocks", "links", "rows")

# The command `symphony run`, as typer has made it.
RUN: Any = cast("Any", typer.main.get_command(cli)).commands["run"]

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"(?P<fence>`{3,})(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?")
_HEADING = re.compile(r"#{1,6} +(.+)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE_SPAN = re.compile(r"`[^`]*`")
_NOT_RUN = re.compile(r"\*Not run: (?P<reason>.{10,})\*")
# Pasted into a browser by tests/browser/test_docs.py.
_JAVASCRIPT = "js"
# What is printed, and no command.
_PRINTED = "text"


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page.

    Attributes:
        line: The line of its fence, counted from 1.
        language: What stands behind the fence, such as `python`.
        title: The file that it is a part of, `None`: no file.
        text: What is in it.
        not_run: Why nobody can run it, as the page says right above it.
    """

    page: Path
    line: int
    language: str
    title: str | None
    text: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    return [block for block, _ in _parts(page) if block is not None]


def rows(page: Path, heading: str) -> dict[str, list[str]]:
    """Return the table under a heading: its cells by what stands first in the row."""
    prose = [line for _, line in _parts(page) if line is not None]
    start = prose.index(heading) + 1
    found: dict[str, list[str]] = {}
    for line in prose[start:]:
        if line.startswith("#"):
            break
        if line.startswith("| ") and not line.startswith("| ---"):
            first, *rest = (cell.strip() for cell in line.strip("| ").split(" | "))
            found[first.strip("`")] = rest
    return found


def links(page: Path) -> list[str]:
    """Return where the links of a page lead."""
    prose = "\n".join(line for _, line in _parts(page) if line is not None)
    return _LINK.findall(_CODE_SPAN.sub("", prose))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and mkdocs make them."""
    found: set[str] = set()
    for _, line in _parts(page):
        heading = _HEADING.fullmatch(line or "")
        if heading is not None:
            slug = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
            assert slug not in found, f"{page}: the heading {heading[1]!r} is there twice"
            found.add(slug)
    return found


def _parts(page: Path) -> Iterator[tuple[Block | None, str | None]]:
    """Give the blocks of a page, and the lines outside of them."""
    lines = iter(enumerate(page.read_text().splitlines(), 1))
    above = ""
    for number, line in lines:
        fence = _FENCE.fullmatch(line)
        if fence is None:
            assert not line.lstrip().startswith("```"), f"{page}:{number}: a fence like no other"
            above = line.strip() or above
            yield None, line
            continue
        inside: list[str] = []
        for _, text in lines:
            if text == fence["fence"]:
                break
            inside.append(text)
        else:
            raise AssertionError(f"{page}:{number}: the block has no end")
        reason = _NOT_RUN.fullmatch(above)
        text = "\n".join(inside) + "\n"
        yield Block(page, number, fence["language"], fence["title"], text, reason and reason["reason"]), None
        above = ""


class Reader:
    """Follows a page in an empty folder, from its first block to its last.

    Python blocks without a title are one program, run block by block. Those
    with a title are parts of that file: what a later part defines again
    takes the place of the earlier. After each block every app in sight is
    started and stopped, and new test functions are called. Commands are
    checked, and what a client types and sees in a console is played to the
    app.
    """

    def __init__(self, page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._page = page
        self._folder = folder
        self._monkeypatch = monkeypatch
        self._app: Symphony | None = None
        self._program = ModuleType(f"page_{page.stem}")
        monkeypatch.setitem(sys.modules, self._program.__name__, self._program)
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(str(folder))
        logger = logging.getLogger("symphony")
        monkeypatch.setattr(logger, "handlers", list(logger.handlers))

    async def follow(self) -> None:
        """Do everything that the page says."""
        for block in blocks(self._page):
            if block.not_run is not None:
                continue
            try:
                await self._follow(block)
            except Exception as error:
                error.add_note(f"That was the block of {block}.")
                raise

    async def _follow(self, block: Block) -> None:
        if block.title is not None:
            await self._write(block)
        elif block.language == "python":
            code = compile("\n" * block.line + block.text, str(block), "exec", dont_inherit=True)
            await self._execute(code, self._program)
        elif block.language == "console":
            await self._play(block)
        elif block.language == "sh":
            for line in block.text.splitlines():
                if line:
                    self._check(line)
        elif block.language == "json":
            msgspec.json.decode(block.text)
        else:
            assert block.language in (_JAVASCRIPT, _PRINTED), (
                f"nobody runs a block of {block.language!r}: write *Not run: why.* above it"
            )

    async def _write(self, block: Block) -> None:
        assert block.title is not None
        file = self._folder / block.title
        earlier = file.read_text() if file.exists() else ""
        if file.suffix != ".py":
            file.write_text(earlier + block.text)
            return
        file.write_text(_continued(earlier, block.text))
        if file.name.startswith("test_"):
            command = (sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider")
            result = await outcome(*command, file.name, cwd=self._folder)
            assert result.code == 0, result.output + result.errors
            return
        assert file.stem not in sys.stdlib_module_names
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        self._monkeypatch.setitem(sys.modules, file.stem, module)
        await self._execute(compile(file.read_text(), str(file), "exec", dont_inherit=True), module)

    async def _execute(self, code: Any, module: ModuleType) -> None:
        before = dict(vars(module))
        exec(code, vars(module))
        new = {name: value for name, value in vars(module).items() if before.get(name) is not value}
        for app in {
            id(value): value for value in vars(module).values() if isinstance(value, Symphony)
        }.values():
            async with TestClient(app):
                self._app = app
        for name, test in new.items():
            if name.startswith("test_"):
                assert not signature(test).parameters, f"{name} wants fixtures: give its block a title"
                result = test()
                if isawaitable(result):
                    await result

    async def _play(self, block: Block) -> None:
        """Type what a console shows; each client stays connected to the end of its block."""
        lines = [line for line in block.text.splitlines() if line]
        assert lines
        assert lines[0].startswith("$ "), "a console begins with a command"
        async with AsyncExitStack() as stack:
            client: TestClient | None = None
            connection: TestConnection | Refused | None = None
            for line in lines:
                mark, _, rest = line.partition(" ")
                if mark == "$":
                    url = self._check(rest)
                    if url is None or not rest.startswith("wscat"):
                        continue
                    if client is None:
                        assert self._app is not None, "no app was shown yet"
                        client = await stack.enter_async_context(TestClient(self._app))
                    connection = await _connected(client, url, rest)
                elif mark == ">" and isinstance(connection, TestConnection):
                    await connection.send(rest)
                elif mark == "<" and isinstance(connection, TestConnection):
                    assert await connection.receive_text() == rest
                elif line.startswith("error: Unexpected server response: "):
                    assert isinstance(connection, Refused), "the app did not refuse"
                    assert line.endswith(f" {connection.status}")
                else:
                    # What a server or another command prints.
                    assert connection is None, f"{line!r} is not what wscat shows"
            if isinstance(connection, TestConnection):
                await connection.nothing_more()

    def _check(self, line: str) -> str | None:
        """Check a command; return the URL that it connects to."""
        words = shlex.split(line, comments=True)
        while re.match(r"[A-Z_]+=", words[0]):
            del words[0]
        program, *arguments = words
        program = {".": "dot", "python3": "python"}.get(program, program.removeprefix(".venv/bin/"))
        check = getattr(self, f"_check_{program}", None)
        assert check is not None, f"nobody has taught the tests what {program!r} is"
        return check(arguments)

    def _check_make(self, targets: list[str]) -> None:
        known = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(targets) <= set(known), f"make has only {known}"

    def _check_symphony(self, arguments: list[str]) -> None:
        if arguments == ["--version"]:
            return
        assert arguments[0] == "run"
        target: str = RUN.make_context("run", arguments[1:]).params["target"]
        if (ROOT / target.partition(":")[0]).is_file():
            return
        try:
            locate(target)
        except TargetError as error:
            raise AssertionError(f"the reader has no such file: {error}") from None

    def _check_uvicorn(self, arguments: list[str]) -> None:
        # By its whole name: `uvicorn.main` is the function that hides the module.
        command: Any = importlib.import_module("uvicorn.main").main
        params = command.make_context("uvicorn", arguments).params
        module, _, name = params["app"].partition(":")
        assert hasattr(sys.modules[module], name)

    def _check_python(self, arguments: list[str]) -> None:
        if arguments[0] == "-m":
            assert importlib.util.find_spec(arguments[1]) is not None
        else:
            self._check_file(arguments[0])

    def _check_pytest(self, arguments: list[str]) -> None:
        for file in arguments:
            self._check_file(file)

    def _check_file(self, name: str) -> None:
        assert (ROOT / name).exists() or (self._folder / name).exists(), f"there is no {name}"

    def _check_pip(self, arguments: list[str]) -> None:
        assert arguments[0] == "install"
        locked = (ROOT / "uv.lock").read_text()
        for package in arguments[1:]:
            assert package in (".", "-e") or f'\nname = "{package}"\n' in locked, (
                f"{package} is in no lock file"
            )

    def _check_dot(self, arguments: list[str]) -> None:
        assert arguments == [".venv/bin/activate"]

    def _check_npm(self, arguments: list[str]) -> None:
        assert arguments == ["install", "-g", "wscat"]

    def _check_wscat(self, arguments: list[str]) -> str:
        return _local(arguments[arguments.index("-c") + 1])

    def _check_websocat(self, arguments: list[str]) -> str:
        return _local(arguments[-1])


def _local(url: str) -> str:
    assert re.match(r"wss?://127\.0\.0\.1:8080(/|$)", url), f"{url} is not where the app listens"
    return url


def _continued(earlier: str, part: str) -> str:
    """Return a file with its next part: what the part defines again replaces the earlier."""
    new = {node.name for node in ast.parse(part).body if isinstance(node, _DEFINITIONS)}
    lines = earlier.splitlines(keepends=True)
    for node in reversed(ast.parse(earlier).body):
        if isinstance(node, _DEFINITIONS) and node.name in new:
            begin = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            del lines[begin - 1 : node.end_lineno]
    return "".join(lines) + part


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


async def _connected(client: TestClient, url: str, command: str) -> TestConnection | Refused:
    words = shlex.split(command)
    headers = dict(re.split(r": *", value, maxsplit=1) for flag, value in pairwise(words) if flag == "-H")
    path = url.removeprefix("ws://127.0.0.1:8080") or "/"
    try:
        return await client.connect(path, headers=headers, protocol="raw")
    except Refused as refusal:
        return refusal
