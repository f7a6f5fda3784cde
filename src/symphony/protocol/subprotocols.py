"""The subprotocols that Symphony's own clients offer in the opening handshake."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final

__all__ = ("LIMITS", "RAW", "REFUSE", "TOKEN_PREFIX", "offered_token", "token_subprotocol")

RAW: Final = "symphony.raw"
"""Chosen on raw routes for clients that offer it: browsers fail a connection
for which they offered something and nothing was chosen."""

REFUSE: Final = "symphony.refuse"
"""Offered by a client that wants to read refusals.

Browsers hide the HTTP answer to a failed handshake: a page sees close code
1006, whatever the server answered. A client that offers this subprotocol gets
101 and then a close frame with code and reason. It is then the subprotocol of
the answer, for the same reason as `RAW`.
"""

LIMITS: Final = "symphony.limits"
"""Offered by a client that wants to know the limits of the server; never chosen.

The first envelope of its connection then has them (`Limits`).
"""

TOKEN_PREFIX: Final = "symphony.token."
"""Precedes a bearer token in base64url: browsers cannot set headers."""


def token_subprotocol(token: str) -> str:
    """Return the subprotocol by which a client offers *token*."""
    return TOKEN_PREFIX + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


def offered_token(offered: Sequence[str]) -> str | None:
    """Return the token among the offered subprotocols, or `None` without a token.

    Raises:
        ValueError: It is not base64url of UTF-8 text.
    """
    encoded = next((name[len(TOKEN_PREFIX) :] for name in offered if name.startswith(TOKEN_PREFIX)), None)
    if encoded is None:
        return None
    try:
        padding = "=" * (-len(encoded) % 4)
        return base64.b64decode(encoded + padding, altchars=b"-_", validate=True).decode()
    except ValueError:
        raise ValueError(f"{TOKEN_PREFIX}… is not base64url.") from None
