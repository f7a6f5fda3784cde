"""How a socket stops being a member of a room: it leaves, or its connection ends."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from symphony.rooms.announcing import LEFT, End
from symphony.socket import recipient_of
from symphony.websocket.backpressure import TURN

if TYPE_CHECKING:
    from symphony.outgoing.batch import Batches
    from symphony.rooms.announcing import Announcing
    from symphony.rooms.changes import Change, Changes
    from symphony.rooms.live import Live
    from symphony.rooms.lives import Lives
    from symphony.socket import Socket

__all__ = ("Leaving",)


class Leaving:
    """Takes sockets out of the rooms of a node.

    Args:
        lives: The rooms.
        changes: The joins and leaves that are under way.
        announcing: Removes members, and tells their clients.
        batches: The batches of the node.
        report: Called with the exception of a hook that no caller awaits.
    """

    def __init__(
        self,
        lives: Lives,
        changes: Changes,
        announcing: Announcing,
        batches: Batches,
        report: Callable[[BaseException, Any, str], None],
    ) -> None:
        self._lives = lives
        self._changes = changes
        self._announcing = announcing
        self._batches = batches
        self._report = report

    async def leave(self, socket: Socket[Any], name: str, why: End = LEFT) -> bool:
        """Take *socket* out of a room, and tell its client why; whether it was in it."""
        recipient = recipient_of(socket)
        change = self._changes.of(recipient).get(name)
        live = self._lives.rooms.get(name)
        was_member = live is not None and recipient in live
        self._changes.undo_waiting(recipient, name)
        if change is not None and (change.joins is not None or not was_member):
            # The join that is under way ends it: it knows whether `on_join` has succeeded.
            change.undone = True
            if live is not None and was_member:
                self._announcing.remove(live, recipient, why)
            await self._changes.settled(recipient, name)
        elif live is not None and was_member:
            self._announcing.remove(live, recipient, why)
            with self._lives.held(live):
                if live.family.on_leave:
                    with self._changes.changing(recipient, name):
                        await self._lives.run_all(live.family.on_leave, socket, live, "on_leave")
        await (TURN if recipient.outbox.sealed else self._batches.paced())
        return was_member

    def leave_all(self, socket: Socket[Any]) -> Coroutine[Any, Any, None] | None:
        """Take a socket that has gone out of all of its rooms at once.

        Returns:
            What runs its `on_leave` hooks, if there are any. It returns when all hooks of
            the socket have ended; those that fail are reported.
        """
        recipient = recipient_of(socket)
        changes = self._changes.of(recipient)
        left: list[Live] = []
        for batch in tuple(recipient.batches):
            live = self._lives.rooms.get(batch.name)
            if live is None or batch is not live:
                # The batch of everyone.
                self._batches.remove(batch, recipient)
                continue
            self._announcing.remove(live, recipient)
            change = changes.get(live.name)
            if change is not None and change.joins is live:
                continue
            if live.family.on_leave:
                live.hooks += 1
                left.append(live)
            else:
                self._lives.end_if_empty(live)
        for change in changes.values():
            change.undone = True
        return self._left(socket, left, tuple(changes.values())) if left or changes else None

    async def run_hooks(self, socket: Socket[Any], live: Live) -> None:
        """Run the `on_leave` hooks of a socket that no caller waits for."""
        try:
            await self._lives.run_all(live.family.on_leave, socket, live, "on_leave")
        except BaseException as error:
            self._report(error, socket, f"on_leave of {live.name!r}")

    async def _left(self, socket: Socket[Any], left: list[Live], changes: tuple[Change, ...]) -> None:
        for live in left:
            await self.run_hooks(socket, live)
            self._lives.let_go(live)
        for change in changes:
            await change.wait()
