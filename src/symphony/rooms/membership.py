"""The rooms of a node: what their handles, the sessions and the node use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

from symphony.broker.base import Broker
from symphony.broker.peers import Peers
from symphony.broker.presence import PresenceStore
from symphony.errors import Reject
from symphony.identity import is_of_user, room_of_user
from symphony.outgoing.batch import Batch, Batches, Recipient
from symphony.outgoing.encoding import Content, Emitted, Once, Sent
from symphony.protocol.envelopes import Join, Publish, ReadCount, ReadHistory, ReadPresence
from symphony.protocol.positions import Position
from symphony.protocol.rosters import MembersState
from symphony.rooms.announcing import Announcing
from symphony.rooms.changes import Changes
from symphony.rooms.clients import ClientRooms
from symphony.rooms.joining import FindFamily, Joining
from symphony.rooms.leave import Leave
from symphony.rooms.leaving import Leaving
from symphony.rooms.listening import Listening
from symphony.rooms.lives import Lives
from symphony.rooms.members import Member, Presence
from symphony.rooms.membertable import MemberTable
from symphony.rooms.opening import Opening
from symphony.rooms.options import Delivery
from symphony.rooms.places import Place, Places, place_of
from symphony.rooms.publishing import Publication, Publishing, terms_of
from symphony.rooms.relaying import Relaying
from symphony.rooms.revoking import Revoking
from symphony.rooms.room import Room, check_room_name
from symphony.rooms.snapshots import Snapshots

if TYPE_CHECKING:
    from symphony.identity import Identity
    from symphony.limits import Limits
    from symphony.socket import Socket
    from symphony.stats import Stats

__all__ = ("Membership",)

EVERYONE = ""


class Membership:
    """The table of the rooms of a node, and of who is in them.

    Attributes:
        thread: The thread of the event loop.
        batches: The batches of the node.
        everyone: The open sockets that `app.everyone` reaches.
        group: Returns the sockets of a route or router by its name.
        sockets_named: Returns the sockets of this node by a name of `rooms/topics.py`.
        peers: The other nodes; `None` if there can be none.

    Args:
        find_family: The family and parameters of a room's name.
        background: Starts a task of the app's whose exception is reported.
        report: Called with the exception of a hook that no caller awaits.
        broker: Keeps the histories; `None`: no family has one.
        stats: Counts what happens.
        store: Knows the members.
        node: The name of the node.
        has_members: Whether a family has members, or a home.
        limits: The limits of the app.
    """

    def __init__(
        self,
        find_family: FindFamily,
        background: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        report: Callable[[BaseException, Any, str], None],
        *,
        broker: Broker | None,
        stats: Stats,
        store: PresenceStore,
        node: str,
        has_members: bool,
        limits: Limits,
    ) -> None:
        self.thread = get_ident()
        self.group: Callable[[str], Batch | None] = lambda name: None
        self.sockets_named: Callable[[str], Iterable[Socket[Any]]] = lambda name: ()
        self.batches = batches = Batches(asyncio.get_running_loop().call_soon, self._not_encoded)
        self.everyone = Batch(EVERYONE)
        self._find_family = find_family
        self._report = report
        self._max_name = limits.max_room_name
        self._broker = broker
        self._timeout, self._patience = limits.publish_timeout, limits.finish_timeout
        self._store = store
        self._changes = changes = Changes()
        handle = partial(Room, self)
        snapshots = Snapshots(handle, report)
        announcing = Announcing(batches, background, snapshots, limits.max_recovery, limits.page_timeout)
        is_shared = broker is not None and broker.shared
        self._relaying = relaying = None
        self.peers: Peers | None = None
        if broker is not None and is_shared:
            self._relaying = relaying = Relaying(
                broker, self._not_relayed, lambda name: self.sockets_named(name)
            )
            self.peers = Peers(broker, node, lambda error, what: report(error, None, what))
        self._publishing = publishing = Publishing(
            broker,
            batches,
            lambda name: find_family(name)[0],
            report,
            relaying=relaying,
            timeout=self._timeout,
        )
        self._lives = lives = Lives(
            handle,
            background,
            report,
            self._not_encoded,
            batches=batches,
            broker=broker,
            stats=stats,
            follow=announcing.follow,
            relaying=relaying,
            heard=publishing.hand,
            patience=self._patience,
        )
        self._members = members = MemberTable(
            store, node, lives, handle, lambda name: find_family(name)[0], background, report
        )
        seating = members.seating
        self.hurry = lives.hurry
        self._leaving = Leaving(lives, changes, announcing, batches, seating, report)
        if has_members:
            members.start(self._leaving)
        self.begin = members.begin
        self._clients = ClientRooms(lives.rooms, handle, self._publishing)
        listening = Listening(find_family, lives, announcing, batches, stats, limits.max_listener_bytes)
        self.listen = listening.listen
        self.end_listeners = listening.end_all
        self._opening = Opening(
            find_family, lives, self._leaving, listening.end, seating, background, self._patience
        )
        self._joining = Joining(
            find_family,
            handle,
            lives,
            changes,
            announcing,
            self._leaving,
            seating,
            snapshots,
            is_shared=is_shared,
        )
        self._places = Places(find_family, handle, lives, changes, self._joining)
        self._revoking = Revoking(handle, lives, changes, self._leaving, report)
        # The rooms that exist: each publication looks one up.
        self._rooms = lives.rooms

    def __len__(self) -> int:
        return len(self._rooms)

    def room(self, name: str) -> Room:
        """Return a handle of a room, whether or not it has members.

        Raises:
            Reject: `invalid`: no room can have this name.
        """
        # Nearly all publications are for a room with members, whose name was checked.
        if not isinstance(name, str) or name not in self._rooms:  # pyright: ignore[reportUnnecessaryIsInstance]
            check_room_name(name, self._max_name)
            self._find_family(name)
        return Room(self, name)

    def batch(self, name: str) -> Batch | None:
        """Return the members of a room; of all sockets for the empty name."""
        return self._rooms.get(name) if name else self.everyone

    def publish(self, batch: Batch, message: Any, exclude: Iterable[Recipient]) -> Awaitable[None]:
        """Hand *message* to the members of *batch*."""
        return self.batches.publish(batch, message, exclude)

    async def start(self) -> None:
        """Begin to hear what other nodes send to all sockets; there are none."""

    def announce(
        self,
        name: str,
        message: Sent | Emitted | Content | Once,
        exclude: Sequence[Recipient],
        delivery: Delivery,
    ) -> Awaitable[Position | None]:
        """Publish *message* to a room that clients are told about, or that has no members."""
        if not name:
            return self.batches.publish(self.everyone, message, exclude, terms_of(self.everyone, delivery))
        return self._publishing.publish(name, self._rooms.get(name), message, exclude, delivery)

    def reach(
        self,
        group: str,
        batch: Batch,
        message: Sent | Emitted,
        exclude: Sequence[Recipient],
        delivery: Delivery,
    ) -> Awaitable[None]:
        """Publish to the sockets of a route or router, which other nodes know by the name *group*."""
        return self.batches.publish(batch, message, exclude, terms_of(batch, delivery))

    def keeps(self, name: str) -> bool:
        """Return whether a room has a history."""
        return self._broker is not None and self._find_family(name)[0].policy.history is not None

    async def history(self, name: str, limit: int, before: Position | None) -> list[Publication]:
        """Return the last publications that a room keeps."""
        return await self._publishing.history(name, limit, before)

    # The names that users know, for the warnings about a missing `await`.
    history.__qualname__ = "Room.history"

    async def count_elsewhere(self, names: Sequence[str]) -> int:
        """Return how many sockets other nodes have that one of these names is for."""
        return 0

    def paced(self) -> Awaitable[None]:
        """Return what a call awaits that may be repeated in a loop."""
        return self.batches.paced()

    def state(self, name: str) -> Any:
        """Return the state of a room, `None` while it is gone."""
        room = self._rooms.get(name)
        return None if room is None else room.state

    def touch(self, name: str) -> None:
        """Note that the state of a room has changed."""
        live = self._rooms.get(name)
        if live is not None:
            for saving in live.savings:
                saving.touch()

    def members(self, name: str) -> Mapping[str, Member[Any]]:
        """Return the members of a room on this node; see `Room.members`."""
        return self._members.of(name)

    def count(self, name: str) -> Awaitable[int]:
        """Return how many members a room has, or how many sockets."""
        return self._members.count(name, self.batches.paced)

    async def presence(self, name: str) -> list[Presence]:
        """Return the members of a room on all nodes; see `Room.presence`."""
        await self.batches.paced()
        return await self._members.presence(name)

    presence.__qualname__ = "Room.presence"

    async def members_for(self, socket: Socket[Any], asked: ReadPresence | ReadCount) -> MembersState | int:
        """Return who is in a room of *socket*, or how many, for its client."""
        name = asked.count if isinstance(asked, ReadCount) else asked.presence
        self._members.check_member(socket, name)
        return await (self.count(name) if isinstance(asked, ReadCount) else self._members.shown(name))

    async def rooms_of(self, user: str) -> list[str]:
        """Return the rooms in which a user is a member, on all nodes."""
        await self.batches.paced()
        return await self._members.rooms_of(user)

    def logged_in(self, socket: Socket[Any], user: Identity, before: Identity | None) -> None:
        """Tell the rooms of a socket what is new about its user: see `MemberTable.logged_in`."""
        self._members.logged_in(socket, user, before)

    def params(self, name: str) -> Mapping[str, Any]:
        """Return the parameters in a room's name."""
        room = self._rooms.get(name)
        return self._find_family(name)[1] if room is None else room.params

    async def join(
        self,
        socket: Socket[Any],
        name: str,
        *,
        authorize: bool,
        most: int,
        asked: Join | None = None,
    ) -> Room:
        """Make *socket* a member, if the hooks of the room allow it: see `Joining.join`."""
        room = self.room(name)
        if is_of_user(name) and (asked is None or not await self._joining.is_in(socket, name)):
            raise _by_name(name)
        await self._joining.join(socket, name, authorize=authorize, most=most, asked=asked)
        await self.batches.paced()
        return room

    async def published(self, socket: Socket[Any], asked: Publish, kind: str) -> Position | None:
        """Publish what a client publishes: see `ClientRooms.publish`."""
        return await self._clients.publish(socket, asked, kind)

    async def read(self, socket: Socket[Any], asked: ReadHistory) -> dict[str, Any]:
        """Return what a client reads of a room's history: see `ClientRooms.read`."""
        return await self._clients.read(socket, asked)

    async def prepare(self, socket: Socket[Any], name: str) -> Place:
        """Begin the join of the room of a socket's route: see `Places.prepare`."""
        self.room(name)
        if is_of_user(name):
            raise _by_name(name)
        return await self._places.prepare(socket, name)

    async def enter(
        self, socket: Socket[Any], place: Place, most: int, claim: Callable[[], Awaitable[None]] | None
    ) -> None:
        """Do the rest of this join: see `Places.enter`."""
        await self._places.enter(socket, place, most, claim)

    def check_user(self, id: str) -> None:
        """Refuse the id of a user who can have no room.

        Raises:
            Reject: `invalid`.
        """
        self.room(room_of_user(id))

    def is_slow_for_user(self, id: str) -> bool:
        """Return whether a socket has to wait until it is in the room of its user."""
        return not self._joining.is_immediate(room_of_user(id))

    def enter_as_user(self, socket: Socket[Any], id: str) -> bool:
        """Let a socket into the room of its user, if that needs no waiting; return whether it is there."""
        return self._joining.enter_now(socket, room_of_user(id))

    async def join_as_user(self, socket: Socket[Any], id: str) -> None:
        """Let a socket into the room of its user."""
        await self._joining.join(socket, room_of_user(id), authorize=False, most=None, asked=None)

    async def revoke(self, sockets: Iterable[Socket[Any]]) -> None:
        """End the memberships that are not allowed any more: see `Revoking.revoke`."""
        await self._revoking.revoke(sockets)

    def resync(self, socket: Socket[Any]) -> None:
        """Send a socket whose messages were dropped what its rooms begin with."""
        self._joining.resync(socket)

    async def leave(self, socket: Socket[Any], name: str) -> bool:
        """Take *socket* out of a room; whether it was in it."""
        self.room(name)
        if is_of_user(name):
            raise _by_name(name)
        return await self._leaving.leave(socket, name)

    def leave_all(self, socket: Socket[Any], why: Leave) -> Coroutine[Any, Any, None] | None:
        """Take a socket that has gone out of all of its rooms at once: see `Leaving.leave_all`."""
        place = place_of(socket)
        if place is not None:
            # If its connect handler has not returned, its join goes no further.
            place.release()
        return self._leaving.leave_all(socket, why)

    async def open_room(self, name: str, state: Any, ttl: float) -> bool:
        """Make a room before anybody joins: see `Opening.open`."""
        self.room(name)
        made = await self._opening.open(name, state, ttl)
        await self.batches.paced()
        return made

    async def close_room(self, name: str, code: int, reason: str) -> None:
        """End a room and its memberships: see `Opening.close`."""
        await self._opening.close(name, code, reason)
        await self.batches.paced()

    open_room.__qualname__ = "Room.open"
    close_room.__qualname__ = "Room.close"

    async def close(self, *, timeout: float) -> None:
        """End all rooms at once, their tasks and their lingers.

        Args:
            timeout: How long the `on_empty` hooks may take, and then the broker for what
                it has not answered.
        """
        self.end_listeners()
        self._members.close()
        await self._lives.close(timeout=timeout)
        await self._members.seating.finish(timeout=timeout)
        await self._publishing.finish(timeout=timeout)
        if self._broker is not None:
            self._broker.close()
        self._store.close()

    def _not_relayed(self, error: BaseException, topic: str) -> None:
        self._report(error, None, f"publication to {topic!r} on other nodes")

    def _not_encoded(self, error: Exception, batch: Batch) -> None:
        where = f"room {batch.name!r}" if batch.name else "everyone"
        self._report(error, None, f"publication to {where}, for members with another protocol,")


def _by_name(name: str) -> Reject:
    return Reject("forbidden", f"{name!r} is the room of a user: a socket is in it while it is logged in")
