"""The address that a client connects to."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

__all__ = ("Address", "parse_url", "without_secrets")

_SCHEMES: Final = {"ws": False, "http": False, "wss": True, "https": True}
_SAFE: Final = "/%:@!$&'()*+,;=~"
_USER: Final = re.compile(r"//[^/?#]*@")
_QUERY: Final = re.compile(r"[?#].*", re.DOTALL)


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
        unix: The path of a Unix socket to connect to instead; `None`: TCP.
    """

    secure: bool
    host: str
    port: int
    target: str
    authority: str
    where: str
    unix: str | None = None

    @property
    def tls_name(self) -> str:
        """The host without the zone of an IPv6 address, which only this machine knows."""
        return self.host.partition("%")[0]

    @property
    def place(self) -> str:
        """Host and port, or the path of the Unix socket, for messages."""
        if self.unix is not None:
            return f"unix:{self.unix}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


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
    if "%" in host and ":" in host:
        # RFC 6874: the `%` before the zone of an IPv6 address is written as `%25`.
        host, _, zone = host.partition("%")
        zone = zone.removeprefix("25")
        if not zone or "%" in zone:
            raise ValueError(f"{url!r} has an invalid zone; write it as 'ws://[fe80::1%25eth0]:8080/'.")
    else:
        zone = ""
    host = _ascii(host, url)
    # The zone is not in the `Host` header: it has a meaning on this machine only (RFC 6874 §1).
    shown = f"[{host}]" if ":" in host else host
    if zone:
        host = f"{host}%{zone}"
    authority = shown if port is None else f"{shown}:{port}"
    path = quote(parts.path or "/", safe=_SAFE)
    target = f"{path}?{quote(parts.query, safe=_SAFE + '?')}" if parts.query else path
    where = f"{'wss' if secure else 'ws'}://{authority}{parts.path or '/'}"
    return Address(secure, host, port or (443 if secure else 80), target, authority, where)


def without_secrets(url: str) -> str:
    """Return a URL of a peer for messages: without user, password and query."""
    return _QUERY.sub(lambda found: f"{found[0][0]}***", _USER.sub("//***@", url))


def _ascii(host: str, url: str) -> str:
    if host.isascii():
        if not host.isprintable() or " " in host:
            raise ValueError(f"{url!r} has an invalid host name.")
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        raise ValueError(f"{url!r} has an invalid host name.") from None
