"""Checks what a simulated cluster promises about publications, while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from symphony.broker.base import Draft, History
from symphony.broker.memory import MemoryBroker
from symphony.errors import SymphonyError
from symphony.protocol.positions import Position

if TYPE_CHECKING:
    from symphony.client.arrivals import Publication
    from symphony.client.room import Room

__all__ = ("BrokenPromiseError", "Engine", "Follower", "Publications", "Stored", "Trace")

_SHOWN: Final = 80


class BrokenPromiseError(AssertionError):
    """A simulated cluster has not done what Symphony promises.

    Attributes:
        seed: The seed of the cluster. The same seed does the same again.
        trace: What has happened, line by line.
    """

    def __init__(self, promise: str, seed: int, trace: list[str]) -> None:
        lines = "\n".join(trace[-_SHOWN:])
        super().__init__(f"{promise}\nThis is seed {seed}. What happened last:\n{lines}")
        self.seed = seed
        self.trace = trace


class Trace:
    """What has happened in a cluster, and which promise was broken first.

    Args:
        now: Returns the virtual time.

    Attributes:
        lines: A line for each thing that happened.
        broken: The first promise that was broken, or `None`.
        is_broken: Done when there is one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.lines: list[str] = []
        self.broken: str | None = None
        self.is_broken: asyncio.Future[None] = loop.create_future()

    def note(self, line: str) -> None:
        """Add a line."""
        self.lines.append(f"{self._loop.time():9.3f} {line}")

    def require(self, holds: bool, promise: Callable[[], str]) -> None:
        """Note that a promise is broken, unless it holds."""
        if not holds and self.broken is None:
            self.broken = promise()
            self.note(f"BROKEN: {self.broken}")
            self.is_broken.set_result(None)


class Stored(NamedTuple):
    """A publication that the broker has accepted.

    Attributes:
        position: Its position.
        event: The name of the event; `None`: a message.
        data: Its data.
        key: The idempotency key, if it has one.
    """

    position: Position
    event: str | None
    data: Any
    key: str | None


class Engine(MemoryBroker):
    """The broker of a cluster, which tells what it has accepted.

    Args:
        max_bytes: See `MemoryBroker`.
        accepted: Called with a room, what it has accepted, and the position that it replaces.
        new_epoch: See `MemoryBroker`.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        accepted: Callable[[str, Stored, Position | None], object],
        new_epoch: Callable[[], str],
    ) -> None:
        super().__init__(max_bytes=max_bytes, new_epoch=new_epoch)
        self._accepted = accepted

    def publish(self, room: str, draft: Draft, history: History) -> Awaitable[Position]:
        """See `Broker.publish`."""
        before = self.top(room)
        result = super().publish(room, draft, history)
        top = self.top(room)
        if top != before:
            key = None if draft.key is None else str(tuple(draft.key)[:2])
            data = msgspec.msgpack.decode(draft.payload)
            self._accepted(room, Stored(top, draft.event, data, key), draft.replaces)
        return result

    def top(self, room: str) -> Position:
        """Return the position of a room's last publication, and change nothing."""
        log = self._logs.get(room)
        if log is not None:
            return log.position
        return Position(*self._quiet.get(room, (self.first_epoch, 0)))

    def gone(self, room: str) -> int:
        """Return the offset up to which publications may have been trimmed."""
        log = self._logs.get(room)
        return log.floor if log is not None and log.records else self.top(room).offset


class Publications:
    """All publications of a cluster, in all lives of its broker.

    Args:
        trace: Notes what happens.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.rooms: dict[str, dict[Position, Stored]] = {}
        self.replaced: dict[str, set[Position]] = {}
        self._keys: dict[tuple[str, str, str], Position] = {}

    def accepted(self, room: str, stored: Stored, replaces: Position | None) -> None:
        """Note what the broker has accepted."""
        position = stored.position
        self._trace.note(f"{room} has {stored.event} {_short(stored.data)} at {position}")
        of_room = self.rooms.setdefault(room, {})
        self._trace.require(position not in of_room, lambda: f"{room}: {position} was given out twice.")
        of_room[position] = stored
        if replaces is not None:
            self.replaced.setdefault(room, set()).add(replaces)
        if stored.key is not None:
            first = self._keys.setdefault((room, position.epoch, stored.key), position)
            self._trace.require(
                first == position,
                lambda: (
                    f"{room}: what was published at {first} was published again at {position}, "
                    "with the same key."
                ),
            )


class Follower:
    """Takes all publications of a room that a client has joined, and checks each.

    `Cluster.follow` returns it.

    Attributes:
        who: The client, for the trace.
        publications: What it has taken.
        lost: Each position that it was told after a loss.
    """

    def __init__(
        self,
        who: str,
        room: Room,
        publications: Publications,
        trace: Trace,
        engine: Callable[[], Engine],
        max_recovery: int,
    ) -> None:
        self.who = who
        self.publications: list[Publication] = []
        self.lost: list[Position] = []
        self._room = room
        self._all = publications
        self._trace = trace
        self._engine = engine
        self._max_recovery = max_recovery
        self._at = room.position
        room.on_lost(self._is_told)
        # At once: otherwise publications could go elsewhere.
        room.__aiter__()
        self.task = asyncio.ensure_future(self._take_all())

    @property
    def ended(self) -> SymphonyError | None:
        """Why the client is no longer in the room; see `Room.ended`."""
        return self._room.ended

    def _check_end(self) -> None:
        """Check that everything that was published has arrived."""
        if self.ended is not None or self._at is None:
            return
        top = self._engine().top(self._room.name)
        replaced = self._all.replaced.get(self._room.name, set())
        at = self._at
        missing = [
            offset
            for offset in range(at.offset + 1, top.offset + 1)
            if Position(top.epoch, offset) not in replaced
        ]
        self._trace.require(
            at.epoch == top.epoch and not missing,
            lambda: f"{self.who} is at {at} in {self._room.name} in the end, and the broker at {top}.",
        )

    async def _take_all(self) -> None:
        try:
            async for publication in self._room:
                self._take(publication)
        except SymphonyError as error:
            self._trace.note(f"{self.who} is out of {self._room.name}: {error}")

    def _take(self, publication: Publication) -> None:
        self.publications.append(publication)
        position, at, room = publication.position, self._at, self._room.name
        if position is None:
            return
        require = self._trace.require
        self._trace.note(f"{self.who} takes {position} of {room}")
        stored = self._all.rooms.get(room, {}).get(position)
        if stored is None:
            require(False, lambda: f"{self.who} has {position} of {room}, which was never published.")
            return
        require(
            (stored.event, stored.data) == (publication.event, publication.data),
            lambda: f"{self.who} has {publication} of {room}, and not {stored}.",
        )
        if at is None:
            require(False, lambda: f"{self.who} has {position} of {room}, which had no history.")
        elif at.epoch != position.epoch:
            require(False, lambda: f"{self.who} was at {at} of {room}, and was not told before {position}.")
        elif position.offset <= at.offset:
            require(False, lambda: f"{self.who} has {position} of {room} again, after {at}.")
        else:
            replaced = self._all.replaced.get(room, set())
            between = (Position(at.epoch, offset) for offset in range(at.offset + 1, position.offset))
            missing = [one for one in between if one not in replaced]
            require(not missing, lambda: f"{self.who} has {position} of {room}, and not {missing}.")
        self._at = position

    def _is_told(self, position: Position) -> None:
        at, room, engine = self._at, self._room.name, self._engine()
        self._trace.note(f"{self.who} is told that it has lost what is before {position} of {room}")
        self.lost.append(position)
        self._at = position
        if at is not None and at.epoch == position.epoch:
            top = engine.top(room)
            is_gone = engine.gone(room) if position.epoch == top.epoch else position.offset
            is_true = at.offset < is_gone or position.offset - at.offset > self._max_recovery
            self._trace.require(
                is_true and at.offset < position.offset <= max(top.offset, is_gone),
                lambda: (
                    f"{self.who} was at {at} of {room}, and was told that it has lost what is before "
                    f"{position}; the broker has what is after {is_gone}."
                ),
            )


def _short(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= 40 else f"{text[:30]}… ({len(text)})"
