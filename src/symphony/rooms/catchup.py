"""A member that is behind gets publications from the history, until it has caught up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from symphony.protocol.envelopes import Joined, Left, Lost
from symphony.protocol.positions import Position
from symphony.rooms.snapshots import Plainly
from symphony.websocket.backpressure import TURN

if TYPE_CHECKING:
    from symphony.outgoing.batch import Batches, Recipient
    from symphony.outgoing.encoding import Content
    from symphony.rooms.feed import Feed
    from symphony.rooms.live import Live
    from symphony.rooms.pages import Excerpt
    from symphony.rooms.snapshots import Snapshots

__all__ = ("CatchUp", "tell")


def tell(recipient: Recipient, envelope: Joined | Left | Lost, snapshot: Content | None = None) -> bool:
    """Send an envelope to a member, and the snapshot with it.

    Returns:
        Whether the member is told. A protocol that has no such envelope gets the snapshot only.

    Raises:
        TypeError: The protocol cannot encode the snapshot.
    """
    encoding = recipient.encoding
    if snapshot is not None and not isinstance(envelope, Left):
        envelope.snapshot = encoding.data(snapshot)
    frame = encoding.envelope(envelope)
    if frame is None:
        if snapshot is None:
            return False
        frame = encoding.encode(Plainly(snapshot))
    recipient.outbox.send(frame)
    return True


class CatchUp:
    """Sends the history to one member of a room, page by page.

    No publication is held for the member: the history has them all. The next page
    is sent when the member has read the one before, so a slow member costs no memory.

    Args:
        batches: The batches of the node.
        snapshots: Takes the snapshot of the room, if it has one.
        live: The room.
        feed: Its history.
        recipient: The member.
        after: The position of the last publication that it has.
        patience: How many seconds it may take to read a page; `None`: any time.
    """

    __slots__ = ("_after", "_batches", "_feed", "_live", "_patience", "_recipient", "_snapshots")

    def __init__(
        self,
        batches: Batches,
        snapshots: Snapshots,
        live: Live,
        feed: Feed,
        recipient: Recipient,
        after: Position,
        patience: float | None,
    ) -> None:
        self._batches = batches
        self._snapshots = snapshots
        self._live = live
        self._feed = feed
        self._recipient = recipient
        self._after = after
        self._patience = patience

    @property
    def after(self) -> Position:
        """The position of the last publication that the member has."""
        return self._after

    async def run(self) -> None:
        """Send the pages; return when the member has caught up, has left, or begins anew."""
        # It would get nothing more. After this close code, its client comes back.
        try:
            await self._send_pages()
        except TimeoutError:
            self._close("too slow to catch up")
        except Exception:
            self._close("the history cannot be read")
            raise

    async def _send_pages(self) -> None:
        outbox = self._recipient.outbox
        while self._goes_on:
            if self._after == self._feed.last or self._is_past_the_end:
                # No `await` in between: every later publication reaches it.
                self._live.catching.pop(self._recipient)
                self._batches.catch_up(self._live, self._recipient)
                self._live.has_caught_up(self._recipient)
                return
            if self._after.epoch == self._feed.last.epoch and self._after.offset > self._feed.last.offset:
                # The member has it from another node, which was faster.
                await self._feed.reached(self._after)
                await TURN
                continue
            if outbox.size > outbox.low:
                async with asyncio.timeout(self._patience):
                    await outbox.lowered()
                continue
            page = await self._feed.page(self._after)
            lost = not page.complete
            if lost and self._has_snapshot:
                await self._begin_anew()
                continue
            if lost:
                # It goes on with the oldest that it does not have.
                page = await self._feed.page(page.end)
                if not page.complete:
                    continue
            if not self._goes_on:
                return
            if outbox.size > outbox.low:
                # The member catches up in other rooms too, and a page of these came first.
                continue
            if lost:
                self._tell_lost(page)
            for frame in self._feed.frames(page, self._recipient.encoding):
                outbox.send(frame)
            self._after = page.end
            await TURN

    async def _begin_anew(self) -> None:
        """Send the snapshot; no `await` follows it."""
        socket = self._live.owner(self._recipient)
        start = await self._snapshots.again(socket, self._live, lambda: self._goes_on)
        if start is not None and start.after is not None:
            tell(self._recipient, Lost(self._live.name, start.after), start.snapshot)
            self._after = start.after

    def _tell_lost(self, page: Excerpt) -> None:
        first = page.first
        after = page.top if first is None else Position(first.epoch, first.offset - 1)
        if not tell(self._recipient, Lost(self._live.name, after)):
            # A raw connection cannot be told. Its client learns it from the close.
            self._close("publications were lost")

    def _close(self, reason: str) -> None:
        owner = self._live.behind.get(self._recipient)
        if owner is not None and self._goes_on:
            owner.close(1013, reason)

    @property
    def _has_snapshot(self) -> bool:
        # A listener begins with the publications.
        return self._live.family.snapshot is not None and self._recipient not in self._live.listeners

    @property
    def _is_past_the_end(self) -> bool:
        # A room that is closed hears no more, and the history may go on.
        last, after = self._feed.last, self._after
        return self._live.over is not None and (after.epoch != last.epoch or after.offset >= last.offset)

    @property
    def _goes_on(self) -> bool:
        return self._live.catching.get(self._recipient) is self and not self._recipient.outbox.sealed
