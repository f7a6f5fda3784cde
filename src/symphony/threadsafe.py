"""The app's targets for other threads of the same process: `app.threadsafe`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from symphony.rooms.room import check_room_name
from symphony.rooms.target import Target
from symphony.targets import SocketTarget
from symphony.threadcalls import CallingNode, ThreadCalls, snapshot
from symphony.threadtargets import (
    ThreadsafeRoom,
    ThreadsafeSocket,
    ThreadsafeTarget,
    ThreadsafeUser,
    ThreadsafeUsers,
)
from symphony.users import User, Users

if TYPE_CHECKING:
    from symphony.routing.handlers import Handlers

T = TypeVar("T")

__all__ = (
    "Threadsafe",
    "ThreadsafeGroup",
    "ThreadsafeNode",
    "ThreadsafeTargets",
)


class ThreadsafeTargets(Protocol):
    """What this module needs of the targets of a running app."""

    def user(self, id: str) -> User:
        """Return a handle of a user."""
        ...

    def users(self, ids: Iterable[str]) -> Users:
        """Return a handle of several users."""
        ...

    def socket(self, id: str) -> SocketTarget:
        """Return a handle of a socket."""
        ...


class ThreadsafeNode(CallingNode, Protocol):
    """What this module needs of a running app."""

    @property
    def targets(self) -> ThreadsafeTargets:
        """The users."""
        ...


class Threadsafe:
    """The app's targets, for threads that are not the event loop's.

    A call returns at once, with a `concurrent.futures.Future` of its result. The event
    loop runs the calls of one thread in their order. To wait, and to see what went wrong,
    call `result()`. If nothing asks for the result of a call that fails, the error is logged
    and handed to `on_error`.

    In the event loop's own thread, calls raise `WrongThreadError`: use the app itself there.
    If the app is not running, they raise `RuntimeError`. If `Limits.max_thread_calls`
    have not ended, they raise `QueueFullError`.

    Args:
        node: Returns the running app; raises `RuntimeError` if it is not running.
        max_name: `Limits.max_room_name`.
    """

    def __init__(self, node: Callable[[], ThreadsafeNode], *, max_name: int) -> None:
        self._node = node
        self._max_name = max_name
        self._calls = ThreadCalls(node)

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

    def users(self, *ids: str) -> ThreadsafeUsers:
        """Return a handle of several users, as `app.users`."""
        return ThreadsafeUsers(self, "app.threadsafe.users(…)", lambda: self._node().targets.users(ids))

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
        """Return a handle of a socket, whether or not it is still open, as `app.socket`."""
        where = f"app.threadsafe.socket({id!r})"
        return ThreadsafeSocket(self, where, lambda: self._node().targets.socket(id), id)

    def call(
        self,
        where: str,
        target: Callable[[], Any],
        verb: Callable[[Any], Awaitable[Any]],
        extra: float | None,
    ) -> Future[Any]:
        """Let the event loop run a call: see `Calls.call`."""
        if extra is None:
            # A call to the broker has its own timeout.
            extra = self._node().limits.publish_timeout
        return self.submit(lambda: verb(target()), where, extra=extra)

    def submit(self, call: Callable[[], Awaitable[T]], where: str, *, extra: float = 0.0) -> Future[T]:
        """Let the event loop run a call: see `ThreadCalls.submit`."""
        return self._calls.submit(call, where, extra=extra)

    def taken(self, value: object) -> object:
        """Return a copy of what the thread may change."""
        return snapshot(value)

    def left_out(self, ids: Iterable[str]) -> list[SocketTarget]:
        """Return the sockets with these ids, on all nodes; in the event loop's thread."""
        return [self._node().targets.socket(id) for id in ids]


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
