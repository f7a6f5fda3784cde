"""Targets that are no rooms: one socket, and the sockets of a route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import TypeForm, TypeVar

from symphony.errors import Reject, WrongThreadError, check_close_code
from symphony.farsockets import no_open_socket
from symphony.outgoing.encoding import Emitted, Sent
from symphony.rooms.excluding import Excluded, left_out_of
from symphony.rooms.options import PLAIN, Delivery
from symphony.rooms.target import RoomTable, Target
from symphony.rooms.topics import socket_of

if TYPE_CHECKING:
    from symphony.errors import DisconnectedError
    from symphony.outgoing.batch import Batch
    from symphony.socket import Socket

__all__ = ("Group", "Others", "SocketTarget", "TargetNode", "check_thread")

ReplyT = TypeVar("ReplyT", default=Any)


class Others(Protocol):
    """What targets need of the other nodes of a running app."""

    def send(self, socket: str, message: Sent | Emitted) -> Awaitable[None]:
        """Send a message or an event to a socket that is not on this node."""
        ...

    async def request(
        self, socket: str, event: str, data: object, *, timeout: float, response_type: Any
    ) -> Any:
        """Ask the client of a socket that is not on this node."""
        ...

    def close(self, socket: str, code: int, reason: str) -> Awaitable[None]:
        """Close a socket that is not on this node."""
        ...

    async def ask_user(
        self,
        user: str,
        event: str,
        data: object,
        *,
        timeout: float,
        response_type: Any,
        ask: Callable[[Coroutine[Any, Any, Any]], object],
    ) -> None:
        """Find the sockets of a user on the other nodes, and call *ask* with a request to each."""
        ...

    def close_user(self, user: str, code: int, reason: str) -> Awaitable[None]:
        """Close the sockets of a user on the other nodes."""
        ...

    async def revoke(self, user: str) -> None:
        """Ask on the other nodes whether the sockets of a user may be in their rooms."""
        ...

    async def join_user(self, user: str, name: str) -> int:
        """Let the sockets of a user on the other nodes join a room; return how many are in it."""
        ...

    async def leave_user(self, user: str, name: str) -> int:
        """Let the sockets of a user on the other nodes leave a room; return how many were in it."""
        ...


class TargetNode(Protocol):
    """What targets need of a running app."""

    @property
    def others(self) -> Others | None:
        """The other nodes; `None` if there can be none."""
        ...

    @property
    def sockets(self) -> dict[str, Socket[Any]]:
        """The open sockets by id."""
        ...

    @property
    def rooms(self) -> RoomTable:
        """The rooms."""
        ...

    def logged_in_as(self, id: str) -> tuple[Socket[Any], ...]:
        """Return the sockets of a user, also those that are not open yet."""
        ...

    async def revoke(self, id: str) -> None:
        """Ask again whether the sockets of a user may be in their rooms."""
        ...

    async def join_user(self, id: str, name: str) -> int:
        """Let the sockets of a user join a room; return how many are in it."""
        ...

    async def leave_user(self, id: str, name: str) -> int:
        """Let the sockets of a user leave a room; return how many were in it."""
        ...

    def undelivered(self, error: DisconnectedError) -> None:
        """Log that a message had no socket to go to, and tell the error handlers."""
        ...


class Group(Target):
    """All open sockets of a route, or of the routes of a router.

    Args:
        table: The rooms of the node.
        batch: The sockets.
        shown: What it is, for errors: `"route '/chat'"`.
        key: The name by which other nodes know it.
    """

    __slots__ = ("_group", "_key", "_shown")

    def __init__(self, table: RoomTable, batch: Batch, shown: str, key: str) -> None:
        super().__init__(table, "")
        self._group = batch
        self._shown = shown
        self._key = key

    @property
    def _batch(self) -> Batch:
        return self._group

    def _publish(
        self, verb: str, publication: Sent | Emitted, exclude: Excluded, delivery: Delivery = PLAIN
    ) -> Awaitable[Any]:
        self._check_thread(verb)
        return self._table.reach(self._key, self._group, publication, left_out_of(exclude), delivery)

    @property
    def _names(self) -> tuple[str, ...]:
        return (self._key,)

    @property
    def _shown_threadsafe(self) -> str:
        return "app.threadsafe.route(…).everyone"

    def __repr__(self) -> str:
        return f"<{self._shown}.everyone>"


class SocketTarget:
    """One socket by its id: `app.socket(id)` returns it, whether or not it is open.

    Attributes:
        id: The id of the socket.
    """

    __slots__ = ("_node", "id")

    def __init__(self, node: TargetNode, id: str) -> None:
        self._node = node
        self.id = id

    def send(self, message: object) -> Awaitable[None]:
        """Send a message, as `Socket.send`.

        If the socket is not open, or not any more, nothing is sent. This is logged,
        and `on_error` gets a `DisconnectedError`.

        Args:
            message: Text and bytes as they are, anything else as JSON text.

        Raises:
            WrongThreadError: Called from another thread than the app's.
            TypeError: The message cannot be encoded.
        """
        socket = self._find("send")
        if socket is not None:
            return socket.send(message)
        others = self._node.others
        return self._missing("message") if others is None else others.send(self.id, Sent(message))

    def emit(self, event: str, data: object = None) -> Awaitable[None]:
        """Send an event, as `Socket.emit`; otherwise as `send`."""
        socket = self._find("emit")
        if socket is not None:
            return socket.emit(event, data)
        others = self._node.others
        return (
            self._missing(f"event {event!r}")
            if others is None
            else others.send(self.id, Emitted(event, data))
        )

    async def request(
        self, event: str, data: object = None, *, timeout: float = 5.0, response_type: TypeForm[ReplyT] = Any
    ) -> ReplyT:
        """Ask the client, and wait for its reply, as `Socket.request`.

        Raises:
            Reject: `not_found`: the socket is not open, or not any more.
        """
        socket = self._find("request")
        if socket is not None:
            return await socket.request(event, data, timeout=timeout, response_type=response_type)
        await self._node.rooms.paced()
        if (others := self._node.others) is not None:
            return await others.request(self.id, event, data, timeout=timeout, response_type=response_type)
        raise Reject("not_found", "the socket is not open", details={"socket": self.id})

    def close(self, code: int = 1000, reason: str = "") -> Awaitable[None]:
        """Close the connection, as `Socket.close`. If it is not open, this does nothing.

        Raises:
            ValueError: The code must not be sent.
            WrongThreadError: Called from another thread than the app's.
        """
        socket = self._find("close")
        check_close_code(code)
        if socket is not None:
            return socket.close(code, reason)
        others = self._node.others
        return self._node.rooms.paced() if others is None else others.close(self.id, code, reason)

    @property
    def sockets(self) -> tuple[Socket[Any], ...]:
        """The socket, if it is open in this process; otherwise an empty tuple."""
        socket = self._node.sockets.get(self.id)
        return () if socket is None else (socket,)

    @property
    def _names(self) -> tuple[str, ...]:
        """What other nodes call it."""
        return (socket_of(self.id),)

    def _find(self, verb: str) -> Socket[Any] | None:
        where = f"app.socket({self.id!r}).{verb}()"
        check_thread(self._node.rooms, where, f"app.threadsafe.socket({self.id!r}).{verb}(…)")
        return self._node.sockets.get(self.id)

    def _missing(self, what: str) -> Awaitable[None]:
        self._node.undelivered(no_open_socket(self.id, what))
        return self._node.rooms.paced()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SocketTarget) and other.id == self.id and other._node is self._node

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<app.socket({self.id!r})>"


def check_thread(table: RoomTable, where: str, instead: str) -> None:
    """Refuse a call of *where* in another thread than the event loop's.

    Raises:
        WrongThreadError: It names *instead*.
    """
    if get_ident() != table.thread:
        raise WrongThreadError(
            f"{where} was called from another thread than the event loop's. Use {instead} there."
        )
