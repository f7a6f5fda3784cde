"""Asks whether a replica has what was published: `?ack=replica`."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from redis.exceptions import ReadOnlyError, ResponseError

from symphony.broker.redis.commands import packed
from symphony.broker.redis.dialing import Dial, Dialer
from symphony.broker.redis.link import RedisLink
from symphony.broker.redis.scripts import META_TTL
from symphony.broker.waiting import PATIENCE, failed
from symphony.errors import BrokerUnavailableError, OutcomeUnknownError, QueueFullError
from symphony.protocol.positions import Position
from symphony.tasks import start

__all__ = ("Replicas",)

logger = logging.getLogger("symphony.app")

# How long the server waits for a replica before it is asked again.
_WAIT: Final = 0.25


class _Publication:
    """A publication that is not known to be on a replica.

    Attributes:
        meta: The key of its room's meta.
        key: Its own key.
        acknowledged: What its publisher awaits.
        timer: Ends that.
        position: Its position, once it is published.
    """

    __slots__ = ("acknowledged", "key", "meta", "position", "timer")

    def __init__(self, meta: str, key: str, acknowledged: asyncio.Future[Position]) -> None:
        self.meta = meta
        self.key = key
        self.acknowledged = acknowledged
        self.timer: asyncio.TimerHandle | None = None
        self.position: Position | None = None

    def end(self, error: Exception | None = None) -> None:
        """Tell the publisher that a replica has it, or an error."""
        if self.timer is not None:
            self.timer.cancel()
        if error is not None:
            failed(self.acknowledged, error)
        elif self.position is not None and not self.acknowledged.done():
            self.acknowledged.set_result(self.position)


class Replicas:
    """Asks the server whether a replica has what it has.

    WAIT holds up all that follows on its connection, and is about what this connection has
    written. So it has a connection of its own, and each question is: whether the server has the
    keys of the publications, which are written together with them; something that is written
    after them; and whether a replica has that. This is right also if the connection is to another
    server than the one that has answered, as after a failover. All publications that were answered
    while one question waits share the next one.

    Args:
        dial: Connects to the server.
        timeout: How many seconds a publication may take until a replica has it.
        max_publications: How many may wait for that.
        random: Returns a number from 0 to 1.
    """

    def __init__(
        self, dial: Dial, *, timeout: float, max_publications: int, random: Callable[[], float]
    ) -> None:
        self._timeout = timeout
        self._max_publications = max_publications
        self._dialer = Dialer(dial, timeout * PATIENCE, random)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Publication] = deque()
        # What the server is asked at this moment, and its answers.
        self._asked: list[_Publication] = []
        self._answers: list[object] = []
        self._late: asyncio.TimerHandle | None = None
        self._link: RedisLink | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def connect(self) -> None:
        """Make the first connection.

        Raises:
            BrokerUnavailableError: It could not be made in time.
        """
        self._task = start(self._connect(again=False))
        done, _ = await asyncio.wait((self._task,), timeout=self._timeout)
        if not done:
            raise BrokerUnavailableError("The broker of the rooms cannot be reached.")
        self._task.result()

    def refused(self) -> asyncio.Future[Position] | None:
        """Return the error of a publication that may not wait any more; `None`: it may."""
        count = len(self._waiting) + len(self._asked)
        if count < self._max_publications:
            return None
        why = f"{count} publications wait for a replica of the broker: it is too slow, or away."
        return failed(self._loop.create_future(), QueueFullError(why))

    def acknowledge(
        self, published: asyncio.Future[Position], meta: str, key: str
    ) -> asyncio.Future[Position]:
        """Return the position of a publication when a replica has it.

        Args:
            published: What is done when the server has it.
            meta: The key of the room's meta.
            key: The key of the publication.

        Returns:
            The position, or an error of `Broker.publish`. `OutcomeUnknownError`: also if it was
            published, and no replica has said in time that it has it; or if the server was
            replaced by one that does not have it.
        """
        publication = _Publication(meta, key, self._loop.create_future())
        publication.timer = self._loop.call_later(self._timeout, self._too_late, publication)
        published.add_done_callback(lambda published: self._published(publication, published))
        return publication.acknowledged

    def _published(self, publication: _Publication, published: asyncio.Future[Position]) -> None:
        if published.cancelled() or self._closed:
            publication.end(OutcomeUnknownError("The app has stopped."))
        elif (error := published.exception()) is not None:
            publication.end(cast("Exception", error))
        else:
            publication.position = published.result()
            self._waiting.append(publication)
            # With all others that are answered in this turn.
            self._loop.call_soon(self._ask)

    def reconnect(self) -> None:
        """Make the connection anew, because it is of no use."""
        if self._link is not None:
            self._link.close()

    def close(self) -> None:
        """End the connection, and all questions."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        link, self._link = self._link, None
        if link is not None:
            link.close()
        self._end_question()
        for publication in self._waiting:
            publication.end(OutcomeUnknownError("The app has stopped."))

    async def _connect(self, *, again: bool) -> None:
        connection = await self._dialer.connected(again=again)
        self._link = RedisLink(connection, self._received, self._lost)
        self._ask()

    def _ask(self) -> None:
        if self._asked or self._link is None:
            return
        self._asked = [each for each in self._waiting if not each.acknowledged.done()]
        self._waiting.clear()
        if not self._asked:
            return
        for each in self._asked:
            self._link.send(packed("EXISTS", each.key))
        # As the script does at each use of the room.
        self._link.send(packed("PEXPIRE", self._asked[-1].meta, META_TTL))
        self._link.send(packed("WAIT", 1, int(_WAIT * 1000)))
        self._late = self._loop.call_later(_WAIT + self._timeout * PATIENCE, self._link.close)

    def _received(self, link: RedisLink, answer: object) -> None:
        if link is not self._link:
            return
        if isinstance(answer, ReadOnlyError) or str(answer).startswith("UNBLOCKED"):
            # It is a replica now.
            self._lost(link)
            link.close()
            return
        self._answers.append(answer)
        if len(self._answers) == len(self._asked) + 2:
            self._answered()

    def _answered(self) -> None:
        answers, asked = self._answers, self._asked
        self._asked = []
        self._end_question()
        self._dialer.worked()
        for answer in answers:
            if isinstance(answer, ResponseError):
                logger.error("The broker of the rooms refuses to ask its replicas: %s", answer)
                for each in asked:
                    each.end(OutcomeUnknownError(f"The broker refuses to ask its replicas: {answer}"))
                return
        *exist, is_written, count = cast("list[int]", answers)
        again: list[_Publication] = []
        for each, exists in zip(asked, exist, strict=True):
            if not exists:
                each.end(
                    OutcomeUnknownError("The server with the publication was replaced by one without it.")
                )
            elif is_written and count:
                each.end()
            else:
                again.append(each)
        self._waiting.extendleft(reversed(again))
        self._ask()

    def _end_question(self) -> None:
        if self._late is not None:
            self._late.cancel()
        self._answers = []
        asked, self._asked = self._asked, []
        self._waiting.extendleft(reversed(asked))

    def _too_late(self, publication: _Publication) -> None:
        if publication.position is None:
            # The call itself ends at the same time, and says why.
            return
        why = f"It was published, but no replica has said within {self._timeout:g} s that it has it."
        publication.end(OutcomeUnknownError(why))

    def _lost(self, link: RedisLink) -> None:
        if link is not self._link or self._closed:
            return
        self._link = None
        self._end_question()
        self._task = start(self._connect(again=True))
