"""The received events that a program has not taken yet, for the blocking client."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from typing import Any, Final

from msgspec import Raw

__all__ = ("Inbox",)

logger = logging.getLogger("symphony.client")

# What a queued event takes besides its data: about 400 bytes, measured with Python 3.11.
_EVENT_BYTES: Final = 400


class Inbox:
    """Queues events by name. Above a limit it drops the oldest event of all.

    It must not stop reading instead: replies come over the same connection, and
    many programs send requests and ignore all events.

    Args:
        where: The server, for messages.
        max_events: How many events may be queued.
        max_bytes: How many bytes they may take.

    Attributes:
        dropped: How many events were dropped.
        bytes: The bytes that the queued events take.
    """

    __slots__ = (
        "_by_name",
        "_events",
        "_max_bytes",
        "_max_events",
        "_next",
        "_waiters",
        "_where",
        "bytes",
        "dropped",
    )

    def __init__(self, where: str, max_events: int, max_bytes: int) -> None:
        self._where = where
        self._max_events = max_events
        self._max_bytes = max_bytes
        # All events in the order of their arrival, and the keys of the events of each name.
        self._events: dict[int, tuple[str, Any, int]] = {}
        self._by_name: dict[str, deque[int]] = {}
        self._waiters: defaultdict[str, deque[asyncio.Future[None]]] = defaultdict(deque)
        self._next = 0
        self.dropped = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: str, data: Any) -> None:
        """Queue an event."""
        size = _EVENT_BYTES + (memoryview(data).nbytes if isinstance(data, Raw) else 0)
        key, self._next = self._next, self._next + 1
        self._events[key] = (event, data, size)
        self._by_name.setdefault(event, deque()).append(key)
        self.bytes += size
        while len(self._events) > self._max_events or (
            self.bytes > self._max_bytes and len(self._events) > 1
        ):
            self._drop()
        self._wake(event)

    def take(self, event: str) -> Any:
        """Return the data of the oldest event of a name.

        Raises:
            LookupError: There is none.
        """
        keys = self._by_name[event]
        data = self._remove(keys[0])
        if keys:
            self._wake(event)
        return data

    async def wait(self, event: str) -> None:
        """Wait until there is an event of a name, or `wake`; may return early."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters[event]
        waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and event in self._by_name:
                self._wake(event)
            raise
        finally:
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._waiters.pop(event, None)

    def wake(self) -> None:
        """Wake everything that waits, so that it checks again."""
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _drop(self) -> None:
        key = next(iter(self._events))
        event = self._events[key][0]
        self._remove(key)
        self.dropped += 1
        # Once each time the number doubles, or a fast server would fill the log.
        if self.dropped & (self.dropped - 1) == 0:
            logger.warning(
                "%s: %d received events were dropped so far, the last one %r, because the program has not "
                "called receive() for them.",
                self._where,
                self.dropped,
                event,
            )

    def _remove(self, key: int) -> Any:
        event, data, size = self._events.pop(key)
        self.bytes -= size
        keys = self._by_name[event]
        # The oldest event is also the oldest one with its name.
        keys.popleft()
        if not keys:
            del self._by_name[event]
        return data

    def _wake(self, event: str) -> None:
        for waiter in self._waiters.get(event, ()):
            if not waiter.done():
                waiter.set_result(None)
                return
