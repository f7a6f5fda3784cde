"""Users as targets: one user, and several at once."""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Literal, overload

from typing_extensions import TypeForm, TypeVar

from symphony.errors import check_close_code
from symphony.identity import room_of_user
from symphony.outgoing.encoding import Content, Emitted, Once, Sent
from symphony.polling import Policy, Poll
from symphony.rooms.excluding import Excluded, left_out_of
from symphony.rooms.options import PLAIN, Delivery, delivery_of
from symphony.rooms.target import RoomTable, RoomTarget
from symphony.rooms.topics import topic_of
from symphony.targets import TargetNode, check_thread

if TYPE_CHECKING:
    from symphony.socket import Socket

__all__ = ("User", "Users")

ReplyT = TypeVar("ReplyT", default=Any)


class User(RoomTarget):
    """All sockets that are logged in as one user, as one room: `user:{id}`.

    `app.user(id)` returns it, whether or not the user has a socket.

    Attributes:
        id: The id of the user.
        name: The name of the room.
    """

    __slots__ = ("_node", "id")

    def __init__(self, node: TargetNode, id: str) -> None:
        super().__init__(node.rooms, room_of_user(id))
        self._node = node
        self.id = id

    @overload
    async def request(
        self,
        event: str,
        data: object = None,
        *,
        policy: Literal["first"] = "first",
        timeout: float = 5.0,
        response_type: TypeForm[ReplyT] = Any,
    ) -> ReplyT: ...

    @overload
    async def request(
        self,
        event: str,
        data: object = None,
        *,
        policy: Literal["quorum", "all"],
        timeout: float = 5.0,
        response_type: TypeForm[ReplyT] = Any,
    ) -> list[ReplyT]: ...

    async def request(
        self,
        event: str,
        data: object = None,
        *,
        policy: Policy = "first",
        timeout: float = 5.0,
        response_type: Any = Any,
    ) -> Any:
        """Ask the clients of the user, and wait for one reply or for several.

        All sockets are asked at the same time. Sockets of raw routes are not asked.

        Args:
            event: The name of the event that the clients answer.
            data: What their protocols can encode.
            policy: `"first"` returns the first reply, and withdraws the other requests.
                `"quorum"` returns the replies of more than half of the clients, as soon as
                they are there, and withdraws the other requests. `"all"` returns the
                replies of all clients that are still there. Lists have the order in which
                the clients logged in.
            timeout: Seconds to wait for the replies.
            response_type: What each reply must be, as in `Socket.request`.

        Raises:
            Reject: `not_found`: the user has no open socket.
            RemoteError: A client answered with an error. With `"first"`: all of them. With
                `"quorum"`: so many that there cannot be enough replies.
            RequestTimeoutError: The same, for replies that did not arrive in time.
            DisconnectedError: All sockets were closed meanwhile. With `"quorum"`: so many.
            WrongRouteError: All sockets are on raw routes.
            WrongThreadError: Called from another thread than the app's.
        """
        self._check_thread("request")
        poll, others = Poll(self.id, policy), self._node.others
        if others is None and not self.sockets:
            # Nothing else would suspend.
            await self._table.paced()
        options: dict[str, Any] = {"timeout": timeout, "response_type": response_type}
        for socket in self.sockets:
            poll.ask(socket.request(event, data, **options))
        search = None if others is None else others.ask_user(self.id, event, data, ask=poll.ask, **options)
        replies = await poll.replies(search)
        return replies[0] if policy == "first" else replies

    async def join(self, name: str) -> int:
        """Let all sockets of the user join a room, as `Socket.join` with `authorize=False`.

        Each client is told. What later sockets of the user join, their own handlers decide.

        Args:
            name: Full name of the room.

        Returns:
            How many sockets of the user are in the room now, on all nodes.

        Raises:
            Reject: A socket was refused, as in `Socket.join`; the others have joined. Rooms
                with a home refuse sockets of other nodes with `elsewhere`.
            BrokerUnavailableError: The other nodes could not be asked.
            RequestTimeoutError: A node has not answered in time; it may do it later.
            WrongThreadError: Called from another thread than the app's.
        """
        self._check_thread("join")
        # A handler may call it in a loop.
        await self._table.paced()
        return await self._node.join_user(self.id, name)

    async def leave(self, name: str) -> int:
        """Let all sockets of the user leave a room, as `Socket.leave`. Each client is told.

        Nothing keeps them from joining again: for that, see `revoke`.

        Returns:
            How many sockets of the user were in the room, on all nodes.

        Raises:
            BrokerUnavailableError: The other nodes could not be asked.
            RequestTimeoutError: A node has not answered in time; it may do it later.
            WrongThreadError: Called from another thread than the app's.
        """
        self._check_thread("leave")
        # A handler may call it in a loop.
        await self._table.paced()
        return await self._node.leave_user(self.id, name)

    def close(self, code: int = 1000, reason: str = "") -> Awaitable[None]:
        """Close all sockets of the user, as `Socket.close`.

        Args:
            code: 1000, another code of RFC 6455 that may be sent, or 3000-4999.
            reason: For the peer; cut at 123 bytes.

        Raises:
            ValueError: The code must not be sent.
            WrongThreadError: Called from another thread than the app's.
        """
        self._check_thread("close")
        check_close_code(code)
        for socket in self._node.logged_in_as(self.id):
            socket.close(code, reason)
        others = self._node.others
        return self._table.paced() if others is None else others.close_user(self.id, code, reason)

    async def revoke(self) -> None:
        """End the memberships of the user that `authorize` does not allow any more.

        Call it when a right of the user has changed. It asks `authorize` again for each
        room that a socket of the user is in, except after joins with `authorize=False`.
        After a "no", the socket has left the room, and its client is told why. If
        `authorize` fails, this is a "no" as well.

        When this returns, nothing that needs the old right is handled any more. A join
        that is under way asks again, too.

        Raises:
            WrongThreadError: Called from another thread than the app's.
        """
        self._check_thread("revoke")
        await self._node.revoke(self.id)
        # A handler may call it in a loop.
        await self._table.paced()

    @property
    def _shown_threadsafe(self) -> str:
        return f"app.threadsafe.user({self.id!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, User) and other.id == self.id and other._table is self._table

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<User {self.id}>"


class Users:
    """Several users as one target: `app.users(*ids)`. A message to them is encoded once.

    Attributes:
        ids: The ids of the users, each once.
    """

    __slots__ = ("_table", "_users", "ids")

    def __init__(self, table: RoomTable, users: Iterable[User]) -> None:
        self._table = table
        self._users = tuple(dict.fromkeys(users))
        self.ids = tuple(user.id for user in self._users)

    def send(self, message: object, *, exclude: Excluded = (), transient: bool = False) -> Awaitable[None]:
        """Send a message to each of the users, as `User.send`.

        Args:
            message: Text and bytes are sent unchanged, anything else as JSON.
            exclude: As in `Room.send`.
            transient: As in `Room.send`.

        Raises:
            WrongThreadError: Called from another thread than the app's.
            TypeError: The message cannot be encoded.
            ValueError: *exclude* for a publication that is kept.
        """
        return self._publish("send", Sent(message), exclude, delivery_of(transient))

    def emit(
        self, event: str, data: object = None, *, exclude: Excluded = (), transient: bool = False
    ) -> Awaitable[None]:
        """Send an event to each of the users; otherwise as `send`."""
        return self._publish("emit", Emitted(event, data), exclude, delivery_of(transient))

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(topic_of(user.name) for user in self._users)

    @property
    def sockets(self) -> tuple[Socket[Any], ...]:
        """The sockets of this process that are logged in as one of the users."""
        return tuple(socket for user in self._users for socket in user.sockets)

    def count(self) -> Awaitable[int]:
        """Return how many sockets the users have.

        Raises:
            WrongThreadError: Called from another thread than the app's.
        """
        self._check_thread("count")
        return self._count()

    async def _count(self) -> int:
        await self._table.paced()
        here = len(self.sockets)
        return here + await self._table.count_elsewhere(self._names)

    _count.__qualname__ = "Users.count"

    def _publish(
        self, verb: str, publication: Sent | Emitted, exclude: Excluded, delivery: Delivery
    ) -> Awaitable[None]:
        self._check_thread(verb)
        left_out = left_out_of(exclude)
        once = Once(publication)
        content: Content | None = None
        kept: list[Awaitable[Any]] = []
        for user in self._users:
            batch = self._table.batch(user.name)
            if batch is not None and batch.direct and delivery is PLAIN:
                self._table.publish(batch, once, left_out)
                continue
            message: Content | Once = once
            if self._table.keeps(user.name) or (batch is not None and batch.announced):
                message = content = Content.of(publication) if content is None else content
            kept.append(self._table.announce(user.name, message, left_out, delivery))
        paced = self._table.paced()
        return _Kept(kept, paced) if kept else paced

    def _check_thread(self, verb: str) -> None:
        check_thread(self._table, f"{self!r}.{verb}()", f"app.threadsafe.users(…).{verb}(…)")

    def __repr__(self) -> str:
        return f"<Users {', '.join(self.ids)}>"


class _Kept:
    """The result of a message to several users, of which some have a history."""

    __slots__ = ("_paced", "_publications")

    def __init__(self, publications: Iterable[Awaitable[Any]], paced: Awaitable[None]) -> None:
        self._publications = publications
        self._paced = paced

    def __await__(self) -> Generator[Any, Any, None]:
        for publication in self._publications:
            yield from publication.__await__()
        yield from self._paced.__await__()
