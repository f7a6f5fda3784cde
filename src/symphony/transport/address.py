"""Which client an address stands for."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Final

__all__ = ("client_key",)

_IPV6_HOST_BITS: Final = 64


def client_key(host: str) -> str:
    """Return what addresses of one client have in common, to count by.

    That is the address itself for IPv4, in whatever spelling, and the /64 for
    IPv6: every customer has at least as many addresses. An address of IPv4
    that is written as one of IPv6 is one of IPv4.

    Args:
        host: An address, or what a proxy has sent instead of one.
    """
    try:
        address = ip_address(host.strip().strip("[]").partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return f"{IPv6Address(int(address) >> _IPV6_HOST_BITS << _IPV6_HOST_BITS)}/64"
        address = address.ipv4_mapped
    return str(address)
