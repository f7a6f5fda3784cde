"""What a node does for its members from time to time: it renews their leases, and runs what is due."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from symphony.broker.attendance import HEAD_START, LEASE, REAP, REFRESH, Renewal, Seen

if TYPE_CHECKING:
    from symphony.broker.attendance import Decision
    from symphony.rooms.live import Live
    from symphony.rooms.lives import Lives
    from symphony.rooms.seating import Seating

__all__ = ("Leases",)

logger = logging.getLogger("symphony.app")

# The most connections in one call of `touch`.
_SLICE: Final = 500


class Leases:
    """Renews the leases of a node every `REFRESH` seconds, and calls `reap` every `REAP` seconds.

    Args:
        seating: The members of the node.
        lives: The rooms of the node.
        background: Starts a task of the app's whose exception is reported.
        unknown: Called with a room and the connections that the store does not know.
        moved: Called with a room whose home is another node now.
        seen: Called with a room, and the epoch and version that the store has.
        overdue: Called with a room that has members here who should have departed by now.

    Attributes:
        is_reaping: Whether this node asks the store for decisions.
    """

    def __init__(
        self,
        seating: Seating,
        lives: Lives,
        background: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        *,
        unknown: Callable[[Live, list[str]], object],
        moved: Callable[[Live], object],
        seen: Callable[[Live, str, int], object],
        overdue: Callable[[Live], object],
    ) -> None:
        self._seating = seating
        self._lives = lives
        self._background = background
        self._unknown = unknown
        self._moved = moved
        self._seen = seen
        self._overdue = overdue
        self._loop = asyncio.get_running_loop()
        self._carried_out: set[str] = set()
        self._soon: asyncio.TimerHandle | None = None
        # Not by `self._soon.when()`: what uvloop returns for the present moment has no time.
        self._soon_at = 0.0
        self.is_reaping = False
        self._tasks = [background(self._touch_often())]

    def begin(self) -> None:
        """Begin to call `reap`, because the app has started: hooks may need what its start has made."""
        self._tasks.append(self._background(self._reap_often()))

    def reap_at(self, when: float) -> None:
        """Call `reap` at a time of the loop, when a grace period ends here."""
        if self._soon is not None:
            if self._soon_at <= when:
                return
            self._soon.cancel()
        self._soon_at = when
        self._soon = self._loop.call_at(when, self._is_due, when)

    def close(self) -> None:
        """Stop, because the node stops."""
        if self._soon is not None:
            self._soon.cancel()
        for task in self._tasks:
            task.cancel()

    async def touch(self) -> None:
        """Renew the leases of all connections and homes of this node."""
        for renewals in self._slices():
            asked = {renewal.room: self._lives.rooms.get(renewal.room) for renewal in renewals}
            until = self._loop.time() + LEASE
            touched = await self._seating.store.touch(self._seating.node, renewals, ())
            by_room = {renewal.room: renewal for renewal in renewals}
            for seen in touched.rooms:
                live = asked[seen.room]
                if live is not None and self._lives.rooms.get(seen.room) is live:
                    self._touched(live, by_room[seen.room], seen, until)

    async def reap(self) -> None:
        """Let the store decide what is due, and run the hooks of what it hands to this node."""
        while decisions := await self._decided():
            for decision in decisions:
                if decision.id not in self._carried_out:
                    self._carried_out.add(decision.id)
                    self._background(self._carry_out(decision))
        for live in tuple(self._lives.rooms.values()):
            self._look_at_those_away(live)

    async def _decided(self) -> Sequence[Decision]:
        self.is_reaping = True
        try:
            return await self._seating.store.reap(self._seating.node)
        finally:
            self.is_reaping = False

    def _is_due(self, when: float) -> None:
        self._soon = None
        if self._loop.time() < when:
            # The loop calls a little too early.
            self.reap_at(when)
        else:
            self._background(self._reap_once())

    def _look_at_those_away(self, live: Live) -> None:
        if live.attendance is None:
            return
        now = self._loop.time()
        is_overdue = False
        for member in live.attendance.by_id.values():
            if member.away_until is not None and member.away_until > now:
                self.reap_at(member.away_until)
            elif not member.sockets and (member.away_until or 0.0) + HEAD_START + REAP < now:
                is_overdue = True
        if is_overdue:
            self._overdue(live)

    def _touched(self, live: Live, renewal: Renewal, seen: Seen, until: float) -> None:
        if renewal.term is not None and renewal.term == live.term:
            if seen.home:
                self._lives.stay_home(live, until)
            else:
                live.term = None
                self._moved(live)
        if seen.unknown:
            self._unknown(live, list(seen.unknown))
        self._seen(live, seen.epoch, seen.version)

    def _slices(self) -> Iterator[list[Renewal]]:
        """Give all connections of the node, in portions. There is at least one."""
        portion: list[Renewal] = []
        size = 0
        for live in tuple(self._lives.rooms.values()):
            attendance = live.attendance
            if attendance is None and live.term is None:
                continue
            connections = list(attendance.connections) if attendance is not None else []
            for start in range(0, max(len(connections), 1), _SLICE):
                part = connections[start : start + _SLICE]
                if size + len(part) > _SLICE:
                    yield portion
                    portion, size = [], 0
                portion.append(Renewal(live.name, part, live.term))
                size += max(len(part), 1)
        # Also without any: the store then knows that this node can reach it.
        yield portion

    async def _touch_often(self) -> None:
        while True:
            await asyncio.sleep(REFRESH)
            try:
                await self.touch()
            except Exception as error:
                logger.warning("The leases of members could not be renewed: %r", error)

    async def _reap_often(self) -> None:
        while True:
            # Not all nodes in the same moment.
            await asyncio.sleep(REAP * random.uniform(0.8, 1.2))
            await self._reap_once()

    async def _reap_once(self) -> None:
        try:
            await self.reap()
        except Exception as error:
            logger.warning("What is due in rooms could not be decided: %r", error)

    async def _carry_out(self, decision: Decision) -> None:
        try:
            await self._seating.hooks.carry_out(decision)
        finally:
            self._carried_out.discard(decision.id)
