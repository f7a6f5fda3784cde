"""Finds the app that a target such as `module:app` names."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final

from symphony.app import Symphony
from symphony.cli.choosing import AmbiguousAppError, choose, is_asgi, may_be_asgi

__all__ = ("AppImportError", "Source", "TargetError", "load", "locate")

_FILE: Final = re.compile(r"(?P<path>.+\.py)(?::(?P<name>[\w.]+)(?:\(\))?)?")
_MODULE: Final = re.compile(r"(?P<module>\w+(?:\.\w+)*)(?::(?P<name>[\w.]+)(?:\(\))?)?")
_FACTORIES: Final = ("create_app", "make_app")


class TargetError(Exception):
    """A target names no app; the message is one line and says what to do."""


class AppImportError(Exception):
    """The user's module or factory failed; `__cause__` is their exception."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where to load an app from. It can be pickled for another process.

    Attributes:
        target: The target as the user wrote it.
        module: The full name of the module.
        name: The app's name in the module. `None`: choose the app.
        folder: The folder to put on `sys.path`.
        file: The module's file. `None`: the one that Python finds.
        watched: The folder to watch for changes.
    """

    target: str
    module: str
    name: str | None
    folder: Path
    file: Path | None
    watched: Path


def locate(target: str) -> Source:
    """Find the module that a target names, without importing it.

    Args:
        target: `module:app`, `module`, `path/to/file.py:app` or `path/to/file.py`.

    Raises:
        TargetError: There is no such file or module.
    """
    found = _FILE.fullmatch(target)
    if found is not None:
        return _locate_file(target, found["path"], found["name"])
    if Path(target).is_dir() and not Path(target, "__init__.py").is_file():
        raise TargetError(f"{target} is a folder: name a file in it, as in {Path(target) / 'main.py'}.")
    found = _MODULE.fullmatch(target)
    if found is None:
        raise TargetError(
            f"{target!r} names no app: write path/to/file.py, path/to/file.py:app or module:app."
        )
    return _locate_module(target, found["module"], found["name"])


def load(source: Source) -> Any:
    """Import the module and return its app, calling a factory if that is what the target names.

    Returns:
        A Symphony app, or an ASGI app of another framework.

    Raises:
        TargetError: There is no such app in the module.
        AppImportError: The module or the factory raised an exception.
    """
    module = _imported(source)
    if source.name is None:
        return _chosen(module, source.target)
    found: Any = module
    for step in source.name.split("."):
        if not hasattr(found, step):
            raise TargetError(
                f"{source.target}: there is no {source.name!r}.{_instead_of(step, found, module)}"
            )
        found = getattr(found, step)
    if is_asgi(found) or may_be_asgi(found):
        return found
    if inspect.isroutine(found):
        return _made(found, source)
    raise TargetError(
        f"{source.target}: {source.name!r} is {_described(found)}, not a Symphony app or another ASGI app."
    )


def _locate_file(target: str, path: str, name: str | None) -> Source:
    file = Path(path).resolve()
    if not file.is_file():
        near = (other.name for other in file.parent.glob("*.py"))
        hint = _did_you_mean(str(Path(path).parent / close) for close in get_close_matches(file.name, near))
        raise TargetError(f"There is no file {path} (seen from {Path.cwd()}).{hint}")
    # A file of a package is imported as part of it, so that its relative
    # imports work.
    folder = watched = file.parent
    module = file.stem
    while (folder / "__init__.py").is_file():
        watched, folder, module = folder, folder.parent, f"{folder.name}.{module}"
    return Source(target=target, module=module, name=name, folder=folder, file=file, watched=watched)


def _locate_module(target: str, module: str, name: str | None) -> Source:
    folder = Path.cwd()
    top = module.partition(".")[0]
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.find_spec(top)
    finally:
        sys.path.remove(str(folder))
    if spec is None:
        if Path(f"{target}.py").is_file():
            hint = f" For the file write {target}.py."
        else:
            near = [file.stem for file in folder.glob("*.py")]
            hint = _did_you_mean(
                f"{close}:{name}" if name else close for close in get_close_matches(top, near)
            )
        raise TargetError(f"There is no module {top!r} in {folder} or among the installed ones.{hint}")
    places = spec.submodule_search_locations or ([str(Path(spec.origin).parent)] if spec.origin else [])
    watched = Path(next(iter(places), folder))
    return Source(target=target, module=module, name=name, folder=folder, file=None, watched=watched)


def _imported(source: Source) -> ModuleType:
    if str(source.folder) not in sys.path:
        sys.path.insert(0, str(source.folder))
    try:
        module = importlib.import_module(source.module)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name
        if missing and f"{source.module}.".startswith(f"{missing}."):
            raise TargetError(f"{source.target}: {_missing(missing, source.module)}") from None
        error.__traceback__ = _from_the_user_on(error.__traceback__)
        raise AppImportError(f"{source.target} could not be imported: its error is above.") from error
    loaded = getattr(module, "__file__", None)
    if source.file is not None and (loaded is None or Path(loaded).resolve() != source.file):
        raise TargetError(
            f"{source.target}: Python has another module named {source.module!r}. Rename the file."
        )
    return module


def _missing(missing: str, wanted: str) -> str:
    """Say that a module is missing; a dot may have been written for the colon."""
    parent, _, last = missing.rpartition(".")
    module = sys.modules.get(parent)
    if last == "py":
        rest = wanted[len(missing) + 1 :]
        path = missing.removesuffix(".py").replace(".", "/") + ".py"
        return f"there is no module {missing!r}. For the file write {path}{f':{rest}' if rest else ''}."
    if module is not None and hasattr(module, last):
        return f"there is no module {missing!r}. Did you mean {parent}:{wanted[len(parent) + 1 :]}?"
    return f"there is no module {missing!r}."


def _from_the_user_on(traceback: TracebackType | None) -> TracebackType | None:
    """Cut off our own frames and those of the import system."""
    ours = (__file__, importlib.__file__)
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if file not in ours and not file.startswith("<frozen importlib"):
            break
        traceback = traceback.tb_next
    return traceback


def _chosen(module: ModuleType, target: str) -> Any:
    try:
        app = choose(vars(module))
    except AmbiguousAppError as error:
        names = error.names
        raise TargetError(
            f"{target} has several apps ({', '.join(names)}): say which, as in {target}:{names[0]}."
            f"{error.hint}"
        ) from None
    if app is None:
        factory = next((name for name in _FACTORIES if callable(getattr(module, name, None))), None)
        hint = (
            f"to call its {factory}(), write {target}:{factory}."
            if factory
            else "write app = Symphony() in it, outside of any function."
        )
        raise TargetError(f"{target} has no Symphony app: {hint}")
    return app


def _made(factory: Callable[..., Any], source: Source) -> Any:
    """Call a factory."""
    what = f"{source.target}: {source.name}"
    if inspect.iscoroutinefunction(factory):
        raise TargetError(f"{what}() is async: a factory is a plain function that returns the app.")
    try:
        inspect.signature(factory).bind()
    except (TypeError, ValueError) as error:
        raise TargetError(f"{what}() cannot be called without arguments: {error}.") from None
    try:
        app = factory()
    except Exception as error:
        error.__traceback__ = _from_the_user_on(error.__traceback__)
        raise AppImportError(f"{source.target}() failed: its error is above.") from error
    if not (is_asgi(app) or may_be_asgi(app)):
        raise TargetError(f"{what}() returned {_described(app)}, not a Symphony app or another ASGI app.")
    return app


def _instead_of(step: str, inside: Any, module: ModuleType) -> str:
    values: dict[str, Any] = getattr(inside, "__dict__", {})
    hint = _did_you_mean(get_close_matches(step, [name for name in values if not name.startswith("__")]))
    if hint:
        return hint
    apps = [name for name, value in vars(module).items() if isinstance(value, Symphony)]
    return f" Symphony apps there: {', '.join(apps) or 'none'}."


def _did_you_mean(names: Iterable[str]) -> str:
    found = " or ".join(names)
    return f" Did you mean {found}?" if found else ""


def _described(value: Any) -> str:
    if isinstance(value, ModuleType):
        return "a module"
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"
