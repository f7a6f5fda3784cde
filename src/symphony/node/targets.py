"""What an app can send to, besides rooms: users, single sockets, the sockets of a route."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from symphony.node.others import OtherNodes
from symphony.outgoing.batch import Batch
from symphony.rooms.topics import EVERYONE_TOPIC
from symphony.socket import recipient_of
from symphony.targets import Group, SocketTarget
from symphony.userrooms import join_all, leave_all
from symphony.users import User, Users

if TYPE_CHECKING:
    from symphony.broker.peers import Peers
    from symphony.complaints import Complaints
    from symphony.errors import DisconnectedError
    from symphony.limits import Limits
    from symphony.node.logins import Logins
    from symphony.rooms.membership import Membership
    from symphony.rooms.target import Target
    from symphony.routing.handlers import Handlers
    from symphony.session.endpoint import Endpoint
    from symphony.session.session import Session
    from symphony.socket import Socket
    from symphony.stats import Stats

__all__ = ("ReachingNode", "Targets")

logger = logging.getLogger("symphony.app")

T = TypeVar("T")


class ReachingNode(Protocol):
    """What targets need of their node."""

    complaints: Complaints
    limits: Limits
    logins: Logins
    rooms: Membership
    sockets: dict[str, Socket[Any]]
    stats: Stats

    @property
    def sessions(self) -> Collection[Session]:
        """All sockets, also those that are not open yet."""
        ...

    def report(self, error: BaseException, socket: Socket[Any] | None, where: str) -> None:
        """Log what was raised, and hand it to the app's error handler."""
        ...

    def tell(self, error: BaseException, socket: Socket[Any] | None) -> None:
        """Hand an error to the app's error handlers."""
        ...

    def run_in_background(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a task of the app's until it stops."""
        ...


class Targets:
    """Makes the targets of a node.

    Args:
        node: The node.

    Attributes:
        rooms: The rooms of the node.
        sockets: The open sockets by id.
        others: The other nodes; `None` if there can be none.
    """

    def __init__(self, node: ReachingNode) -> None:
        self.rooms = node.rooms
        self.others = None if node.rooms.peers is None else self._reaching(node, node.rooms.peers)
        self.sockets = node.sockets
        self._node = node
        self._groups: dict[Handlers, Batch] = {}
        # The routes and routers by the names that all nodes give them.
        self._named: dict[str, Handlers] = {}
        self._keys: dict[Handlers, str] = {}
        self.rooms.group = self._batch_named
        self.rooms.sockets_named = self._sockets_named

    def named(self, groups: Iterable[Handlers]) -> Iterable[Handlers]:
        """Give names to the routes and routers of the app, which are the same on all nodes; return them."""
        for group in groups:
            name, number = str(group), 1
            while name in self._named:
                # Two routers may have routes with the same path.
                number += 1
                name = f"{group}#{number}"
            self._named[name] = group
            self._keys[group] = name
        return self._keys

    def _reaching(self, node: ReachingNode, peers: Peers) -> OtherNodes:
        def report(error: BaseException, what: str) -> None:
            node.report(error, None, what)

        return OtherNodes(peers, self, node.limits, report)

    def opened(self, socket: Socket[Any], endpoint: Endpoint) -> None:
        """Let an open socket receive what is sent to everyone of its route and its routers."""
        for group, batch in self._groups.items():
            if _reaches(group, endpoint):
                self.rooms.batches.add(batch, recipient_of(socket), socket)

    def everyone_of(self, group: Handlers) -> Target:
        """Return all open sockets of a route, or of the routes of a router."""
        return Group(self.rooms, self._batch_of(group), str(group), self._keys[group])

    def _batch_of(self, group: Handlers) -> Batch:
        batch = self._groups.get(group)
        if batch is None:
            # Only from the first use on is there something to do for it at each opening.
            batch = self._groups[group] = Batch()
            for session in self._node.sessions:
                socket = session.socket
                if socket.id in self.sockets and socket.connected and _reaches(group, session.endpoint):
                    self.rooms.batches.add(batch, recipient_of(socket), socket)
        return batch

    def _batch_named(self, name: str) -> Batch | None:
        group = self._named.get(name)
        return None if group is None else self._batch_of(group)

    def _sockets_named(self, name: str) -> tuple[Socket[Any], ...]:
        """Return the sockets of this node that have a name of `rooms/topics.py`."""
        kind, _, rest = name.partition(":")
        if kind == "socket":
            return self.socket(rest).sockets
        batch = self._batch_named(name)
        if batch is None and (name == EVERYONE_TOPIC or kind == "room"):
            batch = self.rooms.batch(rest)
        return () if batch is None else tuple(batch.owners)

    def socket(self, id: str) -> SocketTarget:
        """Return a handle of a socket."""
        return SocketTarget(self, id)

    def user(self, id: str) -> User:
        """Return a handle of a user.

        Raises:
            Reject: `invalid`: no room can have the name of the user's.
        """
        if not isinstance(id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"The id of a user is text, not {id!r}.")
        self.rooms.check_user(id)
        return User(self, id)

    def users(self, ids: Iterable[str]) -> Users:
        """Return a handle of several users."""
        return Users(self.rooms, map(self.user, ids))

    def logged_in_as(self, id: str) -> tuple[Socket[Any], ...]:
        """Return the sockets of a user, also those that are not open yet."""
        return self._node.logins.sockets(id)

    async def revoke(self, id: str) -> None:
        """Ask again whether the sockets of a user may be in their rooms, on all nodes."""
        await _on_all_nodes(self.revoke_here(id), None if self.others is None else self.others.revoke(id))

    async def join_user(self, id: str, name: str) -> int:
        """Let the sockets of a user join a room, on all nodes; return how many are in it."""
        elsewhere = None if self.others is None else self.others.join_user(id, name)
        return sum(await _on_all_nodes(self.join_user_here(id, name), elsewhere))

    async def leave_user(self, id: str, name: str) -> int:
        """Let the sockets of a user leave a room, on all nodes; return how many were in it."""
        elsewhere = None if self.others is None else self.others.leave_user(id, name)
        return sum(await _on_all_nodes(self.leave_user_here(id, name), elsewhere))

    async def join_user_here(self, id: str, name: str) -> int:
        """Let the sockets of a user on this node join a room; return how many are in it."""
        return await join_all(self.logged_in_as(id), name)

    async def leave_user_here(self, id: str, name: str) -> int:
        """Let the sockets of a user on this node leave a room; return how many were in it."""
        return await leave_all(self.logged_in_as(id), name)

    async def revoke_here(self, id: str) -> None:
        """Ask again whether the sockets of a user on this node may be in their rooms."""
        await self.rooms.revoke(self.logged_in_as(id))

    def revocations_missed(self) -> None:
        """Ask again about all sockets: this node may not have heard whose rights have changed."""
        node = self._node
        node.run_in_background(self.rooms.revoke([session.socket for session in node.sessions]))

    def undelivered(self, error: DisconnectedError) -> None:
        """Log that a message had no socket to go to, and tell the error handlers."""
        node = self._node
        node.stats.undelivered += 1
        node.complaints.log(logger, logging.WARNING, "%s", error, kind="undelivered")
        node.tell(error, None)


async def _on_all_nodes(here: Coroutine[Any, Any, T], elsewhere: Coroutine[Any, Any, T] | None) -> list[T]:
    """Return the results, each to its end, also if the other fails."""
    if elsewhere is None:
        return [await here]
    results = await asyncio.gather(here, elsewhere, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("list[T]", results)


def _reaches(group: Handlers, endpoint: Endpoint) -> bool:
    """Return whether the sockets of a route are part of everyone of a route or a router."""
    return group in endpoint.inside and (endpoint.everyone or group is endpoint.inside[-1])
