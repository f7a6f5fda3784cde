"""Which client an address stands for."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final

__all__ = ("client_key",)

_IPV6_HOST_BITS: Final = 64
# A connection is counted several times by its address, which takes 10 us to parse.
_CACHED: Final = 4096
# Longer texts are not kept: a proxy may send any text. An IPv6 address has at most 45 characters.
_MAX_CACHED: Final = 64


def client_key(host: str) -> str:
    """Return the key that the addresses of one client have in common.

    For IPv4 it is the address, also if it is written as IPv6. For IPv6 it is the
    /64, because one customer usually has a whole /64.

    Args:
        host: An address, or other text that a proxy has sent.
    """
    return _cached_key(host) if len(host) <= _MAX_CACHED else _key_of(host)


def _key_of(host: str) -> str:
    try:
        address = ip_address(host.strip().strip("[]").partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return f"{IPv6Address(int(address) >> _IPV6_HOST_BITS << _IPV6_HOST_BITS)}/64"
        address = address.ipv4_mapped
    return str(address)


_cached_key = lru_cache(_CACHED)(_key_of)
