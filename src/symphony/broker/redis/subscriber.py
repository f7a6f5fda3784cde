"""The channels that a node hears, over a connection of its own, which is made again when it ends."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias, cast

from symphony.broker.redis.commands import packed
from symphony.broker.redis.dialing import Dial, Dialer
from symphony.broker.redis.link import RedisLink
from symphony.broker.waiting import PATIENCE
from symphony.errors import BrokerUnavailableError
from symphony.tasks import start

__all__ = ("Heard", "Subscriber")

logger = logging.getLogger("symphony.app")

Heard = Callable[[bytes], object]

_Futures: TypeAlias = "list[asyncio.Future[None]]"

# How many channels one command subscribes to.
_SLICE: Final = 500
# What may wait to be sent. Above this, the server does not read.
_MAX_UNSENT_BYTES: Final = 4 * 1024 * 1024


class Subscriber:
    """Hears channels. A message is told to what was subscribed last.

    Args:
        dial: Connects to the server.
        timeout: How many seconds a subscription may take.
        random: Returns a number from 0 to 1.
        lost: Called when the connection has ended.
        resumed: Called when all channels are subscribed to again, after what was published
            meanwhile was not heard.
    """

    def __init__(
        self,
        dial: Dial,
        *,
        timeout: float,
        random: Callable[[], float],
        lost: Callable[[], object],
        resumed: Callable[[], object],
    ) -> None:
        self._dialer = Dialer(dial, timeout * PATIENCE, random)
        self._timeout = timeout
        self._tell_lost = lost
        self._resumed = resumed
        self._loop = asyncio.get_running_loop()
        self._channels: dict[bytes, Heard] = {}
        # Who waits for a connection.
        self._waiting: dict[bytes, _Futures] = {}
        # Who waits for the confirmations on the present link, in the order of the commands.
        self._expected: dict[bytes, deque[_Futures]] = {}
        self._unconfirmed = 0
        self._resuming = False
        self._link: RedisLink | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def __contains__(self, channel: str) -> bool:
        return channel.encode() in self._channels

    async def connect(self) -> None:
        """Make the first connection.

        Raises:
            BrokerUnavailableError: It could not be made in time.
        """
        self._task = start(self._connect(again=False))
        done, _ = await asyncio.wait((self._task,), timeout=self._timeout)
        if not done:
            self.close()
            raise BrokerUnavailableError("The broker of the rooms cannot be reached.")
        self._task.result()

    async def subscribe(self, channel: str, heard: Heard) -> None:
        """Hear a channel, from when this returns.

        Raises:
            BrokerUnavailableError: It was not confirmed in time.
        """
        name = channel.encode()
        self._channels[name] = heard
        confirmed: asyncio.Future[None] = self._loop.create_future()
        if self._link is not None:
            self._ask(self._link, {name: [confirmed]})
        else:
            self._waiting.setdefault(name, []).append(confirmed)
        try:
            async with asyncio.timeout(self._timeout):
                await confirmed
        except BaseException as error:
            if self._channels.get(name) is heard:
                self.unsubscribe(channel)
                self._waiting.pop(name, None)
            if isinstance(error, TimeoutError):
                raise BrokerUnavailableError("The broker of the rooms cannot be reached.") from None
            raise

    def unsubscribe(self, channel: str) -> None:
        """End a subscription; nothing of it is told any more."""
        name = channel.encode()
        if self._channels.pop(name, None) is not None and self._link is not None:
            self._send(self._link, "UNSUBSCRIBE", name)

    def reconnect(self) -> None:
        """Make the connection anew, because it does not hear."""
        if self._link is not None:
            self._link.close()

    def close(self) -> None:
        """End the connection."""
        self._closed = True
        self._channels.clear()
        if self._task is not None:
            self._task.cancel()
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _ask(self, link: RedisLink, channels: dict[bytes, _Futures]) -> None:
        for name, futures in channels.items():
            self._expected.setdefault(name, deque()).append(futures)
        self._unconfirmed += len(channels)
        self._send(link, "SUBSCRIBE", *channels)

    def _send(self, link: RedisLink, *command: str | bytes) -> None:
        link.send(packed(*command))
        if link.size > _MAX_UNSENT_BYTES:
            # On the next one, only what is still wanted is asked for.
            link.close()

    async def _connect(self, *, again: bool) -> None:
        connection = await self._dialer.connected(again=again)
        self._link = link = RedisLink(connection, self._received, self._lost)
        self._expected.clear()
        self._unconfirmed = 0
        self._resuming = again
        waiting, self._waiting = self._waiting, {}
        names = tuple(self._channels)
        for first in range(0, len(names), _SLICE):
            self._ask(link, {name: waiting.pop(name, []) for name in names[first : first + _SLICE]})
        self._tell_if_resumed()

    def _received(self, link: RedisLink, message: object) -> None:
        if link is not self._link:
            return
        if not isinstance(message, list):
            # An error, such as that a channel is not permitted.
            logger.error("The broker of the rooms has refused a subscription: %s", message)
            return
        fields = cast("list[bytes]", message)
        kind, name, *rest = fields
        if kind == b"message":
            heard = self._channels.get(name)
            if heard is not None:
                self._tell(heard, rest[0])
        elif kind == b"subscribe" and name in self._expected:
            self._confirmed(name)
        elif kind != b"unsubscribe" or (name in self._channels and name not in self._expected):
            # The server has ended a subscription, or says what was not asked for.
            logger.warning("The broker of the rooms has ended a subscription.")
            link.close()

    def _tell(self, heard: Heard, message: bytes) -> None:
        try:
            heard(message)
        except Exception:
            # Such as one that another program has published on this channel.
            logger.exception("A message of the broker of the rooms cannot be read.")

    def _confirmed(self, name: bytes) -> None:
        expected = self._expected[name]
        for future in expected.popleft():
            if not future.done():
                future.set_result(None)
        if not expected:
            del self._expected[name]
        self._unconfirmed -= 1
        self._dialer.worked()
        self._tell_if_resumed()

    def _tell_if_resumed(self) -> None:
        if self._resuming and not self._unconfirmed:
            self._resuming = False
            self._resumed()

    def _lost(self, link: RedisLink) -> None:
        if link is not self._link or self._closed:
            return
        self._link = None
        self._tell_lost()
        for name in self._expected.keys() & self._channels.keys():
            expected = self._expected[name]
            self._waiting[name] = [future for futures in expected for future in futures]
        self._task = start(self._connect(again=True))
