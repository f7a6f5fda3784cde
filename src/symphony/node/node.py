"""One running app: its sockets, its rooms, and the way to its end."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Final

from starlette.exceptions import HTTPException, WebSocketException

from symphony.broker.base import Broker
from symphony.broker.engines import name_beside, presence_beside
from symphony.complaints import MAX_FAILURES, Complaints, place_of
from symphony.errors import Reject
from symphony.handshake import Handshake
from symphony.identity import Identity
from symphony.limits import Limits
from symphony.node.admission import Admission, Resolve, shown_path
from symphony.node.draining import drain
from symphony.node.entrances import Entrances
from symphony.node.logins import Logins
from symphony.node.peruser import LocalClaims, PerUser
from symphony.node.sharedperuser import SharedPerUser
from symphony.node.targets import Targets
from symphony.rooms.joining import FindFamily
from symphony.rooms.membership import Membership
from symphony.rooms.sharedmembership import SharedMembership
from symphony.rooms.topics import socket_id
from symphony.session.blocking import watched
from symphony.session.endpoint import Endpoint
from symphony.session.refusal import refuse
from symphony.session.session import Session
from symphony.socket import Socket, recipient_of
from symphony.stats import Stats
from symphony.tasks import start
from symphony.transport.base import Connection, Profile, Scope, shown_address
from symphony.transport.probing import Readiness
from symphony.websocket.handshake import HandshakeError
from symphony.websocket.queued import Queued

__all__ = ("Node", "OnError")

logger = logging.getLogger("symphony.app")

OnError = Callable[[Any, BaseException], Coroutine[Any, Any, Any]]

_HTTP_HINT: Final = (
    " Raise symphony.Reject instead: HTTPException and WebSocketException are for endpoints of Starlette "
    "and FastAPI."
)


class Node:
    """One running app in one event loop.

    Args:
        resolve: The endpoint and parameters of a path, `None`: no such route.
        paths: The patterns of all paths.
        find_family: The family and parameters of a room's name.
        limits: The bounds of the app.
        hosts: The hosts that the app answers for, `None`: those of its server.
        broker: Keeps the histories of rooms, and carries what goes to other processes;
            `None`: there are no histories and no other processes.
        has_members: Whether there are rooms with members, or with a home.
        stats: Counts what happens.
        on_error: The app's error handlers.
        on_exception: Called with every exception of a handler as it happens.

    Attributes:
        complaints: The log lines that strangers can cause.
        sockets: The open sockets by id.
        rooms: The members of the rooms.
        logins: The sockets of each user.
        targets: What the app can send to, besides rooms.
        loop: The event loop it runs in.
    """

    def __init__(
        self,
        resolve: Resolve,
        paths: Sequence[str],
        find_family: FindFamily,
        *,
        limits: Limits,
        hosts: Sequence[str] | None,
        broker: Broker | None,
        has_members: bool,
        stats: Stats,
        on_error: Sequence[OnError],
        on_exception: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.limits = limits
        self.stats = stats
        self.complaints = Complaints()
        self.sockets: dict[str, Socket[Any]] = {}
        # Before the rooms, which start some.
        self._tasks: set[asyncio.Task[Any]] = set()
        store = presence_beside(broker)
        table = SharedMembership if broker is not None and broker.shared else Membership
        self.rooms = table(
            find_family,
            self.run_in_background,
            self.report,
            broker=broker,
            stats=stats,
            store=store,
            node=name_beside(broker),
            has_members=has_members,
            limits=limits,
        )
        self.logins = Logins()
        self.targets = Targets(self)
        self._on_error = on_error
        self._on_exception = on_exception
        self.loop = asyncio.get_running_loop()
        self._sessions: dict[Session, None] = {}
        peers = self.rooms.peers
        self._name = None if peers is None else peers.node
        shared = None if peers is None else SharedPerUser(store, peers, self.run_in_background)
        self._per_user = shared or PerUser(LocalClaims())
        self._entrances = Entrances(self.rooms, self._per_user, self.run_in_background)
        self._admission = Admission(resolve, limits, hosts, paths)
        self._broker = broker
        self._stopping = self._retired = False
        self._empty = asyncio.Event()
        self._empty.set()

    def connect(self, scope: Scope, connection: Connection) -> Session | None:
        """Begin a session for a handshake, or refuse it and return `None`."""
        handshake = Handshake(scope)
        try:
            return self._start_session(handshake, connection)
        except HandshakeError as error:
            # Not a handshake to be understood, so not one to be answered with 101.
            self._refused(handshake, error.status, error.message)
            connection.refuse(error.status, error.headers, error.message.encode())
        except Reject as refusal:
            self._refuse(handshake, connection, refusal)
        except Exception as error:
            self.report(error, None, f"making of a socket for {shown_path(handshake)}")
            self._refuse(handshake, connection, Reject("internal"))
        return None

    def opened(self, session: Session, endpoint: Endpoint) -> None:
        """Count an open socket, and let it receive what is sent to everyone and to its user."""
        socket = session.socket
        self.stats.opened += 1
        self.sockets[socket.id] = socket
        if endpoint.everyone:
            self.rooms.batches.add(self.rooms.everyone, recipient_of(socket), socket)
        self.targets.opened(socket, endpoint)
        if socket.user is not None:
            # Otherwise `admit` follows.
            self.rooms.enter_as_user(socket, socket.user.id)

    async def admit(self, session: Session) -> list[str]:
        """Decide about a socket before it opens; return those that it replaces."""
        return await self._entrances.admit(session)

    def give_up_place(self, session: Session) -> None:
        """Let the user of a socket whose connection has ended have another one."""
        self._start(self._per_user.left(session), None, "end of a claim")

    def replace(self, evicted: Sequence[str]) -> None:
        """Close the sockets that another one of their user has replaced."""
        self._per_user.replace(evicted)

    async def look_for_others(self, session: Session) -> None:
        """Refuse a socket whose user has another one on its route."""
        await self._per_user.look(session)

    def left(self, session: Session) -> None:
        """Take a socket out of the node's tables."""
        socket = session.socket
        self.logins.remove(socket, socket.user)
        if self.sockets.pop(socket.id, None) is not None:
            self.stats.closed += 1
        else:
            self.stats.refused += 1
        self.stats.dropped_frames += socket.dropped
        self._sessions.pop(session, None)
        self._admission.left(socket.handshake)
        if not self._sessions:
            self._empty.set()

    def logged_in(self, session: Session, identity: Identity, before: Identity | None) -> None:
        """Register the identity of a socket, unless the socket has left the node.

        Raises:
            RuntimeError: A room that has members does not allow it.
            Reject: No user can have this id, or has as many sockets as possible.
        """
        socket = session.socket
        if session in self._sessions:
            self.rooms.logged_in(socket, identity, before)
        if before is not None or session not in self._sessions:
            return
        self.rooms.check_user(identity.id)
        if socket.connected and not self.rooms.enter_as_user(socket, identity.id):
            joining = self.rooms.join_as_user(socket, identity.id)
            self._start(joining, socket, f"login as {identity.id!r}")
        self.logins.add(socket, identity)

    def report(self, error: BaseException, socket: Socket[Any] | None, where: str) -> None:
        """Log what was raised, and hand it to the app's error handler."""
        whose = f" (socket {socket.id})" if socket is not None else ""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            logger.error("The %s%s raised %s: the server stops.", where, whose, type(error).__name__)
            # The server's own signal handler stops it in order; raising here
            # would end in whatever calls this callback. Once only: a second
            # signal is a user who does not want to wait.
            if not self._stopping and not self._admission.draining:
                self._stopping = True
                # A shell script ignores SIGINT in what it starts with `&`.
                ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
                signal.raise_signal(signal.SIGTERM if ignored else signal.SIGINT)
            return
        if isinstance(error, asyncio.CancelledError):
            text = "The %s%s was cancelled."
            self.complaints.log(logger, logging.WARNING, text, where, whose, most=MAX_FAILURES)
            return
        self.stats.failed_handlers += 1
        text, kind = "The %s%s failed.%s", place_of(error)
        hint = _HTTP_HINT if isinstance(error, HTTPException | WebSocketException) else ""
        values = (where, whose, hint)
        self.complaints.log(logger, logging.ERROR, text, *values, kind=kind, most=MAX_FAILURES, error=error)
        if self._on_exception is not None:
            self._on_exception(error)
        self.tell(error, socket)

    def tell(self, error: BaseException, socket: Socket[Any] | None) -> None:
        """Hand an error to the app's error handlers."""
        for handler in self._on_error:
            self._start(handler(socket, error), None, "error handler", report=False)

    def background(self, coroutine: Coroutine[Any, Any, Any], socket: Socket[Any]) -> asyncio.Task[Any]:
        """Run a socket's background task."""
        return self._start(coroutine, socket, "background task")

    @property
    def sessions(self) -> Collection[Session]:
        """All sockets, also those that are not open yet."""
        return self._sessions

    def run_in_background(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a task of the app's until it stops."""
        return self._start(coroutine, None, "background task")

    def retire(self) -> None:
        """Refuse all further handshakes, and say that this node is not ready: it is to stop."""
        self._admission.draining = self._retired = True

    def readiness(self, *, requires_broker: bool) -> Readiness:
        """Return whether new clients should be sent to this node.

        A broker that is away is no reason against it: all nodes lose it together, and then
        there would be none to send clients to.

        Args:
            requires_broker: Whether it is a reason nevertheless.
        """
        broker = "ok" if self._broker is None else self._broker.state
        hears = broker == "ok" or (broker == "away" and not requires_broker)
        return Readiness(hears and not self._retired, broker, self._retired)

    async def drain(self, force: asyncio.Event) -> None:
        """Close every socket with 1012 once its handlers have finished: see `draining.drain`."""
        self._admission.draining = True
        self.rooms.hurry()
        await drain(self._sessions, self._empty, self.limits, force)
        # After the last handlers have published, and before the server waits for its HTTP requests.
        self.rooms.end_listeners()

    async def close_sockets(self) -> None:
        """Close what sockets are left, and then the rooms; a server of ours has drained them before."""
        if self._sessions and not self._admission.draining:
            await self.drain(asyncio.Event())
        self._admission.draining = True
        await self.rooms.close(timeout=self.limits.finish_timeout)

    async def close(self) -> None:
        """Cancel the background tasks that are left."""
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=self.limits.finish_timeout)
            if left:
                logger.error("%d background tasks ignored their cancellation and were abandoned.", len(left))

    def _start_session(self, handshake: Handshake, connection: Connection) -> Session:
        endpoint, params = self._admission.admit(handshake, connected=len(self._sessions))
        handshake.scope["path_params"] = params
        connection.configure(endpoint.profile)
        subprotocol, dialect = endpoint.choose(handshake.subprotocols)
        session = Session(self, endpoint, connection, dialect)
        socket = Socket[Any](
            session,
            connection,
            dialect,
            handshake,
            id=socket_id(secrets.token_urlsafe(16), self._name),
            route=endpoint.pattern,
            params=params,
            make_state=endpoint.state,
            subprotocol=subprotocol,
        )
        connection.outbox.source = self.rooms.batches
        connection.outbox.recipient = recipient_of(socket)
        # Before it is counted: a protocol of the app's may fail to start.
        session.start(socket)
        self._admission.entered(handshake)
        self._sessions[session] = None
        self._empty.clear()
        return session

    def _refuse(self, handshake: Handshake, connection: Connection, refusal: Reject) -> None:
        self._refused(handshake, refusal.status, str(refusal))
        # It receives no messages.
        connection.configure(Profile(self.limits, "disconnect", None, Queued(0)))
        # A proxy sends what is refused by HTTP to another node.
        refuse(connection, handshake, refusal, by_http=self._admission.draining)

    def _refused(self, handshake: Handshake, status: int, why: str) -> None:
        self.stats.refused += 1
        self.complaints.log(
            logger,
            logging.INFO,
            "Refused %s from %s: %d %s",
            shown_path(handshake),
            shown_address(handshake.scope.get("client")),
            status,
            why,
            kind=status,
        )

    def _start(
        self,
        work: Coroutine[Any, Any, Any],
        socket: Socket[Any] | None,
        what: str,
        *,
        report: bool = True,
    ) -> asyncio.Task[Any]:
        def slow(seconds: float) -> None:
            text = "A %s held the event loop for %.2f s: %r."
            kind = what, getattr(work, "__qualname__", None)
            self.complaints.log(logger, logging.WARNING, text, what, seconds, work, kind=kind)

        async def guarded() -> Any:
            try:
                return await watched(work, self.limits.blocking_warning, slow)
            except asyncio.CancelledError as error:
                if not _is_cancelled():
                    # The task was not cancelled: its own code has raised this.
                    self.report(error, socket, what)
                raise
            except BaseException as error:
                if not report and not isinstance(error, KeyboardInterrupt | SystemExit):
                    text, kind = "The %s failed itself.", place_of(error)
                    self.complaints.log(
                        logger, logging.ERROR, text, what, kind=kind, most=MAX_FAILURES, error=error
                    )
                    if self._on_exception is not None:
                        self._on_exception(error)
                else:
                    self.report(error, socket, what)
                return None

        task = start(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before its first step has not awaited it.
        task.add_done_callback(lambda _: work.close())
        return task


def _is_cancelled() -> bool:
    # A function, because the task keeps the exception, whose traceback keeps the variables of
    # the frames that it passed through. The task in one of them would be a reference cycle.
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
