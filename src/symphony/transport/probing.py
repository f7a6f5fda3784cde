"""Readiness and liveness: what a proxy or an orchestrator asks a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from starlette.responses import JSONResponse, Response

from symphony.transport.base import Scope, Servable

__all__ = ("LIVE_PATH", "PROBES", "READY_PATH", "Readiness", "is_probe", "probe_response")

LIVE_PATH: Final = "/_symphony/live"
READY_PATH: Final = "/_symphony/ready"
PROBES: Final = (LIVE_PATH, READY_PATH)

_HEADERS: Final = {"Cache-Control": "no-store"}


class Readiness(NamedTuple):
    """What `/_symphony/ready` answers, as JSON.

    Attributes:
        ready: Whether new clients should be sent here.
        broker: The state of the broker: `ok`, `away` or `deaf`.
        stopping: Whether the server was told to stop.
    """

    ready: bool
    broker: str
    stopping: bool


def is_probe(scope: Scope) -> bool:
    """Return whether a request is for one of the two paths."""
    return scope["path"].removeprefix(scope.get("root_path", "").rstrip("/")) in PROBES


def probe_response(scope: Scope, apps: Iterable[Servable]) -> Response | None:
    """Return the answer to a request; `None`: it is for something else.

    Args:
        scope: The ASGI scope of the request.
        apps: The apps of the server. It is ready if all of them are.
    """
    if not is_probe(scope):
        return None
    answers = [answer for app in apps if (answer := app.readiness) is not None]
    if not answers:
        return None
    if scope["path"].endswith(LIVE_PATH):
        return JSONResponse({"live": True}, headers=_HEADERS)
    answer = min(answers, key=lambda each: each.ready)
    return JSONResponse(answer._asdict(), 200 if answer.ready else 503, headers=_HEADERS)
