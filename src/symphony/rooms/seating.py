"""Members of rooms: how a socket gets a seat, gives it up, and which hooks that calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import msgspec

from symphony.broker.attendance import LEASE, Diff, Track, Tracked
from symphony.errors import Reject
from symphony.identity import Identity
from symphony.rooms.departures import Departing
from symphony.rooms.memberhooks import MemberHooks, Seat
from symphony.rooms.members import Member
from symphony.rooms.showing import Showing
from symphony.rooms.turns import Turns

if TYPE_CHECKING:
    from symphony.broker.presence import PresenceStore
    from symphony.rooms.family import Family
    from symphony.rooms.live import Live
    from symphony.rooms.lives import Lives
    from symphony.rooms.room import Room
    from symphony.socket import Socket

__all__ = ("Seating", "info_of")

# What is told about one member, in MessagePack. See docs/limits.md.
_MAX_INFO_BYTES: Final = 16 * 1024


class _Settling:
    """A claim of the home of a room, while the store is asked.

    Attributes:
        term: Names the claim.
        joins: How many joins wait for the answer.
    """

    __slots__ = ("joins", "term")

    def __init__(self, term: str) -> None:
        self.term = term
        self.joins = 0


class Seating:
    """The members of the rooms of a node.

    Args:
        store: Decides who is a member.
        node: The name of this node.
        lives: The rooms of the node.
        handle: Returns the handle of a room.
        find_family: The family of a room's name.
        heard: Called with each change of a room that this node hears of.
        background: Starts a task of the app's whose exception is reported.
        report: Called with the exception of a hook that no caller awaits.
    """

    def __init__(
        self,
        store: PresenceStore,
        node: str,
        lives: Lives,
        handle: Callable[[str], Room],
        find_family: Callable[[str], Family],
        heard: Callable[[Live, Diff], object],
        background: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        report: Callable[[BaseException, Any, str], None],
    ) -> None:
        self._heard = heard
        self.store = store
        self.node = node
        self._lives = lives
        self._handle = handle
        self._background = background
        self._report = report
        self._number = count()
        self._settling: dict[Live, _Settling] = {}
        self._vacating: set[asyncio.Task[Any]] = set()
        self.hooks = MemberHooks(store, lives, handle, find_family, background, report)
        # What is asked of the store about one member.
        self._operations = Turns()
        self._loop = asyncio.get_running_loop()
        self.departing = Departing(
            store, node, lives, handle, self.hooks, self._operations, background, report
        )

    def is_settled(self, name: str, family: Family) -> bool:
        """Return whether a room needs no home, or is at home here."""
        if not family.has_home:
            return True
        live = self._lives.rooms.get(name)
        return live is not None and live.term is not None

    async def settle(self, live: Live) -> None:
        """Make this node the home of a room that needs one.

        Raises:
            Reject: `elsewhere`: another node is its home.
        """
        if not live.family.has_home or live.term is not None:
            return
        # Joins at the same time share one claim: a second claim would end the first.
        settling = self._settling.get(live)
        if settling is None:
            settling = self._settling[live] = _Settling(f"{self.node}.{next(self._number)}")
        settling.joins += 1
        until = self._loop.time() + LEASE
        # Without an answer, it may be.
        is_home = True
        try:
            is_home = await self.store.settle(live.name, self.node, settling.term)
        except Exception as error:
            raise Reject("unavailable", f"the home of {live.name!r} is not known") from error
        else:
            if is_home and live.term is None:
                live.term = settling.term
                self._lives.stay_home(live, until)
        finally:
            settling.joins -= 1
            if not settling.joins:
                del self._settling[live]
                if is_home and live.term != settling.term:
                    self._give_up(live.name, settling.term)
        if not is_home:
            raise Reject("elsewhere", f"{live.name!r} is on another node", details={"room": live.name})

    def removed(self, live: Live) -> None:
        """Give up the home of a room that has ended here."""
        if live.term is not None:
            self._give_up(live.name, live.term)

    async def finish(self, *, timeout: float) -> None:
        """Wait until the homes that were given up are free for other nodes.

        Args:
            timeout: How long the store may take. After that, their leases end.
        """
        if self._vacating:
            await asyncio.wait(self._vacating, timeout=timeout)

    def _give_up(self, room: str, term: str) -> None:
        vacating = self._background(self._vacate(room, term))
        self._vacating.add(vacating)
        vacating.add_done_callback(self._vacating.discard)

    async def _vacate(self, room: str, term: str) -> None:
        with suppress(Exception):
            # Otherwise its lease ends.
            await self.store.vacate(room, term)

    async def take(
        self,
        socket: Socket[Any],
        live: Live,
        attach: Callable[[], None],
        claim: Callable[[], Awaitable[None]] | None = None,
    ) -> Seat:
        """Make a socket one of a member's, if a seat is free.

        Args:
            socket: The socket.
            live: The room, which is held.
            attach: Called in the same step as the last answer.
            claim: Awaited between the answer of the store and *attach*. If it raises, the
                seat is given up.

        Raises:
            Reject: No seat is free, or the member's state was refused.
        """
        await self._open(live)
        id = socket.user.id if socket.user is not None else socket.id
        async with self._operations.take((live.name, id)).taken():
            return await self._take(socket, live, id, attach, None, claim)

    async def _open(self, live: Live) -> None:
        """Hear of the changes of a room, from its first member on."""
        attendance = live.attendance
        assert attendance is not None
        if attendance.is_open:
            return
        async with self._operations.take((live.name, None)).taken():
            if not attendance.is_open:
                try:
                    roster = await self.store.subscribe(live.name, partial(self._heard, live))
                except Exception as error:
                    raise self._unavailable(live) from error
                if live.family.policy.presence:
                    live.showing = Showing(live, roster)
                attendance.is_open = True

    async def _take(
        self,
        socket: Socket[Any],
        live: Live,
        id: str,
        attach: Callable[[], None],
        resume: tuple[str, str] | None,
        claim: Callable[[], Awaitable[None]] | None = None,
    ) -> Seat:
        attendance = live.attendance
        assert attendance is not None
        family, room = live.family, self._handle(live.name)
        member = attendance.by_id.get(id)
        state: Any = member.state if member is not None else None
        if member is None and family.member_state is not None:
            state = await family.member_state(socket, room)
        counts = family.counts is None or bool(await family.counts(socket, room))
        connection = f"{socket.id}.{next(self._number)}"
        track = self._track_of(socket, live, id, connection, counts=counts)._replace(resume=resume)
        try:
            tracked = await self.store.track(track)
        except BaseException as error:
            self.departing.give_up(live, socket, id, connection, state)
            if isinstance(error, Exception):
                raise self._unavailable(live) from error
            raise
        if tracked.arrival is None:
            raise _refusal(live, tracked)
        if claim is not None:
            try:
                await claim()
            except BaseException:
                self.departing.give_up(live, socket, id, connection, state)
                raise
        if member is None or member.arrival != tracked.arrival:
            member = Member(id, socket.user, tracked.arrival, state)
        member.user = socket.user
        member._epoch = tracked.epoch  # pyright: ignore[reportPrivateUsage]
        attendance.add(member, socket, connection)
        attach()
        hook = {"arrived": "on_arrive", "back": "on_back"}.get(tracked.kind, "")
        return Seat(member, hook, self.hooks.take(live.name, id) if hook else None)

    def _unavailable(self, live: Live) -> Reject:
        return Reject("unavailable", f"the members of {live.name!r} are not known")

    async def again(self, live: Live, connection: str) -> Socket[Any] | None:
        """Track a socket again that the store does not know any more.

        Returns:
            The socket, if it has no seat now and must be put out.
        """
        attendance = live.attendance
        socket = attendance.connections.get(connection) if attendance is not None else None
        if attendance is None or socket is None or (found := attendance.remove(socket)) is None:
            return None
        member, _ = found
        if not self.is_settled(live.name, live.family):
            # Its sockets are put out.
            attendance.forget(member)
            return None
        # Others in the room may have been tracked in a later epoch.
        resume = member._epoch, member.arrival  # pyright: ignore[reportPrivateUsage]
        attendance.returning[socket] = None
        try:
            with self._lives.held(live):
                return await self._tracked_again(socket, live, member, resume)
        finally:
            attendance.returning.pop(socket, None)

    async def _tracked_again(
        self, socket: Socket[Any], live: Live, member: Member[Any], resume: tuple[str, str]
    ) -> Socket[Any] | None:
        attendance = live.attendance
        assert attendance is not None
        try:
            async with self._operations.take((live.name, member.id)).taken():
                if attendance.returning[socket] is not None:
                    # It has gone, and the store knows nothing of it.
                    attendance.forget(member)
                    return None
                seat = await self._take(socket, live, member.id, _attached, resume)
            if seat.turn is not None:
                await self.hooks.greet(socket, live, seat)
        except Exception as error:
            if not isinstance(error, Reject):
                self._report(error, socket, f"return of a member to {live.name!r}")
            attendance.forget(member)
            if attendance.returning[socket] is None:
                return socket
        why = attendance.returning.pop(socket)
        if why is not None and (departure := self.departing.leave(socket, live, why)) is not None:
            departure.release()
        return None

    def _track_of(self, socket: Socket[Any], live: Live, id: str, connection: str, *, counts: bool) -> Track:
        assert live.attendance is not None
        policy = live.family.policy
        return Track(
            live.name,
            id,
            connection,
            self.node,
            anonymous=socket.user is None,
            info=info_of(socket.user),
            counts=counts,
            most=policy.max_members,
            grace=policy.grace if socket.user is not None else 0.0,
            term=live.term,
        )


def _attached() -> None:
    """Stand where a socket is in the room already."""


def info_of(user: Identity | None) -> bytes:
    """Return what others are told about a member, in MessagePack.

    Raises:
        ValueError: It is too much.
    """
    info = msgspec.msgpack.encode(user.info if user is not None else None)
    if len(info) > _MAX_INFO_BYTES:
        raise ValueError(
            f"Identity.info has {len(info)} bytes; in rooms with members, {_MAX_INFO_BYTES} are allowed."
        )
    return info


def _refusal(live: Live, tracked: Tracked) -> Reject:
    name = live.name
    if tracked.kind == "full":
        details = {"room": name, "max_members": live.family.policy.max_members}
        return Reject("room_full", f"{name!r} is full", details=details, retryable=tracked.retryable)
    if tracked.kind == "elsewhere":
        return Reject("elsewhere", f"{name!r} is on another node", details={"room": name})
    return Reject("unavailable", f"{name!r} has no place for more members")
