"""The members of the rooms of a node: what connects their seats, leases and hooks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from symphony.broker.attendance import HEAD_START, REAP, Diff
from symphony.errors import Reject
from symphony.identity import Identity
from symphony.protocol.invalid import shortened
from symphony.rooms import leave
from symphony.rooms.announcing import ELSEWHERE, REMOVED
from symphony.rooms.leases import Leases
from symphony.rooms.members import NO_MEMBERS, Presence
from symphony.rooms.seating import Seating, info_of
from symphony.socket import recipient_of

if TYPE_CHECKING:
    from symphony.broker.presence import PresenceStore
    from symphony.protocol.rosters import MembersState
    from symphony.rooms.family import Family
    from symphony.rooms.leaving import Leaving
    from symphony.rooms.live import Live
    from symphony.rooms.lives import Lives
    from symphony.rooms.members import Member
    from symphony.rooms.room import Room
    from symphony.socket import Socket

__all__ = ("MemberTable",)


class MemberTable:
    """The members of the rooms of a node.

    Args:
        store: Decides who is a member.
        node: The name of this node.
        lives: The rooms of the node.
        handle: Returns the handle of a room.
        find_family: The family of a room's name.
        background: Starts a task of the app's whose exception is reported.
        report: Called with the exception of a hook that no caller awaits.

    Attributes:
        seating: Gives and takes seats.
    """

    def __init__(
        self,
        store: PresenceStore,
        node: str,
        lives: Lives,
        handle: Callable[[str], Room],
        find_family: Callable[[str], Family],
        background: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        report: Callable[[BaseException, Any, str], None],
    ) -> None:
        self._store = store
        self._node = node
        self._lives = lives
        self._find_family = find_family
        self._background = background
        self._loop = asyncio.get_running_loop()
        self.seating = Seating(store, node, lives, handle, find_family, self._heard, background, report)
        self._leases: Leases | None = None
        self._leaving: Leaving | None = None
        lives.removed = self._removed

    def start(self, leaving: Leaving) -> None:
        """Begin to renew leases. It is called if a family has members, or a home."""
        self._leaving = leaving
        self._leases = Leases(
            self.seating,
            self._lives,
            self._background,
            unknown=self._unknown,
            moved=self._moved,
            seen=self._seen,
            overdue=lambda live: self._background(self._forget_those_gone(live)),
        )
        self.seating.departing.goes_away = self._leases.reap_at

    def begin(self) -> None:
        """Begin to run the hooks that the store hands to this node, because the app has started."""
        if self._leases is not None:
            self._leases.begin()

    def close(self) -> None:
        """Stop, because the node stops."""
        if self._leases is not None:
            self._leases.close()

    def of(self, name: str) -> Mapping[str, Member[Any]]:
        """Return the members of a room on this node.

        Raises:
            RuntimeError: The family has no members.
        """
        live = self._lives.rooms.get(name)
        family = live.family if live is not None else self._find_family(name)
        if not family.has_members:
            raise RuntimeError(
                f"The rooms {family.policy.pattern or name!r} have no members. Give app.rooms() members=, "
                "max_members=, grace= or a hook such as on_arrive, or use room.sockets."
            )
        return NO_MEMBERS if live is None or live.attendance is None else live.attendance.public

    async def count(self, name: str, paced: Callable[[], Awaitable[None]]) -> int:
        """Return how many members a room has on all nodes; without members, how many sockets."""
        live = self._lives.rooms.get(name)
        family = live.family if live is not None else self._find_family(name)
        await paced()
        if family.has_members:
            return await self._store.count(name)
        return len(self._lives.rooms.get(name) or ())

    # The name that users know, for the warnings about a missing `await`.
    count.__qualname__ = "Room.count"

    async def presence(self, name: str) -> list[Presence]:
        """Return the members of a room on all nodes, in the order of their arrivals."""
        # Raise if it has none.
        self.of(name)
        return [
            Presence(
                present.member,
                None if present.anonymous else Identity(present.member, msgspec.msgpack.decode(present.info)),
                present.away,
                present.arrival,
            )
            for present in (await self._store.read(name)).members
        ]

    def check_member(self, socket: Socket[Any], name: str) -> None:
        """Refuse what only members of a room may ask.

        Raises:
            Reject: `forbidden`: the socket is not in the room.
        """
        live = self._lives.rooms.get(name)
        if live is None or recipient_of(socket) not in live:
            raise Reject("forbidden", f"only members of {shortened(name)!r} may ask this")

    async def shown(self, name: str) -> MembersState:
        """Return the members of a room, as clients are told.

        Raises:
            Reject: `forbidden`: they are not told.
        """
        live = self._lives.rooms[name]
        if live.showing is None:
            raise Reject("forbidden", f"clients are not told who is in {name!r}")
        await self._reread(live)
        return live.showing.state()

    async def _reread(self, live: Live) -> None:
        if live.showing is not None:
            live.showing.reread(await self._store.read(live.name))

    async def rooms_of(self, user: str) -> list[str]:
        """Return the rooms in which a user is a member, on all nodes."""
        return list(await self._store.rooms(user))

    def logged_in(self, socket: Socket[Any], user: Identity, before: Identity | None) -> None:
        """Tell the rooms of a socket what is new about its user.

        Raises:
            RuntimeError: The socket has no user yet, and is a member of a room without one.
            ValueError: `Identity.info` is too large.
        """
        rooms = self._rooms_of(socket)
        if rooms and before is None:
            raise RuntimeError(
                f"The socket is in {rooms[0].name!r}, which has members. Call socket.login() before it joins."
            )
        info = info_of(user) if rooms else b""
        for live in rooms:
            assert live.attendance is not None
            member = live.attendance.of_socket.get(socket)
            if member is not None:
                member.user = user
                self._background(self._store.update(live.name, member.id, info))

    def _rooms_of(self, socket: Socket[Any]) -> list[Live]:
        rooms = self._lives.rooms
        found = [rooms.get(batch.name) for batch in recipient_of(socket).batches if batch.name]
        return [live for live in found if live is not None and live.attendance is not None]

    def _removed(self, live: Live) -> None:
        if live.attendance is not None:
            self._store.unsubscribe(live.name)
        if live.showing is not None:
            live.showing.close()
        self.seating.removed(live)

    def _unknown(self, live: Live, connections: list[str]) -> None:
        for connection in connections:
            self._background(self._track_again(live, connection))

    async def _track_again(self, live: Live, connection: str) -> None:
        socket = await self.seating.again(live, connection)
        if socket is not None and self._leaving is not None:
            await self._leaving.put_out(socket, live, REMOVED, leave.REMOVED)

    def _moved(self, live: Live) -> None:
        if self._leaving is not None:
            for socket in tuple(live.owners):
                self._background(self._leaving.put_out(socket, live, ELSEWHERE, leave.LOST))

    def _seen(self, live: Live, epoch: str, version: int) -> None:
        """Compare what this node knows with the version that the store has."""
        showing = live.showing
        if showing is not None and version and (epoch, version) != (showing.epoch, showing.version):
            self._background(self._reread(live))

    def _heard(self, live: Live, diff: Diff) -> None:
        attendance = live.attendance
        if attendance is None:
            return
        if live.showing is not None and live.showing.heard(diff):
            self._background(self._reread(live))
        member = attendance.is_elsewhere(diff, self._node)
        if member is not None:
            attendance.forget(member)
            self._lives.end_if_empty(live)
            return
        member = attendance.by_id.get(diff.member)
        if diff.kind != "depart" or member is None or member.sockets or member.arrival != diff.arrival:
            return
        if member.id not in attendance.ending and self._leases is not None:
            if not self._leases.is_reaping:
                # Another node has decided it. This node may run the hook first.
                self._leases.reap_at(self._loop.time())
            # The store may hand the hook to another node.
            self._loop.call_later(HEAD_START + REAP, self._forget, live, member)

    async def _forget_those_gone(self, live: Live) -> None:
        """Forget the members without sockets whose departure, or return elsewhere, was not heard of here."""
        roster = await self._store.read(live.name)
        away = {present.arrival for present in roster.members if present.away}
        attendance = live.attendance
        assert attendance is not None
        for member in tuple(attendance.by_id.values()):
            if member.arrival not in away and member.id not in attendance.ending:
                attendance.forget(member)
        self._lives.end_if_empty(live)

    def _forget(self, live: Live, member: Member[Any]) -> None:
        if live.attendance is not None:
            live.attendance.forget(member)
            self._lives.end_if_empty(live)
