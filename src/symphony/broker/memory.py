"""The broker in this process: `memory://`."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import Any, Final

from symphony.broker.base import BrokerState, Draft, Heard, History, Key, Page, Receive, Record
from symphony.broker.keys import Keys
from symphony.broker.roomlog import RoomLog
from symphony.protocol.positions import Position
from symphony.websocket.backpressure import READY

__all__ = ("NOBODY", "MemoryBroker")

# What a record takes beside its payload: the tuple, the position, the place in the deque.
_OVERHEAD: Final = 300

# What a room takes that keeps something, beside its name: its log, and its place in the tables.
_LOG_OVERHEAD: Final = 1300

# Of how many rooms without publications the position is remembered. Without it, a member that
# comes back to a quiet room would be told that it has missed something.
_MAX_QUIET: Final = 100_000


class _Done:
    """A result that is there already."""

    __slots__ = ("_position",)

    def __init__(self, position: Position) -> None:
        self._position = position

    def __await__(self) -> Generator[Any, None, Position]:
        return self._position
        yield


class _Nobody:
    """How many other processes there are."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, int]:
        return 0
        yield


NOBODY: Final[Awaitable[int]] = _Nobody()
"""The result of `deliver` where there is no other process."""


class MemoryBroker:
    """Keeps the publications of rooms in the memory of this process.

    They are gone when the process ends.

    Args:
        max_bytes: The most bytes that all rooms together keep. Above this, the room that
            was published to least recently loses its oldest publications.
        new_epoch: Makes a text that was never used as an epoch.
        forgot: Called with the name of a room whose position is no longer remembered.

    Attributes:
        shared: `False`: no other process has these rooms.
        state: `"ok"`: it is in this process.
        first_epoch: The epoch of rooms to which nothing was ever published.
        evicted: How many publications were dropped because of *max_bytes*.
        held: The bytes of those that are kept.
    """

    shared = False
    state: BrokerState = "ok"

    def __init__(
        self,
        *,
        max_bytes: int,
        new_epoch: Callable[[], str] = lambda: secrets.token_urlsafe(9),
        forgot: Callable[[str], object] = lambda room: None,
    ) -> None:
        self.evicted = 0
        self._loop = asyncio.get_running_loop()
        self._max_bytes = max_bytes
        self._new_epoch = new_epoch
        self._forgot = forgot
        self.held = 0
        # In the order of their last publications.
        self._logs: OrderedDict[str, RoomLog] = OrderedDict()
        # Rooms without records and subscribers: epoch and offset.
        self._quiet: OrderedDict[str, tuple[str, int]] = OrderedDict()
        # The epoch of each room to which nothing was ever published. It need not be remembered,
        # so those who join rooms and leave them push no other room out.
        self.first_epoch = new_epoch()
        self._keys = Keys()

    def publish(self, room: str, draft: Draft, history: History) -> Awaitable[Position]:
        """See `Broker.publish`."""
        now = self._loop.time()
        key = draft.key
        if key is not None:
            first = self._keys.find(room, key, now)
            if first is not None:
                return _Done(first)
        log = self._log(room)
        self._logs.move_to_end(room)
        log.history = history
        log.top += 1
        position = log.position
        if key is not None:
            self._keys.remember(room, key, position, now)
        replaces = None if draft.replaces is None else self._replace(log, draft.replaces)
        kept = Record(position, draft.event, draft.payload, None, replaces)
        size = kept.size + _OVERHEAD
        records = log.records
        if not records:
            self.held += _overhead(room)
        records.append((now, kept))
        log.size += size
        self.held += size
        self._trim(log, now)
        if log.timer is None:
            log.timer = self._loop.call_later(history.ttl, self._expire, room)
        if self.held > self._max_bytes:
            self._evict()
        receive = log.receive
        if receive is not None:
            receive(Record(position, draft.event, draft.payload, draft.source, replaces))
        return _Done(position)

    async def known(self, room: str, key: Key) -> Position | None:
        """See `Broker.known`."""
        return self.find(room, key)

    async def subscribe(
        self, room: str, receive: Receive, interrupted: Callable[[Position], None] | None = None
    ) -> Position:
        """See `Broker.subscribe`."""
        log = self._log(room)
        log.receive = receive
        return log.position

    def unsubscribe(self, room: str) -> None:
        """See `Broker.unsubscribe`."""
        log = self._logs.get(room)
        if log is not None:
            log.receive = None
            self._forget_if_quiet(room, log)

    def relay(self, topic: str, message: bytes) -> Awaitable[None]:
        """See `Broker.relay`: there is no other process."""
        return READY

    def deliver(self, topic: str, message: bytes, *, keeps: bool = False) -> Awaitable[int]:
        """See `Broker.deliver`: there is no other process."""
        return NOBODY

    async def listeners(self, topic: str) -> int:
        """See `Broker.listeners`: there is no other process."""
        return 0

    async def listen(self, topic: str, heard: Heard, missed: Callable[[], object] | None = None) -> None:
        """See `Broker.listen`."""

    def unlisten(self, topic: str) -> None:
        """See `Broker.unlisten`."""

    def close(self) -> None:
        """See `Broker.close`."""
        for log in self._logs.values():
            if log.timer is not None:
                log.timer.cancel()
        self._logs.clear()
        self._quiet.clear()
        self._keys.clear()
        self.held = 0

    async def after(self, room: str, position: Position | None, *, limit: int, max_bytes: int) -> Page:
        """See `Broker.after`."""
        log = self._log(room)
        self._trim(log, self._loop.time())
        if position is None:
            skip = 0
        elif log.knows(position):
            skip = log.index_after(position.offset)
        else:
            return Page((), log.position, complete=False, end=Position(log.epoch, log.floor))
        records: list[Record] = []
        size = 0
        # By index: a deque is entered from its nearer end.
        for index in range(skip, min(skip + limit, len(log.records))):
            _, record = log.records[index]
            size += record.size
            if records and size > max_bytes:
                break
            records.append(record)
        is_all = skip + len(records) == len(log.records)
        end = log.position if is_all else records[-1].position
        page = Page(records, log.position, complete=True, end=end)
        self._forget_if_quiet(room, log)
        return page

    async def before(self, room: str, position: Position | None, *, limit: int) -> Page:
        """See `Broker.before`."""
        log = self._log(room)
        self._trim(log, self._loop.time())
        stop, end = len(log.records), log.position
        if position is not None:
            if position.epoch != log.epoch or position.offset > log.top + 1:
                return Page((), log.position, complete=False, end=log.position)
            stop = log.index_from(position.offset)
            end = Position(log.epoch, max(position.offset - 1, 0))
        records = [log.records[index][1] for index in range(max(stop - limit, 0), stop)]
        page = Page(records, log.position, complete=True, end=end)
        self._forget_if_quiet(room, log)
        return page

    # For an engine that stores what this one keeps

    def position(self, room: str) -> Position:
        """Return the position of a room's last publication. It is remembered from now on."""
        log = self._log(room)
        if not log.records and log.receive is None:
            del self._logs[room]
            self._quiet[room] = log.epoch, log.top
        return log.position

    def find(self, room: str, key: Key) -> Position | None:
        """Return the position of the publication with a key; raise `Reject` for a conflict."""
        return self._keys.find(room, key, self._loop.time())

    def chain(self, room: str, replaced: Position) -> tuple[Position, int | None]:
        """Return what the replacement of a publication names, and which record it removes."""
        log = self._log(room)
        record = self._kept(log, replaced)
        self._forget_if_quiet(room, log)
        if record is None:
            return replaced, None
        return record.replaces or replaced, record.position.offset

    def floor(self, room: str) -> int | None:
        """Return the offset up to which nothing is kept; `None`: nothing at all is."""
        log = self._logs.get(room)
        if log is None:
            return None
        self._trim(log, self._loop.time())
        return log.floor if log.records else None

    def restore(
        self,
        room: str,
        top: Position,
        floor: int,
        history: History,
        records: Iterable[tuple[float, Record]],
    ) -> None:
        """Begin with a room that was stored.

        Args:
            room: Its name.
            top: The position of its last publication.
            floor: The offset up to which publications may have been trimmed.
            history: How much it keeps.
            records: What it keeps, each with its age in seconds; the oldest first.
        """
        now = self._loop.time()
        log = self._logs[room] = RoomLog(room, top.epoch, top.offset)
        log.floor = floor
        log.history = history
        for age, record in records:
            if not log.records:
                self.held += _overhead(room)
            log.records.append((now - age, record))
            if record.replaces is not None:
                log.edits[record.replaces] = record.position.offset
            log.size += record.size + _OVERHEAD
            self.held += record.size + _OVERHEAD
        self._expire(room)
        if self.held > self._max_bytes:
            self._evict()

    def restore_key(self, room: str, key: Key, position: Position, age: float) -> None:
        """Remember a key that was stored; the oldest first."""
        self._keys.remember(room, key, position, self._loop.time() - age)

    def _log(self, room: str) -> RoomLog:
        log = self._logs.get(room)
        if log is None:
            epoch, top = self._quiet.pop(room, None) or (self.first_epoch, 0)
            log = self._logs[room] = RoomLog(room, epoch, top)
        return log

    def _trim(self, log: RoomLog, now: float) -> None:
        history = log.history
        if history is None:
            return
        records = log.records
        oldest = now - history.ttl
        size = log.size - len(records) * _OVERHEAD
        while records and (
            records[0][0] <= oldest
            or len(records) > history.size
            or (size > history.bytes and len(records) > 1)
        ):
            size -= self._drop(log)

    def _drop(self, log: RoomLog) -> int:
        """Drop the oldest record; return its size without the overhead."""
        _, record = log.records.popleft()
        log.floor = record.position.offset
        return self._dropped(log, record)

    def _dropped(self, log: RoomLog, record: Record) -> int:
        size = record.size
        log.size -= size + _OVERHEAD
        self.held -= size + _OVERHEAD
        if not log.records:
            self.held -= _overhead(log.name)
        if record.replaces is not None and log.edits[record.replaces] == record.position.offset:
            del log.edits[record.replaces]
        return size

    def _replace(self, log: RoomLog, replaced: Position) -> Position:
        """Empty the place of what a new publication replaces; return the first of its chain."""
        first = replaced
        record = self._kept(log, replaced)
        if record is not None:
            if record.replaces is not None:
                first = record.replaces
            del log.records[log.index_from(record.position.offset)]
            self._dropped(log, record)
        log.edits[first] = log.top
        return first

    def _kept(self, log: RoomLog, position: Position) -> Record | None:
        """Return the record that stands for a publication now, if it is kept."""
        offset = log.edits.get(position)
        if offset is None:
            if position.epoch != log.epoch:
                return None
            offset = position.offset
        index = log.index_from(offset)
        if index == len(log.records):
            return None
        record = log.records[index][1]
        return record if record.position.offset == offset else None

    def _evict(self) -> None:
        # Each log without records is passed once, and is then the last.
        for _ in range(len(self._logs)):
            room, log = next(iter(self._logs.items()))
            while log.records and self.held > self._max_bytes:
                self._drop(log)
                self.evicted += 1
            if self.held <= self._max_bytes:
                return
            self._logs.move_to_end(room)
            self._forget_if_quiet(room, log)

    def _expire(self, room: str) -> None:
        log = self._logs.get(room)
        if log is None:
            return
        log.timer = None
        self._trim(log, self._loop.time())
        if log.records and log.history is not None:
            due = log.records[0][0] + log.history.ttl
            log.timer = self._loop.call_at(due, self._expire, room)
        self._forget_if_quiet(room, log)

    def _forget_if_quiet(self, room: str, log: RoomLog) -> None:
        if log.records or log.receive is not None:
            return
        if log.timer is not None:
            log.timer.cancel()
        del self._logs[room]
        if not log.top and log.epoch == self.first_epoch:
            return
        self._quiet[room] = log.epoch, log.top
        if len(self._quiet) > _MAX_QUIET:
            forgotten, _ = self._quiet.popitem(last=False)
            # The room begins again, and must not have the same positions a second time.
            self.first_epoch = self._new_epoch()
            self._forgot(forgotten)


def _overhead(room: str) -> int:
    """Return what a room takes beside its records."""
    return _LOG_OVERHEAD + len(room.encode())
