"""Checks what a simulated cluster promises about publications, while it runs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextvars import copy_context
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from symphony.broker.base import Draft, History, Page, Record
from symphony.broker.keys import Keys
from symphony.broker.memory import MemoryBroker
from symphony.broker.roomlog import RoomLog
from symphony.protocol.positions import Position

if TYPE_CHECKING:
    from symphony.testing.wirepromises import Wire

__all__ = ("BrokenPromiseError", "Engine", "Publications", "Stored", "Trace")

_SHOWN: Final = 80
# How many of the last publications of a room a broker may lose that keeps them in a file.
_BACK: Final = 3
# In so many seconds, a client hears of a change of members: its node may have missed the last one.
_TOLD: Final = 14.0


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
        self._context = copy_context()
        self.lines: list[str] = []
        self.broken: str | None = None
        self.is_broken: asyncio.Future[None] = loop.create_future()

    @property
    def now(self) -> float:
        """The virtual time."""
        return self._loop.time()

    def later(self, seconds: float, check: Callable[[], object]) -> None:
        """Check something after some time."""
        # Not in the process of the node that has caused it, which may be stopped.
        self._loop.call_later(seconds, check, context=self._context)

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
        replaces: What it replaces: the first publication of a chain.
    """

    position: Position
    event: str | None
    data: Any
    key: str | None
    replaces: Position | None = None


class _State(NamedTuple):
    """The publications of one room at one moment."""

    top: Position
    floor: int
    history: History | None
    records: tuple[tuple[float, Record], ...]


class Engine(MemoryBroker):
    """The broker of a cluster, which tells what it has accepted.

    Args:
        max_bytes: See `MemoryBroker`.
        publications: Checks what it has accepted.
        new_epoch: See `MemoryBroker`.
    """

    first_epoch: str
    _keys: Keys

    def __init__(self, *, max_bytes: int, publications: Publications, new_epoch: Callable[[], str]) -> None:
        super().__init__(max_bytes=max_bytes, new_epoch=new_epoch)
        self._publications = publications
        # How the rooms were before their last publications: a file may be as old as that.
        self._earlier: dict[str, deque[_State]] = {}

    def publish(self, room: str, draft: Draft, history: History) -> Awaitable[Position]:
        """See `Broker.publish`."""
        before = self.top(room)
        log = self._logs.get(room)
        state = None if log is None else _state_of(log)
        is_kept = (
            log is not None and draft.replaces is not None and self._kept(log, draft.replaces) is not None
        )
        result = super().publish(room, draft, history)
        top = self.top(room)
        self._check_bounds(room)
        if top != before:
            if state is not None:
                self._earlier.setdefault(room, deque(maxlen=_BACK)).append(state)
            key = None if draft.key is None else str(tuple(draft.key)[:2])
            data = msgspec.msgpack.decode(draft.payload)
            stored = Stored(top, draft.event, data, key, draft.replaces)
            self._publications.accepted(room, stored, is_kept=is_kept)
        return result

    async def after(self, room: str, position: Position | None, *, limit: int, max_bytes: int) -> Page:
        """See `Broker.after`."""
        page = await super().after(room, position, limit=limit, max_bytes=max_bytes)
        self._check_bounds(room)
        return page

    def _check_bounds(self, room: str) -> None:
        log = self._logs.get(room)
        if log is None or log.history is None or not log.records:
            return
        history, (oldest, _) = log.history, log.records[0]
        size = sum(record.size for _, record in log.records)
        self._publications.check_bounds(
            room,
            len(log.records) <= history.size
            and (size <= history.bytes or len(log.records) == 1)
            and oldest > self._loop.time() - history.ttl,
        )

    def take_over(self, other: Engine, back: Callable[[int], int] | None) -> None:
        """Begin with what another life of the broker has stored.

        Args:
            other: That life, before it is closed.
            back: Returns how many of the last publications of a room were lost, up to a number.
                The rooms then have new epochs. `None`: everything was stored.
        """
        if back is None:
            self.first_epoch = other.first_epoch
            self._keys = deepcopy(other._keys)
            self._earlier = dict(other._earlier)
        now = self._loop.time()
        states = {room: _state_of(log) for room, log in other._logs.items()}
        for room, (epoch, top) in other._quiet.items():
            states[room] = _State(Position(epoch, top), top, None, ())
        for room, state in states.items():
            if back is not None:
                earlier = (*other._earlier.get(room, ()), state)
                state = earlier[-1 - back(len(earlier) - 1)]
            if not state.top.offset:
                continue
            epoch = state.top.epoch if back is None else self._new_epoch()
            records = [
                (
                    now - at,
                    Record(Position(epoch, one.position.offset), one.event, one.payload, None, one.replaces),
                )
                for at, one in state.records
            ]
            top = Position(epoch, state.top.offset)
            self._publications.restored(room, state.top, top, state.floor, [one for _, one in records])
            self.restore(room, top, state.floor, state.history or History(size=1), records)

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


def _state_of(log: RoomLog) -> _State:
    return _State(log.position, log.floor, log.history, tuple(log.records))


class Publications:
    """All publications of a cluster, in all lives of its broker.

    Args:
        trace: Notes what happens.

    Attributes:
        rooms: By room and position.
        replaced: Those that were replaced, by room and position, with the time.
        wires: The open connections.
        prompt: In how many seconds a publication reaches all connections that are in its room, while
            nothing is stopped. So long after something was stopped, nodes may still be busy with
            what has happened meanwhile.
        after_next: Called after the next publication.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.wires: dict[Wire, None] = {}
        self.prompt = 0.0
        self.after_next: list[Callable[[], object]] = []
        self._stopped: dict[object, None] = {}
        self._going_on_since = 0.0
        self._changed: dict[str, float] = {}
        self._epochs: dict[str, dict[str, int]] = {}
        self.rooms: dict[str, dict[Position, Stored]] = {}
        self.replaced: dict[str, dict[Position, float]] = {}
        self._keys: dict[tuple[str, str, str], Position] = {}
        # Of each chain of edits: the first publication of each, and the last one of each first.
        self._first: dict[tuple[str, Position], Position] = {}
        self._last: dict[tuple[str, Position], Position] = {}

    def accepted(self, room: str, stored: Stored, *, is_kept: bool) -> None:
        """Note what the broker has accepted; *is_kept*: what it replaces was kept up to now."""
        position, named = stored.position, stored.replaces
        self._trace.note(f"{room} has {stored.event} {_short(stored.data)} at {position}")
        of_room = self.rooms.setdefault(room, {})
        self._trace.require(position not in of_room, lambda: f"{room}: {position} was given out twice.")
        if named is not None:
            # The chain of what is no longer kept is not known: another one begins.
            if not is_kept:
                self._first.pop((room, named), None)
            first = self._first.get((room, named), named)
            self._trace.note(f"{room} has it instead of {named}, which was {first}")
            for one in (named, first, self._last.get((room, first), named)):
                self._replace(room, one)
            self._first[room, position] = first
            self._last[room, first] = position
            stored = stored._replace(replaces=first)
        of_room[position] = stored
        if stored.key is not None:
            first = self._keys.setdefault((room, position.epoch, stored.key), position)
            self._trace.require(
                first == position,
                lambda: (
                    f"{room}: what was published at {first} was published again at {position}, "
                    "with the same key."
                ),
            )
        epochs = self._epochs.setdefault(room, {})
        epochs.setdefault(position.epoch, len(epochs))
        after_next, self.after_next = self.after_next, []
        for each in after_next:
            each()
        if self.is_calm:
            self._check_later(room, position)

    def _check_later(self, room: str, position: Position) -> None:
        since = self._going_on_since
        wires = [wire for wire in self.wires if room in wire.rooms()]
        self._trace.later(self.prompt, lambda: self._check_reached(wires, room, position, since))

    def _check_reached(self, wires: Sequence[Wire], room: str, position: Position, since: float) -> None:
        for wire in wires if not self._stopped and self._going_on_since == since else ():
            wire.check_reached(room, position, self._epochs[room])

    @property
    def is_calm(self) -> bool:
        """Whether nothing is stopped, nor was until a short time ago."""
        return not self._stopped and self._trace.now >= self._going_on_since + self.prompt

    def stop(self, what: object) -> None:
        """Note that something does not go on for a while: publications may take any time."""
        self._stopped[what] = None

    def go_on(self, what: object) -> None:
        """Note that it goes on."""
        self._stopped.pop(what, None)
        self._going_on_since = self._trace.now
        for room, of_room in self.rooms.items():
            if of_room and not self._stopped:
                self._check_later(room, next(reversed(of_room)))

    def members_changed(self, room: str, members: Callable[[], Collection[str]]) -> None:
        """Check later that clients know the members of a room, which have changed now."""
        self._changed[room] = now = self._trace.now
        self._trace.later(_TOLD, lambda: self._check_told(room, now, members))

    def _check_told(self, room: str, at: float, members: Callable[[], Collection[str]]) -> None:
        if self._changed[room] != at:
            # The last change is the one that counts.
            return
        if self._stopped or self._trace.now < self._going_on_since + _TOLD:
            self._trace.later(_TOLD, lambda: self._check_told(room, at, members))
            return
        for wire in self.wires:
            wire.check_members(room, members())

    def check_bounds(self, room: str, holds: bool) -> None:
        """Check that a room keeps no more than its history allows."""
        self._trace.require(holds, lambda: f"{room} keeps more than its history allows.")

    def restored(
        self, room: str, before: Position, top: Position, floor: int, records: Sequence[Record]
    ) -> None:
        """Note with which publications a new life of the broker begins.

        Args:
            room: The room.
            before: The position of its last publication, in the epoch that it had.
            top: The same in its new epoch.
            floor: The offset up to which publications may have been trimmed.
            records: The publications.
        """
        if before.epoch == top.epoch:
            return
        self._trace.note(f"{room} begins with {[one.position.offset for one in records]} before {top}")
        of_room = self.rooms[room]
        for record in records:
            position = record.position
            of_room[position] = of_room[Position(before.epoch, position.offset)]._replace(position=position)
            if record.replaces is not None:
                self._first[room, position] = record.replaces
                self._last[room, record.replaces] = position
        kept = {record.position.offset for record in records}
        for offset in range(floor + 1, top.offset + 1):
            if offset not in kept:
                self._replace(room, Position(top.epoch, offset))

    def _replace(self, room: str, position: Position) -> None:
        self.replaced.setdefault(room, {}).setdefault(position, self._trace.now)


def _short(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= 40 else f"{text[:30]}… ({len(text)})"
