"""The opening HTTP request of a connection."""

from __future__ import annotations

from typing import Any

from starlette.requests import HTTPConnection

from symphony.protocol.subprotocols import offered_token
from symphony.websocket.handshake import offered_subprotocols

__all__ = ("Handshake",)


class Handshake(HTTPConnection):
    """The request a connection began with.

    A Starlette `HTTPConnection`: `headers`, `cookies`, `query_params`,
    `path_params`, `client` and `url` are read as there. Path parameters are
    converted as the route's pattern says.
    """

    @property
    def path_params(self) -> dict[str, Any]:
        """The parameters of the route's path, converted."""
        return self.scope.get("path_params", {})

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols the client offers, in its order of preference."""
        return offered_subprotocols(self.scope["headers"])

    @property
    def token(self) -> str | None:
        """The bearer token, or `None`.

        Of `Authorization: Bearer TOKEN`, or of the subprotocol
        `symphony.token.TOKEN` (in base64url), because browsers cannot set headers.
        """
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
        return offered_token(self.subprotocols)

    @property
    def origin(self) -> str | None:
        """The `Origin` a browser sends, or `None`."""
        return self.headers.get("origin")
