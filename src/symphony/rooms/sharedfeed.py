"""A room with a history that several processes share, as this node hears it: without holes.

What a broker passes on may be lost, repeated, late or in another order. The offsets tell. What
is missing is read from the history.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from symphony.protocol.positions import Position
from symphony.rooms.feed import Feed
from symphony.tasks import start

if TYPE_CHECKING:
    from symphony.broker.base import Broker, Record

__all__ = ("SharedFeed",)

# What is held while something before it is missing. Above that, all of it is dropped, and
# read from the history.
_MAX_HELD: Final = 1000
_MAX_HELD_BYTES: Final = 1024 * 1024

# What is read at once to repair a hole.
_REPAIR: Final = 100
_REPAIR_BYTES: Final = 1024 * 1024

# A lost last publication leaves no hole. So the room is compared with the history when it has
# been quiet for this long, also after the subscription, and now and then.
_QUIET: Final = 1.0
_CHECK: Final = 25.0

# The pauses after a failed read.
_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0


class SharedFeed(Feed):
    """Passes on the publications of one room in order, each once, and repairs holes.

    It is *live* once the subscription is confirmed. From then on, each publication either
    follows the last one, or is older, or is held until a repair has read what is missing.

    Args:
        broker: See `Feed`.
        room: See `Feed`.
        deliver: See `Feed`.
        not_encoded: See `Feed`.
        jumped: Called with the last position that members have got, if it is not known what
            follows it. They then have to get it from the history themselves.
        random: Returns a number from 0 to 1, so that nodes do not check in the same moment.
    """

    __slots__ = (
        "_check_timer",
        "_closed",
        "_heard_at",
        "_held",
        "_held_bytes",
        "_is_live",
        "_jumped",
        "_loop",
        "_overflowed",
        "_quiet_timer",
        "_random",
        "_reads_again",
        "_repair",
        "_waiting",
    )

    def __init__(
        self,
        broker: Broker,
        room: str,
        deliver: Callable[..., object],
        not_encoded: Callable[[Exception], object],
        *,
        jumped: Callable[[Position], object],
        random: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(broker, room, deliver, not_encoded)
        self._jumped = jumped
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._is_live = False
        self._closed = False
        self._overflowed = False
        self._reads_again = False
        self._held: dict[int, Record] = {}
        self._held_bytes = 0
        self._repair: asyncio.Task[None] | None = None
        self._heard_at = 0.0
        self._quiet_timer: asyncio.TimerHandle | None = None
        self._check_timer: asyncio.TimerHandle | None = None
        self._waiting: list[tuple[Position, asyncio.Future[None]]] = []

    def close(self) -> None:
        """End the subscription."""
        self._closed = True
        self._jumped = _nothing
        for timer in (self._quiet_timer, self._check_timer):
            if timer is not None:
                timer.cancel()
        if self._repair is not None:
            self._repair.cancel()
        self._forget_held()
        for _, waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()
        super().close()

    async def reached(self, position: Position) -> None:
        """Wait until the members have got everything up to a position, or will not get it."""
        if self._closed or not self._is_live or self._is_past(position):
            return
        waiting = self._loop.create_future()
        self._waiting.append((position, waiting))
        self._mend()
        await waiting

    def _is_past(self, position: Position) -> bool:
        last = self.last
        return last.epoch != position.epoch or last.offset >= position.offset

    async def _subscribe(self) -> None:
        self.last = await self._broker.subscribe(self._room, self._received, self._interrupted)
        self._is_live = True
        self._drain()
        if self._held or self._overflowed:
            self._mend()
        self._look_when_quiet()
        self._schedule_check()

    def _received(self, record: Record, after: Position | None = None) -> None:
        self._heard_at = self._loop.time()
        position, last = record.position, self.last
        if not self._is_live:
            self._hold(record)
            return
        if position.epoch == last.epoch:
            if position.offset <= last.offset:
                return
            if position.offset == last.offset + 1:
                super()._received(record)
                if self._held:
                    self._drain()
                if self._waiting:
                    self._release()
                if self._quiet_timer is None:
                    self._look_when_quiet()
                return
        self._hold(record)
        # One that is under way goes on for as long as something is held.
        if not self._is_mending:
            self._mend()

    def _interrupted(self, top: Position) -> None:
        if self._is_live and top != self.last:
            self._mend()

    def _hold(self, record: Record) -> None:
        size = record.size
        if len(self._held) >= _MAX_HELD or self._held_bytes + size > _MAX_HELD_BYTES:
            self._forget_held()
            self._overflowed = True
        elif self._held.setdefault(record.position.offset, record) is record:
            self._held_bytes += size

    def _forget_held(self) -> None:
        self._held.clear()
        self._held_bytes = 0

    def _drain(self) -> None:
        """Pass on what is held and follows, and drop what is older."""
        held = self._held
        while (record := held.pop(self.last.offset + 1, None)) is not None:
            self._held_bytes -= record.size
            if record.position.epoch != self.last.epoch:
                continue
            super()._received(record)
        last = self.last
        stale = [
            offset
            for offset, record in held.items()
            if offset <= last.offset or record.position.epoch != last.epoch
        ]
        for offset in stale:
            self._held_bytes -= held.pop(offset).size

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for position, future in waiting:
            if future.done():
                continue
            if self._is_past(position):
                future.set_result(None)
            else:
                self._waiting.append((position, future))

    # Repairs

    def _mend(self, *, check: bool = False) -> None:
        """Compare the room with its history, and read what is missing; once at a time."""
        if self._closed:
            return
        if self._is_mending:
            # What it reads now may be older than what this is called for.
            self._reads_again = True
        else:
            self._repair = start(self._read_missing(check=check))

    @property
    def _is_mending(self) -> bool:
        return self._repair is not None and not self._repair.done()

    async def _read_missing(self, *, check: bool) -> None:
        pause = _PAUSE
        deaf = False
        while True:
            before, self._reads_again = self.last, False
            try:
                if deaf:
                    # It has missed something and heard nothing: the broker may not know of it.
                    await self._broker.subscribe(self._room, self._received, self._interrupted)
                    deaf = check = False
                page = await self._broker.after(self._room, before, limit=_REPAIR, max_bytes=_REPAIR_BYTES)
            except Exception:
                # Publishers and joins are told. This goes on until the broker is back.
                await self._pause(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            if page.top.epoch != self.last.epoch or not page.complete:
                if before != self.last:
                    # It has gone on meanwhile.
                    continue
                self._jump(page.top)
            else:
                deaf = check and page.top.offset > self.last.offset
                for record in page.records:
                    if record.position.offset > self.last.offset:
                        # The places in between are empty, which members must not take for a hole.
                        super()._received(record, self.last)
                if page.end.offset > self.last.offset:
                    # The places up to there are empty: these were replaced.
                    self.last = page.end
            self._overflowed = False
            self._drain()
            self._release()
            is_unfinished = deaf or self._held or self._overflowed or self._reads_again
            if not is_unfinished and self.last.offset >= page.top.offset:
                return
            if self.last != before or self._reads_again:
                pause = _PAUSE
                continue
            # What it has heard is not in the history yet.
            await self._pause(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds * (0.5 + self._random() / 2))

    def _jump(self, top: Position) -> None:
        """Go on from the top. Each member gets what is kept from the history, and learns what is not."""
        before, self.last = self.last, top
        self._jumped(before)

    # Checks

    def _look_when_quiet(self) -> None:
        self._quiet_timer = self._loop.call_later(_QUIET, self._grown_quiet)

    def _grown_quiet(self) -> None:
        self._quiet_timer = None
        since = self._loop.time() - self._heard_at
        if since < _QUIET:
            self._quiet_timer = self._loop.call_later(_QUIET - since, self._grown_quiet)
        else:
            self._mend(check=True)

    def _schedule_check(self) -> None:
        if not self._closed:
            self._check_timer = self._loop.call_later(_CHECK * (0.75 + self._random() / 2), self._check)

    def _check(self) -> None:
        self._mend(check=True)
        self._schedule_check()


def _nothing(*ignored: Any) -> None:
    """Stand where a closed feed hands nothing on."""
