"""The JavaScript client, as a server hands it out."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

__all__ = ("SCRIPT_PATH", "serve_script")

SCRIPT_PATH: Final = "/_symphony/client.js"
"""From where a page imports it: `import { connect } from "/_symphony/client.js"`."""

_INSTALLED: Final = Path(__file__).parents[1] / "client.js"
_IN_A_CHECKOUT: Final = Path(__file__).parents[3] / "clients" / "javascript" / "symphony.js"


@cache
def _script() -> tuple[bytes, str]:
    """Return the module and its entity tag."""
    file = _INSTALLED if _INSTALLED.exists() else _IN_A_CHECKOUT
    text = file.read_bytes()
    return text, f'"{sha256(text).hexdigest()[:16]}"'


def serve_script(request: Request) -> Response:
    """Answer a request for the module; browsers ask again each time, and get it once."""
    if request.method not in ("GET", "HEAD"):
        return Response(status_code=405, headers={"Allow": "GET, HEAD"})
    text, tag = _script()
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(text, media_type="text/javascript", headers=headers)
