"""The proxy that a client uses: the option `proxy=`, or the environment."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from symphony.client.address import Address

__all__ = ("Proxy", "parse_proxy", "proxy_for")

_PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_ALIASES: Final = {"": "http", "socks": "socks5h"}
# In the order in which they count. There is a convention for `ws` and `wss`, but most
# environments only set the variables for `http` and `https`.
_VARIABLES: Final = {False: ("ws", "http", "socks", "all"), True: ("wss", "https", "socks", "all")}


class Proxy(NamedTuple):
    """A proxy.

    Attributes:
        scheme: `http`, `https`, `socks5`, or `socks5h`, which resolves the
            name of the server itself.
        host: Its host.
        port: Its port.
        user: The user to authenticate as, or `None`.
        password: The password.
        where: Its URL for messages, without user and password.
    """

    scheme: str
    host: str
    port: int
    user: str | None
    password: str
    where: str

    @property
    def address(self) -> Address:
        """The address to connect to."""
        return Address(self.scheme == "https", self.host, self.port, "", "", self.where)


def parse_proxy(url: str) -> Proxy:
    """Return the proxy that a URL names; without a scheme it is an HTTP proxy.

    Raises:
        ValueError: It is not the URL of a proxy. The message does not repeat
            it, because it may contain a password.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, None
    if parts is None or not host:
        raise ValueError("The URL of the proxy is invalid; write it as 'http://127.0.0.1:3128'.")
    scheme = _ALIASES.get(parts.scheme, parts.scheme)
    if scheme not in _PORTS:
        raise ValueError(f"A proxy cannot be {scheme!r}; use one of {', '.join(_PORTS)}.")
    user = unquote(parts.username) if parts.username is not None else None
    password = unquote(parts.password or "")
    if scheme.startswith("socks") and max(len((user or "").encode()), len(password.encode())) > 255:
        raise ValueError("The user and the password of a SOCKS proxy have at most 255 bytes each.")
    port = port or _PORTS[scheme]
    shown = f"[{host}]" if ":" in host else host
    return Proxy(scheme, host, port, user, password, f"{scheme}://{shown}:{port}")


def proxy_for(address: Address, option: str | bool) -> Proxy | None:
    """Return the proxy for a server; `None`: connect directly.

    Args:
        address: The address of the server.
        option: The option `proxy=`.

    Raises:
        ValueError: The URL of the proxy is invalid.
    """
    if isinstance(option, str):
        return parse_proxy(option)
    # A proxy cannot reach the loopback interface of this machine.
    if not option or address.unix is not None or _is_local(address.tls_name):
        return None
    found = getproxies()
    variable = next((name for name in _VARIABLES[address.secure] if found.get(name)), None)
    if variable is None or _bypassed(address):
        return None
    try:
        return parse_proxy(found[variable])
    except ValueError as error:
        raise ValueError(f"{variable}_proxy in the environment: {error}") from None


def _bypassed(address: Address) -> bool:
    host = address.tls_name
    if ":" in host:
        # NO_PROXY may have an IPv6 address with or without brackets.
        return bool(proxy_bypass(f"[{host}]:{address.port}") or proxy_bypass(host))
    return bool(proxy_bypass(f"{host}:{address.port}"))


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
