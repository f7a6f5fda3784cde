"""Writes one log line for each plain HTTP request."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any
from urllib.parse import quote

from symphony.printable import printable
from symphony.transport.base import Scope, shown_address
from symphony.transport.probing import is_probe

__all__ = ("AccessLog",)

logger = logging.getLogger("symphony.http")


class AccessLog:
    """Logs method, path, address, status and duration of each request, at INFO; not those of probes.

    Args:
        app: The ASGI app that answers.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve one ASGI scope."""
        # Probes come several times a second.
        if scope["type"] != "http" or not logger.isEnabledFor(logging.INFO) or is_probe(scope):
            await self.app(scope, receive, send)
            return
        method, path = scope["method"], printable(quote(scope["path"]))
        began = monotonic()
        # The status that the server sends if the app fails before it answers.
        status = 500
        logged = False

        def log() -> None:
            nonlocal logged
            logged = True
            # Not earlier: the app's middleware reads the proxy's headers.
            address = shown_address(scope.get("client"))
            logger.info("%s %s from %s: %d after %.3f s", method, path, address, status, monotonic() - began)

        async def watched(event: Any) -> None:
            nonlocal status
            if event["type"] == "http.response.start":
                status = event["status"]
            await send(event)
            # Do not wait until the app returns, because it may run background tasks first.
            if event["type"] == "http.response.body" and not event.get("more_body", False):
                log()

        try:
            await self.app(scope, receive, watched)
        finally:
            if not logged:
                log()
