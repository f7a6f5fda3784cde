"""The other nodes of an app: this one reaches their sockets, and they reach those of this one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from symphony.errors import Reject
from symphony.farsockets import FarSockets, packed
from symphony.protocol.replies import Unread, read_reply, reply_readers
from symphony.protocol.v1 import MAX_TIMEOUT
from symphony.rooms.outcomes import Passed
from symphony.tasks import start
from symphony.userrooms import change_elsewhere

if TYPE_CHECKING:
    from symphony.broker.peers import Peers
    from symphony.errors import DisconnectedError
    from symphony.limits import Limits
    from symphony.outgoing.encoding import Emitted, Sent
    from symphony.rooms.target import RoomTable
    from symphony.socket import Socket
    from symphony.targets import SocketTarget
    from symphony.users import User

__all__ = ("OtherNodes", "ReachedNode")


class ReachedNode(Protocol):
    """What other nodes reach: the targets of this one."""

    @property
    def rooms(self) -> RoomTable:
        """The rooms of this node."""
        ...

    def socket(self, id: str) -> SocketTarget:
        """Return a handle of a socket."""
        ...

    def logged_in_as(self, id: str) -> tuple[Socket[Any], ...]:
        """Return the sockets of a user, also those that are not open yet."""
        ...

    def undelivered(self, error: DisconnectedError) -> None:
        """Log that a message had no socket to go to, and tell the error handlers."""
        ...

    def user(self, id: str) -> User:
        """Return a handle of a user."""
        ...

    async def revoke_here(self, id: str) -> None:
        """Ask again whether the sockets of a user on this node may be in their rooms."""
        ...

    async def join_user_here(self, id: str, name: str) -> int:
        """Let the sockets of a user on this node join a room; return how many are in it."""
        ...

    async def leave_user_here(self, id: str, name: str) -> int:
        """Let the sockets of a user on this node leave a room; return how many were in it."""
        ...

    def revocations_missed(self) -> None:
        """Ask again about all sockets: this node may not have heard whose rights have changed."""
        ...


class OtherNodes:
    """Reaches the sockets of other nodes, and lets these reach the sockets of this one.

    Args:
        peers: Asks the other nodes.
        node: The targets of this node.
        limits: The limits of the app.
        report: Called with the exception of a call that is not awaited, and what it was.
    """

    def __init__(
        self,
        peers: Peers,
        node: ReachedNode,
        limits: Limits,
        report: Callable[[BaseException, str], object],
    ) -> None:
        self._peers = peers
        self._node = node
        self._limits = limits
        self._report = report
        self._patience = limits.publish_timeout + limits.finish_timeout
        self._sockets = FarSockets(peers, lambda: node.rooms.paced(), node.undelivered, report)
        peers.offer("send", self._send_here)
        peers.offer("request", self._request_here)
        peers.offer("close", self._close_here)
        peers.offer("sockets_of_user", self._sockets_of_user_here)
        peers.offer("close_user", self._close_user_here)
        peers.offer("revoke", node.revoke_here, goes_on=True)
        peers.offer("join_user", node.join_user_here, goes_on=True)
        peers.offer("leave_user", node.leave_user_here, goes_on=True)
        peers.missed = node.revocations_missed

    # One socket

    def send(self, socket: str, message: Sent | Emitted) -> Awaitable[None]:
        """See `Others.send`."""
        return self._sockets.send(socket, message)

    async def request(
        self, socket: str, event: str, data: object, *, timeout: float, response_type: Any
    ) -> Any:
        """See `Others.request`."""
        self._check(event, timeout, response_type)
        node = self._sockets.node_of(socket)
        if node is None:
            raise _not_open(socket)
        return await self._ask(node, socket, event, packed(data), timeout, response_type)

    async def _ask(
        self, node: str, socket: str, event: str, data: Any, timeout: float, response_type: Any
    ) -> Any:
        try:
            reply = await self._peers.ask(node, "request", socket, event, data, timeout, timeout=timeout)
        except Reject as error:
            # Either the socket or its node is not there.
            raise _not_open(socket) if error.code == "not_found" else error from None
        return read_reply(event, Unread(*reply), response_type, self._limits.max_elements)

    def close(self, socket: str, code: int, reason: str) -> Awaitable[None]:
        """See `Others.close`."""
        return self._sockets.close(socket, code, reason)

    # Users

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
        """See `Others.ask_user`. The sockets of a node are asked as soon as it has named them."""
        self._check(event, timeout, response_type)
        plain = packed(data)
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout

        def found(node: str, sockets: Sequence[str]) -> None:
            left = max(until - loop.time(), 0.001)
            for socket in sockets:
                ask(self._ask(node, socket, event, plain, left, response_type))

        patience = min(timeout, self._limits.publish_timeout)
        await self._peers.ask_all("sockets_of_user", user, timeout=patience, heard=found)

    def close_user(self, user: str, code: int, reason: str) -> Awaitable[None]:
        """See `Others.close_user`."""
        timeout = self._limits.publish_timeout
        closing = start(self._peers.ask_all("close_user", user, code, reason, timeout=timeout, keeps=True))
        report = partial(self._failed, f"close of user {user!r}")
        return Passed(closing, report, lambda _: self._node.rooms.paced())

    async def revoke(self, user: str) -> None:
        """See `Others.revoke`."""
        await self._peers.ask_all("revoke", user, timeout=self._patience, keeps=True)

    async def join_user(self, user: str, name: str) -> int:
        """See `Others.join_user`."""
        return await change_elsewhere(self._peers, "join_user", user, name, self._patience)

    async def leave_user(self, user: str, name: str) -> int:
        """See `Others.leave_user`."""
        return await change_elsewhere(self._peers, "leave_user", user, name, self._patience)

    # What the other nodes ask for

    def _send_here(self, socket: str, event: str | None, data: Any) -> None:
        target = self._node.socket(socket)
        if event is None:
            target.send(data)
        else:
            target.emit(event, data)

    def _request_here(
        self, socket: str, event: str, data: Any, timeout: float
    ) -> Coroutine[Any, Any, Unread]:
        return self._node.socket(socket).request(event, data, timeout=timeout, response_type=Unread)

    def _close_here(self, socket: str, code: int, reason: str) -> None:
        self._node.socket(socket).close(code, reason)

    def _sockets_of_user_here(self, user: str) -> list[str]:
        return [socket.id for socket in self._node.user(user).sockets]

    def _close_user_here(self, user: str, code: int, reason: str) -> None:
        for socket in self._node.logged_in_as(user):
            socket.close(code, reason)

    def _failed(self, what: str, error: BaseException) -> None:
        self._report(error, what)

    def _check(self, event: object, timeout: float, response_type: Any) -> None:
        """Refuse here what the node of the socket would refuse."""
        if not isinstance(event, str):
            raise TypeError(f"The name of an event is text, not {event!r}.")
        if not 0 < timeout <= MAX_TIMEOUT:
            raise ValueError(f"timeout must be above 0 and at most {MAX_TIMEOUT} seconds, not {timeout!r}.")
        reply_readers(response_type, self._limits.max_elements)


def _not_open(socket: str) -> Reject:
    return Reject("not_found", "the socket is not open", details={"socket": socket})
