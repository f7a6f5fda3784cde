"""The URL of a broker in a file: `sqlite:///rooms.db`."""

from __future__ import annotations

from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from symphony.errors import ConfigurationError

__all__ = ("Target", "target_of")


class Target(NamedTuple):
    """A `sqlite://` URL.

    Attributes:
        path: The file.
        sync: `"full"` or `"normal"`.
    """

    path: str
    sync: Literal["full", "normal"]


def target_of(url: str) -> Target:
    """Parse a `sqlite://` URL: `sqlite:///relative.db`, `sqlite:////absolute.db`.

    Raises:
        ConfigurationError: It is wrong.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    sync = options.pop("sync", "full")
    path = parts.path[1:]
    if parts.scheme != "sqlite" or parts.netloc or not path or options or sync not in ("full", "normal"):
        raise ConfigurationError(
            f"{url!r} is not the URL of a broker in a file. Write sqlite:///rooms.db for a file in the "
            "working directory, or sqlite:////var/lib/app/rooms.db; ?sync=full or ?sync=normal may follow."
        )
    return Target(path, "full" if sync == "full" else "normal")
