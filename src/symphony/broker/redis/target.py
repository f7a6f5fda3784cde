"""The URL of a broker in Redis: `redis://localhost:6379/0`."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from symphony.errors import ConfigurationError

__all__ = ("SCHEMES", "Target", "target_of")

SCHEMES: Final = ("redis", "rediss")
"""The schemes of URLs of Redis; the second is with TLS."""

_OPTIONS: Final = ("allow_eviction", "prefix", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


class Target(NamedTuple):
    """A `redis://` or `rediss://` URL.

    Attributes:
        host: The host of the server.
        port: Its port.
        database: The number of the database.
        username: Who connects; `None`: the default user.
        password: The password; `None`: none.
        prefix: What the names of all keys and channels begin with.
        allow_eviction: Whether a server is accepted that may evict keys before their time.
        tls: Whether the connection is encrypted.
        certificates: `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` of the URL.
    """

    host: str
    port: int
    database: int
    username: str | None
    password: str | None
    prefix: str
    allow_eviction: bool
    tls: bool
    certificates: dict[str, str]

    @property
    def shown(self) -> str:
        """The URL without secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.database}"


def target_of(url: str) -> Target:
    """Parse a `redis://` or `rediss://` URL.

    Raises:
        ConfigurationError: It is wrong.
    """
    parts = urlsplit(url)
    try:
        port, database = parts.port or 6379, int(parts.path.strip("/") or 0)
    except ValueError:
        raise _wrong(parts, "its port and its database are numbers") from None
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in _OPTIONS:
            raise _wrong(parts, f"it has no option {name!r}, but these: {', '.join(_OPTIONS)}")
    eviction = options.pop("allow_eviction", "0")
    if eviction not in ("0", "1"):
        raise _wrong(parts, "allow_eviction is 0 or 1")
    prefix = options.pop("prefix", "sym")
    if not prefix or not prefix.isascii() or not prefix.replace("-", "").replace("_", "").isalnum():
        raise _wrong(parts, "prefix has letters, digits, - and _ only")
    tls = parts.scheme == "rediss"
    if options and not tls:
        raise _wrong(parts, "certificates are for rediss://")
    return Target(
        host=parts.hostname or "localhost",
        port=port,
        database=database,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        # Channels are the same in all databases of a server.
        prefix=prefix if not database else f"{prefix}-{database}",
        allow_eviction=eviction == "1",
        tls=tls,
        certificates=options,
    )


def _wrong(parts: SplitResult, why: str) -> ConfigurationError:
    # Not the URL as it is: it may have a password.
    return ConfigurationError(
        f"The {parts.scheme}:// URL of the broker on {parts.hostname or 'localhost'} is wrong: {why}. "
        "Write redis://localhost:6379/0, or rediss://user:password@host:6379/0 with TLS."
    )
