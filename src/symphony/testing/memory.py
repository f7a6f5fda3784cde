"""The connection of a test client, which calls the app directly without a network."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final

import msgspec
from starlette.datastructures import Headers

from symphony.client.link import Close, DialError, Listener, Offer
from symphony.client.opening import retry_after
from symphony.client.payload import Decoding, error_said
from symphony.errors import RefusedError
from symphony.outgoing.encoding import Message
from symphony.protocol.subprotocols import REFUSE, TOKEN_PREFIX
from symphony.transport.base import Scope

__all__ = ("HandshakeRefusedError", "MemoryDial", "MemoryLink")

Event = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]]

_SHOWN: Final = 500
_LOST: Final = 1006


class HandshakeRefusedError(RefusedError):
    """The app refused the connection with an HTTP response.

    Attributes:
        status: The HTTP status.
        headers: The headers of the response.
        body: The body of the response.
    """

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        shown = body[:_SHOWN].decode(errors="replace")
        super().__init__(
            f"HTTP {status}: {shown}",
            4000 + status,
            shown,
            refusal=error_said(body, Decoding("json")),
            status=status,
            retry_after=retry_after(headers.get("retry-after"), time.time()),
        )
        self.status: int = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """Return the decoded body: `code`, `message`, `retryable` and `details` of a `Reject`."""
        return msgspec.json.decode(self.body)


class MemoryDial:
    """Connects to an app in memory, once.

    Args:
        app: The app.
        path: The path, for messages.
        scope: Creates the ASGI scope of a handshake with the given subprotocols.
        changed: Called when a message has arrived, or the connection has ended.
        raw: The only subprotocols to offer. The client then reads messages
            unchanged, whatever the app chooses. `None` offers those of a
            normal client.

    Attributes:
        where: The path, for messages.
        link: The connection, after the first attempt.
    """

    def __init__(
        self,
        app: App,
        path: str,
        scope: Callable[[Sequence[str]], Scope],
        changed: Callable[[], None],
        *,
        raw: Sequence[str] | None,
    ) -> None:
        self.where = path
        self.link: MemoryLink | None = None
        self._app = app
        self._scope = scope
        self._changed = changed
        self._raw = raw

    async def __call__(self, offer: Offer) -> MemoryLink:
        """Shake hands with the app."""
        # Without it refusals come as HTTP answers, of which a test sees more.
        offered = [name for name in offer.subprotocols if name != REFUSE]
        if self._raw is not None:
            offered = [*self._raw, *(name for name in offered if name.startswith(TOKEN_PREFIX))]
        raw = self._raw is not None
        self.link = link = MemoryLink(self._app, self._scope(offered), self._changed, raw=raw)
        try:
            await asyncio.wait((link.answered,))
        except asyncio.CancelledError:
            link.abort()
            raise
        if link.refused is not None:
            # Wait, so that the app has finished before the test continues.
            await link.wait_closed()
            refused = link.refused
            raise DialError(
                refused.code,
                str(refused),
                again=False,
                refusal=refused.refusal,
                status=refused.status,
            ) from refused
        if not link.accepted:
            assert link.ended is not None
            await link.wait_closed()
            raise DialError(link.ended.code, "the app ended without an answer", again=False)
        return link


class MemoryLink:
    """One connection to an app: an ASGI server for the app, and a `Link` for a client.

    Attributes:
        accepted: Whether the app has accepted.
        chosen: The subprotocol that the app chose.
        congested: Always false, because a test reads everything.
        answered: Done when the app has accepted, refused or ended.
        refused: How the app refused, or `None`.
        ended: How the connection ended, or `None` while it is open.
    """

    congested = False

    def __init__(self, app: App, scope: Scope, changed: Callable[[], None], *, raw: bool) -> None:
        self.accepted = False
        self.chosen: str | None = None
        self._raw = raw
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.refused: HandshakeRefusedError | None = None
        self.ended: Close | None = None
        self._changed = changed
        self._listener: Listener | None = None
        self._paused = False
        self._waiting: deque[Message] = deque()
        self._refusal: tuple[int, Headers] | None = None
        self._to_app: asyncio.Queue[Event] = asyncio.Queue()
        self._to_app.put_nowait({"type": "websocket.connect"})
        self._serving = asyncio.ensure_future(self._serve(app, scope))

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that decides how the client reads messages."""
        return None if self._raw else self.chosen

    @property
    def served(self) -> bool:
        """Whether the app has finished, including its disconnect handler."""
        return self._serving.done()

    def start(self, listener: Listener) -> None:
        """Start to deliver messages to a listener."""
        self._listener = listener
        self._deliver()
        if self.ended is not None:
            listener.closed(self.ended)

    def send(self, message: Message) -> None:
        """Send a message to the app."""
        if self.ended is None:
            kind = "text" if isinstance(message, str) else "bytes"
            self._to_app.put_nowait({"type": "websocket.receive", kind: message})

    def pause_reading(self) -> None:
        """Stop delivering messages."""
        self._paused = True

    def resume_reading(self) -> None:
        """Deliver messages again."""
        self._paused = False
        self._deliver()

    def close(self, code: int, reason: str) -> None:
        """Close the connection. The server side answers at once."""
        self._end(Close(code, reason, clean=True))

    def abort(self) -> None:
        """Abort the connection, like a broken network."""
        self._end(Close(_LOST, "", clean=False))

    async def wait_closed(self) -> None:
        """Wait until the app has finished with the connection."""
        await asyncio.wait((self._serving,))

    def check(self) -> None:
        """Raise the exception of the app, if there was one. Call it after the end."""
        self._serving.result()

    def _end(self, close: Close) -> None:
        if self.ended is not None:
            return
        self.ended = close
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self._settle()
        if self._listener is not None:
            self._paused = False
            self._deliver()
            # `abort` promises not to call back before it returns.
            asyncio.get_running_loop().call_soon(self._tell_end, self._listener, close)

    def _tell_end(self, listener: Listener, close: Close) -> None:
        listener.closed(close)
        self._changed()

    def _settle(self) -> None:
        if not self.answered.done():
            self.answered.set_result(None)
        self._changed()

    def _deliver(self) -> None:
        while self._waiting and self._listener is not None and not self._paused:
            self._listener.received(self._waiting.popleft())
        self._changed()

    # What an ASGI server does

    async def _serve(self, app: App, scope: Scope) -> None:
        try:
            await app(scope, self._to_app.get, self._from_app)
        finally:
            self._end(Close(_LOST, "", clean=False))
            self._changed()

    async def _from_app(self, event: Event) -> None:
        kind = event["type"]
        if kind == "websocket.accept":
            self.accepted = True
            self.chosen = event.get("subprotocol")
            self._settle()
        elif kind == "websocket.http.response.start":
            self._refusal = (event["status"], Headers(raw=event["headers"]))
        elif kind == "websocket.http.response.body" and self._refusal is not None:
            self.refused = HandshakeRefusedError(*self._refusal, event["body"])
            self._end(Close(_LOST, "", clean=False))
        elif self.ended is not None:
            # ASGI requires an `OSError` from `send` after the client has disconnected.
            raise BrokenPipeError("The connection is closed.")
        elif kind == "websocket.send":
            text = event.get("text")
            self._waiting.append(event["bytes"] if text is None else text)
            self._deliver()
        else:
            # The peer answers a close frame with its own.
            self._end(Close(event["code"], event["reason"], clean=True))
