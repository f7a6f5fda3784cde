"""Which hosts a server answers for."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from symphony.errors import ConfigurationError
from symphony.websocket.handshake import HandshakeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ("LOCAL_HOSTS", "check_hosts", "check_target", "host_advice", "host_allowed")

LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")
"""The hosts of a server that listens on this machine only."""

_NAME: Final = r"[a-z0-9_-]++(?:\.[a-z0-9_-]++)*+\.?|\[[0-9a-f:.]++\]"
_HOST: Final = re.compile(rf"({_NAME})(?::([0-9]{{0,5}}))?", re.ASCII | re.IGNORECASE)
_ENTRY: Final = re.compile(rf"(\*\.)?({_NAME})(?::([0-9]{{1,5}}|\*))?", re.ASCII | re.IGNORECASE)
_DEFAULT_PORTS: Final = {False: "80", True: "443"}
_LONGEST_SHOWN: Final = 200


class _Host(NamedTuple):
    name: str
    port: str


def check_target(target: bytes, http_version: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Check that a request says once which host it is for (RFC 9112 §3.2).

    Args:
        target: The request target. The host in an absolute one must be that of Host.
        http_version: As in an ASGI scope: `"1.1"`.
        headers: As in an ASGI scope, names in lower case.

    Raises:
        HandshakeError: It does not.
    """
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and http_version != "1.0"):
        raise HandshakeError(400, "A request needs one Host header.")
    scheme, separator, rest = target.partition(b"://")
    if not separator or target.startswith(b"/"):
        return
    authority = re.split(rb"[/?#]", rest, maxsplit=1)[0].decode("latin-1")
    secure = scheme.lower() in (b"https", b"wss")
    if not hosts or _parsed(authority, secure) != _parsed(hosts[0].decode("latin-1"), secure):
        raise HandshakeError(400, "The target of the request names another host than its Host header.")


def check_hosts(allowed: Sequence[str] | None) -> tuple[str, ...] | None:
    """Check the entries of an app's hosts, and return them.

    Raises:
        ConfigurationError: An entry could never match as intended.
    """
    if isinstance(allowed, str):
        raise ConfigurationError(f"hosts is a list: write hosts=[{allowed!r}].")
    for entry in allowed or ():
        found = _ENTRY.fullmatch(entry)
        if entry == "*" or (found is not None and not (found[1] and found[2].startswith("["))):
            continue
        mended = re.split("[/?#]", entry.strip().rpartition("://")[2])[0]
        hint = f"; did you mean {mended!r}?" if mended != entry and _ENTRY.fullmatch(mended) else "."
        raise ConfigurationError(
            f"hosts: {entry!r} is not a host{hint} Allowed are 'app.example.com' for every port, "
            "'app.example.com:8443', '*.example.com' for every subdomain, '[::1]', and '*' for any host."
        )
    return None if allowed is None else tuple(allowed)


def host_allowed(host: str | None, *, secure: bool, allowed: Sequence[str]) -> bool:
    """Return whether a server answers a request for a host.

    A request without a host is one of HTTP/1.0. It does not come from a browser,
    and is allowed.

    Args:
        host: The Host header.
        secure: Whether the connection is TLS; it decides about the default port.
        allowed: Entries that `check_hosts` has accepted.
    """
    if host is None or "*" in allowed:
        return True
    asked = _parsed(host, secure)
    return asked is not None and any(_matches(entry, asked) for entry in allowed)


def host_advice(host: str | None, *, listed: bool) -> str:
    """Say why a host was refused, and how to let it in.

    Args:
        host: The Host header.
        listed: Whether the app lists its hosts.
    """
    found = _HOST.fullmatch(host or "")
    if found is None:
        return "the Host header is not a host"
    name = found[1].lower().removesuffix(".")[:_LONGEST_SHOWN]
    why = "" if listed else ": this server listens on a loopback address, and answers for localhost only"
    proxy = "" if listed else ", or start it with --proxy-headers if a trusted proxy is in front of it"
    return f'the host {name} is not allowed{why}. If it is yours, write Symphony(hosts=["{name}"]){proxy}'


def _parsed(text: str, secure: bool) -> _Host | None:
    found = _HOST.fullmatch(text)
    if found is None:
        return None
    return _Host(found[1].lower().removesuffix("."), found[2] or _DEFAULT_PORTS[secure])


# An app has few entries, and each request is compared with them.
_entry: Final = lru_cache(256)(_ENTRY.fullmatch)


def _matches(entry: str, asked: _Host) -> bool:
    found = _entry(entry)
    if found is None or found[3] not in (None, "*", asked.port):
        return False
    name = found[2].lower().removesuffix(".")
    # With the dot: evil-example.com is not a subdomain of example.com.
    return asked.name.endswith(f".{name}") if found[1] else asked.name == name
