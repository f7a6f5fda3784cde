"""The life of one socket: handshake, connect handler, messages, disconnect handler.

One task runs it. It uses the transport through the `Connection` contract.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from symphony.errors import DisconnectedError, Reject
from symphony.protocol.envelopes import Limits, LimitValues
from symphony.protocol.subprotocols import LIMITS
from symphony.protocol.unencodable import UnencodableError
from symphony.rooms.leave import leave_of
from symphony.session.background import BackgroundTasks
from symphony.session.blocking import HELD, event_in, watched, what_held
from symphony.session.cancelling import uncancel
from symphony.session.contracts import SessionNode
from symphony.session.lines import log_line
from symphony.session.refusal import refuse as refuse_handshake
from symphony.session.serving import Serving
from symphony.session.steady import Steady
from symphony.socket import Socket, close_dependencies, has_dependencies, release
from symphony.socketsession import HomeContext
from symphony.tasks import start
from symphony.transport.base import Close, SlowRead

if TYPE_CHECKING:
    from symphony.identity import Identity
    from symphony.outgoing.encoding import Dialect
    from symphony.protocol.envelopes import Event, Join
    from symphony.rooms.places import Place
    from symphony.rooms.room import Room
    from symphony.session.endpoint import Endpoint
    from symphony.transport.base import Connection

__all__ = ("Session",)

logger = logging.getLogger("symphony.socket")

SERVICE_RESTART = 1012
_INTERNAL = Reject("internal", "the connect handler failed")


class _Phase(Enum):
    """The current stage, named like its handler."""

    CONNECTING = "connect"
    SERVING = "message"
    ENDING = "disconnect"


class Session:
    """Runs one socket.

    Attributes:
        socket: The socket, as handlers see it.
        endpoint: The route of the socket.
        received: Handles the transport's messages, directly in the lane or the
            exchange.
    """

    __slots__ = (
        *("_background", "_close", "_closed", "_closed_here", "_connection", "_context"),
        *("_dialect", "_draining", "_late", "_leaving", "_limits", "_node"),
        *("_opened_at", "_outbox", "_phase", "_retryable", "_serving", "_task", "_timer", "began"),
        *("complaints", "endpoint", "received", "socket"),
    )

    socket: Socket[Any]

    def __init__(
        self, node: SessionNode, endpoint: Endpoint, connection: Connection, dialect: Dialect
    ) -> None:
        self._node = node
        self.complaints = node.complaints
        self.endpoint = endpoint
        self._connection = connection
        self._dialect = dialect
        self._outbox = connection.outbox
        self._limits = endpoint.profile.limits
        self._background: BackgroundTasks | None = None
        self._close: Close | None = None
        self._late = self._closed_here = False
        self._leaving: asyncio.Task[None] | None = None
        self._opened_at = 0.0
        self._draining = False
        self._timer: asyncio.TimerHandle | None = None
        self.began = False
        self._retryable: bool | None = None
        self._phase = _Phase.CONNECTING

    def start(self, socket: Socket[Any]) -> None:
        """Start the task of the session."""
        self.socket = socket
        self._context = context = copy_context()
        self._closed = asyncio.get_running_loop().create_future()
        resync = self._node.rooms.resync
        self._serving = Serving(self, socket, self.endpoint, self._connection, self._dialect, context, resync)
        self.received: Callable[..., None] = self._serving.received
        self._start_timer(self._limits.connect_timeout, self._too_late)
        self._task = start(Steady(self._live()), context)

    def open(self) -> None:
        """Answer the handshake with 101, if it is not answered yet."""
        socket = self.socket
        if socket.opened or self._close is not None:
            return
        socket.opened = self.began = True
        self._opened_at = time.monotonic()
        if not self._draining:
            self._stop_timer()
        connection = self._connection
        connection.accept(socket.subprotocol)
        # The connection is not in a room yet, so these are the first bytes after the 101.
        events = self.endpoint.events is not None and self._dialect.is_v1
        if events and LIMITS in socket.handshake.subprotocols:
            limits = Limits(LimitValues(self._limits.max_message_bytes))
            connection.outbox.send(connection.encoding.encode(self._dialect.envelope(limits)))
        self._node.opened(self, self.endpoint)
        log_line(self.complaints, socket, "opened")

    @property
    def home(self) -> HomeContext:
        """The context that the handlers of the socket share."""
        return HomeContext(self._context)

    async def ended(self) -> None:
        """Return when the disconnect handler has run and everything is cleaned up."""
        await asyncio.wait((self._task,))

    def slow(self, seconds: float, read: SlowRead | None = None) -> None:
        """Log what blocked the event loop: the messages of a read, or one step of the socket's task."""
        if read is None:
            messages, last = self._serving.recent() if self._phase is _Phase.SERVING else (0, None)
            # A lane lets the loop turn as soon as a step took `max_turn_time`, so the last
            # message took the rest.
            rest = seconds - self._limits.max_turn_time
            read = SlowRead(messages, last, rest if rest > seconds / 2 else None)
        event = event_in(read.message, self._dialect)
        who, advice = what_held(self._phase.value, self.endpoint.pattern, event, read, seconds)
        values = who, seconds, self.socket.id, advice
        self.complaints.log(logger, logging.WARNING, HELD, *values, kind=who)

    def closing(self) -> None:
        """Drop the messages that wait for handlers, because the server has closed."""
        if self._closed.done():
            return
        self._closed_here = True
        if dropped := self._serving.closing():
            text = "%d messages of socket %s were dropped: it was closed."
            self.complaints.log(logger, logging.INFO, text, dropped, self.socket.id)

    def closed(self, close: Close) -> None:
        """Handle the end of the connection."""
        if self._closed.done():
            return
        self._closed.set_result(None)
        self._outbox.seal(discard=True)
        if self._close is None:
            self._close = close
        self._serving.connection_lost()
        # At once, although handlers may still run: a closed socket must not stay a member.
        by_server, opened = self._closed_here, self.socket.opened
        why = leave_of(self._close, by_server=by_server, retryable=self._retryable, opened=opened)
        hooks = self._node.rooms.leave_all(self.socket, why)
        if self.endpoint.per_user:
            self._node.give_up_place(self)
        if hooks is not None:
            self._leaving = start(self._carried_out(hooks), self._context)
        if self._phase is _Phase.CONNECTING:
            # One turn later: a task that is cancelled before its first step cleans nothing up.
            asyncio.get_running_loop().call_soon(self._stop_connecting)
        elif self._phase is _Phase.SERVING:
            self._serving.end()

    def drain(self) -> None:
        """Close with 1012 when the running handlers have finished."""
        if self._closed.done() or self._draining:
            return
        self._draining = True
        if self._phase is _Phase.CONNECTING:
            self._start_timer(self._limits.finish_timeout, self._task.cancel)
        elif self._phase is _Phase.SERVING:
            self._serving.drain()

    def abort(self) -> None:
        """End the connection at once; the disconnect handler still runs."""
        self._connection.abort()
        self.closed(Close(1006, "", clean=False))
        if self._phase is _Phase.SERVING:
            self._serving.cancel()

    def background(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine in a task, which is cancelled when the socket ends."""
        if self._background is None:
            start = partial(self._node.background, socket=self.socket)
            self._background = BackgroundTasks(start, self._limits.max_background_tasks, self.socket.id)
        return self._background.run(coroutine, is_over=self._close is not None)

    async def request(self, event: str, data: Any, *, timeout: float, response_type: Any) -> Any:
        """Send a request to the client and return its reply."""
        requests = self._serving.requests
        self.open()
        return await requests.request(event, data, timeout=timeout, response_type=response_type)

    async def join(self, name: str, *, authorize: bool, asked: Join | None = None) -> Room:
        """Make the socket a member of a room."""
        most = self._limits.max_rooms
        return await self._node.rooms.join(self.socket, name, authorize=authorize, most=most, asked=asked)

    async def leave(self, name: str) -> bool:
        """Remove the socket from a room; return whether it was a member."""
        return await self._node.rooms.leave(self.socket, name)

    async def prepare(self, name: str) -> Place:
        """Begin the join of the room of the route."""
        return await self._node.rooms.prepare(self.socket, name)

    def login(self, identity: Identity, before: Identity | None) -> None:
        """Tell the node the new identity of the socket."""
        self._node.logged_in(self, identity, before)

    async def look_for_others(self) -> None:
        """Refuse the socket if its user has another one on its route."""
        await self._node.look_for_others(self)

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended."""
        return self._closed.done()

    def report(self, error: BaseException, what: str, event: str = "") -> None:
        """Report an exception that was raised in *what*, the handler of *event*."""
        if isinstance(error, UnencodableError):
            error.blame(self.endpoint.handler_of(event))
        if self._outbox.sealed and isinstance(error, DisconnectedError):
            # The client left, and the handler has noticed: no bug of the handler.
            values = error, what, self.endpoint.pattern
            self.complaints.log(logger, logging.INFO, "%s, in the %s of %s", *values, kind=values[1:])
        else:
            self._fail(error, what)

    def watched(self, work: Coroutine[Any, Any, Any], event: Event | None = None) -> Awaitable[Any]:
        """Wrap *work*, the stream of *event* if given, to log a warning if it blocks the event loop."""
        # Not a closure: each open socket would keep its cells.
        slow = self.slow if event is None else partial(self._slow_stream, event)
        return watched(work, self._limits.blocking_warning, slow)

    def _slow_stream(self, event: Event, seconds: float) -> None:
        self.slow(seconds, SlowRead(1, event, seconds))

    async def _live(self) -> None:
        try:
            await self._serve()
            self._phase = _Phase.ENDING
            self._stop_timer()
            if self._draining and self.socket.opened:
                self._connection.close(SERVICE_RESTART, "the server restarts")
            await self._closed
        finally:
            self._phase = _Phase.ENDING
            self._stop_timer()
            if not self._closed.done():
                # The event loop is shutting down.
                self.abort()
            await self.watched(self._end())

    async def _serve(self) -> None:
        try:
            if await self.watched(self._connected()) and not self._draining:
                self._phase = _Phase.SERVING
                await self.watched(self._serving.serve(self.socket))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # Not of a handler, whose exceptions are answered. Without this the connection
            # would stay open, and nothing would be handled.
            self._fail(error, "session")
            self._connection.close(_INTERNAL.close_code, "the server failed")

    async def _connected(self) -> bool:
        """Run the connect stage; return whether to handle messages after it."""
        try:
            await self.endpoint.connect(self.socket)
            evicted = await self._node.admit(self)
            self.open()
            self._node.replace(evicted)
        except asyncio.CancelledError as error:
            if self._closed.done():
                return False
            uncancel(self._task)
            if self._draining:
                after = self._limits.retry_after
                self.refuse(Reject("unavailable", "the server restarts", retry_after=after))
            elif self._late:
                pattern, seconds = self.endpoint.pattern, self._limits.connect_timeout
                text = "The connect handler of %s did not answer within %g s."
                self.complaints.log(logger, logging.WARNING, text, pattern, seconds, kind=pattern)
                self.refuse(Reject("timeout", "the server took too long to answer", status=503))
            else:
                self._fail(error, "connect handler")
                self.refuse(_INTERNAL)
        except Reject as refusal:
            self.refuse(refusal)
        except BaseException as error:
            self.report(error, "connect handler")
            self.refuse(_INTERNAL)
        else:
            return not self._closed.done()
        return False

    async def _carried_out(self, hooks: Coroutine[Any, Any, None]) -> None:
        """Run the hooks of rooms that the socket has left by leaving the node."""
        try:
            await self.watched(hooks)
        except (KeyboardInterrupt, SystemExit) as error:
            # Raised in a task, it would stop the event loop without any clean-up.
            self._fail(error, "on_leave hook")

    def refuse(self, refusal: Reject) -> None:
        """Close the socket with an error, or refuse its handshake if it is not open."""
        socket, self._retryable = self.socket, refusal.retryable
        if socket.opened:
            if not self._draining:
                code = self._serving.refuse(refusal)
                self._connection.close(code, refusal.message)
            return
        if self._close is not None:
            return
        self._close = Close(refusal.close_code, refusal.message, clean=True)
        log_line(self.complaints, socket, "refused", f"{refusal.status} {refusal}")
        refuse_handshake(self._connection, socket.handshake, refusal, by_http=self._draining)

    def _fail(self, error: BaseException, what: str) -> None:
        self._node.report(error, self.socket, f"{what} of {self.endpoint.pattern}")

    def _start_timer(self, seconds: float, call: Callable[[], object]) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, call)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_connecting(self) -> None:
        if self._phase is _Phase.CONNECTING:
            self._task.cancel()

    def _too_late(self) -> None:
        self._late = True
        self._task.cancel()

    async def _end(self) -> None:
        uncancel(self._task)
        close = self._close or Close(1006, "", clean=False)
        disconnect = self.endpoint.disconnect
        if self._leaving is not None:
            # Before the disconnect handler: the hooks of rooms say goodbye. Another task
            # may still run the hooks of a join, and is cancelled below.
            _, late = await asyncio.wait((self._leaving,), timeout=self._limits.finish_timeout)
            for task in late:
                task.cancel()
        if self.began and disconnect is not None:
            try:
                async with asyncio.timeout(self._limits.finish_timeout):
                    await disconnect(self.socket, close)
            except BaseException as error:
                self._fail(error, "disconnect handler")
        if self._background is not None:
            await self._background.end(self._limits.finish_timeout)
        if has_dependencies(self.socket):
            try:
                async with asyncio.timeout(self._limits.finish_timeout):
                    await close_dependencies(self.socket)
            except BaseException as error:
                self._fail(error, "dependencies")
        # Not earlier: a stopping app waits for its sockets, and then closes what they may use.
        self._node.left(self)
        if self.socket.opened:
            after = f" after {time.monotonic() - self._opened_at:.3f} s"
            log_line(self.complaints, self.socket, "closed", close, after)
        self._release()

    def _release(self) -> None:
        # Break reference cycles. Otherwise thousands of sockets that have gone
        # wait for the garbage collector's next full round.
        release(self.socket)
        self._serving.release()
        del self._serving, self.received, self._context
        self._background = self._leaving = None
