"""The address that a client connects to."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

__all__ = ("Address", "parse_url")

_SCHEMES: Final = {"ws": False, "http": False, "wss": True, "https": True}
_SAFE: Final = "/%:@!$&'()*+,;=~"


class Address(NamedTuple):
    """The parts of a URL that a connection needs.

    Attributes:
        secure: Whether to use TLS.
        host: The host, as it is resolved and as a certificate names it.
        port: The port.
        target: Path and query, as in the request line.
        authority: The `Host` header.
        where: The address for messages: without the query, which may contain
            secrets.
    """

    secure: bool
    host: str
    port: int
    target: str
    authority: str
    where: str


def parse_url(url: str) -> Address:
    """Return the address of a URL; `http` means `ws`, `https` means `wss`.

    Raises:
        ValueError: It is not a URL that a WebSocket can connect to.
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
            raise ValueError(f"{url!r} has an invalid host name.")
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        raise ValueError(f"{url!r} has an invalid host name.") from None
