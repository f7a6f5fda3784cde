"""One log line a plain HTTP request."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any
from urllib.parse import quote

from symphony.transport.base import Scope, shown_address

__all__ = ("AccessLog",)

logger = logging.getLogger("symphony.http")


class AccessLog:
    """Logs who asked for what, the status and how long the answer took, at INFO.

    Args:
        app: The ASGI app that answers.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http" or not logger.isEnabledFor(logging.INFO):
            await self.app(scope, receive, send)
            return
        method, path = scope["method"], quote(scope["path"])
        began = monotonic()
        # What the server answers if the app fails before it does.
        status = 500
        logged = False

        def log() -> None:
            nonlocal logged
            logged = True
            # Only now: the proxy's headers are read inside.
            address = shown_address(scope.get("client"))
            logger.info("%s %s from %s: %d after %.3f s", method, path, address, status, monotonic() - began)

        async def watched(event: Any) -> None:
            nonlocal status
            if event["type"] == "http.response.start":
                status = event["status"]
            await send(event)
            # Not at the end of the app, which may have background tasks to run.
            if event["type"] == "http.response.body" and not event.get("more_body", False):
                log()

        try:
            await self.app(scope, receive, watched)
        finally:
            if not logged:
                log()
