"""Connections on any ASGI server.

The server parses, reassembles and buffers a message before it arrives here,
and decides when to write. Only the native transport can refuse a message
before it is buffered, measure heartbeats, and join writes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, Final, NamedTuple

from symphony.outgoing.encoding import Message
from symphony.outgoing.outbox import Outbox
from symphony.stats import Stats
from symphony.transport.base import Acceptor, Close, Profile, Receiver, Scope
from symphony.transport.heartbeat import Heartbeat
from symphony.websocket.frames import close_reason

__all__ = ("MESSAGES", "serve")

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

# If the server's `send` is more bytes behind than this, the outbox keeps the rest.
_HIGH_WATER_BYTES: Final = 64 * 1024
# How many messages are handled between two looks at the clock.
_STRIDE: Final = 16
_DENIAL: Final = "websocket.http.response"


class _EmptyText(str):
    """An empty message in the outbox, which counts it as a frame of 2 bytes."""

    __slots__ = ()

    def __len__(self) -> int:
        return 2


class _EmptyBytes(bytes):
    """The same for an empty binary message."""

    __slots__ = ()

    def __len__(self) -> int:
        return 2


class _Messages:
    """The encoding of a transport that sends whole messages."""

    __slots__ = ()

    def encode(self, message: Message) -> Message:
        # Without a size, a loop that sends empty messages would fill no outbox.
        return message or (_EMPTY_TEXT if isinstance(message, str) else _EMPTY_BYTES)

    def encode_text(self, payload: bytes) -> Message:
        return payload.decode()

    def join(self, frames: Sequence[Any]) -> Sequence[Any]:
        return tuple(frames)


MESSAGES: Final = _Messages()
_EMPTY_TEXT: Final = _EmptyText()
_EMPTY_BYTES: Final = _EmptyBytes()


def _nowhere(block: Any) -> None:
    """Take what an outbox still writes after its connection has ended."""


class _Last(NamedTuple):
    """Takes the place of the native transport's close frame in the outbox."""

    code: int
    reason: str

    def __len__(self) -> int:
        return 0


async def serve(acceptor: Acceptor, scope: Scope, receive: Receive, send: Send) -> None:
    """Run one connection from `websocket.connect` to the end of its session."""
    await receive()
    connection = _AsgiConnection(scope, send, acceptor.stats)
    session = connection.session = acceptor.connect(scope, connection)
    writer = asyncio.ensure_future(connection.write_all())
    try:
        if session is not None:
            await connection.read_all(receive, session)
    finally:
        if session is not None:
            session.closed(connection.ending())
            await session.ended()
        connection.finish()
        try:
            await asyncio.wait((writer,), timeout=acceptor.limits.close_timeout)
        finally:
            writer.cancel()
            connection.release()


class _AsgiConnection:
    """One connection, with the interface that the core uses."""

    latency = None

    def __init__(self, scope: Scope, send: Send, stats: Stats) -> None:
        self._loop = asyncio.get_running_loop()
        self.encoding = MESSAGES
        self.outbox = Outbox(self._loop, self._enqueue, MESSAGES.join)
        self.session: Receiver | None = None
        self.held = False
        self.message_at = self._loop.time()
        self._denial = _DENIAL in (scope.get("extensions") or {})
        self._send = send
        self._stats = stats
        self._events: deque[Event] = deque()
        self._unsent = 0
        self._wake = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._finished = False
        self._aborted = False
        self._reader: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heartbeat: Heartbeat | None = None
        self._ours: Close | None = None
        self._theirs: Close | None = None

    # The core's calls

    def configure(self, profile: Profile) -> None:
        self._limits = profile.limits
        profile.apply(self.outbox, self._overflow)

    def accept(self, subprotocol: str | None) -> None:
        self._put({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        self.outbox.unblock()
        # The server sends pings as configured. Idle timeouts are handled here.
        self._heartbeat = Heartbeat(self, replace(self._limits, ping_interval=None))

    def refuse(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        if self._denial:
            raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
            raw.append((b"content-length", str(len(body)).encode()))
            self._put({"type": f"{_DENIAL}.start", "status": status, "headers": raw})
            self._put({"type": f"{_DENIAL}.body", "body": body})
        else:
            # Without the extension, the server always answers with 403.
            self._put({"type": "websocket.close", "code": 1008})
        self._stop_reading_later()

    def close(self, code: int, reason: str) -> None:
        if self._ours is not None or self.outbox.sealed:
            return
        self._ours = Close(code, reason, clean=False)
        # Shorten the reason here. Servers fail on a long reason, and never close.
        self.outbox.seal(_Last(code, close_reason(reason)))
        self._stop_reading_later()

    def abort(self) -> None:
        # ASGI cannot abort a connection. It is closed when the callable ends.
        if self._reader is not None:
            self._aborted = True
            self._reader.cancel()

    def pause_reading(self) -> None:
        self.held = True
        self._may_read.clear()

    def resume_reading(self) -> None:
        self.held = False
        self._may_read.set()

    # The heartbeat's calls

    @property
    def excused(self) -> bool:
        return self.held

    def send_control(self, frame: bytes) -> None:
        """Do nothing, because the server sends the pings."""

    def pong_too_late(self) -> None:
        """Do nothing, because the server checks the pongs."""

    def message_too_late(self) -> None:
        """Do nothing, because the server assembles the messages."""

    def idle_too_long(self) -> None:
        self._stats.idle += 1
        self.close(4408, "idle for too long")

    # The server's side

    async def read_all(self, receive: Receive, session: Receiver) -> None:
        """Deliver messages until the client disconnects, or is aborted."""
        self._reader = asyncio.current_task()
        count, began = 0, monotonic()
        try:
            while True:
                if self.held:
                    await self._may_read.wait()
                count += 1
                if count >= self._limits.max_turn_messages or (
                    count % _STRIDE == 0 and monotonic() - began > self._limits.max_turn_time
                ):
                    # The server's `receive` does not suspend while it has messages.
                    await asyncio.sleep(0)
                    count, began = 0, monotonic()
                event = await receive()
                if event["type"] == "websocket.disconnect":
                    code = event.get("code")
                    code = 1005 if code is None else code
                    self._theirs = Close(code, event.get("reason") or "", clean=code != 1006)
                    return
                if self._ours is None:
                    self._receive(event, session)
        except asyncio.CancelledError:
            if not self._aborted or self._reader is None:
                raise
            self._reader.uncancel()
        finally:
            self._reader = None

    async def write_all(self) -> None:
        """Send events to the server, one after the other."""
        while True:
            while self._events:
                event = self._events.popleft()
                try:
                    await self._send(event)
                except Exception:
                    # The client has disconnected. The reader is told as well.
                    self._events.clear()
                    self.outbox.seal(discard=True)
                    return
                if event["type"] == "websocket.send":
                    self._unsent -= len(event.get("text") or event.get("bytes") or "")
                    if self.outbox.blocked and self._unsent <= _HIGH_WATER_BYTES // 2:
                        self.outbox.unblock()
            if self._finished:
                return
            self._wake.clear()
            await self._wake.wait()

    def finish(self) -> None:
        """Make `write_all` return after it has sent everything to the server."""
        if self._timer is not None:
            self._timer.cancel()
        if self._heartbeat is not None:
            self._heartbeat.stop()
        self._finished = True
        self._wake.set()

    def release(self) -> None:
        """Break reference cycles, so that a closed socket is freed at once."""
        self.session = self._heartbeat = self._timer = None
        self.outbox.write = _nowhere

    def ending(self) -> Close:
        """Return how the connection ended."""
        if self._ours is not None:
            return self._ours._replace(clean=self._theirs is not None and self._theirs.clean)
        return self._theirs or Close(1006, "", clean=False)

    def _receive(self, event: Event, session: Receiver) -> None:
        text = event.get("text")
        message: Message = event.get("bytes") or b"" if text is None else text
        limit = self._limits.max_message_bytes
        if len(message) > limit or (
            text is not None and len(text) * 4 > limit and len(text.encode()) > limit
        ):
            self.close(1009, "the message is too large")
            return
        self.message_at = self._loop.time()
        session.received(message)

    def _enqueue(self, block: Sequence[Any]) -> None:
        for message in block:
            if isinstance(message, _Last):
                self._put({"type": "websocket.close", "code": message.code, "reason": message.reason})
                continue
            kind = "text" if isinstance(message, str) else "bytes"
            if message is _EMPTY_TEXT or message is _EMPTY_BYTES:
                message = "" if kind == "text" else b""
            self._unsent += len(message)
            self._put({"type": "websocket.send", kind: message})
        if self._unsent > _HIGH_WATER_BYTES:
            self.outbox.block()

    def _put(self, event: Event) -> None:
        self._events.append(event)
        self._wake.set()

    def _overflow(self) -> None:
        self._stats.slow_consumers += 1
        self._ours = Close(1013, "slow consumer", clean=False)
        self.outbox.seal(_Last(1013, "slow consumer"), discard=True)
        self._stop_reading_later()

    def _stop_reading_later(self) -> None:
        if self.session is not None:
            self.session.closing()
        self.resume_reading()
        if self._timer is None and self._reader is not None:
            self._timer = self._loop.call_later(self._limits.close_timeout, self.abort)
