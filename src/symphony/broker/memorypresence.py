"""The presence store in this process: `memory://`."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence

from symphony.broker.attendance import (
    Claimed,
    Decision,
    Diff,
    Renewal,
    Roster,
    Touched,
    Track,
    Tracked,
    Untracked,
)
from symphony.broker.memberchanges import KeptMembers
from symphony.broker.presence import Receive
from symphony.broker.presencetable import PresenceTable

__all__ = ("MemoryPresence",)

logger = logging.getLogger("symphony.app")


class MemoryPresence:
    """Keeps the members of rooms in the memory of this process.

    Its time is that of the event loop.

    Args:
        new_id: Makes a text that was never used before; `None`: a random one.
        kept: Where the members are stored; `None`: they end with this process.
    """

    def __init__(self, *, new_id: Callable[[], str] | None = None, kept: KeptMembers | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._receivers: dict[str, Receive] = {}
        self._dropped = 0
        # `loop.time` is looked up each time: a test may replace it.
        self._table = PresenceTable(
            clock=lambda: loop.time(),
            new_id=new_id or (lambda: secrets.token_urlsafe(9)),
            publish=self._publish,
            kept=kept,
        )

    def _publish(self, diff: Diff) -> None:
        receive = self._receivers.get(diff.room)
        if receive is not None:
            receive(diff)

    async def track(self, track: Track) -> Tracked:
        """See `PresenceStore.track`."""
        return self._table.track(track)

    async def untrack(
        self, room: str, connection: str, node: str, *, left: bool, opened: bool = True
    ) -> Untracked:
        """See `PresenceStore.untrack`."""
        return self._table.untrack(room, connection, node, left=left, opened=opened)

    async def dismiss(self, room: str, member: str, arrival: str, node: str) -> Untracked:
        """See `PresenceStore.dismiss`."""
        return self._table.dismiss(room, member, arrival, node)

    async def touch(self, node: str, rooms: Sequence[Renewal], claims: Sequence[str]) -> Touched:
        """See `PresenceStore.touch`."""
        return self._table.touch(node, rooms, claims)

    async def reap(self, node: str) -> Sequence[Decision]:
        """See `PresenceStore.reap`."""
        decisions = self._table.reap(node)
        if self._table.dropped > self._dropped:
            more, self._dropped = self._table.dropped - self._dropped, self._table.dropped
            logger.error("%d departures were dropped, because their hooks take too long.", more)
        return decisions

    async def ack(self, decisions: Sequence[str]) -> None:
        """See `PresenceStore.ack`."""
        self._table.ack(decisions)

    async def update(self, room: str, member: str, info: bytes) -> None:
        """See `PresenceStore.update`."""
        self._table.update(room, member, info)

    async def read(self, room: str) -> Roster:
        """See `PresenceStore.read`."""
        return self._table.read(room)

    async def count(self, room: str) -> int:
        """See `PresenceStore.count`."""
        return self._table.count(room)

    async def rooms(self, member: str) -> Sequence[str]:
        """See `PresenceStore.rooms`."""
        return self._table.rooms(member)

    async def subscribe(self, room: str, receive: Receive) -> Roster:
        """See `PresenceStore.subscribe`."""
        self._receivers[room] = receive
        return self._table.read(room)

    def unsubscribe(self, room: str) -> None:
        """See `PresenceStore.unsubscribe`."""
        self._receivers.pop(room, None)

    async def claim(
        self, scope: str, user: str, connection: str, node: str, *, most: int, replace: bool
    ) -> Claimed:
        """See `PresenceStore.claim`."""
        return self._table.claim(scope, user, connection, node, most=most, replace=replace)

    async def claims(self, scope: str, user: str) -> int:
        """See `PresenceStore.claims`."""
        return self._table.claims(scope, user)

    async def release(self, connection: str) -> None:
        """See `PresenceStore.release`."""
        self._table.release(connection)

    async def settle(self, room: str, node: str, term: str) -> bool:
        """See `PresenceStore.settle`."""
        return self._table.settle(room, node, term)

    async def vacate(self, room: str, term: str) -> None:
        """See `PresenceStore.vacate`."""
        self._table.vacate(room, term)

    def close(self) -> None:
        """See `PresenceStore.close`."""
        self._receivers.clear()
