"""One socket's life: handshake, connect handler, messages, disconnect handler.

It runs in one task a socket. The transport tells it what came in through
`received`, `slow` and `closed`; what it does to the transport goes through
the `Connection` contract.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from enum import Enum
from typing import TYPE_CHECKING, Any

from symphony.errors import DisconnectedError, Reject
from symphony.session.blocking import watched
from symphony.session.contracts import SessionNode
from symphony.session.refusal import refuse as refuse_handshake
from symphony.session.serving import Serving
from symphony.socket import Socket, close_dependencies, release
from symphony.transport.base import Close, shown_address

if TYPE_CHECKING:
    from symphony.identity import Identity
    from symphony.limits import Limits
    from symphony.outgoing.encoding import Dialect
    from symphony.rooms.room import Room
    from symphony.session.endpoint import Endpoint
    from symphony.transport.base import Connection

__all__ = ("Session",)

logger = logging.getLogger("symphony.socket")

SERVICE_RESTART = 1012


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
        "_late",
        "_left",
        "_node",
        "_opened_at",
        "_outbox",
        "_phase",
        "_serving",
        "_task",
        "_timer",
        "began",
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
        self._outbox = connection.outbox
        self._background: set[asyncio.Task[Any]] | None = None
        self._close: Close | None = None
        self._late = False
        self._left = False
        self._opened_at = 0.0
        self._draining = False
        self.began = False
        self._phase = _Phase.CONNECTING

    def start(self, socket: Socket[Any]) -> None:
        """Begin the socket's life in a task of its own."""
        self.socket = socket
        loop = asyncio.get_running_loop()
        context = copy_context()
        self._closed = loop.create_future()
        self._serving = serving = Serving(
            self, socket, self._endpoint, self._connection, self._dialect, context
        )
        self.received: Callable[..., None] = serving.received
        self._timer: asyncio.TimerHandle | None = loop.call_later(
            self._limits.connect_timeout, self._too_late
        )
        self._task = loop.create_task(self._live(), context=context)

    def open(self) -> None:
        """Answer the handshake with 101, if it is not answered yet."""
        socket = self.socket
        if socket.opened or self._close is not None:
            return
        socket.opened = self.began = True
        self._opened_at = time.monotonic()
        self._stop_timer()
        self._connection.accept(socket.subprotocol)
        self._node.opened(self)
        logger.info("%s opened on %s from %s", socket.id, socket.route, _address(socket))

    async def ended(self) -> None:
        """Return when the disconnect handler has run and all is cleaned up."""
        await asyncio.wait((self._task,))

    def slow(self, seconds: float) -> None:
        """Name the handler that held the loop."""
        logger.warning(
            "The %s handler of %s held the event loop for %.2f s (socket %s). "
            "Await something slow, or register a plain function with thread=True.",
            self._phase.value,
            self._endpoint.pattern,
            seconds,
            self.socket.id,
        )

    def closed(self, close: Close) -> None:
        """Hear that the connection has ended."""
        if self._closed.done():
            return
        self._closed.set_result(None)
        self._outbox.seal(discard=True)
        if self._close is None:
            self._close = close
        self._serving.connection_lost()
        if self._phase is _Phase.CONNECTING:
            # The connect handler is still at work, and now for nobody.
            self._task.cancel()
        elif self._phase is _Phase.SERVING:
            self._serving.end()

    def drain(self) -> None:
        """Close with 1012 once the handlers under way have finished."""
        if self._closed.done() or self._draining:
            return
        self._draining = True
        if self._phase is _Phase.CONNECTING:
            self._stop_timer()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._limits.finish_timeout, self._task.cancel)
        elif self._phase is _Phase.SERVING:
            self._serving.drain()

    def abort(self) -> None:
        """End the socket at once; its disconnect handler still runs."""
        self._connection.abort()
        self.closed(Close(1006, "", clean=False))
        if self._phase is _Phase.SERVING:
            self._serving.cancel()

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
        requests = self._serving.requests
        self.open()
        return await requests.request(event, data, timeout=timeout, response_type=response_type)

    async def join(self, name: str, *, authorize: bool) -> Room:
        """Make the socket a member of a room."""
        return await self._node.rooms.join(self.socket, name, authorize=authorize)

    async def leave(self, name: str) -> bool:
        """Take the socket out of a room; whether it was a member."""
        return await self._node.rooms.leave(self.socket, name)

    def login(self, identity: Identity, before: Identity | None) -> None:
        """Tell the node who the socket speaks for, unless it has left the node."""
        if not self._left:
            self._node.logged_in(self.socket, identity, before)

    # What the exchange asks

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended."""
        return self._closed.done()

    def report(self, error: BaseException, what: str) -> None:
        """Report what was raised in *what*."""
        if self.is_over and isinstance(error, DisconnectedError):
            # Its client went while it waited for an answer: no fault of the handler's.
            logger.info("%s, in the %s of %s", error, what, self._endpoint.pattern)
            return
        self._node.report(error, self.socket, f"{what} of {self._endpoint.pattern}")

    def watched(self, work: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
        """Await *work*, and name it in a warning if it holds the event loop."""
        return watched(work, self._limits.blocking_warning, self.slow)

    @property
    def _limits(self) -> Limits:
        return self._endpoint.profile.limits

    async def _live(self) -> None:
        try:
            if await self.watched(self._connected()) and not self._draining:
                self._phase = _Phase.SERVING
                await self.watched(self._serving.serve(self.socket))
            self._phase = _Phase.ENDING
            self._stop_timer()
            if self._draining and self.socket.opened:
                self._connection.close(SERVICE_RESTART, "the server restarts")
            await self._closed
        finally:
            self._phase = _Phase.ENDING
            self._stop_timer()
            await self.watched(self._end())

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
                after = self._limits.retry_after
                self._refuse(Reject("unavailable", "the server restarts", retry_after=after))
            elif self._late:
                seconds = self._limits.connect_timeout
                logger.warning(
                    "The connect handler of %s did not answer within %g s.", self._endpoint.pattern, seconds
                )
                self._refuse(Reject("timeout", "the server took too long to answer", status=503))
            else:
                self._node.report(error, self.socket, f"connect handler of {self._endpoint.pattern}")
                self._refuse(Reject("internal"))
        except Reject as refusal:
            self._refuse(refusal)
        except BaseException as error:
            self._node.report(error, self.socket, f"connect handler of {self._endpoint.pattern}")
            self._refuse(Reject("internal"))
        else:
            return not self._closed.done()
        return False

    def _refuse(self, refusal: Reject) -> None:
        socket = self.socket
        if socket.opened:
            if self._draining:
                return
            self._serving.refuse(refusal)
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
        refuse_handshake(self._connection, socket.handshake, refusal)

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
        if self.began and disconnect is not None:
            try:
                async with asyncio.timeout(self._limits.finish_timeout):
                    await disconnect(self.socket, close)
            except BaseException as error:
                self._node.report(error, self.socket, f"disconnect handler of {self._endpoint.pattern}")
        for task in tuple(self._background or ()):
            task.cancel()
        await self._node.left(self)
        self._left = True
        try:
            await close_dependencies(self.socket)
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
        release(self.socket)
        self._serving.release()
        del self._serving, self.received


def _address(socket: Socket[Any]) -> str:
    return shown_address(socket.client)
