"""How a socket stops being a member of a room: it leaves, or its connection ends."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from symphony.rooms import announcing as told
from symphony.rooms.leave import LEFT
from symphony.rooms.places import place_of
from symphony.socket import recipient_of
from symphony.websocket.backpressure import TURN

if TYPE_CHECKING:
    from symphony.outgoing.batch import Batches, Recipient
    from symphony.rooms.announcing import Announcing, End
    from symphony.rooms.changes import Change, Changes
    from symphony.rooms.departures import Departure
    from symphony.rooms.leave import Leave
    from symphony.rooms.live import Live
    from symphony.rooms.lives import Lives
    from symphony.rooms.seating import Seating
    from symphony.socket import Socket

__all__ = ("Leaving",)


class Leaving:
    """Takes sockets out of the rooms of a node.

    Args:
        lives: The rooms.
        changes: The joins and leaves that are under way.
        announcing: Removes members, and tells their clients.
        batches: The batches of the node.
        seating: Takes the seats of members.
        report: Called with the exception of a hook that no caller awaits.
    """

    def __init__(
        self,
        lives: Lives,
        changes: Changes,
        announcing: Announcing,
        batches: Batches,
        seating: Seating,
        report: Callable[[BaseException, Any, str], None],
    ) -> None:
        self._lives = lives
        self._changes = changes
        self._announcing = announcing
        self._batches = batches
        self._seating = seating
        self._report = report

    async def leave(
        self, socket: Socket[Any], name: str, why: Leave = LEFT, *, tells: End = told.LEFT
    ) -> bool:
        """Take *socket* out of a room, and tell its client; whether it was in it."""
        recipient = recipient_of(socket)
        change = self._changes.of(recipient).get(name)
        live = self._lives.rooms.get(name)
        was_member = live is not None and recipient in live
        departure: Departure | None = None
        self._changes.undo_waiting(recipient, name)
        if change is not None and (change.joins is not None or not was_member):
            # The join that is under way ends it: it knows whether `on_join` has succeeded.
            change.undone = why
            if live is not None and was_member:
                change.departure = self.take_out(socket, live, tells, why)
            await self._changes.settled(recipient, name)
            departure = change.departure
        elif live is not None and was_member:
            departure = self.take_out(socket, live, tells, why)
            with self._lives.held(live):
                try:
                    if live.family.on_leave:
                        with self._changes.changing(recipient, name):
                            await self._lives.run_all(live.family.on_leave, socket, live, "on_leave", why)
                finally:
                    if departure is not None:
                        departure.release()
        if live is not None and departure is not None:
            await self._seating.departing.departed(live, departure)
        await (TURN if recipient.outbox.sealed else self._batches.paced())
        return was_member

    def take_out(self, socket: Socket[Any], live: Live, end: End | None, why: Leave) -> Departure | None:
        """Take a socket out of a room at once, without its hooks.

        Args:
            socket: The socket, which is in the room.
            live: The room.
            end: What its client is told.
            why: What its hooks are told.

        Returns:
            What to release when the hooks of the socket have run; `None` in rooms without members.
        """
        place = place_of(socket)
        if place is None or not place.is_in(live):
            place = None
        # A socket of which it is the room of the route is closed instead.
        self._announcing.remove(live, recipient_of(socket), end if place is None else None)
        departure = None if live.attendance is None else self._seating.departing.leave(socket, live, why)
        if place is not None and end is not None:
            place.ended(socket, end, why)
        return departure

    async def put_out(self, socket: Socket[Any], live: Live, end: End, why: Leave) -> None:
        """Take a socket out of a room, and run its hooks; errors are reported."""
        if recipient_of(socket) not in live:
            return
        departure = self.take_out(socket, live, end, why)
        with self._lives.held(live):
            try:
                await self.run_hooks(socket, live, why)
            finally:
                if departure is not None:
                    departure.release()

    def leave_all(self, socket: Socket[Any], why: Leave) -> Coroutine[Any, Any, None] | None:
        """Take a socket that has gone out of all of its rooms at once.

        Args:
            socket: The socket.
            why: How its connection ended.

        Returns:
            What runs its `on_leave` hooks, if there are any. It returns when all hooks of
            the socket have ended; those that fail are reported.
        """
        recipient = recipient_of(socket)
        changes = self._changes.of(recipient)
        ended: list[tuple[Live, Departure | None]] = []
        for batch in tuple(recipient.batches):
            live = self._lives.rooms.get(batch.name)
            if live is None or batch is not live:
                # The batch of everyone.
                self._batches.remove(batch, recipient)
                continue
            departure = self.take_out(socket, live, None, why)
            change = changes.get(live.name)
            if change is not None and change.joins is live:
                change.departure = departure
                continue
            if live.family.on_leave:
                live.hooks += 1
                ended.append((live, departure))
                continue
            if departure is not None:
                departure.release()
            self._lives.end_if_empty(live)
        for change in changes.values():
            if change.undone is None:
                change.undone = why
        return self._left(socket, ended, tuple(changes.values()), why) if ended or changes else None

    def put_out_all(
        self, live: Live, recipients: Iterable[Recipient], why: Leave, end: End
    ) -> Coroutine[Any, Any, None]:
        """Take members out of a room at once; what is returned runs their `on_leave` hooks."""
        left: list[tuple[Socket[Any], Departure | None]] = []
        for recipient in recipients:
            socket = live.owner(recipient)
            departure = self.take_out(socket, live, end, why)
            change = self._changes.of(recipient).get(live.name)
            if change is not None and change.joins is live:
                # Its join runs the hooks.
                change.undone, change.departure = why, departure
            else:
                left.append((socket, departure))
        return self._run_all_hooks(live, left, why)

    async def _run_all_hooks(
        self, live: Live, left: list[tuple[Socket[Any], Departure | None]], why: Leave
    ) -> None:
        for socket, departure in left:
            try:
                if live.family.on_leave:
                    await self.run_hooks(socket, live, why)
            finally:
                if departure is not None:
                    departure.release()

    async def run_hooks(self, socket: Socket[Any], live: Live, why: Leave) -> None:
        """Run the `on_leave` hooks of a socket that no caller waits for."""
        try:
            await self._lives.run_all(live.family.on_leave, socket, live, "on_leave", why)
        except BaseException as error:
            self._report(error, socket, f"on_leave of {live.name!r}")

    async def _left(
        self,
        socket: Socket[Any],
        ended: list[tuple[Live, Departure | None]],
        changes: tuple[Change, ...],
        why: Leave,
    ) -> None:
        for live, departure in ended:
            try:
                await self.run_hooks(socket, live, why)
            finally:
                if departure is not None:
                    departure.release()
                self._lives.let_go(live)
        for change in changes:
            await change.wait()
