"""The calls of a node to the broker in another process: repeated, bounded, answered in time."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from symphony.broker.links import MAX_MESSAGE_BYTES, Dial, Link, Said, decode, encode
from symphony.errors import (
    BrokerUnavailableError,
    MessageTooLargeError,
    OutcomeUnknownError,
    QueueFullError,
    Reject,
)
from symphony.tasks import start
from symphony.websocket.backpressure import READY

__all__ = ("Caller",)

logger = logging.getLogger("symphony.app")

# How often the deadlines are looked at, in parts of the timeout.
_LOOKS: Final = 10
# After which part of the timeout a link without an answer is given up. Calls are then repeated.
_PATIENCE: Final = 0.5
# Relayed messages wait in the link. Above this, senders that await them wait, too.
_HIGH_WATER: Final = 256 * 1024

_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
# How long the broker may be gone before `ended` is called.
_GONE: Final = 2.0


class _Call:
    __slots__ = ("deadline", "future", "message", "number", "sent", "taken", "twice")

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
        # When it was sent on the present link, or 0; below 0 if only on an earlier one.
        self.sent = 0.0


class _End:
    """The end of one link at the caller."""

    __slots__ = ("_caller",)

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def received(self, message: bytes) -> None:
        self._caller._received(self, message)  # pyright: ignore[reportPrivateUsage]

    def lost(self) -> None:
        self._caller._lost(self)  # pyright: ignore[reportPrivateUsage]


class Caller:
    """Calls the broker over one link, which is made again when it ends.

    All calls wait in one queue until they are answered. If a link ends, they are sent again
    on the next one, in order and with their numbers, by which the broker knows them.

    Args:
        dial: Connects to the broker.
        name: A random name, which no other caller has.
        timeout: How many seconds a call may take.
        max_calls: How many calls may wait for their answers.
        max_bytes: How many bytes these and unsent messages may have.
        random: Returns a number from 0 to 1.
        told: Called with what the broker says that is no answer.
        welcomed: Called when there is a link again, with whether this node gets all messages
            that the broker keeps for those without a link.
        ended: Called once if the link has ended and cannot be made again.
    """

    def __init__(
        self,
        dial: Dial,
        *,
        name: str,
        timeout: float,
        max_calls: int,
        max_bytes: int,
        random: Callable[[], float],
        told: Callable[[Sequence[Any]], None],
        welcomed: Callable[[bool], None],
        ended: Callable[[], None] | None = None,
    ) -> None:
        self._dial = dial
        self._name = name
        self._timeout = timeout
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._random = random
        self._told = told
        self._welcomed = welcomed
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, _Call] = {}
        self._bytes = 0
        self._number = 0
        self._link: Link | None = None
        self._end: _End | None = None
        self._life: str | None = None
        # The number of the last message that the broker would have kept for this node.
        self._last = -1
        self._welcome: asyncio.Future[tuple[str, bool, bool]] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def connect(self) -> None:
        """Make the first link.

        Raises:
            BrokerUnavailableError: It could not be made in time.
        """
        self._task = start(self._connect(None))
        done, _ = await asyncio.wait((self._task,), timeout=self._timeout)
        if not done:
            self.close()
            raise BrokerUnavailableError("The broker of the rooms cannot be reached.")
        self._task.result()

    def call(
        self, method: str, *arguments: Any, twice: bool = False, taken: Callable[[Any], Any] | None = None
    ) -> asyncio.Future[Any]:
        """Call a method of the broker.

        Args:
            method: Its name.
            arguments: Plain values.
            twice: Whether it may run twice. Otherwise it is not repeated if the broker has
                been restarted.
            taken: Called with the answer as soon as it is there, in the order of all that the
                broker says. It returns the result.

        Returns:
            The result, or one of the errors of `Broker`.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            return _failed(future, BrokerUnavailableError("The app has stopped."))
        self._number = number = self._number + 1
        floor = next(iter(self._calls), number)
        message = encode((number, floor, method, *arguments))
        size = len(message)
        if size > MAX_MESSAGE_BYTES:
            return _failed(future, _too_large(size))
        if len(self._calls) >= self._max_calls or self._bytes + size > self._max_bytes:
            return _failed(
                future,
                QueueFullError(
                    f"{len(self._calls)} calls with {self._bytes} bytes wait for the broker: "
                    "it is too slow, or cannot be reached."
                ),
            )
        now = self._loop.time()
        call = _Call(number, message, future, now + self._timeout, twice, taken)
        self._calls[number] = call
        self._bytes += size
        if self._link is not None:
            call.sent = now
            self._link.send(message)
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout / _LOOKS, self._look)
        return future

    def tell(self, method: str, *arguments: Any) -> Awaitable[None]:
        """Call a method without an answer: at most once, and not while there is no link."""
        link = self._link
        error: Exception
        if link is None:
            error = BrokerUnavailableError("The broker of the rooms cannot be reached.")
        else:
            message = encode((0, 0, method, *arguments))
            if len(message) > MAX_MESSAGE_BYTES:
                error = _too_large(len(message))
            elif link.size + len(message) > self._max_bytes:
                error = QueueFullError(f"{link.size} bytes wait for the broker: it is too slow.")
            else:
                link.send(message)
                return READY if link.size < _HIGH_WATER else link.drained()
        return _failed(self._loop.create_future(), error)

    def close(self) -> None:
        """End the link, and all calls."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        link, self._link, self._end = self._link, None, None
        if link is not None:
            link.send(encode((0, 0, "bye")))
            link.finish()
        for number in tuple(self._calls):
            self._give_up(self._calls[number], "the app has stopped")

    # The link

    async def _connect(self, lost_at: float | None) -> None:
        attempt = 0
        while True:
            link = None
            self._end = end = _End(self)
            self._welcome = welcome = self._loop.create_future()
            try:
                async with asyncio.timeout(self._timeout * _PATIENCE):
                    link = await self._dial(end)
                    link.send(encode((0, 0, "hello", self._name, os.getpid(), self._last)))
                    life, known, complete = await welcome
                if self._end is end:
                    self._resume(link, life, known=known, complete=complete)
                    return
            except BaseException as error:
                self._end = None
                if link is not None:
                    link.close()
                if not isinstance(error, OSError | TimeoutError):
                    # Such as a cancellation, because the app stops.
                    raise
            now = self._loop.time()
            if lost_at is not None and now - lost_at > _GONE and self._ended is not None:
                ended, self._ended = self._ended, None
                ended()
            pause = min(_LONGEST_PAUSE, _PAUSE * 2**attempt)
            attempt = min(attempt + 1, 10)
            await asyncio.sleep(pause * (0.5 + self._random() / 2))

    def _received(self, end: _End, message: bytes) -> None:
        if end is not self._end:
            return
        said = decode(message)
        kind = said[0]
        if kind == Said.ANSWER:
            self._answered(said[1], said[2])
        elif kind == Said.ERROR:
            call = self._taken_out(said[1])
            if call is not None:
                _fail(call.future, _error_of(said[2], said[3]))
        elif kind != Said.WELCOME:
            if kind == Said.RELAYED and len(said) > 3:
                self._last = said[3]
            self._told(said)
        elif not self._welcome.done():
            _, life, known, complete, last = said
            if not complete:
                self._last = last
            self._welcome.set_result((life, known, complete))

    def _resume(self, link: Link, life: str, *, known: bool, complete: bool) -> None:
        """Begin to use a link: send again what is not answered."""
        self._link = link
        now = self._loop.time()
        again, self._life = self._life is not None, life
        for call in tuple(self._calls.values()):
            if call.sent and not call.twice and not known:
                self._give_up(call, "the broker was restarted")
                continue
            call.sent = now
            link.send(call.message)
        if again:
            logger.info("The broker of the rooms is reached again.")
            self._welcomed(complete)

    def _lost(self, end: _End) -> None:
        if end is not self._end or self._closed:
            return
        self._end = None
        if self._link is None:
            # It was not made yet: `_connect` goes on.
            if not self._welcome.done():
                self._welcome.set_exception(ConnectionError("The broker has closed the connection."))
            return
        self._link = None
        logger.warning("The connection to the broker of the rooms was lost.")
        for call in self._calls.values():
            call.sent = -1.0 if call.sent else 0.0
        self._task = start(self._connect(self._loop.time()))

    # The calls

    def _answered(self, number: int, result: Any) -> None:
        call = self._taken_out(number)
        if call is None:
            return
        if call.taken is not None:
            result = call.taken(result)
        if not call.future.done():
            call.future.set_result(result)

    def _taken_out(self, number: int) -> _Call | None:
        call = self._calls.pop(number, None)
        if call is not None:
            self._bytes -= len(call.message)
        return call

    def _look(self) -> None:
        """Give up calls that are too late, and a link that does not answer."""
        self._timer = None
        now = self._loop.time()
        for call in tuple(self._calls.values()):
            if call.deadline > now:
                break
            self._give_up(call, f"it did not answer within {self._timeout:g} s")
        oldest = next(iter(self._calls.values()), None)
        if oldest is None:
            return
        if self._link is not None and oldest.sent and now - oldest.sent > self._timeout * _PATIENCE:
            self._link.close()
        self._timer = self._loop.call_later(self._timeout / _LOOKS, self._look)

    def _give_up(self, call: _Call, why: str) -> None:
        self._taken_out(call.number)
        if call.sent:
            _fail(call.future, OutcomeUnknownError(f"The broker may or may not have done it: {why}."))
        else:
            _fail(call.future, BrokerUnavailableError(f"The broker of the rooms cannot be reached: {why}."))


def _failed(future: asyncio.Future[Any], error: Exception) -> asyncio.Future[Any]:
    _fail(future, error)
    return future


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        # What is not awaited is reported by those who know whose call it was.
        future.exception()


def _too_large(size: int) -> MessageTooLargeError:
    return MessageTooLargeError(
        f"A publication of {size} bytes is too large for the broker ({MAX_MESSAGE_BYTES}).",
        size=size,
        limit=MAX_MESSAGE_BYTES,
    )


def _error_of(kind: str, text: str) -> Exception:
    """Return the error that the broker has answered."""
    if kind == "full":
        return QueueFullError(text)
    if kind == "unavailable":
        return BrokerUnavailableError(text)
    if kind == "reject":
        code, _, message = text.partition(": ")
        return Reject(code, message)
    return OutcomeUnknownError(text)
