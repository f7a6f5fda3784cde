"""Asks again whether sockets may be in their rooms, because a right of their user has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from symphony.errors import Reject
from symphony.rooms.announcing import End
from symphony.rooms.leave import REMOVED
from symphony.socket import recipient_of

if TYPE_CHECKING:
    from symphony.rooms.changes import Changes
    from symphony.rooms.leaving import Leaving
    from symphony.rooms.live import Live
    from symphony.rooms.lives import Lives
    from symphony.rooms.room import Room
    from symphony.socket import Socket

__all__ = ("Revoking",)


class Revoking:
    """Ends the memberships that `authorize` does not allow any more.

    Args:
        handle: Returns the handle of a room.
        lives: The rooms.
        changes: The joins and leaves that are under way.
        leaving: Takes sockets out.
        report: Called with the exception of a hook that no caller awaits.
    """

    def __init__(
        self,
        handle: Callable[[str], Room],
        lives: Lives,
        changes: Changes,
        leaving: Leaving,
        report: Callable[[BaseException, Any, str], None],
    ) -> None:
        self._handle = handle
        self._lives = lives
        self._changes = changes
        self._leaving = leaving
        self._report = report

    async def revoke(self, sockets: Iterable[Socket[Any]]) -> None:
        """Ask `authorize` again for each membership of *sockets* that it was asked for.

        When this returns, only what it allows now is left. Joins that are under way ask
        again before they let a socket in.
        """
        # First: a join that has asked before this moment must notice it.
        self._changes.revocations += 1
        await asyncio.gather(*map(self._ask_again, sockets))

    async def _ask_again(self, socket: Socket[Any]) -> None:
        recipient = recipient_of(socket)
        for batch in tuple(recipient.batches):
            live = self._lives.rooms.get(batch.name)
            if live is None or live is not batch or recipient in (live.unasked or ()):
                continue
            why = await self._refusal(socket, live)
            if why is not None and recipient in live:
                await self._leaving.leave(socket, live.name, REMOVED, tells=why)

    async def _refusal(self, socket: Socket[Any], live: Live) -> End | None:
        """Ask `authorize`; return why the socket may not stay, `None` if it may."""
        if live.family.authorize is None:
            return None
        try:
            allowed = await live.family.authorize(socket, self._handle(live.name))
        except Reject as refusal:
            return End(refusal.code, refusal.message)
        except Exception as error:
            # It is not known whether the socket may stay. If it may, it can join again.
            self._report(error, socket, f"authorize of {live.name!r}")
            return End("internal", "the server failed")
        if allowed is False:
            return End("forbidden", f"you may no longer be in {live.name!r}")
        return None
