"""The calls of a node to the broker in another process: repeated, bounded, answered in time."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from symphony.broker.links import Dial, Link, Said, decode, encode
from symphony.broker.waiting import PATIENCE, Waiting, failed, tell
from symphony.errors import (
    BrokerUnavailableError,
    OutcomeUnknownError,
    QueueFullError,
    Reject,
    SymphonyError,
)
from symphony.tasks import start

__all__ = ("Caller",)

logger = logging.getLogger("symphony.app")

_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
# How long the broker may be gone before `ended` is called.
_GONE: Final = 2.0


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
        self._waiting = Waiting(
            timeout=timeout, max_calls=max_calls, max_bytes=max_bytes, stuck=lambda call: self._give_up_link()
        )
        self._random = random
        self._told = told
        self._welcomed = welcomed
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._end: _End | None = None
        self._life: str | None = None
        # The number of the last message that the broker would have kept for this node.
        self._last = -1
        self._welcome: asyncio.Future[tuple[str, bool, bool]] = self._loop.create_future()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def is_connected(self) -> bool:
        """Whether there is a link at this moment."""
        return self._link is not None

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
        if self._closed:
            return failed(self._loop.create_future(), BrokerUnavailableError("The app has stopped."))
        waiting = self._waiting
        number = waiting.next_number()
        message = encode((number, waiting.oldest(number), method, *arguments))
        try:
            call = waiting.add(number, message, twice=twice, taken=taken)
        except SymphonyError as error:
            return failed(self._loop.create_future(), error)
        if self._link is not None:
            call.sent = self._loop.time()
            self._link.send(message)
        return call.future

    def tell(self, method: str, *arguments: Any) -> Awaitable[None]:
        """Call a method without an answer: at most once, and not while there is no link."""
        return tell(self._link, encode((0, 0, method, *arguments)), self._waiting.max_bytes)

    def close(self) -> None:
        """End the link, and all calls."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        link, self._link, self._end = self._link, None, None
        if link is not None:
            link.send(encode((0, 0, "bye")))
            link.finish()
        self._waiting.close()

    # The link

    async def _connect(self, lost_at: float | None) -> None:
        attempt = 0
        while True:
            link = None
            self._end = end = _End(self)
            self._welcome = welcome = self._loop.create_future()
            try:
                async with asyncio.timeout(self._timeout * PATIENCE):
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
            call = self._waiting.take_out(said[1])
            if call is not None:
                call.answer(said[2])
        elif kind == Said.ERROR:
            call = self._waiting.take_out(said[1])
            if call is not None:
                call.fail(_error_of(said[2], said[3]))
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
        for call in self._waiting.all():
            if call.sent and not call.twice and not known:
                self._waiting.give_up(call, "the broker was restarted")
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
        for call in self._waiting.all():
            self._waiting.link_lost(call.number)
        self._task = start(self._connect(self._loop.time()))

    def _give_up_link(self) -> None:
        if self._link is not None:
            self._link.close()


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
