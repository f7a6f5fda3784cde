"""The calls of a node that wait for a broker: bounded in number, in bytes and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from symphony.broker.links import MAX_MESSAGE_BYTES, Link
from symphony.errors import (
    BrokerUnavailableError,
    MessageTooLargeError,
    OutcomeUnknownError,
    QueueFullError,
    SymphonyError,
)
from symphony.websocket.backpressure import READY

__all__ = ("PATIENCE", "Call", "Waiting", "check_size", "failed", "tell")

PATIENCE: Final = 0.5
"""After which part of the timeout a link without an answer is given up. Calls are then repeated."""

# How often the deadlines are looked at, in parts of the timeout.
_LOOKS: Final = 10
# Messages without an answer wait in the link. Above this, senders that await them wait, too.
_HIGH_WATER: Final = 256 * 1024


class Call:
    """A call that is not answered yet.

    Attributes:
        number: Its number. Those of later calls are higher.
        message: What is sent.
        future: What the caller awaits.
        deadline: When it is given up, in the time of the loop.
        twice: Whether it may run twice.
        taken: Makes the result of the answer.
        sent: When it was sent on the present link, or 0; below 0 if only on an earlier one.
        slot: Which part of a divided broker it is for.
    """

    __slots__ = ("deadline", "future", "message", "number", "sent", "slot", "taken", "twice")

    def __init__(
        self,
        number: int,
        message: bytes,
        future: asyncio.Future[Any],
        deadline: float,
        twice: bool,
        taken: Callable[[Any], Any] | None,
    ) -> None:
        self.number = number
        self.message = message
        self.future = future
        self.deadline = deadline
        self.twice = twice
        self.taken = taken
        self.sent = 0.0
        self.slot = 0

    def answer(self, result: Any) -> None:
        """Take the answer."""
        if self.taken is not None:
            try:
                result = self.taken(result)
            except SymphonyError as error:
                self.fail(error)
                return
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        """Take an error instead of an answer."""
        failed(self.future, error)


class Waiting:
    """The calls that wait for their answers, in their order.

    Args:
        timeout: How many seconds a call may take.
        max_calls: How many may wait.
        max_bytes: How many bytes these may have.
        stuck: Called with the oldest one that was sent, and is not answered after a part of the
            timeout.
    """

    def __init__(
        self, *, timeout: float, max_calls: int, max_bytes: int, stuck: Callable[[Call], object]
    ) -> None:
        self.timeout = timeout
        self.max_bytes = max_bytes
        self._max_calls = max_calls
        self._stuck = stuck
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, Call] = {}
        self._bytes = 0
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    def next_number(self) -> int:
        """Return the number of a new call."""
        self._number += 1
        return self._number

    def oldest(self, number: int) -> int:
        """Return the number of the oldest call; *number*, if there is none."""
        return next(iter(self._calls), number)

    def all(self) -> tuple[Call, ...]:
        """Return the calls, the oldest first."""
        return tuple(self._calls.values())

    def add(self, number: int, message: bytes, *, twice: bool, taken: Callable[[Any], Any] | None) -> Call:
        """Let a call wait.

        Raises:
            MessageTooLargeError: It is too large for a broker.
            QueueFullError: Too much waits already.
        """
        size = check_size(message)
        if len(self._calls) >= self._max_calls or self._bytes + size > self.max_bytes:
            raise QueueFullError(
                f"{len(self._calls)} calls with {self._bytes} bytes wait for the broker: "
                "it is too slow, or cannot be reached."
            )
        deadline = self._loop.time() + self.timeout
        call = Call(number, message, self._loop.create_future(), deadline, twice, taken)
        self._calls[number] = call
        self._bytes += size
        if self._timer is None:
            self._timer = self._loop.call_later(self.timeout / _LOOKS, self._look)
        return call

    def take_out(self, number: int) -> Call | None:
        """Remove a call, because it is answered; `None`: it does not wait any more."""
        call = self._calls.pop(number, None)
        if call is not None:
            self._bytes -= len(call.message)
        return call

    def get(self, number: int) -> Call | None:
        """Return a call; `None`: it does not wait any more."""
        return self._calls.get(number)

    def not_done(self, number: int) -> Call | None:
        """Note that a call was not carried out, although it was sent; return it."""
        call = self._calls.get(number)
        if call is not None:
            call.sent = 0.0
        return call

    def link_lost(self, number: int) -> None:
        """Note that a call is not sent on a present link any more."""
        call = self._calls.get(number)
        if call is not None and call.sent:
            call.sent = -1.0

    def give_up(self, call: Call, why: str) -> None:
        """End a call without an answer."""
        self.take_out(call.number)
        if call.sent:
            call.fail(OutcomeUnknownError(f"The broker may or may not have done it: {why}."))
        else:
            call.fail(BrokerUnavailableError(f"The broker of the rooms cannot be reached: {why}."))

    def close(self) -> None:
        """End all calls, because the app has stopped."""
        if self._timer is not None:
            self._timer.cancel()
        for call in self.all():
            self.give_up(call, "the app has stopped")

    def _look(self) -> None:
        """Give up calls that are too late, and a link that does not answer."""
        self._timer = None
        now = self._loop.time()
        for call in self.all():
            if call.deadline > now:
                break
            self.give_up(call, f"it did not answer within {self.timeout:g} s")
        if not self._calls:
            return
        for call in self._calls.values():
            if 0 < call.sent < now - self.timeout * PATIENCE:
                self._stuck(call)
                break
        self._timer = self._loop.call_later(self.timeout / _LOOKS, self._look)


def tell(link: Link | None, message: bytes, max_bytes: int) -> Awaitable[None]:
    """Send a message without an answer: at most once, and not while there is no link.

    Returns:
        What the sender awaits. It need not be awaited.
    """
    error: Exception
    if link is None:
        error = BrokerUnavailableError("The broker of the rooms cannot be reached.")
    else:
        try:
            size = check_size(message)
        except MessageTooLargeError as too_large:
            error = too_large
        else:
            if link.size + size <= max_bytes:
                link.send(message)
                return READY if link.size < _HIGH_WATER else link.drained()
            error = QueueFullError(f"{link.size} bytes wait for the broker: it is too slow.")
    return failed(asyncio.get_running_loop().create_future(), error)


def check_size(message: bytes) -> int:
    """Return the bytes of a message.

    Raises:
        MessageTooLargeError: They are too many for a broker.
    """
    size = len(message)
    if size > MAX_MESSAGE_BYTES:
        raise MessageTooLargeError(
            f"A publication of {size} bytes is too large for the broker ({MAX_MESSAGE_BYTES}).",
            size=size,
            limit=MAX_MESSAGE_BYTES,
        )
    return size


def failed(future: asyncio.Future[Any], error: Exception) -> asyncio.Future[Any]:
    """Let a future fail, unless it is done; return it."""
    if not future.done():
        future.set_exception(error)
        # What is not awaited is reported by those who know whose call it was.
        future.exception()
    return future
