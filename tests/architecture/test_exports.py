"""What a module says that it offers is what it offers."""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import symphony
import symphony.client.sync
import symphony.testing
from support.pages import ROOT

PACKAGE = Path(symphony.__file__).parent


def modules() -> Iterator[str]:
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[-1] not in ("__init__", "__main__"):
            yield ".".join(parts)


def definitions(module: ModuleType) -> set[str]:
    """Return the public classes and functions that a module defines."""
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text())
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")}


def test_the_package_imports_exactly_what_it_exports() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported == set(symphony.__all__)


@pytest.mark.parametrize("name", ["symphony", *modules()])
def test_what_is_exported_exists_and_is_named_once(name: str) -> None:
    module = import_module(name)
    exported = module.__all__
    assert isinstance(exported, tuple)
    assert [each for each in exported if not hasattr(module, each)] == []
    assert len(set(exported)) == len(exported)


@pytest.mark.parametrize("name", [*modules()])
def test_what_is_public_in_a_module_is_exported(name: str) -> None:
    module = import_module(name)
    assert definitions(module) - set(module.__all__) == set()


# Names of another library, one for tests of the test client, and some that their docstring explains.
NOT_DOCUMENTED = {
    "Handshake.path_params",
    "Clock.of_running_loop",
    "Users.ids",
    "Close.is_final",
    "Closed.is_final",
}


@pytest.mark.parametrize("name", ["symphony", "symphony.client", "symphony.client.sync", "symphony.testing"])
def test_public_objects_show_only_what_the_documentation_describes(name: str) -> None:
    """What the framework keeps on them for itself begins with an underscore."""
    pages = "\n".join(page.read_text() for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    module = import_module(name)
    found = {
        f"{exported}.{attribute}"
        for exported in module.__all__
        if inspect.isclass(getattr(module, exported))
        for each in getattr(module, exported).__mro__
        if each.__module__.startswith("symphony.")
        for attribute in vars(each)
        # `.name`, `name` in code, and the argument of a call.
        if not attribute.startswith("_") and not re.search(rf'[.`"(]{attribute}\b', pages)
    }
    assert found - NOT_DOCUMENTED == set()
