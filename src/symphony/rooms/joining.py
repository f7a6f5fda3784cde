"""How a socket becomes a member of a room, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from symphony.errors import Reject
from symphony.identity import is_of_user
from symphony.rooms import announcing as told
from symphony.rooms.changes import refuse_gone, undone
from symphony.rooms.leave import REMOVED, Leave
from symphony.rooms.lives import inside
from symphony.rooms.starts import NOTHING, NOW
from symphony.socket import recipient_of

if TYPE_CHECKING:
    from symphony.outgoing.batch import Recipient
    from symphony.protocol.envelopes import Join
    from symphony.protocol.positions import Position
    from symphony.rooms.announcing import Announcing
    from symphony.rooms.changes import Change, Changes
    from symphony.rooms.family import Family
    from symphony.rooms.leaving import Leaving
    from symphony.rooms.live import Live
    from symphony.rooms.lives import Lives
    from symphony.rooms.memberhooks import Seat
    from symphony.rooms.places import Place
    from symphony.rooms.room import Room
    from symphony.rooms.seating import Seating
    from symphony.rooms.snapshots import Snapshots
    from symphony.rooms.starts import Start
    from symphony.socket import Socket

__all__ = ("FindFamily", "Joining")

FindFamily = Callable[[str], "tuple[Family, dict[str, Any]]"]


class Joining:
    """Lets sockets into the rooms of a node.

    Args:
        find_family: The family and parameters of a room's name.
        handle: Returns the handle of a room.
        lives: The rooms.
        changes: The joins and leaves that are under way.
        announcing: Adds members, and tells their clients.
        leaving: Undoes a join.
        seating: Gives members their seats.
        snapshots: Takes what members get before the publications.
        is_shared: Whether other nodes have the rooms, too.
    """

    def __init__(
        self,
        find_family: FindFamily,
        handle: Callable[[str], Room],
        lives: Lives,
        changes: Changes,
        announcing: Announcing,
        leaving: Leaving,
        seating: Seating,
        snapshots: Snapshots,
        *,
        is_shared: bool,
    ) -> None:
        self._find_family = find_family
        self._handle = handle
        self._lives = lives
        self._changes = changes
        self._announcing = announcing
        self._leaving = leaving
        self._seating = seating
        self._snapshots = snapshots
        self._is_shared = is_shared

    async def join(
        self, socket: Socket[Any], name: str, *, authorize: bool, most: int | None, asked: Join | None
    ) -> None:
        """Make *socket* a member, if the hooks of the room allow it.

        Joins and leaves of one socket and one room run one after the other. A leave during
        a join undoes the join: what `on_join` has begun, `on_leave` then ends.

        Args:
            socket: The socket.
            name: The name of the room, which is valid.
            authorize: Whether to ask the `authorize` hook.
            most: In how many rooms a socket may be, besides that of its user; `None`: it
                is not limited.
            asked: The request of the client, if it has asked for it. Its publications then
                begin anew if it is a member already.
        """
        recipient = recipient_of(socket)
        was_undone = await self._changes.settled(recipient, name)
        refuse_gone(recipient, name)
        if was_undone:
            raise undone(name)
        if self.is_member(recipient, name):
            if asked is not None:
                await self._restart(socket, name, asked.since, authorize=authorize)
            return
        family, params = self._find_family(name)
        if asked is not None and not family.opens_to_clients:
            # The same for a name that no pattern has: not every client should learn which exist.
            raise Reject(
                "forbidden",
                f"clients may not ask to join {name!r}: "
                "only rooms with client_join=True or an authorize hook let them",
            )
        asks = authorize and family.authorize is not None
        since = None if asked is None else asked.since
        if not asks and self.is_immediate(name):
            self._check_count(recipient, most)
            self._attach_now(socket, name, family, params, NOW if since is None else NOTHING, asked=asks)
            return
        with self._changes.changing(recipient, name) as change:
            revocations = self._changes.revocations if asks else None
            if asks and not await self.allowed(socket, name, family, change):
                return
            while not await self.entered(socket, name, most, since, change, revocations):
                # The life of the room was over. It is made anew.
                change.check(recipient, name)

    def enter_now(self, socket: Socket[Any], name: str) -> bool:
        """Let a socket into the room of its user, unless hooks or a history let it wait.

        Returns:
            Whether it is in the room.

        Raises:
            Reject: `room_full`.
        """
        family, params = self._find_family(name)
        if self.is_member(recipient_of(socket), name):
            return True
        if not self.is_immediate(name):
            return False
        self._attach_now(socket, name, family, params, NOW, asked=False)
        return True

    def is_immediate(self, name: str) -> bool:
        """Return whether nothing has to be awaited in a join that is not authorized."""
        family = self._find_family(name)[0]
        if self._is_shared or family.on_join or family.policy.history or family.has_members:
            return False
        live = self._lives.rooms.get(name)
        is_made = family.state is None if live is None else live.is_made and live.over is None
        return is_made and self._seating.is_settled(name, family)

    async def is_in(self, socket: Socket[Any], name: str) -> bool:
        """Return whether a socket is a member, when its join that may be under way has ended."""
        recipient = recipient_of(socket)
        await self._changes.settled(recipient, name)
        return self.is_member(recipient, name)

    async def allowed(self, socket: Socket[Any], name: str, family: Family, change: Change) -> bool:
        """Ask the `authorize` hook; return whether there is still something to do."""
        assert family.authorize is not None
        if await family.authorize(socket, self._handle(name)) is False:
            raise Reject("forbidden", f"you may not join {name!r}")
        recipient = recipient_of(socket)
        change.check(recipient, name)
        # The hook itself may have let it join.
        return not self.is_member(recipient, name)

    async def entered(
        self,
        socket: Socket[Any],
        name: str,
        most: int | None,
        since: Position | str | None,
        change: Change,
        revocations: int | None,
        place: Place | None = None,
    ) -> bool:
        """Do what follows after `authorize`; return `False` if the life of the room was over.

        Args:
            socket: The socket.
            name: The name of the room.
            most: See `join`.
            since: Where the publications begin.
            change: The join.
            revocations: How many there were when `authorize` was asked; `None`: it was not.
            place: The place of the socket, if it is the room of its route.
        """
        live = self._lives.at_work(name, *self._find_family(name))
        if live.over is not None:
            await self._lives.gone(live)
            return False
        with self._lives.held(live):
            # If it is about to end, it goes on: `Lives.let_go` decides anew.
            live.stay()
            try:
                await self.made(socket, live, change)
                start = await self._announcing.start(live, since)
                change.check(recipient_of(socket), name)
                start = await self._snapshots.before(socket, live, start)
                change.check(recipient_of(socket), name)
                if place is not None and live.attendance is None:
                    # There is no seat to take before.
                    await place.claim()
                    change.check(recipient_of(socket), name)
            except Reject:
                if live.over is not None and change.undone is None:
                    return False
                raise
            while revocations is not None and revocations != self._changes.revocations:
                revocations = self._changes.revocations
                if not await self.allowed(socket, name, live.family, change):
                    return True
            if live.over is not None:
                return False
            self._check_count(recipient_of(socket), most)
            await self._enter(socket, live, start, change, revocations, place)
            live.open_until = 0.0
        return True

    async def made(self, socket: Socket[Any], live: Live, change: Change) -> None:
        """Make this node the home of a room that is held, and create its state."""
        recipient = recipient_of(socket)
        await self._seating.settle(live)
        change.check(recipient, live.name)
        await self._lives.make_state(live)
        change.check(recipient, live.name)

    async def _enter(
        self,
        socket: Socket[Any],
        live: Live,
        start: Start,
        change: Change,
        revocations: int | None,
        place: Place | None,
    ) -> None:
        """Take the seat, and attach the socket; then run the hooks."""
        refused: list[Exception] = []

        def attach() -> None:
            change.joins = live
            begin = start
            try:
                begin = self._snapshots.attached(socket, live, start)
            except Exception as error:
                # The store has given the seat already, so the join is undone.
                refused.append(error)
            self._attach(socket, live, begin, asked=revocations is not None)
            if place is not None:
                place.attached(socket, live)
            if live.over is not None:
                # It was closed while the store decided.
                change.undone = live.closed or Leave("closed")

        if live.attendance is None:
            attach()
            seat = None
        else:
            claim = None if place is None else place.claim
            seat = await self._seating.take(socket, live, attach, claim)
        if seat is not None or live.family.on_join is not None or refused:
            # A seat takes time, in which a right may have been revoked.
            again = revocations is not None and revocations != self._changes.revocations
            await self._greet(socket, live, change, seat, asks_again=again, refused=refused)

    def _check_count(self, recipient: Recipient, most: int | None) -> None:
        # Those of everyone have no name, and are not rooms. Count only where it is close.
        if most is None or len(recipient.batches) < most:
            return
        if sum(bool(batch.name) and not is_of_user(batch.name) for batch in recipient.batches) >= most:
            raise Reject("too_many", f"the socket is in {most} rooms already", details={"max_rooms": most})

    def _attach_now(
        self,
        socket: Socket[Any],
        name: str,
        family: Family,
        params: dict[str, Any],
        start: Start,
        *,
        asked: bool,
    ) -> None:
        live = self._lives.at_work(name, family, params)
        if family.snapshot is None:
            self._attach(socket, live, start, asked=asked)
        else:
            with self._lives.held(live):
                self._attach(socket, live, self._snapshots.attached(socket, live, start), asked=asked)
        live.open_until = 0.0

    def _attach(self, socket: Socket[Any], live: Live, start: Start, *, asked: bool) -> None:
        """Add a member, in one step: from here on it gets the publications.

        If `authorize` was not *asked*, no revocation ends the membership.
        """
        recipient = recipient_of(socket)
        live.stay()
        live.began = True
        if not asked and live.family.authorize is not None:
            live.unasked = live.unasked or set()
            live.unasked.add(recipient)
        self._announcing.add(live, recipient, socket, start)
        if live.tasks is not None:
            live.tasks.start()

    async def _greet(
        self,
        socket: Socket[Any],
        live: Live,
        change: Change,
        seat: Seat | None,
        *,
        asks_again: bool,
        refused: Sequence[Exception],
    ) -> None:
        """Run the hooks of a socket that has just entered: those of its member, and `on_join`."""
        recipient = recipient_of(socket)
        on_join = live.family.on_join
        try:
            if seat is not None:
                # Also if it has gone meanwhile: the store has decided that the member has come.
                with inside(live):
                    await self._seating.hooks.greet(socket, live, seat)
                change.check(recipient, live.name)
            if refused:
                raise refused[0]
            if asks_again:
                await self.allowed(socket, live.name, live.family, change)
            if on_join is not None:
                with inside(live):
                    await on_join(socket, self._handle(live.name))
            change.check(recipient, live.name)
        except BaseException:
            why = change.undone or REMOVED
            if recipient in live:
                change.departure = self._leaving.take_out(socket, live, told.REMOVED, why)
            # It was in the room, so it leaves: nothing of these hooks may stay.
            try:
                await self._leaving.run_hooks(socket, live, why)
            finally:
                if change.departure is not None:
                    change.departure.release()
            raise

    async def _restart(
        self, socket: Socket[Any], name: str, since: Position | str | None, *, authorize: bool
    ) -> None:
        """Let a member begin again, at *since*, if it may still join."""
        live, recipient = self._lives.rooms[name], recipient_of(socket)
        if live.over is not None:
            raise Reject("unavailable", f"{name!r} is being closed")
        with self._changes.changing(recipient, name) as change:
            if authorize and (hook := live.family.authorize) is not None:
                if await hook(socket, self._handle(name)) is False:
                    raise Reject("forbidden", f"you may not join {name!r}")
                change.check(recipient, name)
            start = await self._announcing.start(live, since)
            change.check(recipient, name)
            start = await self._snapshots.before(socket, live, start)
            change.check(recipient, name)
            if recipient not in live:
                raise undone(name)
            start = self._snapshots.attached(socket, live, start)
            self._announcing.restart(live, recipient, start)

    def resync(self, socket: Socket[Any]) -> None:
        """Send a socket the snapshots of its rooms without a history again.

        In rooms with a history, no publication was dropped.
        """
        recipient = recipient_of(socket)
        for batch in tuple(recipient.batches):
            live = self._lives.rooms.get(batch.name)
            if live is not None and live is batch and live.feed is None and live.family.snapshot is not None:
                self._announcing.restart(live, recipient, self._snapshots.attached(socket, live, NOW))

    def is_member(self, recipient: Recipient, name: str) -> bool:
        """Return whether a socket is in a room."""
        live = self._lives.rooms.get(name)
        return live is not None and recipient in live
