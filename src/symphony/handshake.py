"""The opening HTTP request of a connection."""

from __future__ import annotations

from typing import Any

from starlette.requests import HTTPConnection

from symphony.protocol.subprotocols import offered_token
from symphony.websocket.handshake import offered_subprotocols

__all__ = ("Handshake",)


class Handshake(HTTPConnection):
    """The HTTP request that opened a connection.

    This is a Starlette `HTTPConnection`, with `headers`, `cookies`,
    `query_params`, `path_params`, `client` and `url`. Path parameters are
    converted according to the route's pattern.
    """

    @property
    def path_params(self) -> dict[str, Any]:
        """The parameters of the route's path, converted."""
        return self.scope.get("path_params", {})

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the client offers, preferred ones first."""
        return offered_subprotocols(self.scope["headers"])

    @property
    def token(self) -> str | None:
        """The bearer token, or `None`.

        It is read from `Authorization: Bearer TOKEN`. Browsers cannot set
        headers, so it can also be the subprotocol `symphony.token.TOKEN` (in
        base64url).
        """
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
        return offered_token(self.subprotocols)

    @property
    def origin(self) -> str | None:
        """The `Origin` header, which browsers send, or `None`."""
        return self.headers.get("origin")
