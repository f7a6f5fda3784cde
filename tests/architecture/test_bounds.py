"""Each limit has a test that stays within it and one that exceeds it.

The tests say so with `@pytest.mark.within("max_queue")` and `@pytest.mark.beyond("max_queue")`. The options
of the Python client are named `client.max_queue`.
"""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from symphony import Limits
from symphony.client import connect

TESTS = Path(__file__).parents[1]
LIMITS = {field.name for field in fields(Limits)}
# `backoff` is a delay, and `compression` a threshold.
NO_LIMITS = {"backoff", "compression"}
CLIENT = {
    f"client.{option.name}"
    for option in inspect.signature(connect).parameters.values()
    if option.annotation in ("int", "float", "int | None", "float | None") and option.name not in NO_LIMITS
}


def marked(kind: str) -> Iterator[str]:
    """Yield the limits that a mark of this kind names."""
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == f"pytest.mark.{kind}":
                yield from (ast.literal_eval(each) for each in node.args)


@pytest.mark.parametrize("kind", ["within", "beyond"])
def test_each_limit_is_tested_on_both_sides(kind: str) -> None:
    assert {limit for limit in marked(kind) if "." not in limit} == LIMITS


@pytest.mark.parametrize("kind", ["within", "beyond"])
def test_each_limit_of_the_python_client_is_tested_on_both_sides(kind: str) -> None:
    assert {limit for limit in marked(kind) if limit.startswith("client.")} == CLIENT
