"""The connection to one server, which is made again when it ends."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

from symphony.broker.redis.dialing import Dialer
from symphony.broker.redis.link import RedisLink
from symphony.broker.redis.shards import Shard
from symphony.tasks import start

__all__ = ("Line",)


class Line(ABC):
    """A connection to a server that has no other user.

    Args:
        shard: The server.
        timeout: How many seconds one attempt to connect may take.
        random: Returns a number from 0 to 1.

    Attributes:
        shard: The server.
        link: The connection; `None`: there is none at this moment.
        dialer: What connects.
    """

    def __init__(self, shard: Shard, timeout: float, random: Callable[[], float]) -> None:
        self.shard = shard
        self.link: RedisLink | None = None
        self.dialer = Dialer(shard.dial, timeout, random)
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def connect(self, *, again: bool = True) -> asyncio.Task[None]:
        """Connect, in a task that this returns.

        Args:
            again: Whether it is tried again if the server cannot be used. If not, the task raises
                `ConfigurationError` then.
        """
        self._task = start(self._connect(again=again))
        return self._task

    def reconnect(self) -> None:
        """Make the connection anew, because it is of no use."""
        if self.link is not None:
            self.link.close()

    def close(self, *, finish: bool = False) -> None:
        """End the connection for good.

        Args:
            finish: Whether what was sent is still written.
        """
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        link, self.link = self.link, None
        if link is not None:
            if finish:
                link.finish()
            else:
                link.close()

    @abstractmethod
    def made(self, link: RedisLink, *, again: bool) -> None:
        """Take a new connection."""
        ...

    @abstractmethod
    def received(self, link: RedisLink, answer: object) -> None:
        """Take an answer."""
        ...

    @abstractmethod
    def lost(self) -> None:
        """Take it that the connection has ended. It is made again."""
        ...

    async def _connect(self, *, again: bool) -> None:
        connection = await self.dialer.connected(again=again)
        self.link = link = RedisLink(connection, self._received, self._lost)
        self.made(link, again=again)

    def _received(self, link: RedisLink, answer: object) -> None:
        if link is self.link:
            self.received(link, answer)

    def _lost(self, link: RedisLink) -> None:
        if link is self.link and not self._closed:
            self.link = None
            self.lost()
            self._task = start(self._connect(again=True))
