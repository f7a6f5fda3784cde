"""Which redirects a client follows."""

from __future__ import annotations

from typing import Final
from urllib.parse import urljoin

from symphony.client.address import Address, parse_url
from symphony.client.opening import Answer

__all__ = ("MAX_REDIRECTS", "redirected")

MAX_REDIRECTS: Final = 5
_STATUSES: Final = (301, 302, 303, 307, 308)


def redirected(address: Address, answer: Answer) -> Address | None:
    """Return the address that a response redirects to; `None`: it is not followed.

    A redirect is followed within its origin, and from `ws` to `wss` on the same
    host. All others would carry tokens, cookies and other headers to a server
    that the program did not name.
    """
    location = answer.headers.get("location")
    if answer.status not in _STATUSES or not location:
        return None
    base = f"{'wss' if address.secure else 'ws'}://{address.authority}{address.target}"
    try:
        there = parse_url(urljoin(base, location))
    except ValueError:
        return None
    same_place = (there.secure, there.port) == (address.secure, address.port)
    upgrade = there.secure and not address.secure
    if there.host != address.tls_name or not (same_place or upgrade):
        return None
    return there._replace(host=address.host, unix=address.unix)
