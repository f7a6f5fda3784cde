"""The JavaScript client: the modules that a server gives to pages."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from symphony.websocket.handshake import origin_allowed

__all__ = ("SCRIPT_PATH", "ClientScript")

SCRIPT_PATH: Final = "/_symphony"
"""Where the modules are mounted: `import { connect } from "/_symphony/client.js"`."""

_PACKAGE: Final = Path(__file__).parents[1]
_CHECKOUT: Final = Path(__file__).parents[3] / "clients" / "javascript"
_FILES: Final[Mapping[str, tuple[Path, Path]]] = {
    "/client.js": (_PACKAGE / "client.js", _CHECKOUT / "symphony.js"),
    "/msgpack.js": (_PACKAGE / "msgpack.js", _CHECKOUT / "msgpack.js"),
}
_QUALITY: Final = re.compile(r"q=([01](?:\.[0-9]{0,3})?)", re.IGNORECASE)


class _Body(NamedTuple):
    """One representation of a module (RFC 9110 §3.2)."""

    content: bytes
    tag: str
    encoding: str | None


class ClientScript:
    """An ASGI app that serves the modules of the JavaScript client.

    Browsers ask again before each use and download a module once. A page of
    another origin may import a module if it may connect, too.

    Args:
        origins: The other origins whose pages may import, as in
            `Symphony(origins=...)`.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = origins

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request for a module."""
        if scope["type"] == "lifespan":
            return
        request = Request(scope)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path not in _FILES:
            await Response("Not Found\n", 404, media_type="text/plain")(scope, receive, send)
            return
        await self._answer(request, path)(scope, receive, send)

    def _answer(self, request: Request, path: str) -> Response:
        # Both, whatever the answer is: a cache must not give one page's answer to another.
        headers = {"Vary": "Origin, Accept-Encoding", **self._sharing(request)}
        if request.method not in ("GET", "HEAD"):
            return Response(status_code=405, headers={**headers, "Allow": "GET, HEAD"})
        plain, gzipped = _bodies(path)
        body = gzipped if _prefers_gzip(request.headers.getlist("accept-encoding")) else plain
        headers |= {"ETag": body.tag, "Cache-Control": "no-cache"}
        if _has(request.headers.getlist("if-none-match"), body.tag):
            return Response(status_code=304, headers=headers)
        if body.encoding is not None:
            headers["Content-Encoding"] = body.encoding
        headers["Content-Length"] = str(len(body.content))
        content = body.content if request.method == "GET" else b""
        return Response(content, media_type="text/javascript", headers=headers)

    def _sharing(self, request: Request) -> Mapping[str, str]:
        origin = request.headers.get("origin")
        host, secure = request.headers.get("host"), request.url.scheme == "https"
        if origin is None or not origin_allowed(origin, host=host, secure=secure, allowed=self._origins):
            return {}
        return {"Access-Control-Allow-Origin": origin}


@cache
def _bodies(path: str) -> tuple[_Body, _Body]:
    """Return a module as it is and compressed, read and compressed once."""
    installed, in_checkout = _FILES[path]
    content = (installed if installed.exists() else in_checkout).read_bytes()
    digest = sha256(content).hexdigest()[:16]
    # Without a time in it, every process of a server gives the same bytes.
    compressed = gzip.compress(content, compresslevel=9, mtime=0)
    return _Body(content, f'"{digest}"', None), _Body(compressed, f'"{digest}-gzip"', "gzip")


def _prefers_gzip(accepted: Sequence[str]) -> bool:
    """Return whether gzip is accepted, and not less than the plain form (RFC 9110 §12.5.3)."""
    qualities: dict[str, float] = {}
    for element in ",".join(accepted).split(","):
        name, _, parameters = element.partition(";")
        quality = _QUALITY.fullmatch(parameters.strip(" \t"))
        qualities[name.strip(" \t").lower()] = float(quality[1]) if quality else 1.0
    gzipped = qualities.get("gzip", qualities.get("x-gzip", qualities.get("*", 0.0)))
    return gzipped > 0 and gzipped >= qualities.get("identity", 0.0)


def _has(tags: Sequence[str], tag: str) -> bool:
    """Return whether an If-None-Match names a tag (RFC 9110 §13.1.2): weakly, as caches compare."""
    listed = {element.strip(" \t").removeprefix("W/") for element in ",".join(tags).split(",")}
    return tag in listed or "*" in listed
