"""The HTTP response that refuses a handshake, as the server writes it and clients read it."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import quote

from symphony.errors import Reject
from symphony.protocol.codec import encode_json

__all__ = ("REFUSAL", "HttpRefusal", "http_refusal")

REFUSAL: Final = "Symphony-Refusal"
"""The header that marks a refusal of a Symphony server; its value is the code.

A client that was connected before needs it. Without it, the response may come
from a proxy or a load balancer during a restart, which says nothing about the
client.
"""


class HttpRefusal(NamedTuple):
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes


def http_refusal(refusal: Reject) -> HttpRefusal:
    """Return the HTTP response for a refusal: the error as JSON, marked by the header.

    Raises:
        Exception: The details cannot be encoded.
    """
    headers = {name: value for name, value in refusal.headers.items() if name.lower() != REFUSAL.lower()}
    if all(name.lower() != "content-type" for name in headers):
        headers["content-type"] = "application/json"
    # Quoted, because the code of an app may have characters that no header may have.
    headers[REFUSAL] = quote(refusal.code, safe="")
    return HttpRefusal(refusal.status, headers, encode_json(refusal.payload()))
