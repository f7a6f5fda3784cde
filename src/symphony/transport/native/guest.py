"""WebSockets of an ASGI app of another framework, on the native server.

The app either serves the WebSocket through `receive` and `send`, or routes it
to a Symphony app that is mounted in it. The Symphony app then takes over the
connection, and no further message passes through this module.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.websockets import WebSocketDisconnect

from symphony.complaints import MAX_FAILURES, Complaints, place_of
from symphony.errors import Reject
from symphony.outgoing.encoding import Message
from symphony.printable import printable
from symphony.protocol.refusals import http_refusal
from symphony.transport.base import Close, Profile, Scope, Servable, SlowRead, shown_address
from symphony.websocket.handshake import HandshakeError
from symphony.websocket.queued import Queued

if TYPE_CHECKING:
    from symphony.limits import Limits
    from symphony.transport.native.connection import NativeConnection

__all__ = ("DENIAL", "AsgiApp", "Guest")

logger = logging.getLogger("symphony.transport")
access = logging.getLogger("symphony.http")

AsgiApp = Callable[[Scope, Any, Any], Awaitable[Any]]

DENIAL: Final = "websocket.http.response"
"""The ASGI extension with which an app refuses a handshake with an HTTP response."""

_INTERNAL_ERROR: Final = b"Internal Server Error"


class Guest:
    """One connection that an ASGI app of another framework serves.

    It is the connection's `Receiver` until a Symphony app takes over.

    Args:
        connection: The connection, whose handshake is not answered yet.
        scope: The ASGI scope of the handshake.
        limits: The limits for WebSockets that the app serves itself.
        queued: The bytes that wait in the queues of all of them.
        complaints: Where to log what fails.

    Attributes:
        task: The task that runs the app.
    """

    task: asyncio.Task[None]

    def __init__(
        self,
        connection: NativeConnection,
        scope: Scope,
        limits: Limits,
        queued: Queued,
        complaints: Complaints,
    ) -> None:
        self._connection = connection
        self._path = printable(quote(scope["path"]))
        self._address = shown_address(scope["client"])
        self._limits = limits
        self._queued = queued
        self._complaints = complaints
        self._unread_bytes = 0
        # With the bytes of each, because text may grow in memory when it is used.
        self._events: deque[tuple[dict[str, Any], int]] = deque((({"type": "websocket.connect"}, 0),))
        self._arrived = asyncio.Event()
        self._answered = False
        self._taken = False
        self._gone = False
        self._denial: tuple[int, Headers] | None = None
        self._body = bytearray()

    # Called by the connection

    def received(self, message: Message) -> None:
        """Queue a message for the app."""
        kind = "text" if isinstance(message, str) else "bytes"
        # The size in memory: characters beyond Latin-1 take 2 or 4 bytes.
        size = message.__sizeof__()
        self._unread_bytes += size
        self._queued.size += size
        self._put({"type": "websocket.receive", kind: message}, size)
        limits = self._limits
        too_many = len(self._events) > limits.max_queue
        if too_many or self._unread_bytes >= limits.max_queue_bytes or self._queued.is_full:
            self._connection.pause_reading()

    def slow(self, seconds: float, read: SlowRead) -> None:
        """Do nothing: the app runs in a task, not while messages are read."""

    def closing(self) -> None:
        """Do nothing: the app receives its queued messages when it wants."""

    def closed(self, close: Close) -> None:
        """Tell the app that the connection has ended."""
        if not self._gone:
            self._gone = True
            self._connection.outbox.seal(discard=True)
            self._put({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})

    async def ended(self) -> None:
        """Return when the app has returned."""
        await asyncio.wait((self.task,))

    # Called for the app

    async def run(self, app: AsgiApp, scope: Scope) -> None:
        """Run the app to its end. If it has not answered the client, answer."""
        try:
            await app(scope, self._receive, self._send)
        except Exception as error:
            if not (self._gone and isinstance(error, WebSocketDisconnect | ConnectionResetError)):
                text, kind = "The app failed on the WebSocket %s.", place_of(error)
                self._complaints.log(
                    logger, logging.ERROR, text, self._path, kind=kind, most=MAX_FAILURES, error=error
                )
            self._end(1011)
        else:
            if not (self._answered or self._taken or self._gone):
                text = "The app did not answer the handshake on %s."
                self._complaints.log(logger, logging.ERROR, text, self._path)
            self._end(1000)
        finally:
            # Close the connection too if the app was cancelled.
            self._end(1012)
            # Not when the client has gone: the app may still read, and until then it waits.
            self._events.clear()
            self._forget(self._unread_bytes)
            # Messages that still arrive are not delivered, and not counted.
            self._queued = Queued(self._limits.max_queued_bytes)

    async def take(self, host: Servable, scope: Scope) -> None:
        """Move the connection to a mounted Symphony app; return when its session has ended."""
        if self._gone:
            return
        if self._answered:
            raise RuntimeError("The WebSocket was accepted before it reached the Symphony app.")
        self._answered = self._taken = True
        session = self._connection.hand_over(host.node, scope)
        if session is not None:
            await session.ended()

    def drain(self) -> None:
        """Close with 1012, or refuse a handshake that is not answered yet."""
        if self._answered:
            self._end(1012, "the server restarts")
        else:
            self.refuse(Reject("unavailable", "the server restarts", retry_after=self._limits.retry_after))

    def refuse(self, refusal: Reject) -> None:
        """Refuse the handshake."""
        self._refuse(*http_refusal(refusal))

    def misread(self, error: HandshakeError) -> None:
        """Refuse a request that is not a valid handshake."""
        self._refuse(error.status, error.headers, error.message.encode())

    async def _receive(self) -> dict[str, Any]:
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()
        event, size = self._events.popleft()
        self._forget(size)
        if self._connection.held and self._has_room:
            self._connection.resume_reading()
        return event

    @property
    def _has_room(self) -> bool:
        if not self._events:
            return True
        limits = self._limits
        return (
            len(self._events) <= limits.max_queue // 2
            and self._unread_bytes <= limits.max_queue_bytes // 2
            and not self._queued.is_full
        )

    def _forget(self, size: int) -> None:
        self._unread_bytes -= size
        self._queued.size -= size

    async def _send(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if self._gone:
            # As in uvicorn: frameworks expect an OSError if the client has disconnected.
            raise ConnectionResetError("The client has disconnected.")
        if self._taken:
            raise RuntimeError(f"{kind} was sent to a WebSocket that a Symphony app has taken over.")
        if not self._answered:
            self._answer(kind, event)
        elif kind == "websocket.send":
            text = event.get("text")
            message: Message = event.get("bytes") or b"" if text is None else text
            connection = self._connection
            connection.outbox.send(connection.encoding.encode(message))
            await connection.outbox.drained()
        elif kind == "websocket.close":
            self._connection.close(event.get("code") or 1000, event.get("reason") or "")
        else:
            raise RuntimeError(f"{kind} was sent to an open WebSocket.")

    def _answer(self, kind: str, event: dict[str, Any]) -> None:
        headers = Headers(raw=[(name.lower(), value) for name, value in event.get("headers") or ()])
        if kind == "websocket.accept":
            # `configure` first: it sets what `accept` sends.
            self._connection.configure(Profile(self._limits, "disconnect", None, self._queued))
            self._connection.accept(event.get("subprotocol"), headers.items())
            self._answered = True
            self._log(101)
        elif kind == "websocket.close":
            self._refuse(403, {}, b"")
        elif kind == f"{DENIAL}.start":
            self._denial = (event["status"], headers)
        elif kind == f"{DENIAL}.body" and self._denial is not None:
            self._body += event.get("body", b"")
            if not event.get("more_body", False):
                self._refuse(*self._denial, bytes(self._body))
        else:
            raise RuntimeError(f"{kind} was sent to a WebSocket whose handshake is not answered.")

    def _end(self, code: int, reason: str = "") -> None:
        if self._gone or self._taken:
            return
        if self._answered:
            self._connection.close(code, reason)
        else:
            self._refuse(500, {}, _INTERNAL_ERROR)

    def _refuse(self, status: int, headers: Any, body: bytes) -> None:
        self._answered = True
        # From now on, the client receives nothing that the app sends.
        self._gone = True
        self._connection.configure(Profile(self._limits, "disconnect", None, self._queued))
        self._connection.refuse(status, headers, body)
        self._log(status)
        self._put({"type": "websocket.disconnect", "code": 1006, "reason": ""})

    def _log(self, status: int) -> None:
        access.info("WebSocket %s from %s: %d", self._path, self._address, status)

    def _put(self, event: dict[str, Any], size: int = 0) -> None:
        self._events.append((event, size))
        self._arrived.set()
