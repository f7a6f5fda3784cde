"""The ASGI apps that answer plain HTTP below a path of the app's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from symphony.errors import ConfigurationError

__all__ = ("Mounts",)

# A path of whole segments, without parameters and without a slash at its end.
_PATH: Final = re.compile(r"(?:/[^/{}?#\s]+)+")


class Mounts:
    """Which app answers a request.

    Args:
        rest: Answers what is below no mount; `None`: nothing does.

    Attributes:
        rest: As given.
    """

    def __init__(self, rest: Any) -> None:
        self.rest = rest
        self._apps: dict[str, Any] = {}
        self._longest_first: list[tuple[str, Any]] = []

    def add(self, path: str, app: Any) -> None:
        """Let *app* answer every request for *path* and below it.

        Raises:
            ConfigurationError: The path is wrong or taken, or *app* is no
                ASGI app.
        """
        if not isinstance(path, str) or not _PATH.fullmatch(path):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"app.mount() takes a path such as '/metrics', without parameters, not {path!r}. "
                "Symphony(http=…) serves all paths that are below no mount."
            )
        if path in self._apps:
            raise ConfigurationError(f"There is an app mounted at {path!r} already: {self._apps[path]!r}.")
        if not callable(app):
            raise ConfigurationError(f"app.mount({path!r}) takes an ASGI app, not {app!r}.")
        self._apps[path] = app
        self._longest_first = sorted(self._apps.items(), key=lambda mount: -len(mount[0]))

    def find(self, path: str) -> tuple[str, Any]:
        """Return the mount of a request's path, the longest that fits, and its app.

        The mount is empty for what is below none.
        """
        # Do not look up the path segment by segment. The client chooses how many it has:
        # a path of 60,000 slashes held the event loop for 0.7 s.
        for mount, app in self._longest_first:
            if path.startswith(mount) and path[len(mount) : len(mount) + 1] in ("", "/"):
                return mount, app
        return "", self.rest

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Give each app once, with what it is for messages; `rest` first."""
        seen: list[Any] = []
        mounted = ((f"app mounted at {path!r}", app) for path, app in self._apps.items())
        for what, app in (("http app", self.rest), *mounted):
            if app is not None and not any(app is each for each in seen):
                seen.append(app)
                yield what, app
