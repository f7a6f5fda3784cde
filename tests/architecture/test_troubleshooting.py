"""The page about error texts quotes them as the source has them."""

import ast
import re
from collections.abc import Iterator

import pytest

from support.pages import CLIENT, ROOT, Block, blocks

PAGE = ROOT / "docs" / "troubleshooting.md"
ANYTHING = "…"
_PERCENT = re.compile(r"%[-+ 0#]*\d*(?:\.\d+)?[srdfgx]")
_COMMENT = re.compile(r"\s*(?:\*|/\*|//)")
_TEMPLATE = re.compile(r"`([^`]*)`")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_INSERTED = re.compile(r"\$\{[^{}]*\}")
# Less would be found anywhere.
_ENOUGH = 7


def _quoted() -> list[tuple[Block, str]]:
    return [
        (block, line)
        for block in blocks(PAGE)
        if block.language == "text" and not block.not_run
        for line in block.text.splitlines()
        if line
    ]


def _docstrings(tree: ast.AST) -> set[ast.AST]:
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def _texts_of_python(source: str) -> Iterator[str]:
    """Give the texts of a module as a reader may see them, with an ellipsis for what is filled in."""
    tree = ast.parse(source)
    skipped = _docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else ANYTHING
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            yield _PERCENT.sub(ANYTHING, node.value)


def _texts_of_javascript(source: str) -> Iterator[str]:
    for line in source.splitlines():
        if _COMMENT.match(line):
            continue
        for found in _STRING.finditer(line):
            yield found[1].replace('\\"', '"')
        for found in _TEMPLATE.finditer(line):
            yield _INSERTED.sub(ANYTHING, found[1])


@pytest.fixture(scope="module")
def texts() -> set[str]:
    """Return every text of the server and of both clients."""
    found = set(_texts_of_javascript(CLIENT.read_text()))
    for file in (ROOT / "src" / "symphony").rglob("*.py"):
        found.update(_texts_of_python(file.read_text()))
    return found


def _is_quoted_from(quote: str, text: str) -> bool:
    """Tell whether the parts of a quote stand in a text, in their order."""
    at = 0
    for part in quote.split(ANYTHING):
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


def test_every_text_occurs_in_the_source(texts: set[str]) -> None:
    quoted = _quoted()
    assert quoted
    invented = [
        f"{block}: {quote}"
        for block, quote in quoted
        if not any(_is_quoted_from(quote.strip(), text) for text in texts)
    ]
    assert not invented


def test_every_quote_has_enough_words_to_be_recognized() -> None:
    vague = [quote for _, quote in _quoted() if max(map(len, quote.split(ANYTHING))) < _ENOUGH]
    assert not vague


@pytest.mark.parametrize(
    "quote",
    [
        "… is in use by another planet.",
        "Stop it or choose another port (0 for a free one). … is in use by another program.",
        "symphony: the servant sent an error",
    ],
)
def test_a_text_that_the_source_does_not_have_is_noticed(quote: str, texts: set[str]) -> None:
    assert not any(_is_quoted_from(quote, text) for text in texts)
