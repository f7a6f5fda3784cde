"""Publishing from other processes: `app.publisher()`."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from symphony.broker.engines import (
    check,
    is_in_redis,
    name_beside,
    open_broker,
    presence_beside,
    reachable_at,
    shown,
)
from symphony.complaints import MAX_FAILURES, Complaint
from symphony.errors import BrokerUnavailableError, WrongThreadError
from symphony.farsockets import FarSocket, FarSockets
from symphony.limits import Limits
from symphony.outsidetargets import OutsideEveryone, OutsideRoom, OutsideSocket, OutsideUser, OutsideUsers
from symphony.rooms.joining import FindFamily
from symphony.rooms.sharedmembership import SharedMembership
from symphony.rooms.target import Target
from symphony.stats import Stats
from symphony.targets import Others, SocketTarget
from symphony.userrooms import change_elsewhere
from symphony.users import User, Users

if TYPE_CHECKING:
    from types import TracebackType

    from symphony.broker.base import Broker
    from symphony.publishertargets import (
        AsyncPublisherRoom,
        AsyncPublisherSocket,
        AsyncPublisherTarget,
        AsyncPublisherUser,
        AsyncPublisherUsers,
        PublisherRoom,
        PublisherSocket,
        PublisherTarget,
        PublisherUser,
        PublisherUsers,
    )
    from symphony.socket import Socket

__all__ = ("AsyncPublishing", "Publisher", "Publishing")

logger = logging.getLogger("symphony.app")

T = TypeVar("T")


class Publisher:
    """Publishes to the rooms of a running server, from another process: see `app.publisher`.

    Args:
        url: The URL of the broker of the server.
        families: Returns what finds the family of a room.
        limits: The limits of the app.
    """

    def __init__(self, url: str, families: Callable[[], FindFamily], limits: Limits) -> None:
        check(url)
        self._url = url
        self._families = families
        self._limits = limits
        self._async: AsyncPublishing | None = None
        self._blocking: Publishing | None = None

    async def __aenter__(self) -> AsyncPublishing:
        self._refuse_twice()
        self._async = await self._opened()
        return self._async

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        publishing, self._async = self._async, None
        assert publishing is not None
        await publishing.close()

    def __enter__(self) -> Publishing:
        self._refuse_twice()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise WrongThreadError(
                "`with app.publisher()` would block the event loop. Use `async with` here."
            )
        self._blocking = Publishing(self._opened)
        return self._blocking

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        publishing, self._blocking = self._blocking, None
        assert publishing is not None
        publishing.close()

    async def _opened(self) -> AsyncPublishing:
        url = reachable_at(self._url)
        try:
            broker = await open_broker(url, self._limits)
        except BrokerUnavailableError:
            if is_in_redis(url):
                raise
            raise BrokerUnavailableError(
                f"The broker {shown(url)} cannot be reached. Is the server running? With `symphony run "
                "--workers 2 --data DIR`, its broker is sqlite:///DIR/rooms.db."
            ) from None
        publishing = AsyncPublishing(broker, self._families(), self._limits)
        try:
            await publishing.start()
        except BaseException:
            await publishing.rooms.close(timeout=0)
            raise
        return publishing

    def _refuse_twice(self) -> None:
        if self._async is not None or self._blocking is not None:
            raise RuntimeError("This publisher is open already. Call app.publisher() for another one.")


class AsyncPublishing:
    """What `async with app.publisher()` gives: the targets, with verbs to await.

    Each verb takes its place in the order in the call. The end of the block waits for
    what was not awaited.
    """

    def __init__(self, broker: Broker, find_family: FindFamily, limits: Limits) -> None:
        self._broker = broker
        self._waiting: set[asyncio.Future[Any]] = set()
        self.rooms = SharedMembership(
            find_family,
            self._background,
            self._report,
            broker=broker,
            stats=Stats(),
            store=presence_beside(broker),
            node=name_beside(broker),
            has_members=False,
            limits=limits,
        )
        # It asks no client.
        self.others: Others | None = None
        assert self.rooms.peers is not None
        self._peers = self.rooms.peers
        self._patience = limits.publish_timeout + limits.finish_timeout
        self._far = FarSockets(
            self._peers,
            self.rooms.paced,
            self.undelivered,
            lambda error, what: self._report(error, None, what),
        )
        self._lost = Complaint(logger, logging.WARNING, "%s", most=MAX_FAILURES)
        # This process has no sockets.
        self.sockets: dict[str, Socket[Any]] = {}

    async def start(self) -> None:
        """Begin to hear the answers of the nodes."""
        await self._peers.start(is_asked=False)

    @property
    def everyone(self) -> AsyncPublisherTarget:
        """All open sockets of the app, as `app.everyone`."""
        target = Target(self.rooms, "")
        return OutsideEveryone(self, "publisher.everyone", lambda: target)

    def room(self, name: str) -> AsyncPublisherRoom:
        """Return a handle of a room, as `app.room`.

        Raises:
            Reject: `invalid`: no room can have this name.
        """
        room = self.rooms.room(name)
        return OutsideRoom(self, f"publisher.room({name!r})", lambda: room)

    def user(self, id: str) -> AsyncPublisherUser:
        """Return a handle of a user, as `app.user`.

        Raises:
            Reject: `invalid`: no user can have this id.
        """
        self.rooms.check_user(id)
        return OutsideUser(self, f"publisher.user({id!r})", lambda: User(self, id))

    def socket(self, id: str) -> AsyncPublisherSocket:
        """Return a handle of a socket at any worker, whether or not it is open, as `app.socket`."""
        return OutsideSocket(self, f"publisher.socket({id!r})", lambda: self.far_socket(id), id)

    def users(self, *ids: str) -> AsyncPublisherUsers:
        """Return a handle of several users, as `app.users`."""
        for id in ids:
            self.rooms.check_user(id)
        users = Users(self.rooms, [User(self, id) for id in ids])
        return OutsideUsers(self, "publisher.users(…)", lambda: users)

    def far_socket(self, id: str) -> FarSocket:
        """Return what sends to a socket of another process."""
        return FarSocket(self._far, id)

    def call(
        self,
        where: str,
        target: Callable[[], Any],
        verb: Callable[[Any], Awaitable[T]],
        extra: float | None,
    ) -> Awaitable[T]:
        """Call a verb at once: see `Calls.call`."""
        return self.waiting(verb(target()))

    def taken(self, value: object) -> object:
        """Return a message, which is encoded in the call."""
        return value

    def left_out(self, ids: Iterable[str]) -> list[SocketTarget]:
        """Return the sockets with these ids, on all nodes."""
        return [SocketTarget(self, id) for id in ids]

    def waiting(self, result: Awaitable[T]) -> asyncio.Future[T]:
        """Wait for the result of a call, also at the end of the block."""

        async def wait() -> T:
            return await result

        task = asyncio.ensure_future(wait())
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        return task

    async def close(self) -> None:
        """Wait for what was published, and disconnect."""
        try:
            if self._waiting:
                await asyncio.wait(self._waiting)
            # What was relayed is not answered. The answer to this call comes after it.
            await self._broker.before("-", None, limit=1)
        except BrokerUnavailableError as error:
            logger.warning("The publisher ends, and the broker may not have got everything: %s", error)
        finally:
            await self.rooms.close(timeout=0)

    def logged_in_as(self, id: str) -> tuple[Socket[Any], ...]:
        """Return the sockets of a user in this process: none."""
        return ()

    async def revoke(self, id: str) -> None:
        """Do nothing: there are no sockets in this process."""

    async def join_user(self, id: str, name: str) -> int:
        """Let the sockets of a user join a room; return how many are in it."""
        return await change_elsewhere(self._peers, "join_user", id, name, self._patience)

    async def leave_user(self, id: str, name: str) -> int:
        """Let the sockets of a user leave a room; return how many were in it."""
        return await change_elsewhere(self._peers, "leave_user", id, name, self._patience)

    def undelivered(self, error: BaseException) -> None:
        """Log that a message was sent to a socket that is not open."""
        self._lost.log(error)

    def _background(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.ensure_future(coroutine)

    def _report(self, error: BaseException, socket: Any, where: str) -> None:
        logger.error("The %s failed: %r", where, error)


class Publishing:
    """What `with app.publisher()` gives: the targets, with verbs that block.

    You may use it in several threads.
    """

    def __init__(self, opened: Callable[[], Awaitable[AsyncPublishing]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="symphony-publisher", daemon=True)
        self._thread.start()
        try:
            self._publishing = self.run(opened)
        except BaseException:
            self._end()
            raise

    @property
    def everyone(self) -> PublisherTarget:
        """All open sockets of the app, as `app.everyone`."""
        return OutsideEveryone(self, "publisher.everyone", lambda: Target(self._publishing.rooms, ""))

    def room(self, name: str) -> PublisherRoom:
        """Return a handle of a room, as `app.room`.

        Raises:
            Reject: `invalid`: no room can have this name.
        """
        self._publishing.rooms.room(name)
        return OutsideRoom(self, f"publisher.room({name!r})", lambda: self._publishing.rooms.room(name))

    def user(self, id: str) -> PublisherUser:
        """Return a handle of a user, as `app.user`.

        Raises:
            Reject: `invalid`: no user can have this id.
        """
        self._publishing.rooms.check_user(id)
        return OutsideUser(self, f"publisher.user({id!r})", lambda: User(self._publishing, id))

    def socket(self, id: str) -> PublisherSocket:
        """Return a handle of a socket at any worker, whether or not it is open, as `app.socket`."""
        return OutsideSocket(self, f"publisher.socket({id!r})", lambda: self._publishing.far_socket(id), id)

    def users(self, *ids: str) -> PublisherUsers:
        """Return a handle of several users, as `app.users`."""
        for id in ids:
            self._publishing.rooms.check_user(id)

        def users() -> Users:
            return Users(self._publishing.rooms, [User(self._publishing, id) for id in ids])

        return OutsideUsers(self, "publisher.users(…)", users)

    def call(
        self,
        where: str,
        target: Callable[[], Any],
        verb: Callable[[Any], Awaitable[T]],
        extra: float | None,
    ) -> T:
        """Run a call in the thread of the publisher: see `Calls.call`."""
        return self.run(lambda: verb(target()))

    def taken(self, value: object) -> object:
        """Return a message: the call blocks until it is encoded."""
        return value

    def left_out(self, ids: Iterable[str]) -> list[SocketTarget]:
        """Return the sockets with these ids, on all nodes."""
        return self._publishing.left_out(ids)

    def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run a call in the thread of the publisher, and return its result."""

        async def run() -> T:
            return await call()

        if not self._thread.is_alive():
            raise RuntimeError("This publisher is closed.")
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def close(self) -> None:
        """Disconnect."""
        try:
            self.run(self._publishing.close)
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
