"""Where a client connects to."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

__all__ = ("Address", "parse_url")

_SCHEMES: Final = {"ws": False, "http": False, "wss": True, "https": True}
_SAFE: Final = "/%:@!$&'()*+,;=~"


class Address(NamedTuple):
    """The parts of a URL that a connection is made of.

    Attributes:
        secure: Whether over TLS.
        host: As it is resolved, and as a certificate names it.
        port: The port.
        target: Path and query, as they stand in the request.
        authority: The `Host` header.
        where: The address for people: without the query, which may hold secrets.
    """

    secure: bool
    host: str
    port: int
    target: str
    authority: str
    where: str


def parse_url(url: str) -> Address:
    """Return the address that a URL means; `http` counts as `ws`, `https` as `wss`.

    Raises:
        ValueError: It is none that a WebSocket can be opened to.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is not a URL: {error}.") from None
    if parts.scheme not in _SCHEMES or not host:
        raise ValueError(f"{url!r} is not the URL of a server; write it as 'ws://127.0.0.1:8080/chat'.")
    if parts.username is not None or parts.password is not None:
        raise ValueError("A user and a password in the URL are not sent: use token= or headers=.")
    secure = _SCHEMES[parts.scheme]
    host = _ascii(host, url)
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port is None else f"{shown}:{port}"
    path = quote(parts.path or "/", safe=_SAFE)
    target = f"{path}?{quote(parts.query, safe=_SAFE + '?')}" if parts.query else path
    where = f"{'wss' if secure else 'ws'}://{authority}{parts.path or '/'}"
    return Address(secure, host, port or (443 if secure else 80), target, authority, where)


def _ascii(host: str, url: str) -> str:
    if host.isascii():
        if not host.isprintable() or " " in host:
            raise ValueError(f"{url!r} has a host name that is none.")
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        raise ValueError(f"{url!r} has a host name that is none.") from None
