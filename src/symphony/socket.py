"""One connection, as handlers see it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, cast

from typing_extensions import TypeForm, TypeVar

from symphony.errors import WrongThreadError, check_close_code
from symphony.identity import Identity, room_of_user
from symphony.outgoing.batch import Recipient
from symphony.outgoing.encoding import RAW, Dialect
from symphony.routing.socketscope import SocketScope
from symphony.socketsession import ENDED, SocketSession
from symphony.websocket.backpressure import READY, TURN

if TYPE_CHECKING:
    from symphony.handshake import Handshake
    from symphony.rooms.places import Place
    from symphony.rooms.room import Room
    from symphony.transport.base import Connection

__all__ = (
    "Socket",
    "SocketSession",
    "begin",
    "close_dependencies",
    "has_dependencies",
    "look_for_others",
    "recipient_of",
    "release",
)

StateT = TypeVar("StateT", default=Any)
ReplyT = TypeVar("ReplyT", default=Any)


class Socket(Generic[StateT]):
    """One connection.

    Handlers get it by annotation, `Socket` or `Socket[State]`. It exists before
    the upgrade. It opens at its first `send`, or when the connect handler
    returns. Use its methods only in the event loop's thread.

    Attributes:
        id: A unique id that cannot be guessed.
        handshake: The HTTP request that opened the connection.
        params: The parameters of the route's path, converted.
        opened: Whether the handshake has been answered with 101.
        user: The identity of its user, or `None`; see `login`.
        subprotocol: The negotiated subprotocol, or `None`.
        protocol: `"symphony.v1.json"`, `"symphony.v1.msgpack"`, the
            subprotocol of a protocol of yours, or `"raw"`.
        route: The pattern of its route.
    """

    __slots__ = (
        "_connection",
        "_dependencies",
        "_dialect",
        "_frame",
        "_make_state",
        "_outbox",
        "_place",
        "_recipient",
        "_session",
        "_state",
        "_thread",
        "handshake",
        "id",
        "opened",
        "params",
        "protocol",
        "route",
        "subprotocol",
        "user",
    )

    def __init__(
        self,
        session: SocketSession,
        connection: Connection,
        dialect: Dialect,
        handshake: Handshake,
        *,
        id: str,
        route: str,
        params: dict[str, Any],
        make_state: Callable[[], StateT],
        subprotocol: str | None,
    ) -> None:
        self.id = id
        self.handshake = handshake
        self.params = params
        self.route = route
        self.user: Identity | None = None
        self.subprotocol = subprotocol
        self.protocol = "raw" if dialect is RAW else dialect.subprotocol or ""
        self.opened = False
        self._session = session
        self._connection = connection
        self._dialect = dialect
        self._frame = connection.encoding.encode
        self._outbox = outbox = connection.outbox
        self._recipient = Recipient(dialect.shared_encoding(connection.encoding), outbox)
        self._make_state = make_state
        self._state: StateT | None = None
        self._dependencies: SocketScope | None = None
        self._place: Place | None = None
        self._thread = get_ident()

    @property
    def state(self) -> StateT:
        """Your data for this socket, created by the route's `state=` at the first use."""
        if self._state is None:
            self._state = self._make_state()
        return self._state

    @property
    def _scope(self) -> SocketScope:
        """The dependencies that live as long as the socket; made at the first use."""
        if self._dependencies is None:
            self._dependencies = SocketScope(asyncio.Event, self._session.home)
        return self._dependencies

    @property
    def connected(self) -> bool:
        """Whether the socket is open and no close was sent or received."""
        return self.opened and not self._outbox.sealed

    @property
    def client(self) -> tuple[str, int] | None:
        """The client's address and port, also behind trusted proxies; `None` over Unix sockets."""
        return cast("tuple[str, int] | None", self.handshake.client)

    @property
    def latency(self) -> float | None:
        """The last measured round trip in seconds, or `None` before the first."""
        return self._connection.latency

    @property
    def dropped(self) -> int:
        """How many frames for this socket were dropped: it was too slow, or had gone."""
        return self._outbox.dropped

    @property
    def rooms(self) -> frozenset[str]:
        """The names of the rooms it is in, without that of its user."""
        names = {batch.name for batch in self._recipient.batches if batch.name}
        return frozenset(names if self.user is None else names - {room_of_user(self.user.id)})

    def send(self, message: object) -> Awaitable[None]:
        """Send a message; on an event connection, the event `"message"`.

        It is queued when this returns. Awaiting the result waits while more
        than the high-water mark is unsent, and suspends for one turn of the event
        loop if this turn has sent that much. If the socket is closed, the message
        is dropped and counted (`dropped`), and awaiting suspends for one turn.

        Args:
            message: Text and bytes as they are, anything else as JSON text.

        Raises:
            WrongThreadError: Called from another thread than the socket's.
            TypeError: The message cannot be encoded.
        """
        if get_ident() != self._thread:
            raise WrongThreadError(self._wrong_thread("send"))
        if not self.opened:
            self._session.open()
        kind = type(message)
        if (kind is not str and kind is not bytes) or self._dialect is not RAW:
            message = self._dialect.message(message)
        outbox = self._outbox
        outbox.send(self._frame(message))  # type: ignore[arg-type]
        return READY if outbox.size <= outbox.at_once else outbox.drained()

    def emit(self, event: str, data: object = None) -> Awaitable[None]:
        """Send an event; otherwise as `send`. On a raw connection it is JSON text.

        Args:
            event: The name of the event.
            data: Data that the protocol of the connection can encode.

        Raises:
            WrongThreadError: Called from another thread than the socket's.
            TypeError: The data cannot be encoded.
        """
        if get_ident() != self._thread:
            raise WrongThreadError(self._wrong_thread("emit"))
        if not self.opened:
            self._session.open()
        outbox = self._outbox
        outbox.send(self._frame(self._dialect.event(event, data)))
        return READY if outbox.size <= outbox.at_once else outbox.drained()

    async def request(
        self, event: str, data: object = None, *, timeout: float = 5.0, response_type: TypeForm[ReplyT] = Any
    ) -> ReplyT:
        """Ask the client, and wait for its reply.

        A handler may ask the client whose message it handles: replies do not
        wait for handlers. The next messages of that client wait meanwhile.

        Args:
            event: The name of the event that the client answers.
            data: What the protocol of the connection can encode.
            timeout: Seconds to wait for the reply; sent with the request.
            response_type: What the reply must be; it is validated. Any type
                that a payload can have.

        Returns:
            The reply's data.

        Raises:
            RequestTimeoutError: The reply did not arrive in time.
            RemoteError: The client answered with an error, or the reply is
                not of the type.
            DisconnectedError: The socket is closed, or was closed meanwhile.
            QueueFullError: `Limits.max_requests` wait for this client already.
            WrongThreadError: Called from another thread than the socket's.
            WrongRouteError: The route is raw, and a raw connection has no requests.
        """
        if get_ident() != self._thread:
            raise WrongThreadError(self._wrong_thread("request"))
        return await self._session.request(event, data, timeout=timeout, response_type=response_type)

    def close(self, code: int = 1000, reason: str = "") -> Awaitable[None]:
        """Close the connection after everything that was sent.

        Returns at once; the disconnect handler runs when the peer has
        answered or `close_timeout` has passed. Messages that still wait for a
        handler are dropped, and later ones are not handled. A second call does
        nothing, and awaiting it suspends for one turn of the event loop.

        Args:
            code: 1000, another code of RFC 6455 that may be sent, or 3000-4999.
            reason: For the peer; cut at 123 bytes.

        Raises:
            ValueError: The code must not be sent.
            WrongThreadError: Called from another thread than the socket's.
        """
        if get_ident() != self._thread:
            raise WrongThreadError(self._wrong_thread("close"))
        check_close_code(code)
        if self._outbox.sealed:
            return TURN
        if not self.opened:
            self._session.open()
        self._connection.close(code, reason)
        return READY

    async def join(self, name: str, *, authorize: bool = True) -> Room:
        """Become a member of a room.

        From now on, the socket receives the publications of the room, in one order
        with its direct messages. A second join of the same room changes nothing.

        Args:
            name: Full name of the room.
            authorize: `False` skips the `authorize` hook of the room's family.

        Returns:
            The room.

        Raises:
            Reject: `forbidden`: `authorize` returned `False`; it and `on_join` may raise
                others. `room_full`: it has `max_members`. `too_many`: the socket is in
                `Limits.max_rooms`. `cancelled`: the socket left meanwhile. `unavailable`:
                the history cannot be read. `invalid`: no room can have this name.
            DisconnectedError: The socket is closed, or was closed meanwhile.
            WrongThreadError: Called from another thread than the socket's.
        """
        if get_ident() != self._thread:
            raise WrongThreadError(self._wrong_thread("join"))
        return await self._session.join(name, authorize=authorize)

    async def leave(self, name: str) -> bool:
        """Leave a room; publications up to now still arrive.

        A join of this socket that has not finished is undone, and raises. If the
        socket is closed, it has left all rooms already; this then suspends for one
        turn of the event loop.

        Returns:
            Whether the socket was a member.

        Raises:
            WrongThreadError: Called from another thread than the socket's.
        """
        if get_ident() != self._thread:
            raise WrongThreadError(self._wrong_thread("leave"))
        return await self._session.leave(name)

    def login(self, identity: Identity) -> None:
        """Set the identity of this socket's user; usually in connect middleware.

        From now on, or from its opening on, the socket is one of `app.user(identity.id)`.
        The id is set once. A second login with the same id replaces `user.info`, and rooms
        with members are told.

        Raises:
            RuntimeError: The socket is logged in with another id, or is in a room that has
                members without being logged in.
            Reject: No room can have the name `user:{id}` (`invalid`), or it is full.
            TypeError: It is not an `Identity`.
            WrongThreadError: Called from another thread than the socket's.
        """
        if get_ident() != self._thread:
            raise WrongThreadError(self._wrong_thread("login"))
        if not isinstance(identity, Identity):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"socket.login() takes an Identity, not {identity!r}.")
        before = self.user
        if before is not None and before.id != identity.id:
            raise RuntimeError(f"It is logged in as {before.id!r}, so it cannot become {identity.id!r}.")
        self._session.login(identity, before)
        self.user = identity

    def background(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine in a task, which is cancelled when the socket ends.

        The task runs concurrently with the handlers. An exception is logged and
        passed to `on_error`. Dependencies with `scope="socket"` stay open until all
        tasks of the socket have ended.

        Raises:
            DisconnectedError: The socket is closed.
            RuntimeError: The socket has `Limits.max_background_tasks` running tasks.
            TypeError: It is not a coroutine.
            WrongThreadError: Called from another thread than the socket's.
        """
        if get_ident() != self._thread:
            coroutine.close()
            raise WrongThreadError(self._wrong_thread("background"))
        return self._session.background(coroutine)

    def _wrong_thread(self, verb: str) -> str:
        if verb not in ("send", "emit", "request", "close"):
            return (
                f"socket.{verb}() was called from another thread than the event loop's. "
                "Use asyncio.run_coroutine_threadsafe(), or loop.call_soon_threadsafe() for login."
            )
        return (
            f"socket.{verb}() was called from another thread than the event loop's. Return the value from "
            "the handler, or use app.threadsafe.socket(socket.id)."
        )

    def __repr__(self) -> str:
        return f"<Socket {self.id} {self.route}>"


# What the framework needs of a socket and handlers do not.


def recipient_of(socket: Socket[Any]) -> Recipient:
    """Return what stands for the socket in its rooms."""
    return socket._recipient  # pyright: ignore[reportPrivateUsage]


def begin(socket: Socket[Any]) -> None:
    """Note that the connect handler is called, so that the disconnect handler will be, too."""
    socket._session.began = True  # pyright: ignore[reportPrivateUsage]


async def look_for_others(socket: Socket[Any]) -> None:
    """Refuse a socket whose user has another one on a route for one socket a user."""
    await socket._session.look_for_others()  # pyright: ignore[reportPrivateUsage]


def has_dependencies(socket: Socket[Any]) -> bool:
    """Return whether there are dependencies that live as long as the socket."""
    return socket._dependencies is not None  # pyright: ignore[reportPrivateUsage]


async def close_dependencies(socket: Socket[Any]) -> None:
    """Close the dependencies that lived as long as the socket."""
    scope = socket._dependencies  # pyright: ignore[reportPrivateUsage]
    if scope is not None:
        await scope.aclose()


def release(socket: Socket[Any]) -> None:
    """Break the reference cycles of a closed socket; it stays usable, as a closed one."""
    socket._session = ENDED  # pyright: ignore[reportPrivateUsage]
    socket._outbox.detach()  # pyright: ignore[reportPrivateUsage]
