"""The opening HTTP request of a connection."""

from __future__ import annotations

from typing import Any

from starlette.requests import HTTPConnection

from symphony.protocol.handshake import offered_subprotocols

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
    def origin(self) -> str | None:
        """The `Origin` a browser sends, or `None`."""
        return self.headers.get("origin")
