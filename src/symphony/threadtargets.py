"""What other threads send to: rooms, users, sockets, everyone. Each verb returns a future."""

from __future__ import annotations

from collections.abc import Awaitable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeAlias

from typing_extensions import TypeForm, TypeVar

from symphony.outsidetargets import (
    OutsideEveryone,
    OutsideHandle,
    OutsideRoom,
    OutsideSocket,
    OutsideUser,
    OutsideUsers,
)

if TYPE_CHECKING:
    from symphony.polling import Policy
    from symphony.protocol.positions import Position
    from symphony.rooms.members import Presence
    from symphony.rooms.publishing import Publication
    from symphony.users import User

__all__ = ("ThreadsafeRoom", "ThreadsafeSocket", "ThreadsafeTarget", "ThreadsafeUser", "ThreadsafeUsers")

ReplyT = TypeVar("ReplyT", default=Any)

_Sent: TypeAlias = "Future[None]"
_Published: TypeAlias = "Future[Position | None]"
_History: TypeAlias = "Future[list[Publication]]"


class _Counted(OutsideHandle):
    __slots__ = ()

    def count(self) -> Future[int]:
        """Return how many sockets are in it, or how many members a room has."""
        return self._call("count", lambda target: target.count())


class ThreadsafeTarget(OutsideEveryone[_Sent], _Counted):
    """Everyone, for other threads."""

    __slots__ = ()


class ThreadsafeUsers(OutsideUsers[_Sent], _Counted):
    """Several users, for other threads."""

    __slots__ = ()


class ThreadsafeRoom(OutsideRoom[_Published, _History], _Counted):
    """A room, for other threads."""

    __slots__ = ()

    def presence(self) -> Future[list[Presence]]:
        """Return the members on all nodes, as `Room.presence`."""
        return self._call("presence", lambda room: room.presence())

    def open(self, *, ttl: float = 30.0) -> Future[bool]:
        """Make the room before anybody is in it, as `Room.open`."""
        return self._call("open", lambda room: room.open(ttl=ttl))

    def close(self, code: int = 1000, reason: str = "") -> Future[None]:
        """End the room, and all memberships in it, as `Room.close`."""
        return self._call("close", lambda room: room.close(code, reason))


class ThreadsafeUser(OutsideUser[_Published, _History, "Future[int]"], _Counted):
    """A user, for other threads."""

    __slots__ = ()

    def request(
        self,
        event: str,
        data: object = None,
        *,
        policy: Policy = "first",
        timeout: float = 5.0,
        response_type: Any = Any,
    ) -> Future[Any]:
        """Ask the clients of the user for one reply or for several, as `User.request`."""
        taken = self._calls.taken(data)

        def ask(user: User) -> Awaitable[Any]:
            return user.request(event, taken, policy=policy, timeout=timeout, response_type=response_type)  # type: ignore[call-overload]

        return self._call("request", ask, timeout)

    def close(self, code: int = 1000, reason: str = "") -> Future[None]:
        """Close all sockets of the user, as `User.close`."""
        return self._call("close", lambda user: user.close(code, reason))

    def revoke(self) -> Future[None]:
        """End the memberships that are not allowed any more, as `User.revoke`."""
        return self._call("revoke", lambda user: user.revoke())


class ThreadsafeSocket(OutsideSocket[_Sent]):
    """One socket, for other threads."""

    __slots__ = ()

    def request(
        self, event: str, data: object = None, *, timeout: float = 5.0, response_type: TypeForm[ReplyT] = Any
    ) -> Future[ReplyT]:
        """Ask the client; the future has its reply, as `SocketTarget.request`.

        Raises:
            Reject: From the future, as the others: `not_found`: the socket is not open.
            RequestTimeoutError: The reply did not come in time.
            RemoteError: The client answered with an error.
        """
        taken = self._calls.taken(data)
        return self._call(
            "request",
            lambda socket: socket.request(event, taken, timeout=timeout, response_type=response_type),
            timeout,
        )
