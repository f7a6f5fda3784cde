"""One running app: its sockets, its rooms, and the way to its end."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import signal
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from symphony.endpoint import Endpoint
from symphony.errors import Reject
from symphony.handshake import Handshake
from symphony.limits import Limits
from symphony.protocol.handshake import HandshakeError, offered_token, origin_advice, origin_allowed
from symphony.refusal import refuse
from symphony.rooms.registry import FindFamily, Registry
from symphony.session import Session
from symphony.socket import Socket
from symphony.stats import Stats
from symphony.transport.base import Connection, Profile, Scope, shown_address
from symphony.voice import RAW
from symphony.watch import watched

__all__ = ("Node", "OnError", "Resolve")

logger = logging.getLogger("symphony.app")

Resolve = Callable[[str], "tuple[Endpoint, dict[str, Any]] | None"]
OnError = Callable[[Any, BaseException], Coroutine[Any, Any, Any]]


class Node:
    """One app at work in one event loop.

    Args:
        resolve: The endpoint and parameters of a path, `None`: no such route.
        find_family: The family and parameters of a room's name.
        limits: The bounds of the app.
        stats: Counts what happens.
        on_error: The app's error handlers.
        witness: Handed every exception of a handler as it happens.

    Attributes:
        sockets: The open sockets by id.
        rooms: Who is in which room.
    """

    def __init__(
        self,
        resolve: Resolve,
        find_family: FindFamily,
        *,
        limits: Limits,
        stats: Stats,
        on_error: Sequence[OnError],
        witness: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.limits = limits
        self.stats = stats
        self.sockets: dict[str, Socket[Any]] = {}
        self.rooms = Registry(find_family, self.run_in_background, self.report)
        self._resolve = resolve
        self._on_error = on_error
        self._witness = witness
        self._loop = asyncio.get_running_loop()
        self._sessions: dict[Session, None] = {}
        self._per_client: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    def connect(self, scope: Scope, connection: Connection) -> Session | None:
        """Begin a session for a handshake, or refuse it and return `None`."""
        handshake = Handshake(scope)
        try:
            return self._admit(handshake, connection)
        except HandshakeError as error:
            # Not a handshake to be understood, so not one to be answered with 101.
            self._refused(handshake, error.status, error.message)
            connection.refuse(error.status, error.headers, error.message.encode())
        except Reject as refusal:
            self._turn_away(handshake, connection, refusal)
        except Exception as error:
            self.report(error, None, f"making of a socket for {_shown_path(handshake)}")
            self._turn_away(handshake, connection, Reject("internal"))
        return None

    def opened(self, session: Session) -> None:
        """Count an open socket and let it hear what is sent to everyone."""
        socket = session.socket
        self.stats.opened += 1
        self.sockets[socket.id] = socket
        self.rooms.batches.add(self.rooms.everyone, socket)

    async def left(self, session: Session) -> None:
        """Take a socket out of its rooms and the node's tables."""
        socket = session.socket
        await self.rooms.leave_all(socket)
        if self.sockets.pop(socket.id, None) is not None:
            self.stats.closed += 1
        else:
            self.stats.refused += 1
        self.stats.dropped_frames += socket.dropped
        self._sessions.pop(session, None)
        address = _address(socket.handshake)
        self._per_client[address] -= 1
        if self._per_client[address] <= 0:
            del self._per_client[address]
        if not self._sessions:
            self._empty.set()

    def report(self, error: BaseException, socket: Socket[Any] | None, where: str) -> None:
        """Log what was raised, and hand it to the app's error handler."""
        whose = f" (socket {socket.id})" if socket is not None else ""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            logger.error("The %s%s raised %s: the server stops.", where, whose, type(error).__name__)
            # The server's own signal handler stops it in order; raising here
            # would end in whatever calls this callback. Once only: a second
            # signal is a user who does not want to wait.
            if not self._stopping and not self._draining:
                self._stopping = True
                signal.raise_signal(signal.SIGINT)
            return
        if isinstance(error, asyncio.CancelledError):
            logger.warning("The %s%s was cancelled.", where, whose)
            return
        self.stats.failed_handlers += 1
        logger.error("The %s%s failed.", where, whose, exc_info=error)
        if self._witness is not None:
            self._witness(error)
        for handler in self._on_error:
            self._start(handler(socket, error), None, "error handler", report=False)

    def background(self, coroutine: Coroutine[Any, Any, Any], socket: Socket[Any]) -> asyncio.Task[Any]:
        """Run a socket's background task."""
        return self._start(coroutine, socket, "background task")

    def run_in_background(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a task of the app's until it stops."""
        return self._start(coroutine, None, "background task")

    async def drain(self, force: asyncio.Event) -> None:
        """Close every socket with 1012 once its handlers have finished.

        Many sockets are closed over `drain_time`, so that their clients do
        not all come back in the same moment.

        Args:
            force: Set to end what is left at once.
        """
        self._draining = True
        limits = self.limits
        sessions = list(self._sessions)
        rate = max(len(sessions) / limits.drain_time, _DRAIN_AT_LEAST)
        for index, session in enumerate(sessions):
            self._loop.call_later(index / rate, session.drain)
        patience = limits.drain_time + limits.finish_timeout * 2 + limits.close_timeout
        forced = asyncio.ensure_future(force.wait())
        empty = asyncio.ensure_future(self._empty.wait())
        await asyncio.wait((forced, empty), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        empty.cancel()
        if self._sessions:
            logger.warning("%d sockets did not close in time and are cut off.", len(self._sessions))
            for session in tuple(self._sessions):
                session.abort()
            # A disconnect handler may take its own `finish_timeout`, no more.
            with suppress(TimeoutError):
                async with asyncio.timeout(limits.finish_timeout + 1):
                    await self._empty.wait()
        if self._sessions:
            logger.error("%d handlers will not be cancelled and are left behind.", len(self._sessions))

    async def close_sockets(self) -> None:
        """Close what sockets are left, and then the rooms; a server of ours has drained them before."""
        if self._sessions and not self._draining:
            await self.drain(asyncio.Event())
        self._draining = True
        await self.rooms.close(timeout=self.limits.finish_timeout)

    async def close(self) -> None:
        """End what is left: background tasks."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _admit(self, handshake: Handshake, connection: Connection) -> Session:
        scope = handshake.scope
        path = _route_path(scope)
        if self._draining:
            raise self._unavailable("the server restarts")
        found = self._resolve(path)
        if found is None:
            raise Reject("not_found", f"no WebSocket route for {path}")
        endpoint, params = found
        host, secure = handshake.headers.get("host"), scope.get("scheme") in ("wss", "https")
        if not origin_allowed(handshake.origin, host=host, secure=secure, allowed=endpoint.origins):
            logger.warning(
                "Refused a browser on %s from origin %s: %s.",
                _shown_path(handshake),
                handshake.origin,
                origin_advice(handshake.origin, host=host, secure=secure),
            )
            raise Reject("forbidden", f"origin {handshake.origin} is not allowed")
        if len(self._sessions) >= self.limits.max_connections:
            raise self._unavailable("the server has as many connections as it may")
        address = _address(handshake)
        per_client = self.limits.max_connections_per_client
        if address and per_client is not None and self._per_client[address] >= per_client:
            raise Reject("too_many", "too many connections from your address")
        scope["path_params"] = params
        try:
            offered_token(handshake.subprotocols)
        except HandshakeError as error:
            # Now: whoever reads `handshake.token` later must not fail over it.
            raise Reject("invalid", error.message) from None
        connection.configure(endpoint.profile)
        subprotocol, dialect = endpoint.choose(handshake.subprotocols)
        session = Session(self, endpoint, connection, dialect)
        socket = Socket[Any](
            secrets.token_urlsafe(16),
            handshake,
            connection,
            self.rooms,
            session,
            route=endpoint.pattern,
            params=params,
            make_state=endpoint.state,
            subprotocol=subprotocol,
            voice=RAW if dialect is None else dialect.voice,
            protocol="raw" if dialect is None else dialect.subprotocol or "",
        )
        connection.outbox.source = self.rooms.batches
        connection.outbox.member = socket
        self._per_client[address] += 1
        self._sessions[session] = None
        self._empty.clear()
        session.start(socket)
        return session

    def _unavailable(self, why: str) -> Reject:
        # Whole seconds, as RFC 9110 §10.2.3 has it.
        return Reject("unavailable", why, headers={"Retry-After": str(math.ceil(self.limits.retry_after))})

    def _turn_away(self, handshake: Handshake, connection: Connection, refusal: Reject) -> None:
        self._refused(handshake, refusal.status, str(refusal))
        connection.configure(Profile(self.limits, "disconnect", None))
        refuse(connection, handshake, refusal)

    def _refused(self, handshake: Handshake, status: int, why: str) -> None:
        self.stats.refused += 1
        address = shown_address(handshake.scope.get("client"))
        logger.info("Refused %s from %s: %d %s", _shown_path(handshake), address, status, why)

    def _start(
        self,
        work: Coroutine[Any, Any, Any],
        socket: Socket[Any] | None,
        what: str,
        *,
        report: bool = True,
    ) -> asyncio.Task[Any]:
        def slow(seconds: float) -> None:
            logger.warning("A %s held the event loop for %.2f s: %r.", what, seconds, work)

        async def guarded() -> Any:
            try:
                return await watched(work, self.limits.blocking_warning, slow)
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                if not report:
                    logger.error("The %s failed itself.", what, exc_info=error)
                    if self._witness is not None:
                        self._witness(error)
                else:
                    self.report(error, socket, what)
                return None

        task = self._loop.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before its first step has not awaited it.
        task.add_done_callback(lambda _: work.close())
        return task


# Sockets closed a second by a stopping server, however few there are.
_DRAIN_AT_LEAST = 500


def _route_path(scope: Scope) -> str:
    """Return the path below where the app is mounted (ASGI `root_path`)."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and path.startswith(root) and path[len(root) :][:1] in ("", "/"):
        return path[len(root) :] or "/"
    return path


def _shown_path(handshake: Handshake) -> str:
    """Return the path as it may stand in a log, which is on one line."""
    return quote(handshake.scope["path"])


def _address(handshake: Handshake) -> str:
    return handshake.client.host if handshake.client else ""
