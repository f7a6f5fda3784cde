"""Each limit has a test that stays within it and one that exceeds it.

The tests say so with `@pytest.mark.within("max_queue")` and `@pytest.mark.beyond("max_queue")`.
"""

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from symphony import Limits

TESTS = Path(__file__).parents[1]
LIMITS = {field.name for field in fields(Limits)}


def marked(kind: str) -> Iterator[str]:
    """Yield the limits that a mark of this kind names."""
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == f"pytest.mark.{kind}":
                yield from (ast.literal_eval(each) for each in node.args)


@pytest.mark.parametrize("kind", ["within", "beyond"])
def test_each_limit_is_tested_on_both_sides(kind: str) -> None:
    assert set(marked(kind)) == LIMITS
