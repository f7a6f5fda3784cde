"""The app's targets for other threads of the same process: `app.threadsafe`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import CancelledError
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from typing_extensions import TypeForm, TypeVar

from symphony.errors import DisconnectedError, WrongThreadError
from symphony.limits import Limits
from symphony.rooms.room import check_room_name
from symphony.rooms.target import RoomTable, RoomTarget, Target
from symphony.users import User, Users

if TYPE_CHECKING:
    from symphony.protocol.positions import Position
    from symphony.rooms.publishing import Publication
    from symphony.routing.handlers import Handlers
    from symphony.socket import Socket

__all__ = (
    "Threadsafe",
    "ThreadsafeGroup",
    "ThreadsafeNode",
    "ThreadsafeRoom",
    "ThreadsafeSocket",
    "ThreadsafeTarget",
    "ThreadsafeTargets",
    "ThreadsafeUser",
)

T = TypeVar("T")
ReplyT = TypeVar("ReplyT", default=Any)


class ThreadsafeTargets(Protocol):
    """What this module needs of the targets of a running app."""

    def user(self, id: str) -> User:
        """Return a handle of a user."""
        ...

    def users(self, ids: Iterable[str]) -> Users:
        """Return a handle of several users."""
        ...


class ThreadsafeNode(Protocol):
    """What this module needs of a running app."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the app."""
        ...

    @property
    def limits(self) -> Limits:
        """The limits of the app."""
        ...

    @property
    def rooms(self) -> RoomTable:
        """The rooms."""
        ...

    @property
    def sockets(self) -> dict[str, Socket[Any]]:
        """The open sockets by id."""
        ...

    @property
    def targets(self) -> ThreadsafeTargets:
        """The users."""
        ...


class Threadsafe:
    """Rooms, sockets and everyone, for threads that are not the event loop's.

    Each call waits until the event loop has run it, and raises what it
    raised. In the event loop's own thread that would wait forever, so there
    it is refused: use the app itself.

    Args:
        node: Returns the running app; raises `RuntimeError` if it is not running.
        max_name: `Limits.max_room_name`.
    """

    def __init__(self, node: Callable[[], ThreadsafeNode], *, max_name: int) -> None:
        self._node = node
        self._max_name = max_name

    @property
    def everyone(self) -> ThreadsafeTarget:
        """All open sockets of the app."""
        return ThreadsafeTarget(self, "app.threadsafe.everyone", lambda: Target(self._node().rooms, ""))

    def route(self, route: Handlers) -> ThreadsafeGroup:
        """Return what sends to the sockets of a route or router: `route(chat).everyone`."""
        return ThreadsafeGroup(self, route)

    def user(self, id: str) -> ThreadsafeUser:
        """Return a handle of a user, as `app.user`.

        The id is checked when the handle is used.
        """
        return ThreadsafeUser(self, f"app.threadsafe.user({id!r})", lambda: self._node().targets.user(id))

    def users(self, *ids: str) -> ThreadsafeTarget:
        """Return a handle of several users, as `app.users`."""
        return ThreadsafeTarget(self, "app.threadsafe.users(…)", lambda: self._node().targets.users(ids))

    def room(self, name: str) -> ThreadsafeRoom:
        """Return a handle of a room.

        Raises:
            Reject: No room can have this name, as in `socket.join` (`invalid`).
                Before the app runs, the name is checked against the patterns of
                `app.rooms` only when the handle is used.
        """
        check_room_name(name, self._max_name)
        with suppress(RuntimeError):
            self._node().rooms.room(name)
        return ThreadsafeRoom(self, f"app.threadsafe.room({name!r})", lambda: self._node().rooms.room(name))

    def socket(self, id: str) -> ThreadsafeSocket:
        """Return a handle of a socket, whether or not it is still open."""
        return ThreadsafeSocket(self, id)

    def run(self, call: Callable[[], Awaitable[T]], where: str, *, extra: float = 0.0) -> T:
        """Await the result of *call* in the event loop, and return it here.

        Args:
            call: Called in the event loop's thread.
            where: What it is, for errors.
            extra: Seconds to wait beyond `Limits.thread_timeout`.

        Raises:
            WrongThreadError: This is the event loop's own thread.
            RuntimeError: The app is not running, or stopped meanwhile.
            TimeoutError: It did not finish in time: the event loop is blocked,
                or the client does not read. What had not begun does not happen;
                a frame that waits for its client may still be sent.
        """
        node = self._node()
        if get_ident() == node.rooms.thread:
            raise WrongThreadError(
                f"{where} was called in the event loop's own thread, where it would wait forever. "
                f"Use {where.replace('app.threadsafe', 'app', 1)} there."
            )

        given_up = False

        async def work() -> T:
            # A task is cancelled only after its first step, and a send is done by then.
            if given_up:
                raise asyncio.CancelledError
            return await call()

        coroutine = work()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, node.loop)
        except RuntimeError:
            coroutine.close()
            raise RuntimeError(f"{where}: the app is not running, its event loop has ended.") from None
        timeout = node.limits.thread_timeout + extra
        try:
            return future.result(timeout)
        except CancelledError:
            raise RuntimeError(f"{where}: the app stopped before it was done.") from None
        except TimeoutError:
            given_up = True
            # `result` raises the same for what the call raised, and it may have ended just now.
            if not future.cancel():
                return future.result()
            raise TimeoutError(
                f"{where} did not finish within {timeout:g} s: the event loop is blocked, "
                "or the client does not read."
            ) from None

    def open_socket(self, id: str) -> Socket[Any]:
        """Return the open socket with that id; in the event loop's thread.

        Raises:
            DisconnectedError: There is none.
        """
        socket = self._node().sockets.get(id)
        if socket is None:
            raise DisconnectedError(f"There is no open socket {id!r}. It may have disconnected.")
        return socket


class ThreadsafeTarget:
    """A room, or everyone, for other threads."""

    __slots__ = ("_target", "_threadsafe", "_where")

    def __init__(self, threadsafe: Threadsafe, where: str, target: Callable[[], Target | Users]) -> None:
        self._threadsafe = threadsafe
        self._where = where
        self._target = target

    def send(self, message: object, *, exclude: Collection[str] = ()) -> Position | None:
        """Send a message to every socket in it, as `Target.send`.

        Args:
            message: Text and bytes as they are, anything else as JSON text.
            exclude: Ids of sockets that do not get it.

        Raises:
            TypeError: The message cannot be encoded.
            WrongThreadError: Called in the event loop's own thread.
            RuntimeError: The app is not running, or stopped meanwhile.
            TimeoutError: The event loop was blocked for 5 seconds.

        Returns:
            The position in the history of a room or user, or `None` if it is not kept.
        """
        ids = _ids(exclude)
        return self._run("send", lambda target: target.send(message, exclude=_excluded(target, ids)))

    def emit(self, event: str, data: object = None, *, exclude: Collection[str] = ()) -> Position | None:
        """Send an event to every socket in it, as `Target.emit`; otherwise as `send`."""
        ids = _ids(exclude)
        return self._run("emit", lambda target: target.emit(event, data, exclude=_excluded(target, ids)))

    def count(self) -> int:
        """Return how many sockets are in it."""
        return self._run("count", lambda target: target.count())

    def _run(self, verb: str, call: Callable[[Target | Users], Awaitable[T]]) -> T:
        return self._threadsafe.run(lambda: call(self._target()), f"{self._where}.{verb}()")

    def __repr__(self) -> str:
        return f"<{self._where}>"


class ThreadsafeGroup:
    """A route or router, for other threads."""

    __slots__ = ("_route", "_threadsafe")

    def __init__(self, threadsafe: Threadsafe, route: Handlers) -> None:
        self._threadsafe = threadsafe
        self._route = route

    @property
    def everyone(self) -> ThreadsafeTarget:
        """All open sockets of the route, or of the routes of the router."""
        return ThreadsafeTarget(
            self._threadsafe, "app.threadsafe.route(…).everyone", lambda: self._route.everyone
        )


class ThreadsafeRoom(ThreadsafeTarget):
    """A room, for other threads."""

    __slots__ = ()

    def send(
        self, message: object, *, exclude: Collection[str] = (), transient: bool = False
    ) -> Position | None:
        """Send a message to every socket in it, as `Room.send`; otherwise as `ThreadsafeTarget.send`."""
        ids = _ids(exclude)
        return self._run_room(
            "send", lambda room: room.send(message, exclude=_excluded(room, ids), transient=transient)
        )

    def emit(
        self, event: str, data: object = None, *, exclude: Collection[str] = (), transient: bool = False
    ) -> Position | None:
        """Send an event to every socket in it, as `Room.emit`; otherwise as `send`."""
        ids = _ids(exclude)
        return self._run_room(
            "emit", lambda room: room.emit(event, data, exclude=_excluded(room, ids), transient=transient)
        )

    def history(self, limit: int = 100, *, before: Position | None = None) -> list[Publication]:
        """Return the last publications that the room keeps, as `Room.history`."""
        return self._run_room("history", lambda room: room.history(limit, before=before))

    def _run_room(self, verb: str, call: Callable[[RoomTarget], Awaitable[T]]) -> T:
        return self._run(verb, lambda target: call(cast("RoomTarget", target)))


class ThreadsafeUser(ThreadsafeRoom):
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
    ) -> Any:
        """Ask the clients of the user, and wait for one reply or for all, as `User.request`."""

        def ask(user: User) -> Awaitable[Any]:
            return user.request(event, data, policy=policy, timeout=timeout, response_type=response_type)  # type: ignore[call-overload]

        return self._run_user("request", ask, extra=timeout)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close all sockets of the user, as `User.close`."""
        self._run_user("close", lambda user: user.close(code, reason))

    def revoke(self) -> None:
        """End the memberships that are not allowed any more, as `User.revoke`."""
        self._run_user("revoke", lambda user: user.revoke())

    def _run_user(self, verb: str, call: Callable[[User], Awaitable[T]], extra: float = 0.0) -> T:
        where = f"{self._where}.{verb}()"
        return self._threadsafe.run(lambda: call(cast("User", self._target())), where, extra=extra)


class ThreadsafeSocket:
    """One socket, for other threads.

    Attributes:
        id: Its id.
    """

    __slots__ = ("_threadsafe", "id")

    def __init__(self, threadsafe: Threadsafe, id: str) -> None:
        self._threadsafe = threadsafe
        self.id = id

    def send(self, message: object) -> None:
        """Send a message, as `Socket.send`; waits while the client reads too slowly.

        Raises:
            DisconnectedError: There is no such socket, or no more.
            TypeError: The message cannot be encoded.
            WrongThreadError: Called in the event loop's own thread.
            TimeoutError: It could not be sent for 5 seconds.
        """
        self._run("send", lambda socket: socket.send(message))

    def emit(self, event: str, data: object = None) -> None:
        """Send an event, as `Socket.emit`; otherwise as `send`."""
        self._run("emit", lambda socket: socket.emit(event, data))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, as `Socket.close`.

        Raises:
            DisconnectedError: There is no such socket, or no more.
            ValueError: The code must not be sent.
        """
        self._run("close", lambda socket: socket.close(code, reason))

    def request(
        self, event: str, data: object = None, *, timeout: float = 5.0, response_type: TypeForm[ReplyT] = Any
    ) -> ReplyT:
        """Ask the client and wait for its reply, as `Socket.request`.

        Raises:
            DisconnectedError: There is no such socket, or no more.
            RequestTimeoutError: The reply did not come in time.
            RemoteError: The client answered with an error.
        """
        return self._run(
            "request",
            lambda socket: socket.request(event, data, timeout=timeout, response_type=response_type),
            extra=timeout,
        )

    def _run(self, verb: str, call: Callable[[Socket[Any]], Awaitable[T]], extra: float = 0.0) -> T:
        return self._threadsafe.run(
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


def _excluded(target: Target | Users, ids: frozenset[str]) -> list[Socket[Any]]:
    return [socket for socket in target.sockets if socket.id in ids] if ids else []
