"""Each bound has a row in docs/limits.md, a test that stays within it, and one that exceeds it.

Tests in Python name the bounds in `@pytest.mark.within("max_queue")` and `@pytest.mark.beyond("max_queue")`,
tests in JavaScript in a comment above the test: `// within: maxQueue`. These are bounds:

- `max_queue`: a field of `Limits`.
- `client.max_queue` and `javascript.maxQueue`: a numeric option of a client.
- `protocol.v1frames.MAX_NAME` and `javascript.MAX_NAME`: a constant whose name begins with `MAX_` or ends in
  `_TIMEOUT`.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from importlib import import_module

import pytest

from support.pages import CLIENT, ROOT, rows
from symphony import Limits
from symphony.client import connect

TESTS = ROOT / "tests"
SOURCE = ROOT / "src" / "symphony"
JAVASCRIPT = CLIENT.parent
LIMITS_PAGE = ROOT / "docs" / "limits.md"
CONSTANT = re.compile(r"_?MAX_[A-Z_]+|_?[A-Z_]+_TIMEOUT")
CONSTANT_IN_JAVASCRIPT = re.compile(r"^const (MAX_[A-Z_]+|[A-Z_]+_TIMEOUT) = ([0-9* -]+);", re.MULTILINE)
# `backoff` is a delay, and `compression` a threshold.
NO_LIMITS = {"backoff", "compression"}
NO_BOUNDS = {
    "client.backoff._MAX_GROWTHS": "it keeps a number finite; `max_backoff` is reached long before",
    "client.payload.MAX_ELEMENTS": "the default of an option",
    "client.requests._LEAST_TIMEOUT": "the shortest timeout that is sent",
    "javascript.MAX_GROWTHS": "it keeps a number finite; `maxBackoff` is reached long before",
    "outgoing.batch._MAX_BATCH_BYTES": "when it is reached, rooms send a little earlier",
    "testing.connection._MAX_WAITING": "the test client has no peer that could reach it",
    "websocket.deflate._MAX_WINDOW_BITS": "RFC 7692",
    "websocket.parser.MAX_READ_BYTES": "the default of `max_read_bytes`",
}

LIMITS = {field.name for field in fields(Limits)}
OPTIONS = {
    option.name: option.default
    for option in inspect.signature(connect).parameters.values()
    if option.annotation in ("int", "float", "int | None", "float | None") and option.name not in NO_LIMITS
}


def _typedef() -> str:
    return CLIENT.read_text().partition("@typedef {object} Options")[2].partition("*/")[0]


def _default(option: str) -> float:
    defaults = CLIENT.read_text().partition("\nconst DEFAULTS = {")[2].partition("\n};")[0]
    found = re.search(rf"\b{option}: (?:/\*\*.*?\*/ \()?([0-9.]+)", defaults)
    assert found is not None, option
    return float(found[1])


OPTIONS_IN_JAVASCRIPT = {
    name: _default(name)
    for name in re.findall(r"@property \{number(?: \| null)?\} \[(\w+)\]", _typedef())
    if name not in NO_LIMITS
}


@cache
def constants() -> dict[str, float]:
    """Return all constants that look like bounds. It imports all modules: not while tests are collected."""
    return dict(_constants())


def _constants() -> Iterator[tuple[str, float]]:
    for file in SOURCE.rglob("*.py"):
        module = ".".join(file.relative_to(SOURCE).with_suffix("").parts)
        for node in ast.parse(file.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets:
                if isinstance(target, ast.Name) and CONSTANT.fullmatch(target.id):
                    yield f"{module}.{target.id}", getattr(import_module(f"symphony.{module}"), target.id)
    for file in JAVASCRIPT.glob("*.js"):
        for name, value in CONSTANT_IN_JAVASCRIPT.findall(file.read_text()):
            yield f"javascript.{name}", eval(value)


def fixed() -> dict[str, float]:
    """Return the constants that are bounds."""
    return {name: value for name, value in constants().items() if name not in NO_BOUNDS}


def bounds() -> set[str]:
    """Return the names of all bounds."""
    options = {f"client.{name}" for name in OPTIONS} | {
        f"javascript.{name}" for name in OPTIONS_IN_JAVASCRIPT
    }
    return LIMITS | fixed().keys() | options


def marked(kind: str) -> Iterator[str]:
    """Yield the bounds that the marks of a kind name."""
    for file in TESTS.rglob("test_*.py"):
        source = file.read_text()
        # Most files have no such mark, and to parse them all takes seconds.
        for node in ast.walk(ast.parse(source)) if f".{kind}(" in source else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func) == f"pytest.mark.{kind}":
                yield from (ast.literal_eval(each) for each in node.args)
    # Directly above the test, or above its mark of the other kind.
    above = re.compile(rf"^ *// {kind}: (.+)\n(?: *// \w+: .+\n)? *test\(", re.MULTILINE)
    for file in (JAVASCRIPT / "test").glob("*.test.js"):
        for names in above.findall(file.read_text()):
            yield from (f"javascript.{name}" for name in names.split(", "))


def shown(value: float, name: str) -> str:
    """Return a value as docs/limits.md shows it."""
    for power in (31, 53):
        if value in (2**power, 2**power - 1):
            return f"2^{power}" if value == 2**power else f"2^{power} - 1"
    if re.search(r"(?i)bytes$", name) and value % 1024 == 0:
        return f"{value // 1024**2:g} MiB" if value % 1024**2 == 0 else f"{value // 1024:g} KiB"
    return f"{value:,g}" if value < 1e6 else f"{value:,.0f}"


@pytest.mark.parametrize("kind", ["within", "beyond"])
def test_each_bound_is_tested_on_both_sides(kind: str) -> None:
    assert set(marked(kind)) == bounds()


def test_what_is_no_bound_still_exists() -> None:
    assert set(NO_BOUNDS) - set(constants()) == set()


def test_the_table_of_the_limits_of_clients_has_each_option_with_its_default() -> None:
    table = rows(LIMITS_PAGE, "## Limits of the clients")
    table.pop("Python")
    listed: dict[str, set[str]] = {"Python": set(), "JavaScript": set()}
    for python, (javascript, default, _) in table.items():
        for language, name, options in (
            ("Python", python, OPTIONS),
            ("JavaScript", javascript.strip("`"), OPTIONS_IN_JAVASCRIPT),
        ):
            if name != "\u2013":
                listed[language].add(name)
                assert default.removesuffix(" s") == shown(options[name], name)
    assert listed == {"Python": set(OPTIONS), "JavaScript": set(OPTIONS_IN_JAVASCRIPT)}


def test_the_table_of_fixed_limits_has_each_with_its_value() -> None:
    table = rows(LIMITS_PAGE, "## Fixed limits")
    table.pop("limit")
    listed: set[str] = set()
    for value, _, names in table.values():
        for name in re.findall("`(.+?)`", names):
            listed.add(name)
            assert value.removesuffix(" s") == shown(fixed()[name], name), name
    assert listed == set(fixed())
