"""The messages that each node gets, also one that cannot be reached at this moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from symphony.broker.base import Heard
from symphony.broker.redis.commands import Commands, Script
from symphony.broker.redis.scripts import Names, incarnation
from symphony.errors import SymphonyError
from symphony.tasks import start

__all__ = ("KeptMessages", "KeptTopic", "Number")

logger = logging.getLogger("symphony.app")

# For how long a node that is not heard of is waited for, and messages are kept for it.
_WINDOW: Final = 60.0
# How often a node says that it is there.
_BEAT: Final = 10.0
# How many messages are kept for nodes whose connection is interrupted, and how many a node holds
# while it reads what it has missed. See docs/limits.md.
_MAX_KEPT: Final = 10_000
_PAUSE: Final = 0.5

Number = tuple[str, int]
"""The life of a topic's counter, and the number of a message in it."""


class KeptTopic:
    """A topic that this node listens to.

    Args:
        heard: Called with each message, in order, once.
        missed: Called when messages are gone that this node has not got.
        read: Reads what follows a number: the number of the last message, whether nothing is
            gone, and the messages.
    """

    def __init__(
        self,
        heard: Heard,
        missed: Callable[[], object],
        read: Callable[[Number], asyncio.Future[tuple[Number, bool, list[bytes]]]],
    ) -> None:
        self._heard = heard
        self._missed = missed
        self._read = read
        self._last: Number = ("", 0)
        # What came while something before it was read; `None`: nothing is read.
        self._held: list[tuple[Number | None, bytes | None]] | None = None
        self._overflowed = False
        self._mending: asyncio.Task[None] | None = None

    def begin(self, last: Number) -> None:
        """Begin after a message. The first that are missed are read by `mend`."""
        self._last = last

    def take(self, number: Number | None, message: bytes | None) -> None:
        """Take a message; `None`: it is one of this node. One that is not kept has no number."""
        if self._held is not None:
            if len(self._held) < _MAX_KEPT:
                self._held.append((number, message))
            else:
                self._overflowed = True
            return
        if number is not None:
            life, last = self._last
            if number[0] == life and number[1] <= last:
                return
            if number != (life, last + 1):
                self.mend()
                self.take(number, message)
                return
            self._last = number
        if message is not None:
            self._heard(message)

    def hold(self) -> None:
        """Hold what comes until `mend`: something before it may be missed."""
        if self._held is None:
            self._held = []

    def compare(self, last: Number) -> None:
        """Read what is missing, if there is a later message."""
        if last != self._last:
            self.mend()

    def mend(self) -> None:
        """Read what this node has missed, before it takes anything else."""
        if self._mending is None or self._mending.done():
            self.hold()
            self._mending = start(self._mend())

    def close(self) -> None:
        """Take nothing any more."""
        if self._mending is not None:
            self._mending.cancel()

    async def _mend(self) -> None:
        while True:
            try:
                last, complete, messages = await self._read(self._last)
                break
            except SymphonyError as error:
                logger.warning("What this node has missed is not known yet: %s", error)
                await asyncio.sleep(_PAUSE)
        self._last = last
        if not complete or self._overflowed:
            self._missed()
        for message in messages:
            self._heard(message)
        held, self._held, self._overflowed = self._held or [], None, False
        self._mending = None
        for number, message in held:
            self.take(number, message)


class KeptMessages:
    """Sends messages that are kept, and listens to topics that have some.

    Args:
        commands: Where commands are sent.
        script: `Scripts.kept`.
        names: The names of the keys.
        node: The name of this node.
    """

    def __init__(self, commands: Commands, script: Script, names: Names, node: str) -> None:
        self._commands = commands
        self._script = script
        self._names = names
        self._node = node
        self._topics: dict[str, KeptTopic] = {}

    def send(self, topic: str, channel: str, message: bytes) -> asyncio.Future[int]:
        """Send a message; return how many other nodes get it."""
        window = int(_WINDOW * 1000)
        return self._run(topic, "send", channel, message, window, _MAX_KEPT, twice=False)

    async def begin(self, topic: str, heard: Heard, missed: Callable[[], object]) -> KeptTopic:
        """Return what takes the messages on a topic, before this node subscribes to it.

        From now on, other nodes wait for this one.
        """

        def read(last: Number) -> asyncio.Future[tuple[Number, bool, list[bytes]]]:
            return self._run(topic, "after", *last, taken=_after)

        of_topic = KeptTopic(heard, missed, read)
        of_topic.begin(await self._say(topic))
        self._topics[topic] = of_topic
        return of_topic

    def end(self, topic: str) -> None:
        """Stop to listen."""
        of_topic = self._topics.pop(topic, None)
        if of_topic is not None:
            of_topic.close()
            nodes = self._names.kept(topic)[2]
            self._commands.tell(nodes, "ZREM", nodes, self._node)

    async def beat(self) -> None:
        """Say again and again that this node is there."""
        while True:
            await asyncio.sleep(_BEAT)
            for topic, of_topic in tuple(self._topics.items()):
                try:
                    of_topic.compare(await self._say(topic))
                except SymphonyError:
                    # The connection is made again, and says so.
                    continue

    def leave(self) -> None:
        """Say that this node ends, so that no other one waits for it."""
        for topic in tuple(self._topics):
            self.end(topic)

    def _say(self, topic: str) -> asyncio.Future[Number]:
        return self._run(topic, "beat", int(_WINDOW * 1000), taken=_number)

    def _run(
        self,
        topic: str,
        method: str,
        *arguments: Any,
        twice: bool = True,
        taken: Callable[[Any], Any] | None = None,
    ) -> asyncio.Future[Any]:
        keys = self._names.kept(topic)
        return self._commands.run(
            self._script, keys, method, incarnation(), self._node, *arguments, twice=twice, taken=taken
        )


def _number(answer: Any) -> Number:
    life, last, *_ = answer
    return life.decode(), int(last)


def _after(answer: Any) -> tuple[Number, bool, list[bytes]]:
    *_, complete, messages = answer
    return _number(answer), bool(complete), messages
