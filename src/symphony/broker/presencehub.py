"""The members of the rooms that several nodes share: the presence store behind a hub."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from symphony.broker.attendance import Decision, Diff, Renewal, Track
from symphony.broker.hub import Hub
from symphony.broker.memberchanges import KeptMembers
from symphony.broker.presencetable import PresenceTable

__all__ = ("PRESENCE", "serve_presence")

logger = logging.getLogger("symphony.app")

PRESENCE: Final = "presence:"
"""What the topics of diffs begin with; the name of the room follows."""


def serve_presence(
    hub: Hub,
    *,
    clock: Callable[[], float],
    new_id: Callable[[], str],
    kept: KeptMembers | None = None,
) -> PresenceTable:
    """Serve a presence store to the nodes of a hub; return its table.

    Args:
        hub: The hub.
        clock: Returns the time of the store, in seconds.
        new_id: Makes a text that was never used before.
        kept: Where the members are stored; `None`: they end with this process.
    """
    return _Presence(hub, clock, new_id, kept).table


class _Presence:
    def __init__(
        self, hub: Hub, clock: Callable[[], float], new_id: Callable[[], str], kept: KeptMembers | None
    ) -> None:
        self._hub = hub
        self.table = table = PresenceTable(clock=clock, new_id=new_id, publish=self._publish, kept=kept)
        self._dropped = 0
        self._has_begun = False
        hub.when_ended(table.node_ended if kept is None else self._stored(kept, table.node_ended))
        for name, method in (
            ("track", self._track),
            ("untrack", self._untrack),
            ("dismiss", table.dismiss),
            ("touch", self._touch),
            ("reap", self._reap),
            ("ack", table.ack),
            ("update", table.update),
            ("read", table.read),
            ("count", table.count),
            ("rooms", table.rooms),
            ("claim", self._claim),
            ("claims", table.claims),
            ("release", table.release),
            ("settle", table.settle),
            ("vacate", table.vacate),
        ):
            hub.offer(PRESENCE + name, method if kept is None else self._stored(kept, method))

    def _stored(self, kept: KeptMembers, method: Callable[..., Any]) -> Callable[..., Any]:
        """Let a method answer when what it has changed is stored."""

        def called(*arguments: Any) -> Any:
            if not self._has_begun:
                # Before the first node has started, no member could come back.
                self._has_begun = True
                self.table.begin(kept)
            answer = method(*arguments)
            unstored = kept.unstored()
            return answer if unstored is None else _after(unstored, answer)

        return called

    def _publish(self, diff: Diff) -> None:
        self._hub.say(PRESENCE + diff.room, diff)

    def _track(self, track: Sequence[Any]) -> Any:
        return self.table.track(msgspec.convert(track, Track))

    def _untrack(self, room: str, connection: str, node: str, left: bool, opened: bool) -> Any:
        return self.table.untrack(room, connection, node, left=left, opened=opened)

    def _touch(self, node: str, rooms: Sequence[Any], claims: Sequence[str]) -> Any:
        return self.table.touch(node, msgspec.convert(rooms, list[Renewal]), claims)

    def _reap(self, node: str) -> Sequence[Decision]:
        decisions = self.table.reap(node)
        if self.table.dropped > self._dropped:
            more, self._dropped = self.table.dropped - self._dropped, self.table.dropped
            logger.error("%d departures were dropped, because their hooks take too long.", more)
        return decisions

    def _claim(self, scope: str, user: str, connection: str, node: str, most: int, replace: bool) -> Any:
        return self.table.claim(scope, user, connection, node, most=most, replace=replace)


def _after(unstored: asyncio.Future[None], answer: Any) -> asyncio.Future[Any]:
    answered: asyncio.Future[Any] = unstored.get_loop().create_future()
    unstored.add_done_callback(lambda _: answered.set_result(answer))
    return answered
