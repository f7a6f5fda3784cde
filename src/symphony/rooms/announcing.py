"""What a client is told of its memberships, and where the publications that it gets begin."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from symphony.protocol.envelopes import Joined, Left
from symphony.rooms.catchup import CatchUp, tell
from symphony.rooms.starts import NOTHING, NOW, Start

if TYPE_CHECKING:
    from symphony.outgoing.batch import Batches, Recipient
    from symphony.protocol.positions import Position
    from symphony.rooms.live import Live
    from symphony.rooms.snapshots import Snapshots
    from symphony.socket import Socket

__all__ = ("ELSEWHERE", "LEFT", "REMOVED", "Announcing", "End")


class End(NamedTuple):
    """Why a membership ended, and whether the client may join again."""

    code: str
    message: str
    retryable: bool = False


LEFT: Final = End("left", "it left the room")
REMOVED: Final = End("removed", "the room refused the membership")
ELSEWHERE: Final = End("elsewhere", "the room is on another node now", retryable=True)


class Announcing:
    """Adds members to rooms, and tells their clients.

    Args:
        batches: The batches of the node.
        background: Starts a task of the app's whose exception is reported.
        snapshots: Takes the snapshots of the rooms.
        max_recovery: `Limits.max_recovery`.
        page_timeout: `Limits.page_timeout`.
    """

    def __init__(
        self,
        batches: Batches,
        background: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        snapshots: Snapshots,
        max_recovery: int,
        page_timeout: float,
    ) -> None:
        self._batches = batches
        self._background = background
        self._snapshots = snapshots
        self._max_recovery = max_recovery
        self._page_timeout = page_timeout

    async def start(self, live: Live, since: Position | str | None, *, limited: bool = True) -> Start:
        """Return where a member begins that has the publications up to *since*.

        If it is *limited*, it gets at most `Limits.max_recovery` of those before this moment.

        Raises:
            Reject: `unavailable`: the history cannot be read.
        """
        if live.topic is not None:
            await live.topic.open()
        feed = live.feed
        if feed is None:
            return NOW if since is None else NOTHING
        await feed.open()
        if since is None:
            return NOW
        return Start(*await feed.start_of(since, self._max_recovery if limited else sys.maxsize))

    def add(self, live: Live, recipient: Recipient, socket: Socket[Any], start: Start) -> None:
        """Add a member: it gets the publications from *start* on."""
        self._tell_joined(live, recipient, start)
        self.attach(live, recipient, socket, start)

    def attach(self, live: Live, recipient: Recipient, owner: Any, start: Start) -> None:
        """Let a member or a listener get the publications from *start* on."""
        self._batches.add(live, recipient, owner)
        self._follow(live, recipient, start)

    def restart(self, live: Live, recipient: Recipient, start: Start) -> None:
        """Let a member begin again at *start*."""
        # It may have fallen behind in this turn, which ends with that.
        self._batches.flush()
        self._tell_joined(live, recipient, start)
        if live.catching.pop(recipient, None) is not None:
            self._batches.catch_up(live, recipient)
        self._follow(live, recipient, start)

    def remove(self, live: Live, recipient: Recipient, why: End | None = None) -> None:
        """Remove a member, and tell its client why, if the connection goes on."""
        live.catching.pop(recipient, None)
        if live.unasked is not None:
            live.unasked.discard(recipient)
        self._batches.remove(live, recipient)
        if live.announced and why is not None:
            error = {"code": why.code, "message": why.message, "retryable": why.retryable, "details": None}
            tell(recipient, Left(live.name, error))

    def _tell_joined(self, live: Live, recipient: Recipient, start: Start) -> None:
        if live.announced:
            position = live.feed.last if live.feed is not None else None
            members = live.showing.state() if live.showing is not None else None
            joined = Joined(live.name, start.after or position, start.recovered, members)
            tell(recipient, joined, start.snapshot)

    def _follow(self, live: Live, recipient: Recipient, start: Start) -> None:
        feed = live.feed
        if feed is None or start.after is None or start.after == feed.last:
            return
        self.follow(live, recipient, start.after)

    def follow(self, live: Live, recipient: Recipient, after: Position) -> None:
        """Let a member get what follows *after* from the history, until it has caught up."""
        assert live.feed is not None
        self._batches.fall_behind(live, recipient)
        # A listener keeps no connection busy.
        patience = None if recipient in live.listeners else self._page_timeout
        live.catching[recipient] = catching = CatchUp(
            self._batches, self._snapshots, live, live.feed, recipient, after, patience
        )
        self._background(catching.run())
