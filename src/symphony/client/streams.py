"""A request whose answer is a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from symphony.client.answers import Answers
from symphony.client.backlog import Backlog, Gate
from symphony.client.entries import size_of
from symphony.client.loss import Loss
from symphony.client.requests import raw_connection
from symphony.errors import (
    MessageTooLargeError,
    QueueFullError,
    RemoteError,
    RequestTimeoutError,
    SymphonyError,
)
from symphony.protocol.envelopes import Event, Grant
from symphony.protocol.v1 import V1

__all__ = ("Flow", "Stream")

T = TypeVar("T")


class Flow:
    """The state of a stream, with the items that were not taken yet.

    It is separate from `Stream`, so that the client's table does not keep a
    `Stream` alive that the program no longer uses.

    Args:
        answers: The requests of the client.
        gate: The gate of the client, held while too many bytes are buffered.
        event: The name of the event.
        data: The data of the request.
        credit: How many items may be buffered here.
        max_bytes: How many bytes may be buffered here.
        timeout: How long the request may be queued.
        where: The address of the server, for the errors.

    Attributes:
        loop: The event loop in whose thread it must be used.
        ended: Whether no more items arrive.
    """

    __slots__ = (
        "_answers",
        "_credit",
        "_data",
        "_error",
        "_event",
        "_gate",
        "_items",
        "_taken",
        "_timeout",
        "_timer",
        "_waiter",
        "_where",
        "ended",
        "id",
        "loop",
    )
    bound = False

    def __init__(
        self,
        answers: Answers,
        gate: Gate,
        event: str,
        data: Any,
        *,
        credit: int,
        max_bytes: int,
        timeout: float,
        where: str,
    ) -> None:
        self.id: int | None = None
        self.loop = asyncio.get_running_loop()
        self._answers = answers
        self._event = event
        self._data = data
        self._credit = credit
        self._timeout = timeout
        self._where = where
        self._gate = gate
        # The credit limits the number of items.
        self._items: Backlog[Any] = Backlog(gate, credit + 1, max_bytes, self._overflow)
        self._taken = 0
        self.ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        answers.outgoing.put(self, refuse=not answers.outgoing.takes)
        if self.id is None and not self.ended:
            self._timer = self.loop.call_later(timeout, self._too_late)

    async def next(self) -> Any:
        """Return the next item, still encoded.

        Raises:
            StopAsyncIteration: There are no more items.
        """
        while not self._items:
            if self.ended:
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                raise StopAsyncIteration
            if self._waiter is not None:
                raise RuntimeError(f"Another task already iterates over the stream of {self._event!r}.")
            waiter = self._waiter = self.loop.create_future()
            self._gate.wait()
            try:
                await waiter
            finally:
                self._waiter = None
                if waiter.cancelled():
                    self._gate.waited()
        self._taken += 1
        if not self.ended and self._taken * 2 >= self._credit:
            taken, self._taken = self._taken, 0
            self._answers.outgoing.say(Grant(self.id, taken))
        return self._items.take()

    def leave(self) -> None:
        """Cancel the stream, unless it has ended."""
        self._items.clear()
        if self.ended:
            return
        if self.id is None:
            self._answers.outgoing.withdraw(self)
        else:
            self._answers.give_up(self)
        self._end(None)

    # Called by `Outgoing` and `Answers`

    def message(self, codec: V1 | None) -> str | bytes | None:
        """Return the message to send."""
        if self.ended:
            return None
        if codec is None:
            self._end(raw_connection(self._where))
            return None
        if self._timer is not None:
            self._timer.cancel()
        try:
            return self._answers.ask(self, codec, Event(self._event, self._data, credit=self._credit))
        except MessageTooLargeError as error:
            self._end(error)
            return None

    def item(self, data: Any, size: int) -> None:
        """Handle an item."""
        if len(self._items) >= self._credit:
            self._answers.give_up(self)
            self._end(
                RemoteError("invalid", f"the stream of {self._event!r} sent more items than were granted")
            )
            return
        if self._items.put(data, size):
            self._wake()

    def end(self) -> None:
        """Handle the end of the stream."""
        self._end(None)

    def replied(self, data: Any) -> None:
        """Handle a reply: fail, because the answer is not a stream."""
        self._end(
            RemoteError(
                "invalid", f"{self._event!r} answers with a reply, not a stream: use client.request()"
            )
        )

    def failed(self, error: SymphonyError) -> None:
        """Handle an error."""
        self._end(error)

    def postpone(self, error: RemoteError, *, stops: bool) -> bool:
        """Handle an error; a stream is not sent again."""
        return False

    def lost(self, loss: Loss) -> bool:
        """Handle the loss of the connection; a stream is not sent again."""
        self._end(loss.not_begun() or loss.error(f"the stream of {self._event!r} was interrupted"))
        return False

    def dropped(self, loss: Loss) -> bool:
        """Fail, because it is never sent."""
        self._end(loss.error(f"{self._event!r} was not sent"))
        return False

    @property
    def size(self) -> int:
        """About how many bytes it takes while it is queued."""
        return size_of(self._data)

    @property
    def what(self) -> str:
        """What it is, for messages."""
        return f"the request {self._event!r}"

    def _overflow(self) -> None:
        self._answers.give_up(self)
        self._end(
            QueueFullError(
                f"the stream of {self._event!r} was cancelled, because its items were not taken: "
                f"{self._items.bytes:,} bytes were buffered. Take them faster, or raise max_queue_bytes."
            )
        )

    def _too_late(self) -> None:
        self._answers.outgoing.withdraw(self)
        why = "the server reads too slowly" if self._answers.outgoing.live else "there is no connection"
        what = f"{self._event!r} was not sent to {self._where} within {self._timeout:g} s: {why}."
        self._end(RequestTimeoutError(what))

    def _end(self, error: Exception | None) -> None:
        if self.ended:
            return
        self.ended = True
        self._error = error
        if self._timer is not None:
            self._timer.cancel()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
            # Not when the task continues: the same read may bring many more items.
            self._gate.waited()


class Stream(AsyncIterator[T], Generic[T]):
    """The items of a stream: `async for item in client.stream("count", 3)`.

    The request is sent when the first item is requested. If the loop ends
    early, the stream is cancelled as soon as nothing refers to it any more. In
    a loop as above, that is at once. `async with` always cancels it.
    """

    __slots__ = ("__weakref__", "_flow", "_left", "_read", "_start")

    def __init__(self, start: Callable[[], Flow], read: Callable[[Any], T]) -> None:
        self._start = start
        self._read = read
        self._flow: Flow | None = None
        self._left = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Return the next item.

        Raises:
            RemoteError: The stream has failed, after the earlier items.
            DisconnectedError: The connection was lost.
            RequestTimeoutError: The request could not be sent in time.
        """
        if self._left:
            raise StopAsyncIteration
        if self._flow is None:
            self._flow = self._start()
        flow, read = self._flow, self._read
        try:
            item = await flow.next()
        finally:
            # Otherwise the traceback of a cancelled task would refer to the stream, and
            # prevent its cancellation.
            del self
        return read(item)

    async def aclose(self) -> None:
        """Cancel the stream, unless it is complete."""
        self._left = True
        if self._flow is not None:
            self._flow.leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        flow = self._flow
        if flow is not None and not flow.ended and not flow.loop.is_closed():
            # Not directly: `__del__` may run in any thread, and in the middle of a write.
            flow.loop.call_soon_threadsafe(flow.leave)
