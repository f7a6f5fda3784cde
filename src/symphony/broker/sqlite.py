"""The broker whose publications survive a restart: `sqlite:///rooms.db`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from symphony.broker.attendance import Decision
from symphony.broker.base import BrokerState, Draft, Heard, History, Key, Page, Receive, Record
from symphony.broker.journal import Batch, Journal, StoredKey, StoredRoom
from symphony.broker.keys import KEY_WINDOW
from symphony.broker.memberchanges import KeptMember
from symphony.broker.memory import NOBODY, MemoryBroker
from symphony.broker.sqlitemembers import SqliteMembers
from symphony.broker.sqlitetarget import Target
from symphony.errors import BrokerUnavailableError, ConfigurationError, OutcomeUnknownError, QueueFullError
from symphony.protocol.positions import Position
from symphony.tasks import start
from symphony.websocket.backpressure import READY

if TYPE_CHECKING:
    from typing import Self

__all__ = ("SqliteBroker",)

logger = logging.getLogger("symphony.app")

# What is stored in one transaction. Publications that come meanwhile are the next one.
_AT_ONCE: Final = 1000
_BYTES_AT_ONCE: Final = 4 * 1024 * 1024

# How often what the rooms no longer keep is removed from the file.
_SWEEP: Final = 5.0


class _Waiting(NamedTuple):
    room: str
    draft: Draft
    history: History
    result: asyncio.Future[Position]


class _Stored(NamedTuple):
    """What the file has."""

    rooms: list[StoredRoom]
    keys: list[StoredKey]
    members: list[KeptMember]
    decisions: list[Decision]


class SqliteBroker:
    """Keeps the publications of rooms in memory and in a file.

    A publication is stored before it is passed on and acknowledged. Publications that come
    while a transaction is under way are stored together in the next one. So are changes of
    the members of rooms.

    Make it with `SqliteBroker.open`.

    Attributes:
        kept: Stores members, for the presence store beside this broker.
    """

    shared = False
    state: BrokerState = "ok"

    def __init__(self, *, max_bytes: int, max_calls: int, max_waiting_bytes: int) -> None:
        self._core = MemoryBroker(max_bytes=max_bytes, forgot=self._forgot)
        self._max_calls = max_calls
        self._max_waiting_bytes = max_waiting_bytes
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="symphony-sqlite")
        self._journal: Journal | None = None
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        # The rooms with records in the file, and up to where these were removed.
        self._floors: dict[str, int] = {}
        self._next = Batch()
        self.kept = SqliteMembers(self._write_soon)
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._failing = False

    @classmethod
    async def open(
        cls,
        target: Target,
        *,
        max_bytes: int,
        max_calls: int,
        max_waiting_bytes: int,
    ) -> Self:
        """Open the file, and read it.

        Args:
            target: The file, and how it is written.
            max_bytes: `Limits.max_history_bytes`.
            max_calls: `Limits.max_broker_calls`.
            max_waiting_bytes: `Limits.max_broker_bytes`.

        Raises:
            ConfigurationError: The file cannot be used.
        """
        broker = cls(max_bytes=max_bytes, max_calls=max_calls, max_waiting_bytes=max_waiting_bytes)
        try:
            broker._restore(await broker._in_thread(broker._load, target))
        except BaseException:
            broker._thread.shutdown(wait=False)
            raise
        broker._timer = broker._loop.call_later(_SWEEP, broker._sweep)
        return broker

    def publish(self, room: str, draft: Draft, history: History) -> Awaitable[Position]:
        """See `Broker.publish`."""
        result: asyncio.Future[Position] = self._loop.create_future()
        size = len(draft.payload)
        if self._closed:
            return _failed(result, BrokerUnavailableError("The broker of the rooms has stopped."))
        if len(self._waiting) >= self._max_calls or self._waiting_bytes + size > self._max_waiting_bytes:
            return _failed(
                result,
                QueueFullError(
                    f"{len(self._waiting)} publications with {self._waiting_bytes} bytes wait to be stored: "
                    "the disk is too slow."
                ),
            )
        self._waiting.append(_Waiting(room, draft, history, result))
        self._waiting_bytes += size
        self._write_soon()
        return result

    async def known(self, room: str, key: Key) -> Position | None:
        """See `Broker.known`."""
        return self._core.find(room, key)

    async def subscribe(
        self, room: str, receive: Receive, interrupted: Callable[[Position], None] | None = None
    ) -> Position:
        """See `Broker.subscribe`."""
        return await self._core.subscribe(room, receive)

    def unsubscribe(self, room: str) -> None:
        """See `Broker.unsubscribe`."""
        self._core.unsubscribe(room)

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

    async def after(self, room: str, position: Position | None, *, limit: int, max_bytes: int) -> Page:
        """See `Broker.after`."""
        return await self._core.after(room, position, limit=limit, max_bytes=max_bytes)

    async def before(self, room: str, position: Position | None, *, limit: int) -> Page:
        """See `Broker.before`."""
        return await self._core.before(room, position, limit=limit)

    def close(self) -> None:
        """Store what waits, and close the file; see `Broker.close`."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        # After the transaction that is under way.
        self._thread.submit(self._finish)
        self._thread.shutdown(wait=True)
        for waiting in self._waiting:
            _failed(waiting.result, BrokerUnavailableError("The broker of the rooms has stopped."))
        self._waiting.clear()
        self.kept.close()
        self._core.close()

    def _restore(self, stored: _Stored) -> None:
        assert self._journal is not None
        self._core.first_epoch = self._journal.first_epoch
        self.kept.members, self.kept.decisions = stored.members, stored.decisions
        for room in stored.rooms:
            self._core.restore(room.name, room.top, room.floor, room.history, room.records)
            if room.records:
                self._floors[room.name] = room.floor
        for each in stored.keys:
            self._core.restore_key(each.room, each.key, each.position, each.age)

    # In the thread of the file

    def _load(self, target: Target) -> _Stored:
        journal = self._journal = Journal(target.path, target.sync, lambda: secrets.token_urlsafe(9))
        try:
            if journal.may_have_lost:
                logger.warning(
                    "The machine has stopped while %s was in use with sync=normal: the last publications may "
                    "be missing. Members that come back are told.",
                    target.path,
                )
                journal.begin_epochs()
            rooms, keys = list(journal.rooms()), list(journal.keys(KEY_WINDOW))
            return _Stored(rooms, keys, journal.members(), journal.decisions())
        except sqlite3.Error as error:
            journal.close()
            raise ConfigurationError(
                f"The file of the broker, {target.path}, cannot be read: {error}. If it is damaged, move it "
                "away. Rooms then begin anew."
            ) from None

    def _finish(self) -> None:
        if self._journal is not None:
            self._next.members = self.kept.take()
            with contextlib.suppress(sqlite3.Error):
                if self._next:
                    self._journal.store(self._next)
            with contextlib.suppress(sqlite3.Error):
                self._journal.close()

    # Batches

    def _write_soon(self) -> None:
        if self._writing is None:
            self._writing = start(self._write())

    async def _write(self) -> None:
        try:
            while (self._waiting or self._next or self.kept) and not self._closed:
                batch, self._next = self._next, Batch()
                batch.members = self.kept.take()
                planned = self._plan(batch)
                if not batch:
                    self.kept.ended()
                    continue
                assert self._journal is not None
                try:
                    await self._in_thread(self._journal.store, batch)
                except Exception as error:
                    self._refuse(planned, error)
                    self.kept.ended(failed=batch.members)
                    continue
                self._failing = False
                self._apply(planned)
                self.kept.ended()
        finally:
            self._writing = None

    def _plan(self, batch: Batch) -> list[tuple[_Waiting, Record]]:
        """Take what the next transaction stores, with the positions that it will have."""
        planned: list[tuple[_Waiting, Record]] = []
        tops: dict[str, Position] = {}
        keys: set[tuple[str, str, str]] = set()
        size = 0
        while self._waiting and len(planned) < _AT_ONCE and size < _BYTES_AT_ONCE:
            waiting = self._waiting[0]
            room, draft, history, result = waiting
            key = draft.key
            if key is not None:
                if (room, key.publisher, key.key) in keys:
                    # It is a repeat of one that is not stored yet.
                    break
                try:
                    first = self._core.find(room, key)
                except Exception as error:
                    self._take()
                    _failed(result, error)
                    continue
                if first is not None:
                    self._take()
                    _succeed(result, first)
                    continue
            replaces = None
            if draft.replaces is not None:
                if room in tops:
                    # What it replaces may be among those that are not stored yet.
                    break
                replaces, removed = self._core.chain(room, draft.replaces)
                if removed is not None:
                    batch.remove(room, removed)
            self._take()
            size += len(draft.payload)
            before = tops.get(room) or self._core.position(room)
            top = tops[room] = Position(before.epoch, before.offset + 1)
            record = Record(top, draft.event, draft.payload, replaces=replaces)
            planned.append((waiting, record))
            batch.add_record(room, record)
            batch.add_room(room, top, self._floors.get(room, before.offset), history)
            self._floors.setdefault(room, before.offset)
            if key is not None:
                keys.add((room, key.publisher, key.key))
                batch.add_key(room, key, top)
        return planned

    def _take(self) -> None:
        self._waiting_bytes -= len(self._waiting.popleft().draft.payload)

    def _apply(self, planned: list[tuple[_Waiting, Record]]) -> None:
        """Publish what is stored."""
        for (room, draft, history, result), record in planned:
            if not self._closed:
                # It takes the planned position: nothing else publishes, and the room is remembered.
                self._core.publish(room, draft, history)
            _succeed(result, record.position)

    def _refuse(self, planned: list[tuple[_Waiting, Record]], error: Exception) -> None:
        """Tell the publishers that nothing was stored.

        What else was in the batch removes something from the file, or is about members. A later
        transaction does that.
        """
        if not self._failing:
            self._failing = True
            logger.error("The broker of the rooms cannot store publications and members: %s", error)
        text = f"The broker of the rooms cannot store anything: {error}."
        # The disk may have more than it has said.
        kind = BrokerUnavailableError if "full" in str(error) else OutcomeUnknownError
        for waiting, _ in planned:
            _failed(waiting.result, kind(text))

    # Trims

    def _forgot(self, room: str) -> None:
        self._floors.pop(room, None)
        self._next.forgotten.append((room,))
        self._next.first_epoch = self._core.first_epoch

    def _sweep(self) -> None:
        """Remove from the file what the rooms no longer keep."""
        for room, stored in tuple(self._floors.items()):
            floor = self._core.floor(room)
            if floor is None:
                del self._floors[room]
                floor = self._core.position(room).offset
            elif floor > stored:
                self._floors[room] = floor
            if floor > stored:
                self._next.trim(room, floor)
        self.kept.try_again()
        if self._next or self.kept:
            self._write_soon()
        if self._journal is not None and not self._closed:
            self._thread.submit(partial(_quietly, self._journal.expire, KEY_WINDOW))
            self._timer = self._loop.call_later(_SWEEP, self._sweep)

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await self._loop.run_in_executor(self._thread, work, *arguments)


def _quietly(work: Callable[..., object], *arguments: Any) -> None:
    # The next transaction fails in the same way, and says so.
    with contextlib.suppress(sqlite3.Error):
        work(*arguments)


def _failed(result: asyncio.Future[Any], error: BaseException) -> asyncio.Future[Any]:
    if not result.done():
        result.set_exception(error)
        # What is not awaited is reported by those who know whose call it was.
        result.exception()
    return result


def _succeed(result: asyncio.Future[Position], position: Position) -> None:
    if not result.done():
        result.set_result(position)
