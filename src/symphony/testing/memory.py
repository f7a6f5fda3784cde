"""What carries a test client's messages: straight into the app, without a network."""

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
from symphony.client.payload import error_said
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
    """The app refused the connection with an HTTP answer.

    Attributes:
        status: The HTTP status.
        headers: The answer's headers.
        body: The answer's body.
    """

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        shown = body[:_SHOWN].decode(errors="replace")
        super().__init__(
            f"HTTP {status}: {shown}",
            4000 + status,
            shown,
            refusal=error_said(body, "json"),
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
        path: To what, for people.
        scope: Makes the ASGI scope of a handshake that offers subprotocols.
        changed: Called when something has come, or has ended.
        raw: All subprotocols that are offered; then the client reads messages
            as they are, whatever the app chooses. `None`: those of a client.

    Attributes:
        where: To what, for people.
        link: The connection, from the attempt on.
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
            # The app has finished with it when the test goes on.
            await link.wait_closed()
            refused = link.refused
            raise DialError(
                refused.code, str(refused), again=False, refusal=refused.refusal, status=refused.status
            ) from refused
        if not link.accepted:
            assert link.ended is not None
            await link.wait_closed()
            raise DialError(link.ended.code, "the app ended without an answer", again=False)
        return link


class MemoryLink:
    """One connection to an app: what an ASGI server is to it, and a `Link` to a client.

    Attributes:
        accepted: Whether the app has accepted.
        chosen: The subprotocol that the app chose.
        congested: Never: a test reads what comes.
        answered: Done when the app has accepted, refused or ended.
        refused: How the app refused, `None`: it did not.
        ended: How the connection ended, `None` while it is open.
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
        """What decides how the client reads messages."""
        return None if self._raw else self.chosen

    @property
    def served(self) -> bool:
        """Whether the app has finished with it: its disconnect handler has run."""
        return self._serving.done()

    def start(self, listener: Listener) -> None:
        """Begin to deliver."""
        self._listener = listener
        self._deliver()
        if self.ended is not None:
            listener.closed(self.ended)

    def send(self, message: Message) -> None:
        """Hand a message to the app."""
        if self.ended is None:
            kind = "text" if isinstance(message, str) else "bytes"
            self._to_app.put_nowait({"type": "websocket.receive", kind: message})

    def pause_reading(self) -> None:
        """Deliver no more."""
        self._paused = True

    def resume_reading(self) -> None:
        """Deliver again."""
        self._paused = False
        self._deliver()

    def close(self, code: int, reason: str) -> None:
        """Say goodbye; the app's server answers at once."""
        self._end(Close(code, reason, clean=True))

    def abort(self) -> None:
        """Lose the connection."""
        self._end(Close(_LOST, "", clean=False))

    async def wait_closed(self) -> None:
        """Return when the app has finished with it."""
        await asyncio.wait((self._serving,))

    def check(self) -> None:
        """Raise what the app has raised, once it has finished."""
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
            # As ASGI asks of a server whose client has gone.
            raise BrokenPipeError("The connection is closed.")
        elif kind == "websocket.send":
            text = event.get("text")
            self._waiting.append(event["bytes"] if text is None else text)
            self._deliver()
        else:
            # The peer answers a close frame with its own.
            self._end(Close(event["code"], event["reason"], clean=True))
