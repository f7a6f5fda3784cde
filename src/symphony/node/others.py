"""The other nodes of an app: this one reaches their sockets, and they reach those of this one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Raw

from symphony.errors import Reject, SymphonyError
from symphony.identity import room_of_user
from symphony.outgoing.encoding import Emitted, Sent
from symphony.protocol.codec import encode_msgpack
from symphony.protocol.replies import Unread, read_reply, reply_readers
from symphony.protocol.unencodable import fail_to_encode
from symphony.protocol.v1 import MAX_TIMEOUT
from symphony.rooms.outcomes import Outcome
from symphony.rooms.topics import node_of, topic_of
from symphony.targets import no_open_socket
from symphony.tasks import start
from symphony.users import ask_sockets, replies_or_error

if TYPE_CHECKING:
    from symphony.broker.peers import Peers
    from symphony.errors import DisconnectedError
    from symphony.limits import Limits
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
        peers.offer("send", self._send_here)
        peers.offer("request", self._request_here)
        peers.offer("close", self._close_here)
        peers.offer("request_user", self._request_user_here)
        peers.offer("close_user", self._close_user_here)
        peers.offer("revoke", self._revoke_here, goes_on=True)
        peers.missed = node.revocations_missed

    # One socket

    def send(self, socket: str, message: Sent | Emitted) -> Awaitable[None]:
        """See `Others.send`: at most once. The node of the socket reports if it is not there."""
        what = "message" if message.event is None else f"event {message.event!r}"
        node = self._node_of(socket)
        if node is None:
            self._node.undelivered(no_open_socket(socket, what))
            return self._node.rooms.paced()
        told = self._peers.tell(node, "send", socket, message.event, _packed(message.plain))
        if isinstance(told, asyncio.Future):
            told.add_done_callback(partial(self._told, socket, what))
        report = partial(self._failed, f"{what} to a socket on another node")
        return _Passed(told, report, lambda _: self._node.rooms.paced())

    async def request(
        self, socket: str, event: str, data: object, *, timeout: float, response_type: Any
    ) -> Any:
        """See `Others.request`."""
        self._check(event, timeout, response_type)
        node = self._node_of(socket)
        if node is None:
            raise _not_open(socket)
        arguments = socket, event, _packed(data), timeout
        try:
            reply = await self._peers.ask(node, "request", *arguments, timeout=timeout)
        except Reject as error:
            # Either the socket or its node is not there.
            raise _not_open(socket) if error.code == "not_found" else error from None
        return self._read(event, reply, response_type)

    def close(self, socket: str, code: int, reason: str) -> Awaitable[None]:
        """See `Others.close`: at most once."""
        node = self._node_of(socket)
        if node is None:
            return self._node.rooms.paced()
        told = self._peers.tell(node, "close", socket, code, reason)
        return _Passed(told, partial(self._failed, "close of a socket"), lambda _: self._node.rooms.paced())

    # Users

    async def request_user(
        self, user: str, event: str, data: object, *, policy: str, timeout: float, response_type: Any
    ) -> list[Any]:
        """See `Others.request_user`.

        First all nodes say how many sockets of the user they have. Each node that has some is
        asked as soon as it has said so.
        """
        self._check(event, timeout, response_type)
        packed = _packed(data)
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        waiting: set[asyncio.Future[list[Any]]] = set()

        def heard(node: str, count: int) -> None:
            if count:
                left = max(until - loop.time(), 0.001)
                arguments = user, event, packed, policy, left
                waiting.add(start(self._peers.ask(node, "request_user", *arguments, timeout=left)))

        names = [topic_of(room_of_user(user))]
        patience = min(timeout, self._limits.publish_timeout)
        search = start(self._peers.ask_all("count", names, timeout=patience, heard=heard))
        waiting.add(search)
        replies: list[Any] = []
        errors: list[SymphonyError] = []
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                waiting.difference_update(done)
                for task in done:
                    try:
                        answers = task.result()
                        if task is not search:
                            replies += [self._read(event, each, response_type) for each in answers]
                    except SymphonyError as error:
                        errors.append(error)
                if replies and policy == "first":
                    return replies[:1]
        finally:
            for task in waiting:
                task.cancel()
            # A request that is withdrawn tells its client so.
            await asyncio.gather(*waiting, return_exceptions=True)
        return replies_or_error(replies, errors, policy, user)

    def close_user(self, user: str, code: int, reason: str) -> Awaitable[None]:
        """See `Others.close_user`."""
        timeout = self._limits.publish_timeout
        closing = start(self._peers.ask_all("close_user", user, code, reason, timeout=timeout, keeps=True))
        report = partial(self._failed, f"close of user {user!r}")
        return _Passed(closing, report, lambda _: self._node.rooms.paced())

    async def revoke(self, user: str) -> None:
        """See `Others.revoke`."""
        await self._peers.ask_all("revoke", user, timeout=self._patience, keeps=True)

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

    def _request_user_here(
        self, user: str, event: str, data: Any, policy: str, timeout: float
    ) -> Coroutine[Any, Any, list[Unread]]:
        sockets = self._node.user(user).sockets
        return ask_sockets(sockets, event, data, policy=policy, timeout=timeout, response_type=Unread)

    def _close_user_here(self, user: str, code: int, reason: str) -> None:
        for socket in self._node.logged_in_as(user):
            socket.close(code, reason)

    def _revoke_here(self, user: str) -> Coroutine[Any, Any, None]:
        return self._node.revoke_here(user)

    def _node_of(self, socket: str) -> str | None:
        """Return the node of a socket; `None`: it can only be on this one."""
        node = node_of(socket)
        return None if node == self._peers.node else node

    def _told(self, socket: str, what: str, told: asyncio.Future[int]) -> None:
        if not told.cancelled() and told.exception() is None and told.result() == 0:
            self._node.undelivered(no_open_socket(socket, what))

    def _failed(self, what: str, error: BaseException) -> None:
        self._report(error, what)

    def _read(self, event: str, reply: tuple[str, bytes], response_type: Any) -> Any:
        return read_reply(event, Unread(*reply), response_type, self._limits.max_elements)

    def _check(self, event: object, timeout: float, response_type: Any) -> None:
        """Refuse here what the node of the socket would refuse."""
        if not isinstance(event, str):
            raise TypeError(f"The name of an event is text, not {event!r}.")
        if not 0 < timeout <= MAX_TIMEOUT:
            raise ValueError(f"timeout must be above 0 and at most {MAX_TIMEOUT} seconds, not {timeout!r}.")
        reply_readers(response_type, self._limits.max_elements)


class _Passed(Outcome[Any]):
    """The outcome of a call without a result."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        yield from super().__await__()


def _packed(data: object) -> Raw:
    try:
        return Raw(encode_msgpack(data))
    except Exception as error:
        fail_to_encode(error, data)


def _not_open(socket: str) -> Reject:
    return Reject("not_found", "the socket is not open", details={"socket": socket})
