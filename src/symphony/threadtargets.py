"""What other threads send to: rooms, users, sockets, everyone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from typing_extensions import TypeForm, TypeVar

from symphony.targets import SocketTarget
from symphony.threadcalls import snapshot

if TYPE_CHECKING:
    from symphony.protocol.positions import Position
    from symphony.rooms.members import Presence
    from symphony.rooms.publishing import Publication
    from symphony.rooms.room import Room
    from symphony.rooms.target import RoomTarget
    from symphony.socket import Socket
    from symphony.users import User

__all__ = (
    "Submitting",
    "ThreadsafeRoom",
    "ThreadsafeSocket",
    "ThreadsafeTarget",
    "ThreadsafeUser",
    "ThreadsafeUsers",
)

T = TypeVar("T")
ReplyT = TypeVar("ReplyT", default=Any)


class Submitting(Protocol):
    """What these targets need of `app.threadsafe`."""

    @property
    def publish_timeout(self) -> float:
        """How long a call to the broker may take."""
        ...

    def submit(self, call: Callable[[], Awaitable[T]], where: str, *, extra: float = 0.0) -> Future[T]:
        """Let the event loop run a call."""
        ...

    def left_out(self, ids: Iterable[str]) -> list[SocketTarget]:
        """Return the sockets with these ids."""
        ...

    def open_socket(self, id: str) -> Socket[Any]:
        """Return the open socket with that id; raises `DisconnectedError` if there is none."""
        ...


class _Handle:
    """What is common to the targets."""

    __slots__ = ("_target", "_threadsafe", "_where")

    def __init__(self, threadsafe: Submitting, where: str, target: Callable[[], Any]) -> None:
        self._threadsafe = threadsafe
        self._where = where
        self._target = target

    def _submit(
        self, verb: str, call: Callable[[Any], Awaitable[Any]], extra: float | None = None
    ) -> Future[Any]:
        threadsafe = self._threadsafe
        # A call to the broker has its own timeout.
        extra = threadsafe.publish_timeout if extra is None else extra
        return threadsafe.submit(lambda: call(self._target()), f"{self._where}.{verb}()", extra=extra)

    def _publish(
        self, verb: str, values: tuple[object, ...], exclude: Collection[str], **options: Any
    ) -> Future[Any]:
        ids, taken = _ids(exclude), tuple(map(snapshot, values))
        left_out = self._threadsafe.left_out
        return self._submit(
            verb, lambda target: getattr(target, verb)(*taken, exclude=left_out(ids), **options)
        )

    def count(self) -> Future[int]:
        """Return how many sockets are in it, or how many members a room has."""
        return self._submit("count", lambda target: target.count())

    def __repr__(self) -> str:
        return f"<{self._where}>"


class ThreadsafeTarget(_Handle):
    """Everyone, for other threads."""

    __slots__ = ()

    def send(
        self,
        message: object,
        *,
        exclude: Collection[str] = (),
        volatile: bool = False,
        conflate: str | None = None,
    ) -> Future[None]:
        """Send a message to every socket in it, as `Target.send`.

        The message is copied in the call, so you may change it afterwards.

        Args:
            message: Text and bytes as they are, anything else as JSON text.
            exclude: Ids of sockets that do not get it.
            volatile: As in `Target.send`.
            conflate: As in `Target.send`.

        Raises:
            TypeError: From the future: the message cannot be encoded.
            WrongThreadError: Called in the event loop's own thread.
            RuntimeError: The app is not running.
            QueueFullError: Too many calls have not ended.
        """
        return self._publish("send", (message,), exclude, volatile=volatile, conflate=conflate)

    def emit(
        self,
        event: str,
        data: object = None,
        *,
        exclude: Collection[str] = (),
        volatile: bool = False,
        conflate: str | None = None,
    ) -> Future[None]:
        """Send an event to every socket in it, as `Target.emit`; otherwise as `send`."""
        return self._publish("emit", (event, data), exclude, volatile=volatile, conflate=conflate)


class ThreadsafeUsers(_Handle):
    """Several users, for other threads."""

    __slots__ = ()

    def send(
        self, message: object, *, exclude: Collection[str] = (), transient: bool = False
    ) -> Future[None]:
        """Send a message to each of the users, as `Users.send`; otherwise as `ThreadsafeTarget.send`."""
        return self._publish("send", (message,), exclude, transient=transient)

    def emit(
        self, event: str, data: object = None, *, exclude: Collection[str] = (), transient: bool = False
    ) -> Future[None]:
        """Send an event to each of the users, as `Users.emit`; otherwise as `send`."""
        return self._publish("emit", (event, data), exclude, transient=transient)


class _RoomHandle(_Handle):
    """What is common to rooms and users."""

    __slots__ = ()

    def send(
        self,
        message: object,
        *,
        exclude: Collection[str] = (),
        transient: bool = False,
        volatile: bool = False,
        conflate: str | None = None,
        key: str | None = None,
        replaces: Position | None = None,
    ) -> Future[Position | None]:
        """Send a message to every socket in it, as `Room.send`; otherwise as `ThreadsafeTarget.send`.

        Returns:
            A future of the position in the history, or `None` if it is not kept.
        """
        return self._publish(
            "send",
            (message,),
            exclude,
            transient=transient,
            volatile=volatile,
            conflate=conflate,
            key=key,
            replaces=replaces,
        )

    def emit(
        self,
        event: str,
        data: object = None,
        *,
        exclude: Collection[str] = (),
        transient: bool = False,
        volatile: bool = False,
        conflate: str | None = None,
        key: str | None = None,
        replaces: Position | None = None,
    ) -> Future[Position | None]:
        """Send an event to every socket in it, as `Room.emit`; otherwise as `send`."""
        return self._publish(
            "emit",
            (event, data),
            exclude,
            transient=transient,
            volatile=volatile,
            conflate=conflate,
            key=key,
            replaces=replaces,
        )

    def history(self, limit: int = 100, *, before: Position | None = None) -> Future[list[Publication]]:
        """Return the last publications that the room keeps, as `Room.history`."""
        return self._submit(
            "history", lambda target: cast("RoomTarget", target).history(limit, before=before)
        )


class ThreadsafeRoom(_RoomHandle):
    """A room, for other threads."""

    __slots__ = ()

    def presence(self) -> Future[list[Presence]]:
        """Return the members on all nodes, as `Room.presence`."""
        return self._submit("presence", lambda room: cast("Room", room).presence())

    def open(self, *, ttl: float = 30.0) -> Future[bool]:
        """Make the room before anybody is in it, as `Room.open`."""
        return self._submit("open", lambda room: cast("Room", room).open(ttl=ttl))

    def close(self, code: int = 1000, reason: str = "") -> Future[None]:
        """End the room, and all memberships in it, as `Room.close`."""
        return self._submit("close", lambda room: cast("Room", room).close(code, reason))


class ThreadsafeUser(_RoomHandle):
    """A user, for other threads."""

    __slots__ = ()

    def request(
        self,
        event: str,
        data: object = None,
        *,
        policy: Literal["first", "all"] = "first",
        timeout: float = 5.0,
        response_type: Any = Any,
    ) -> Future[Any]:
        """Ask the clients of the user for one reply or for all, as `User.request`."""
        taken = snapshot(data)

        def ask(user: User) -> Awaitable[Any]:
            return user.request(event, taken, policy=policy, timeout=timeout, response_type=response_type)  # type: ignore[call-overload]

        return self._submit("request", ask, timeout)

    def close(self, code: int = 1000, reason: str = "") -> Future[None]:
        """Close all sockets of the user, as `User.close`."""
        return self._submit("close", lambda user: cast("User", user).close(code, reason))

    def revoke(self) -> Future[None]:
        """End the memberships that are not allowed any more, as `User.revoke`."""
        return self._submit("revoke", lambda user: cast("User", user).revoke())


class ThreadsafeSocket:
    """One socket, for other threads.

    Attributes:
        id: Its id.
    """

    __slots__ = ("_threadsafe", "id")

    def __init__(self, threadsafe: Submitting, id: str) -> None:
        self._threadsafe = threadsafe
        self.id = id

    def send(self, message: object) -> Future[None]:
        """Send a message, as `Socket.send`; the future waits while the client reads too slowly.

        Raises:
            DisconnectedError: From the future: there is no such socket, or no more.
            TypeError: From the future: the message cannot be encoded.
            WrongThreadError: Called in the event loop's own thread.
        """
        taken: Any = snapshot(message)
        return self._submit("send", lambda socket: socket.send(taken))

    def emit(self, event: str, data: object = None) -> Future[None]:
        """Send an event, as `Socket.emit`; otherwise as `send`."""
        taken = snapshot(data)
        return self._submit("emit", lambda socket: socket.emit(event, taken))

    def close(self, code: int = 1000, reason: str = "") -> Future[None]:
        """Close the connection, as `Socket.close`.

        Raises:
            DisconnectedError: From the future: there is no such socket, or no more.
            ValueError: From the future: the code must not be sent.
        """
        return self._submit("close", lambda socket: socket.close(code, reason))

    def request(
        self, event: str, data: object = None, *, timeout: float = 5.0, response_type: TypeForm[ReplyT] = Any
    ) -> Future[ReplyT]:
        """Ask the client; the future has its reply, as `Socket.request`.

        Raises:
            DisconnectedError: From the future, as the others: there is no such socket, or no more.
            RequestTimeoutError: The reply did not come in time.
            RemoteError: The client answered with an error.
        """
        taken = snapshot(data)
        return self._submit(
            "request",
            lambda socket: socket.request(event, taken, timeout=timeout, response_type=response_type),
            timeout,
        )

    def _submit(
        self, verb: str, call: Callable[[Socket[Any]], Awaitable[T]], extra: float = 0.0
    ) -> Future[T]:
        return self._threadsafe.submit(
            lambda: call(self._threadsafe.open_socket(self.id)),
            f"app.threadsafe.socket({self.id!r}).{verb}()",
            extra=extra,
        )

    def __repr__(self) -> str:
        return f"<app.threadsafe.socket({self.id!r})>"


def _ids(exclude: Collection[str]) -> frozenset[str]:
    """Return the ids of the sockets to leave out; a socket itself would be none of them."""
    ids = (exclude,) if not isinstance(exclude, Collection) or isinstance(exclude, str) else exclude  # pyright: ignore[reportUnnecessaryIsInstance]
    for id in ids:
        if not isinstance(id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"exclude= takes ids of sockets, such as exclude=[socket.id], not {id!r}.")
    return frozenset(ids)
