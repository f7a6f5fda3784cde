"""Chooses the app of a module whose target names none."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from symphony.app import Symphony

__all__ = ("AmbiguousAppError", "choose", "contains", "is_asgi", "may_be_asgi")

_ASGI: Final = ("scope", "receive", "send")


class AmbiguousAppError(Exception):
    """A module has several apps.

    Attributes:
        names: Their names in the module.
        hint: A sentence that says how to make one of them, or nothing.
    """

    def __init__(self, names: list[str], hint: str) -> None:
        super().__init__(", ".join(names))
        self.names = names
        self.hint = hint


def choose(values: Mapping[str, Any]) -> Any:
    """Return the app among a module's values, or `None` without an app.

    An app that is mounted in another, or given to one as `http=`, is a part of
    that one. Of the values that are no Symphony app, only `app` and those that
    contain a Symphony app count: routers and static files are ASGI apps too.

    Raises:
        AmbiguousAppError: There are several.
    """
    apps: dict[str, Any] = {}
    for name, value in values.items():
        counts = isinstance(value, Symphony) or (is_asgi(value) and (name == "app" or _has_symphony(value)))
        if counts and not any(value is known for known in apps.values()):
            apps[name] = value
    outermost = {
        name: app
        for name, app in apps.items()
        if not any(other is not app and contains(other, app) for other in apps.values())
    }
    if len(outermost) > 1:
        raise AmbiguousAppError(list(outermost), _mounting(outermost))
    return next(iter(outermost.values()), None)


def contains(outer: Any, inner: Any) -> bool:
    """Return whether *inner* is mounted in *outer*, wrapped by it, or its `http=`."""
    return any(part is inner for part in _parts(outer))


def is_asgi(value: Any) -> bool:
    """Return whether a value is an ASGI 3 app, going by its signature."""
    if isinstance(value, Symphony):
        return True
    if isinstance(value, type) or not callable(value):
        return False
    called: Any = value if inspect.isroutine(value) else type(value).__call__
    try:
        names = tuple(inspect.signature(called).parameters)
    except (TypeError, ValueError):
        return False
    return names[-3:] == _ASGI


def may_be_asgi(value: Any) -> bool:
    """Return whether the server can call a value that the user has named as an app.

    Its parameters may have any names. A coroutine function counts, another
    function does not: that may be a factory.
    """
    if isinstance(value, type) or not callable(value):
        return False
    if inspect.isroutine(value) and not inspect.iscoroutinefunction(value):
        return False
    try:
        inspect.signature(value).bind(*_ASGI)
    except (TypeError, ValueError):
        return False
    return True


def _has_symphony(value: Any) -> bool:
    return any(isinstance(part, Symphony) for part in _parts(value))


def _parts(app: Any) -> Iterator[Any]:
    """Walk the apps inside an app, as Starlette, FastAPI and common middleware keep them."""
    seen, waiting = {id(app)}, [app]
    while waiting:
        for part in _inside(waiting.pop()):
            if part is not None and id(part) not in seen:
                seen.add(id(part))
                waiting.append(part)
                yield part


def _inside(app: Any) -> list[Any]:
    if isinstance(app, Symphony):
        return list(app._apps)  # pyright: ignore[reportPrivateUsage]
    routes: Any = getattr(app, "routes", None)
    return [
        getattr(app, "app", None),
        *(cast("list[Any]", routes) if isinstance(routes, list | tuple) else ()),
    ]


def _mounting(apps: Mapping[str, Any]) -> str:
    """Say how a Symphony app becomes a part of another framework's app."""
    sockets = [name for name, app in apps.items() if isinstance(app, Symphony)]
    others = [name for name in apps if name not in sockets]
    if len(sockets) != 1 or len(others) != 1:
        return ""
    return f" To serve both, write {sockets[0]} = Symphony(http={others[0]}), or mount one in the other."
