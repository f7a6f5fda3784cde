"""How a socket stops being a member of a room: it leaves, or its connection ends."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from symphony.rooms.announcing import LEFT, End
from symphony.socket import recipient_of
from symphony.websocket.backpressure import TURN

if TYPE_CHECKING:
    from symphony.outgoing.batch import Batches
    from symphony.rooms.announcing import Announcing, End
    from symphony.rooms.changes import Change, Changes
    from symphony.rooms.live import Live
    from symphony.rooms.lives import Lives
    from symphony.rooms.seating import Departure, Seating
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

    async def leave(self, socket: Socket[Any], name: str, why: End = LEFT) -> bool:
        """Take *socket* out of a room, and tell its client why; whether it was in it."""
        recipient = recipient_of(socket)
        change = self._changes.of(recipient).get(name)
        live = self._lives.rooms.get(name)
        was_member = live is not None and recipient in live
        departure: Departure | None = None
        self._changes.undo_waiting(recipient, name)
        if change is not None and (change.joins is not None or not was_member):
            # The join that is under way ends it: it knows whether `on_join` has succeeded.
            change.undone = change.left = True
            if live is not None and was_member:
                change.departure = self.take_out(socket, live, why, left=True)
            await self._changes.settled(recipient, name)
            departure = change.departure
        elif live is not None and was_member:
            departure = self.take_out(socket, live, why, left=True)
            with self._lives.held(live):
                try:
                    if live.family.on_leave:
                        with self._changes.changing(recipient, name):
                            await self._lives.run_all(live.family.on_leave, socket, live, "on_leave")
                finally:
                    if departure is not None:
                        departure.release()
        if live is not None and departure is not None:
            await self._seating.departed(live, departure)
        await (TURN if recipient.outbox.sealed else self._batches.paced())
        return was_member

    def take_out(self, socket: Socket[Any], live: Live, why: End | None, *, left: bool) -> Departure | None:
        """Take a socket out of a room at once, without its hooks.

        Args:
            socket: The socket, which is in the room.
            live: The room.
            why: What its client is told.
            left: Whether it has left; otherwise its connection was lost.

        Returns:
            What to release when the hooks of the socket have run; `None` in rooms without members.
        """
        self._announcing.remove(live, recipient_of(socket), why)
        return None if live.attendance is None else self._seating.leave(socket, live, left=left)

    async def put_out(self, socket: Socket[Any], live: Live, why: End, *, left: bool) -> None:
        """Take a socket out of a room, and run its hooks; errors are reported."""
        if recipient_of(socket) not in live:
            return
        departure = self.take_out(socket, live, why, left=left)
        with self._lives.held(live):
            try:
                await self.run_hooks(socket, live)
            finally:
                if departure is not None:
                    departure.release()

    def leave_all(self, socket: Socket[Any], *, left: bool) -> Coroutine[Any, Any, None] | None:
        """Take a socket that has gone out of all of its rooms at once.

        Args:
            socket: The socket.
            left: Whether it has left; otherwise its connection was lost.

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
            departure = self.take_out(socket, live, None, left=left)
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
            if not change.undone:
                change.undone, change.left = True, left
        return self._left(socket, ended, tuple(changes.values())) if ended or changes else None

    async def run_hooks(self, socket: Socket[Any], live: Live) -> None:
        """Run the `on_leave` hooks of a socket that no caller waits for."""
        try:
            await self._lives.run_all(live.family.on_leave, socket, live, "on_leave")
        except BaseException as error:
            self._report(error, socket, f"on_leave of {live.name!r}")

    async def _left(
        self,
        socket: Socket[Any],
        ended: list[tuple[Live, Departure | None]],
        changes: tuple[Change, ...],
    ) -> None:
        for live, departure in ended:
            try:
                await self.run_hooks(socket, live)
            finally:
                if departure is not None:
                    departure.release()
                self._lives.let_go(live)
        for change in changes:
            await change.wait()
