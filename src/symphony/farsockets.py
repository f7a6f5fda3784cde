"""Sockets of other nodes: this process sends to them and closes them, at most once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from symphony.errors import DisconnectedError, check_close_code
from symphony.outgoing.encoding import Emitted, Sent
from symphony.protocol.codec import encode_msgpack
from symphony.protocol.unencodable import fail_to_encode
from symphony.rooms.outcomes import Passed
from symphony.rooms.topics import node_of

if TYPE_CHECKING:
    from symphony.broker.peers import Peers

__all__ = ("FarSocket", "FarSockets", "no_open_socket", "packed")


class FarSockets:
    """Reaches the sockets of other nodes.

    Args:
        peers: Asks the other nodes.
        paced: Returns what a call awaits that may be repeated in a loop.
        undelivered: Called with the error of a message whose socket is not there.
        report: Called with the exception of a call that is not awaited, and what it was.
    """

    def __init__(
        self,
        peers: Peers,
        paced: Callable[[], Awaitable[None]],
        undelivered: Callable[[DisconnectedError], object],
        report: Callable[[BaseException, str], object],
    ) -> None:
        self._peers = peers
        self._paced = paced
        self._undelivered = undelivered
        self._report = report

    def node_of(self, socket: str) -> str | None:
        """Return the node of a socket; `None`: it can only be on this one."""
        node = node_of(socket)
        return None if node == self._peers.node else node

    def send(self, socket: str, message: Sent | Emitted) -> Awaitable[None]:
        """Send a message or an event. The node of the socket reports if it is not there."""
        what = "message" if message.event is None else f"event {message.event!r}"
        node = self.node_of(socket)
        if node is None:
            self._undelivered(no_open_socket(socket, what))
            return self._paced()
        told = self._peers.tell(node, "send", socket, message.event, packed(message.plain))
        if isinstance(told, asyncio.Future):
            told.add_done_callback(partial(self._told, socket, what))
        report = partial(self._failed, f"{what} to a socket on another node")
        return Passed(told, report, lambda _: self._paced())

    def close(self, socket: str, code: int, reason: str) -> Awaitable[None]:
        """Close a socket. If it is not there, this does nothing."""
        node = self.node_of(socket)
        if node is None:
            return self._paced()
        told = self._peers.tell(node, "close", socket, code, reason)
        return Passed(told, partial(self._failed, "close of a socket"), lambda _: self._paced())

    def _told(self, socket: str, what: str, told: asyncio.Future[int]) -> None:
        if not told.cancelled() and told.exception() is None and told.result() == 0:
            self._undelivered(no_open_socket(socket, what))

    def _failed(self, what: str, error: BaseException) -> None:
        self._report(error, what)


class FarSocket:
    """One socket of another node by its id, for a process that has none.

    Args:
        sockets: Reaches it.
        id: Its id.
    """

    __slots__ = ("_id", "_sockets")

    def __init__(self, sockets: FarSockets, id: str) -> None:
        self._sockets = sockets
        self._id = id

    def send(self, message: object) -> Awaitable[None]:
        """Send a message, as `SocketTarget.send`."""
        return self._sockets.send(self._id, Sent(message))

    def emit(self, event: str, data: object = None) -> Awaitable[None]:
        """Send an event, as `SocketTarget.emit`."""
        return self._sockets.send(self._id, Emitted(event, data))

    def close(self, code: int = 1000, reason: str = "") -> Awaitable[None]:
        """Close the connection, as `SocketTarget.close`."""
        check_close_code(code)
        return self._sockets.close(self._id, code, reason)


def no_open_socket(id: str, what: str) -> DisconnectedError:
    """Return the error of what was sent to a socket that is not open."""
    return DisconnectedError(f"There is no open socket {id!r}: the {what} was not sent.")


def packed(data: Any) -> Raw:
    """Return data as it is sent to another node.

    Raises:
        TypeError: It cannot be encoded.
    """
    try:
        return Raw(encode_msgpack(data))
    except Exception as error:
        fail_to_encode(error, data)
