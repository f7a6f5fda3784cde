"""The presence store in this process whose members survive it: beside `sqlite://`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from symphony.broker.attendance import Decision, Track, Tracked, Untracked
from symphony.broker.memberchanges import KeptMembers
from symphony.broker.memorypresence import MemoryPresence

__all__ = ("StoredPresence",)

T = TypeVar("T")


class StoredPresence(MemoryPresence):
    """Keeps the members of rooms in memory, and stores each change before it is answered.

    Args:
        kept: Where they are stored.
        new_id: Makes a text that was never used before.
    """

    def __init__(self, kept: KeptMembers, *, new_id: Callable[[], str] | None = None) -> None:
        super().__init__(kept=kept, new_id=new_id)
        self._kept = kept
        self._table.begin(kept)

    async def track(self, track: Track) -> Tracked:
        """See `PresenceStore.track`."""
        return await self._stored(await super().track(track))

    async def untrack(
        self, room: str, connection: str, node: str, *, left: bool, opened: bool = True
    ) -> Untracked:
        """See `PresenceStore.untrack`."""
        return await self._stored(await super().untrack(room, connection, node, left=left, opened=opened))

    async def dismiss(self, room: str, member: str, arrival: str, node: str) -> Untracked:
        """See `PresenceStore.dismiss`."""
        return await self._stored(await super().dismiss(room, member, arrival, node))

    async def reap(self, node: str) -> Sequence[Decision]:
        """See `PresenceStore.reap`."""
        return await self._stored(await super().reap(node))

    async def ack(self, decisions: Sequence[str]) -> None:
        """See `PresenceStore.ack`."""
        await self._stored(await super().ack(decisions))

    async def update(self, room: str, member: str, info: bytes) -> None:
        """See `PresenceStore.update`."""
        await self._stored(await super().update(room, member, info))

    async def _stored(self, answer: T) -> T:
        unstored = self._kept.unstored()
        if unstored is not None:
            # Not the future itself: a call that is cancelled would cancel it for all.
            await asyncio.wait((unstored,))
        return answer
