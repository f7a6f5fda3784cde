"""From `module:app` or `path/to/file.py:app` to the app."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final

from symphony.app import Symphony

__all__ = ("AppImportError", "Source", "TargetError", "load", "locate")

_FILE: Final = re.compile(r"(?P<path>.+\.py)(?::(?P<name>[\w.]+))?")
_MODULE: Final = re.compile(r"(?P<module>\w+(?:\.\w+)*)(?::(?P<name>[\w.]+))?")


class TargetError(Exception):
    """A target names no app; the message is one line and says what to do."""


class AppImportError(Exception):
    """The user's module failed while it was imported; `__cause__` is why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where an app is to come from; can go to another process.

    Attributes:
        target: What the user wrote.
        module: The module's whole name.
        name: The app's name in it, `None`: to be found.
        folder: Goes on `sys.path`.
        file: The module's file, `None`: whatever Python finds.
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
    found = _MODULE.fullmatch(target)
    if found is None:
        raise TargetError(
            f"{target!r} names no app: write path/to/file.py, path/to/file.py:app or module:app."
        )
    return _locate_module(target, found["module"], found["name"])


def load(source: Source) -> Symphony:
    """Import the module and return its app.

    Raises:
        TargetError: The module has no such app, or is another than meant.
        AppImportError: The module failed.
    """
    module = _imported(source)
    if source.name is None:
        return _the_app_in(module, source.target)
    found: Any = module
    for step in source.name.split("."):
        if not hasattr(found, step):
            others = ", ".join(_apps_in(module)) or "none"
            raise TargetError(f"{source.target}: there is no {source.name!r}. Symphony apps there: {others}.")
        found = getattr(found, step)
    if not isinstance(found, Symphony):
        raise TargetError(
            f"{source.target}: {source.name!r} is of type {type(found).__name__}, not a Symphony app. "
            f"An app of another framework is served with Symphony(http=...)."
        )
    return found


def _locate_file(target: str, path: str, name: str | None) -> Source:
    file = Path(path).resolve()
    if not file.is_file():
        raise TargetError(f"There is no file {path} (seen from {Path.cwd()}).")
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
        hint = f" For the file write {top}.py." if Path(f"{target}.py").is_file() else ""
        raise TargetError(f"There is no module {top!r} in {folder} or among those installed.{hint}")
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
            raise TargetError(f"{source.target}: there is no module {missing!r}.") from None
        error.__traceback__ = _from_the_module_on(error.__traceback__)
        raise AppImportError(f"{source.target} could not be imported: its error is above.") from error
    loaded = getattr(module, "__file__", None)
    if source.file is not None and (loaded is None or Path(loaded).resolve() != source.file):
        raise TargetError(
            f"{source.target}: Python has another module named {source.module!r}. Rename the file."
        )
    return module


def _from_the_module_on(traceback: TracebackType | None) -> TracebackType | None:
    """Cut off our own frames and those of the import system."""
    ours = (__file__, importlib.__file__)
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if file not in ours and not file.startswith("<frozen importlib"):
            break
        traceback = traceback.tb_next
    return traceback


def _the_app_in(module: ModuleType, target: str) -> Symphony:
    apps = _apps_in(module)
    if "app" in apps:
        return apps["app"]
    if len({id(app) for app in apps.values()}) == 1:
        return next(iter(apps.values()))
    if apps:
        first = next(iter(apps))
        raise TargetError(
            f"{target} has several apps ({', '.join(apps)}): say which, as in {target}:{first}."
        )
    raise TargetError(f"{target} has no Symphony app: write app = Symphony() in it, outside of any function.")


def _apps_in(module: ModuleType) -> dict[str, Symphony]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Symphony)}
