"""Pages of the documentation, and a reader who does everything that they say."""

import ast
import asyncio
import importlib
import importlib.util
import inspect
import io
import json
import logging
import os
import re
import shlex
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Iterator
from contextlib import AsyncExitStack, redirect_stdout, suppress
from dataclasses import dataclass
from inspect import isawaitable, signature
from itertools import pairwise
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, cast

import msgspec
import pytest
import typer.main
from playwright.async_api import async_playwright
from starlette.applications import Starlette
from starlette.routing import Mount

from support.clients import until
from support.process import outcome
from support.servers import serve_natively
from symphony import Client, Symphony
from symphony.cli.finding import TargetError, locate
from symphony.cli.main import cli
from symphony.testing import HandshakeRefusedError, TestClient, TestConnection

__all__ = ("ROOT", "RUN", "Block", "Reader", "anchors", "blocks", "links", "rows")

# The commands `symphony run` and the like, as typer has made them.
_COMMANDS: Any = cast("Any", typer.main.get_command(cli)).commands
RUN: Any = _COMMANDS["run"]

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "javascript" / "symphony.js"

_FENCE = re.compile(r"(?P<fence>`{3,})(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?")
_HEADING = re.compile(r"#{1,6} +(.+)")
_LINK = re.compile(r"(?:\[[^\]]*\]\(|<img src=\")([^)\s\"]+)")
_CODE_SPAN = re.compile(r"`[^`]*`")
_NOT_RUN = re.compile(r"\*Not run: (?P<reason>.{10,})\*")
# Pasted into a browser by tests/browser/test_docs.py.
_PASTED = "js"
# What is printed, and no command.
_PRINTED = "text"
# Where the app of every page listens.
_URL = "ws://127.0.0.1:8080"
# `print(total)  # 6`
_PRINTS = re.compile(r"\b(?:print|console\.log)\(.*\S\s+(?:#|//) (.+)")
_IMPORTED = re.compile(r"(['\"])(?:symphony-ws|(?:/\w+)?/_symphony/client\.js)\1")
_BLOCKING = re.compile(r"\bsync\.connect\(|\bbackend\(\)")
_REFUSED = re.compile(r"symphony: \S+: the server refused the connection")
_CHROMIUM = shutil.which("/usr/bin/chromium")
_TSC = CLIENT.parent / "node_modules" / "typescript" / "bin" / "tsc"
_PATIENCE = 10.0
_THE_END = "the program has come to its end"


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
    started and stopped, and new test functions are called. An app that is
    mounted in one of another framework is served as a part of that. Commands are
    checked, and what a client types and sees in a console is played to the
    app.

    Python that has the app's address in it, or an `await` outside of a
    function, is a client's, and so is JavaScript: it runs while the app is
    served on a port. Its `main()` is run. JavaScript begins with its imports,
    and goes on in the next blocks up to those that have imports again. What
    is printed must be what comments say, `print(total)  # 6`; where one line
    prints several times, with commas between.
    """

    def __init__(self, page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._page = page
        self._folder = folder
        self._monkeypatch = monkeypatch
        self._app: Symphony | None = None
        # The app of another framework that it is mounted in, and where.
        self._outer: Starlette | None = None
        self._mounted_at = ""
        self._visit: Visit | None = None
        self._lacking: set[str] = set()
        self._program = ModuleType(f"page_{page.stem}")
        monkeypatch.setitem(sys.modules, self._program.__name__, self._program)
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(str(folder))
        logger = logging.getLogger("symphony")
        monkeypatch.setattr(logger, "handlers", list(logger.handlers))

    async def follow(self) -> None:
        """Do everything that the page says."""
        try:
            for block in blocks(self._page):
                if block.not_run is not None:
                    continue
                try:
                    await self._follow(block)
                except Exception as error:
                    error.add_note(f"That was the block of {block}.")
                    raise
            try:
                await self._leave()
            except AssertionError as error:
                error.add_note(
                    f"That was at the end of {self._page.name}: its last clients did something else."
                )
                raise
        finally:
            if self._visit is not None:
                await self._visit.aclose()
        if self._lacking:
            lacking = " and ".join(sorted(self._lacking))
            assert os.environ.get("CI") != "true", f"there is no {lacking}"
            pytest.skip(f"there is no {lacking}; all that needs none was done")

    async def _follow(self, block: Block) -> None:
        if block.title is not None:
            await self._write(block)
        elif block.language == "python":
            await self._run("\n" * block.line + block.text, str(block), self._program)
        elif block.language == "javascript":
            visit = await self._visiting()
            await visit.javascript(block)
        elif block.language == "typescript":
            await self._check_types(block)
        elif block.language == "console":
            await self._play(block)
        elif block.language == "sh":
            for line in block.text.splitlines():
                if line:
                    self._check(line)
        elif block.language == "json":
            msgspec.json.decode(block.text)
        else:
            assert block.language in (_PASTED, _PRINTED), (
                f"nobody runs a block of {block.language!r}: write *Not run: why.* above it"
            )

    async def _write(self, block: Block) -> None:
        assert block.title is not None
        file = self._folder / block.title
        earlier = file.read_text() if file.exists() else ""
        if file.suffix != ".py":
            file.write_text(earlier + block.text)
            if file.suffix == ".html" and _CHROMIUM is None:
                self._lacking.add("Chromium")
            elif file.suffix == ".html":
                visit = await self._visiting()
                await visit.page()
            elif file.suffix == ".mjs":
                visit = await self._visiting()
                await visit.javascript(block)
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
        await self._run(file.read_text(), str(file), module)

    async def _run(self, text: str, name: str, module: ModuleType) -> None:
        code = _compiled(text, name)
        if _URL in text or code.co_flags & inspect.CO_COROUTINE:
            visit = await self._visiting()
            await visit.python(text, name, module)
        else:
            await self._leave()
            await self._execute(code, module)

    async def _execute(self, code: CodeType, module: ModuleType) -> None:
        before = dict(vars(module))
        exec(code, vars(module))
        new = {name: value for name, value in vars(module).items() if before.get(name) is not value}
        for app in {
            id(value): value for value in vars(module).values() if isinstance(value, Symphony)
        }.values():
            async with TestClient(app):
                self._app = app
                self._outer, self._mounted_at = _mounting(app, vars(module))
        for name, test in new.items():
            if name.startswith("test_"):
                assert not signature(test).parameters, f"{name} wants fixtures: give its block a title"
                result = test()
                if isawaitable(result):
                    await result

    async def _visiting(self) -> "Visit":
        """Serve the app, if it is not served already."""
        assert self._app is not None, "no app was shown yet"
        if self._visit is None:
            self._visit = await Visit.of(self._outer or self._app, self._folder, self._lacking)
        return self._visit

    async def _leave(self) -> None:
        """Stop serving the app: it is to be changed, or used in memory."""
        if self._visit is not None:
            await self._visit.finish()
            await self._visit.aclose()
            self._visit = None

    async def _check_types(self, block: Block) -> None:
        if shutil.which("node") is None or not _TSC.exists():
            self._lacking.add("tsc (`npm ci` in clients/javascript)")
            return
        options = {"noUnusedLocals": False, "paths": {"symphony-ws": [str(CLIENT)]}}
        config = {"extends": str(_TSC.parents[3] / "tsconfig.json"), "compilerOptions": options}
        (self._folder / "page.mts").write_text(block.text)
        (self._folder / "tsconfig.json").write_text(json.dumps({**config, "files": ["page.mts"]}))
        result = await outcome("node", str(_TSC), "--pretty", "false", cwd=self._folder)
        assert result.code == 0, result.output

    async def _play(self, block: Block) -> None:
        """Type what a console shows; each client stays connected to the end of its block."""
        lines = [line for line in block.text.splitlines() if line]
        assert lines
        assert lines[0].startswith("$ "), "a console begins with a command"
        async with AsyncExitStack() as stack:
            client: TestClient | None = None
            connection: TestConnection | HandshakeRefusedError | None = None
            for line in lines:
                mark, _, rest = line.partition(" ")
                if mark == "$":
                    url = self._check(rest)
                    if url is None or not rest.startswith("wscat"):
                        continue
                    if client is None:
                        await self._leave()
                        assert self._app is not None, "no app was shown yet"
                        client = await stack.enter_async_context(TestClient(self._app))
                    url = url.replace(_URL + self._mounted_at, _URL, 1)
                    connection = await _connected(client, url, rest)
                elif mark == ">" and isinstance(connection, TestConnection):
                    await connection.send(rest)
                elif mark == "<" and isinstance(connection, TestConnection):
                    assert await connection.receive_text() == rest
                elif line.startswith("error: Unexpected server response: "):
                    assert isinstance(connection, HandshakeRefusedError), "the app did not refuse"
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
        if arguments[0] == "connect":
            _local(_COMMANDS["connect"].make_context("connect", arguments[1:]).params["url"])
            return
        assert arguments[0] == "run"
        target: str = RUN.make_context("run", arguments[1:]).params["target"]
        if (ROOT / target.partition(":")[0]).is_file():
            return
        try:
            locate(target)
        except TargetError as error:
            raise AssertionError(f"the reader has no such file: {error}") from None

    def _check_echo(self, arguments: list[str]) -> None:
        line = shlex.join(arguments[arguments.index("|") + 1 :])
        assert line.startswith("symphony connect "), f"nobody reads what is piped into {line!r}"
        self._check(line)

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
            package, _, extra = package.strip("'").rstrip("]").partition("[")
            assert not extra or f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text(), extra
            assert package in (".", "-e") or f'\nname = "{package}"\n' in locked, (
                f"{package} is in no lock file"
            )

    def _check_dot(self, arguments: list[str]) -> None:
        assert arguments == [".venv/bin/activate"]

    def _check_npm(self, arguments: list[str]) -> None:
        assert arguments[0] == "install"
        package = arguments[-1]
        assert package in ("wscat", "ws") or (ROOT / package / "package.json").is_file(), (
            f"what is {package}?"
        )

    def _check_wscat(self, arguments: list[str]) -> str:
        return _local(arguments[arguments.index("-c") + 1])

    def _check_websocat(self, arguments: list[str]) -> str:
        return _local(arguments[-1])


class Visit:
    """The app of a page, served on a port while its clients are shown.

    Args:
        folder: Where the page is followed.
        lacking: Takes what would be needed and is not there.
    """

    def __init__(self, folder: Path, lacking: set[str]) -> None:
        self._folder = folder
        self._lacking = lacking
        self._url = ""
        self._stack = AsyncExitStack()
        self._printed = io.StringIO()
        self._promised: list[str] = []
        self._clients: set[Client] = set()
        self._program: list[Block] = []

    @classmethod
    async def of(cls, app: Starlette | Symphony, folder: Path, lacking: set[str]) -> "Visit":
        """Serve an app."""
        visit = cls(folder, lacking)
        visit._url = await visit._stack.enter_async_context(serve_natively(app))
        visit._stack.push_async_callback(visit._close_clients)
        visit._stack.enter_context(redirect_stdout(visit._printed))
        return visit

    async def aclose(self) -> None:
        """Close all clients and stop the server."""
        await self._stack.aclose()

    async def python(self, text: str, name: str, module: ModuleType) -> None:
        """Run what a client in Python does."""
        self._promised += _promised(text)
        before = vars(module).get("main")
        try:
            code = _compiled(text.replace(_URL, self._url), name)
            if _BLOCKING.search(text):
                # The app is served in this loop, which a blocking client must not block.
                await asyncio.to_thread(eval, code, vars(module))
            elif isawaitable(result := eval(code, vars(module))):
                await result
        finally:
            self._clients |= {value for value in vars(module).values() if isinstance(value, Client)}
        main: Any = vars(module).get("main")
        if main is not before:
            await main()

    async def javascript(self, block: Block) -> None:
        """Take the next part of a program, which runs when it is complete."""
        if block.text.startswith(("import ", "const { connect } = await import")):
            await self._run_program()
        self._program.append(block)

    async def page(self) -> None:
        """Open the page that the app serves, say hello in its first field, and see it there."""
        complaints: list[str] = []
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=_CHROMIUM,
                args=["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            )
            page = await browser.new_page()
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda said: complaints.append(f"{said.text} {said.location}"))
            await page.goto(self._url.replace("ws", "http", 1))
            field = page.locator("input").first
            await field.fill("hello")
            await field.press("Enter")
            await page.get_by_text("hello").first.wait_for(timeout=_PATIENCE * 1000)
            await browser.close()
        # Every browser asks for an icon.
        assert not [complaint for complaint in complaints if "/favicon.ico" not in complaint]

    async def finish(self) -> None:
        """Run what waits for its end, and check what was printed."""
        await self._run_program()
        with suppress(TimeoutError):
            await until(self._is_as_promised, timeout=_PATIENCE)
        assert self._is_as_promised(), f"{self._printed.getvalue()!r} was printed, not {self._promised}"

    def _is_as_promised(self) -> bool:
        return _as_promised(self._printed.getvalue().splitlines(), self._promised)

    async def _close_clients(self) -> None:
        for client in self._clients:
            await client.close()

    async def _run_program(self) -> None:
        blocks, self._program = self._program, []
        if not blocks:
            return
        if shutil.which("node") is None:
            self._lacking.add("Node")
            return
        text = "".join(block.text for block in blocks)
        address = self._url.replace("ws", "http", 1)
        file = self._folder / "program.mjs"
        file.write_text(
            f"globalThis.location = {{ href: '{address}/' }};"
            + _IMPORTED.sub(f"'{CLIENT.as_uri()}'", text).replace(_URL, self._url)
            + f"\n;console.log('{_THE_END}')"
        )
        printed, errors = await _node(file, _promised(text))
        assert not errors, f"The program of {blocks[0]}: {errors}"
        assert _as_promised(printed, _promised(text)), f"The program of {blocks[0]} printed {printed}"


async def _node(file: Path, promised: list[str]) -> tuple[list[str], str]:
    """Run a program until it has printed what it must; return what it has printed."""
    process = await asyncio.create_subprocess_exec(
        # The flag is for Node 20; later ones have a WebSocket without it.
        *("node", "--experimental-websocket", str(file)),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    printed: list[str] = []
    ended = False
    try:
        async with asyncio.timeout(_PATIENCE):
            while not (ended and _as_promised(printed, promised)):
                line = (await process.stdout.readline()).decode().rstrip("\n")
                if line == _THE_END:
                    ended = True
                elif line:
                    printed.append(line)
                elif process.stdout.at_eof():
                    break
    except TimeoutError:
        printed.append("(and nothing more came)")
    finally:
        if process.returncode is None:
            process.kill()
        errors = (await process.stderr.read()).decode()
        await process.wait()
    # The pages show refusals. The client warns about each, besides what it raises.
    return printed, "\n".join(line for line in errors.splitlines() if not _REFUSED.match(line))


def _promised(text: str) -> list[str]:
    """Return what the comments behind prints say that these print."""
    return [found[1] for line in text.splitlines() if (found := _PRINTS.search(line))]


def _as_promised(printed: list[str], promised: list[str]) -> bool:
    """Tell whether all was printed: what one comment says in its order, comments in any."""
    left = list(promised)
    for line in printed:
        for at, rest in enumerate(left):
            if rest == line or rest.startswith(f"{line}, "):
                left[at] = rest[len(line) + 2 :]
                break
        else:
            return False
    return not any(left)


def _compiled(text: str, name: str) -> CodeType:
    """Compile a program, which may `await` outside of functions as in `python -m asyncio`."""
    return compile(text, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def _mounting(app: Symphony, values: dict[str, Any]) -> tuple[Starlette | None, str]:
    """Return the app among a module's values that another is mounted in, and the path of the mount."""
    for outer in values.values():
        if isinstance(outer, Starlette):
            for route in outer.routes:
                if isinstance(route, Mount) and route.app is app:
                    return outer, route.path
    return None, ""


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


async def _connected(client: TestClient, url: str, command: str) -> TestConnection | HandshakeRefusedError:
    options = list(pairwise(shlex.split(command)))
    headers = dict(re.split(r": *", value, maxsplit=1) for flag, value in options if flag == "-H")
    offered = [value for flag, value in options if flag == "-s"]
    path = url.removeprefix("ws://127.0.0.1:8080") or "/"
    try:
        connection = await client.connect(path, headers=headers, subprotocols=offered, protocol="raw")
    except HandshakeRefusedError as refusal:
        return refusal
    assert not offered or connection.subprotocol in offered, "wscat fails if none is chosen"
    return connection
