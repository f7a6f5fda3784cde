"""One socket's life: handshake, connect handler, messages, disconnect handler.

It runs in one task a socket. The transport tells it what came in through
`received`, `slow` and `closed`; what it does to the transport goes through
the `Connection` contract.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Coroutine
from contextvars import copy_context
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from symphony.errors import DisconnectedError, Reject
from symphony.protocol.codec import UnencodableError
from symphony.session.blocking import event_in, watched, what_held
from symphony.session.exchange import Exchange
from symphony.session.messages import Messages
from symphony.session.refusal import refuse
from symphony.transport.base import Close, SlowRead

if TYPE_CHECKING:
    from symphony.limits import Limits
    from symphony.outgoing.encoding import Dialect
    from symphony.protocol.envelopes import Event
    from symphony.session.endpoint import Endpoint
    from symphony.socket import Socket
    from symphony.transport.base import Connection

__all__ = ("Session", "SessionNode")

logger = logging.getLogger("symphony.socket")

SERVICE_RESTART = 1012
_NOTHING = SlowRead(0, None, None)
_INTERNAL = Reject("internal", "the connect handler failed")


class SessionNode(Protocol):
    """What a session needs of the node it belongs to."""

    def opened(self, session: Session) -> None:
        """Hear that the socket is open."""
        ...

    async def left(self, session: Session) -> None:
        """Take the socket out of its rooms and tables."""
        ...

    def report(self, error: BaseException, socket: Socket[Any], where: str) -> None:
        """Log what a handler raised and hand it to the error handler."""
        ...

    def background(self, coroutine: Coroutine[Any, Any, Any], socket: Socket[Any]) -> asyncio.Task[Any]:
        """Start a background task whose exception is reported."""
        ...


class _Phase(Enum):
    """What runs: named by its handler."""

    CONNECTING = "connect"
    SERVING = "message"
    ENDING = "disconnect"


class Session:
    """Runs one socket.

    Attributes:
        socket: The socket, as handlers see it.
        received: Takes the transport's messages; they go straight to the lane.
    """

    __slots__ = (
        "_background",
        "_close",
        "_closed",
        "_connection",
        "_dialect",
        "_draining",
        "_endpoint",
        "_exchange",
        "_lane",
        "_late",
        "_node",
        "_opened_at",
        "_outbox",
        "_phase",
        "_receive",
        "_task",
        "_timer",
        "received",
        "socket",
    )

    socket: Socket[Any]

    def __init__(
        self, node: SessionNode, endpoint: Endpoint, connection: Connection, dialect: Dialect
    ) -> None:
        self._node = node
        self._endpoint = endpoint
        self._connection = connection
        self._dialect = dialect
        self._exchange: Exchange | None = None
        self._outbox = connection.outbox
        self._background: set[asyncio.Task[Any]] | None = None
        self._close: Close | None = None
        self._late = False
        self._opened_at = 0.0
        self._draining = False
        self._phase = _Phase.CONNECTING

    def start(self, socket: Socket[Any]) -> None:
        """Begin the socket's life in a task of its own."""
        self.socket = socket
        loop = asyncio.get_running_loop()
        limits = self._limits
        context = copy_context()
        self._closed = loop.create_future()
        events = self._endpoint.events
        if events is None:
            messages = Messages(self, self._connection)
            self._lane = self._endpoint.runner(
                context, messages.done, messages.failed, self._full, self.watched
            )
            self.received = self._lane.deliver
            self._receive = self._endpoint.receive
        else:
            protocol = self._dialect.make()
            exchange = Exchange(self, self._connection, protocol, limits, context, socket.id)
            self._lane = self._endpoint.runner(
                context, exchange.done, exchange.failed, exchange.adjust_reading, self.watched
            )
            exchange.runner = self._lane
            self._exchange = exchange
            self.received = exchange.received
            self._receive = events.receive[protocol.payload]
        self._timer: asyncio.TimerHandle | None = loop.call_later(limits.connect_timeout, self._too_late)
        self._task = loop.create_task(self._live(), context=context)

    def open(self) -> None:
        """Answer the handshake with 101, if it is not answered yet."""
        socket = self.socket
        if socket.opened or self._close is not None:
            return
        socket.opened = socket.began = True
        self._opened_at = time.monotonic()
        self._stop_timer()
        self._connection.accept(socket.subprotocol)
        self._node.opened(self)
        logger.info("%s opened on %s from %s", socket.id, socket.route, _address(socket))

    async def ended(self) -> None:
        """Return when the disconnect handler has run and all is cleaned up."""
        await asyncio.wait((self._task,))

    def slow(self, seconds: float, read: SlowRead | None = None) -> None:
        """Name what held the loop: the messages of a read, or one step of the socket's task."""
        if read is None:
            read = SlowRead(*self._lane.recent(), None) if self._phase is _Phase.SERVING else _NOTHING
        event = event_in(read.message, self._dialect)
        who, advice = what_held(self._phase.value, self._endpoint.pattern, event, read, seconds)
        logger.warning(
            "%s held the event loop for %.2f s (socket %s). %s", who, seconds, self.socket.id, advice
        )

    def closed(self, close: Close) -> None:
        """Hear that the connection has ended."""
        if self._closed.done():
            return
        self._closed.set_result(None)
        self._outbox.seal(discard=True)
        if self._close is None:
            self._close = close
        if self._exchange is not None:
            self._exchange.connection_lost()
        if self._phase is _Phase.CONNECTING:
            # The connect handler is still at work, and now for nobody.
            self._task.cancel()
        elif self._phase is _Phase.SERVING:
            self._lane.end(timeout=self._limits.finish_timeout)

    def drain(self) -> None:
        """Close with 1012 once the handlers under way have finished."""
        if self._closed.done() or self._draining:
            return
        self._draining = True
        timeout = self._limits.finish_timeout
        if self._phase is _Phase.CONNECTING:
            self._stop_timer()
            self._timer = asyncio.get_running_loop().call_later(timeout, self._task.cancel)
        elif self._phase is _Phase.SERVING:
            if self._exchange is None:
                self._connection.pause_reading()
            else:
                self._exchange.drain(retry=self._limits.retry_after, timeout=timeout)
            self._lane.end(timeout=timeout)

    def abort(self) -> None:
        """End the socket at once; its disconnect handler still runs."""
        self._connection.abort()
        self.closed(Close(1006, "", clean=False))
        if self._phase is _Phase.SERVING:
            self._lane.cancel()

    def background(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine until the socket goes."""
        tasks = self._background
        if tasks is None:
            tasks = self._background = set()
        limit = self._limits.max_background_tasks
        if self._close is not None or len(tasks) >= limit:
            coroutine.close()
            why = "it has gone" if self._close is not None else f"{limit} of its tasks run already"
            raise RuntimeError(f"Socket {self.socket.id} takes no background task: {why}.")
        task = self._node.background(coroutine, self.socket)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    async def request(self, event: str, data: Any, *, timeout: float, response_type: Any) -> Any:
        """Ask the client and return its reply."""
        if self._exchange is None:
            raise RuntimeError(
                f"Route {self._endpoint.pattern} is raw, and a raw connection has no requests. "
                "A route with an event handler, @route.on('…'), has."
            )
        self.open()
        return await self._exchange.requests.request(
            event, data, timeout=timeout, response_type=response_type
        )

    # What the exchange asks

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended."""
        return self._closed.done()

    def report(self, error: BaseException, what: str, event: str = "") -> None:
        """Report what was raised in *what*, the handler of *event*."""
        if isinstance(error, UnencodableError):
            error.blame(self._endpoint.handler_of(event))
        if self.is_over and isinstance(error, DisconnectedError):
            # Its client went while it waited for an answer: no fault of the handler's.
            logger.info("%s, in the %s of %s", error, what, self._endpoint.pattern)
            return
        self._node.report(error, self.socket, f"{what} of {self._endpoint.pattern}")

    def watched(self, work: Coroutine[Any, Any, Any], event: Event | None = None) -> Awaitable[Any]:
        """Await *work*, the stream of *event* if given, and name it if it holds the event loop."""

        def slow(seconds: float) -> None:
            self.slow(seconds, None if event is None else SlowRead(1, event, seconds))

        return watched(work, self._limits.blocking_warning, slow)

    @property
    def _limits(self) -> Limits:
        return self._endpoint.profile.limits

    async def _live(self) -> None:
        try:
            if await self.watched(self._connected()) and not self._draining:
                self._phase = _Phase.SERVING
                await self.watched(self._serve())
            self._phase = _Phase.ENDING
            self._stop_timer()
            if self._draining and self.socket.opened:
                self._connection.close(SERVICE_RESTART, "the server restarts")
            await self._closed
        finally:
            self._phase = _Phase.ENDING
            self._stop_timer()
            await self.watched(self._end())

    async def _serve(self) -> None:
        await self._lane.serve(self._receive, self.socket, is_async=self._endpoint.is_async)
        if self._exchange is not None:
            # Twice: to finish, and to close once they are cancelled.
            await self._exchange.streams.ended(timeout=self._limits.finish_timeout * 2)

    async def _connected(self) -> bool:
        """Run the connect stage; whether messages are to be served after it."""
        try:
            await self._endpoint.connect(self.socket)
            self.open()
        except asyncio.CancelledError as error:
            if self._closed.done():
                return False
            self._uncancel()
            if self._draining:
                self._refuse(Reject("unavailable", "the server restarts"))
            elif self._late:
                seconds = self._limits.connect_timeout
                logger.warning(
                    "The connect handler of %s did not answer within %g s.", self._endpoint.pattern, seconds
                )
                self._refuse(Reject("timeout", "the server took too long to answer", status=503))
            else:
                self._node.report(error, self.socket, f"connect handler of {self._endpoint.pattern}")
                self._refuse(_INTERNAL)
        except Reject as refusal:
            self._refuse(refusal)
        except BaseException as error:
            self._node.report(error, self.socket, f"connect handler of {self._endpoint.pattern}")
            self._refuse(_INTERNAL)
        else:
            return not self._closed.done()
        return False

    def _refuse(self, refusal: Reject) -> None:
        socket = self.socket
        if socket.opened:
            if not self._draining:
                self._connection.close(refusal.close_code, refusal.message)
            return
        self._close = Close(refusal.close_code, refusal.message, clean=True)
        logger.info(
            "%s refused on %s from %s: %d %s",
            socket.id,
            socket.route,
            _address(socket),
            refusal.status,
            refusal,
        )
        refuse(self._connection, socket.handshake, refusal)

    def _full(self, full: bool) -> None:
        if full:
            self._connection.pause_reading()
        elif not self._draining:
            self._connection.resume_reading()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self._late = True
        self._task.cancel()

    def _uncancel(self) -> None:
        while self._task.cancelling():
            self._task.uncancel()

    async def _end(self) -> None:
        self._uncancel()
        close = self._close or Close(1006, "", clean=False)
        disconnect = self._endpoint.disconnect
        if self.socket.began and disconnect is not None:
            try:
                async with asyncio.timeout(self._limits.finish_timeout):
                    await disconnect(self.socket, close)
            except BaseException as error:
                self._node.report(error, self.socket, f"disconnect handler of {self._endpoint.pattern}")
        for task in tuple(self._background or ()):
            task.cancel()
        await self._node.left(self)
        try:
            await self.socket.close_scope()
        except BaseException as error:
            self._node.report(error, self.socket, f"dependencies of {self._endpoint.pattern}")
        if self.socket.opened:
            duration = time.monotonic() - self._opened_at
            logger.info(
                "%s closed on %s from %s after %.3f s: %s",
                self.socket.id,
                self.socket.route,
                _address(self.socket),
                duration,
                close,
            )
        self._release()

    def _release(self) -> None:
        """Take apart what refers to each other.

        A socket that has gone is freed at once; left to the garbage
        collector, thousands of them wait for its next full round.
        """
        self.socket.release()
        if self._exchange is not None:
            self._exchange.release()
        del self._lane, self._exchange, self._receive, self.received


def _address(socket: Socket[Any]) -> str:
    client = socket.client
    return f"{client[0]}:{client[1]}" if client else "a local socket"
