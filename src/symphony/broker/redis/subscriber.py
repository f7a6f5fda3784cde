"""The channels that a node hears, over connections of their own, which are made again when they end."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, cast

from redis.exceptions import ClusterDownError, MovedError

from symphony.broker.redis.commands import packed
from symphony.broker.redis.line import Line
from symphony.broker.redis.link import RedisLink
from symphony.broker.redis.shards import Shard, Shards, new_place
from symphony.broker.waiting import PATIENCE
from symphony.errors import BrokerUnavailableError

__all__ = ("Heard", "Subscriber")

logger = logging.getLogger("symphony.app")

Heard = Callable[[bytes], object]

# How many channels one command subscribes to.
_SLICE: Final = 500
# What may wait to be sent. Above this, the server does not read.
_MAX_UNSENT_BYTES: Final = 4 * 1024 * 1024


class _Channel:
    """A channel that is to be heard.

    Attributes:
        line: Where it was asked for; `None`: it has to be asked for.
        is_heard: Whether that was confirmed.
        was_heard: Whether it was confirmed once: what was published meanwhile may be missed.
        waiting: Who waits for it.
    """

    __slots__ = ("again", "heard", "is_heard", "line", "slot", "waiting", "was_heard")

    def __init__(self, slot: int, heard: Heard, again: Callable[[], object] | None) -> None:
        self.slot = slot
        self.heard = heard
        self.again = again
        self.line: _Line | None = None
        self.is_heard = False
        self.was_heard = False
        self.waiting: list[asyncio.Future[None]] = []

    def lose(self) -> None:
        """Take it that it is not heard any more."""
        self.line = None
        self.is_heard = False


class _Line(Line):
    """The connection to one of the servers.

    Attributes:
        expected: How many confirmations of a channel are to come.
    """

    def __init__(self, subscriber: Subscriber, shard: Shard) -> None:
        super().__init__(shard, subscriber.timeout * PATIENCE, subscriber.random)
        self.expected: Counter[bytes] = Counter()
        self._subscriber = subscriber

    def made(self, link: RedisLink, *, again: bool) -> None:
        """See `Line.made`."""
        self._subscriber.ask()

    def received(self, link: RedisLink, answer: object) -> None:
        """See `Line.received`."""
        self._subscriber.received(self, answer)

    def lost(self) -> None:
        """See `Line.lost`."""
        self._subscriber.lost(self)


class Subscriber:
    """Hears channels. A message is told to what was subscribed last.

    Args:
        shards: The servers.
        timeout: How many seconds a subscription may take.
        random: Returns a number from 0 to 1.
    """

    def __init__(self, shards: Shards, *, timeout: float, random: Callable[[], float]) -> None:
        self.timeout = timeout
        self.random = random
        self._shards = shards
        self._shard = b"s" if shards.is_cluster else b""
        self._message = self._shard + b"message"
        self._loop = asyncio.get_running_loop()
        self._channels: dict[bytes, _Channel] = {}
        self._lines: dict[Shard, _Line] = {}
        shards.watch(looked=self._looked, moved=self._reconnect_all)

    def __contains__(self, channel: str) -> bool:
        return channel.encode() in self._channels

    async def connect(self) -> None:
        """Make the first connections.

        Raises:
            BrokerUnavailableError: One could not be made in time.
        """
        tasks = [self._line_to(shard).connect() for shard in self._shards.all()]
        _, late = await asyncio.wait(tasks, timeout=self.timeout)
        if late:
            raise BrokerUnavailableError("The broker of the rooms cannot be reached.")

    async def subscribe(self, channel: str, heard: Heard, again: Callable[[], object] | None = None) -> None:
        """Hear a channel, from when this returns.

        Args:
            channel: The name of the channel.
            heard: Called with each message.
            again: Called when the channel is heard again, after something may have been missed.

        Raises:
            BrokerUnavailableError: It was not confirmed in time.
        """
        of = self.hear(channel, heard, again)
        confirmed: asyncio.Future[None] = self._loop.create_future()
        of.waiting.append(confirmed)
        try:
            async with asyncio.timeout(self.timeout):
                await confirmed
        except BaseException as error:
            if self._channels.get(channel.encode()) is of:
                self.unsubscribe(channel)
            if isinstance(error, TimeoutError):
                raise BrokerUnavailableError("The broker of the rooms cannot be reached.") from None
            raise

    def hear(self, channel: str, heard: Heard, again: Callable[[], object] | None = None) -> _Channel:
        """Hear a channel soon; see `subscribe`."""
        name = channel.encode()
        before = self._channels.get(name)
        of = self._channels[name] = _Channel(self._shards.slot_of(channel), heard, again)
        if before is not None:
            of.waiting = before.waiting
        self._ask((name,))
        return of

    def unsubscribe(self, channel: str) -> None:
        """End a subscription; nothing of it is told any more."""
        name = channel.encode()
        of = self._channels.pop(name, None)
        if of is not None and of.line is not None:
            self._send(of.line, b"unsubscribe", name)

    def reconnect(self, shard: Shard) -> None:
        """Make the connection to a server anew, because it does not hear."""
        line = self._lines.get(shard)
        if line is not None:
            line.reconnect()

    def _reconnect_all(self) -> None:
        for line in self._lines.values():
            line.reconnect()

    def close(self) -> None:
        """End the connections."""
        self._channels.clear()
        for line in self._lines.values():
            line.close()

    def ask(self) -> None:
        """Ask for all channels that have to be asked for."""
        self._ask([name for name, channel in self._channels.items() if channel.line is None])

    def _ask(self, names: Iterable[bytes]) -> None:
        """Ask for channels, where that is possible. Those of different slots need different commands."""
        by_slot: dict[int, list[bytes]] = {}
        for name in names:
            by_slot.setdefault(self._channels[name].slot, []).append(name)
        for slot, of_slot in by_slot.items():
            shard = self._shards.shard_of(slot)
            line = None if shard is None else self._lines.get(shard) or self._connected(shard)
            if line is None or line.link is None:
                continue
            for first in range(0, len(of_slot), _SLICE):
                part = of_slot[first : first + _SLICE]
                for name in part:
                    self._channels[name].line = line
                    line.expected[name] += 1
                self._send(line, b"subscribe", *part)

    def _line_to(self, shard: Shard) -> _Line:
        line = self._lines[shard] = _Line(self, shard)
        return line

    def _connected(self, shard: Shard) -> _Line:
        line = self._line_to(shard)
        line.connect()
        return line

    def _send(self, line: _Line, command: bytes, *names: bytes) -> None:
        link = line.link
        if link is not None:
            link.send(packed(self._shard + command, *names))
            if link.size > _MAX_UNSENT_BYTES:
                # On the next one, only what is still wanted is asked for.
                link.close()

    def received(self, line: _Line, message: object) -> None:
        """Take what has come on a line."""
        if not isinstance(message, list):
            self._refused(line, message)
            return
        fields = cast("list[bytes]", message)
        kind, name, *rest = fields
        channel = self._channels.get(name)
        if kind == self._message:
            # Not before it is confirmed: such a message is one of an earlier subscription.
            if channel is not None and channel.is_heard:
                self._tell(channel.heard, rest[0])
        elif kind == self._shard + b"subscribe":
            self._confirmed(line, name, channel)
        elif channel is not None and channel.line is line and not line.expected[name]:
            # It has moved, or the server has ended it for another reason. If this is not the
            # server of the channel any more, it says so.
            channel.lose()
            self._ask((name,))

    def _tell(self, heard: Heard, message: bytes) -> None:
        try:
            heard(message)
        except Exception:
            # Such as one that another program has published on this channel.
            logger.exception("A message of the broker of the rooms cannot be read.")

    def _confirmed(self, line: _Line, name: bytes, channel: _Channel | None) -> None:
        line.dialer.worked()
        line.expected[name] -= 1
        if line.expected[name] > 0:
            return
        del line.expected[name]
        if channel is None or channel.line is not line:
            return
        channel.is_heard = True
        waiting, channel.waiting = channel.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
        if channel.was_heard and channel.again is not None:
            channel.again()
        channel.was_heard = True

    def _refused(self, line: _Line, error: object) -> None:
        if isinstance(error, MovedError):
            for name in tuple(line.expected):
                channel = self._channels.get(name)
                if self._shards.slot_of(name.decode()) == error.slot_id:
                    del line.expected[name]
                    if channel is not None and channel.line is line:
                        channel.lose()
            self._shards.look(new_place(error))
        elif isinstance(error, ClusterDownError):
            line.reconnect()
            self._shards.look()
        else:
            # Such as that a channel is not permitted.
            logger.error("The broker of the rooms has refused a subscription: %s", error)

    def lost(self, line: _Line) -> None:
        """Take it that the connection of a line has ended."""
        line.expected.clear()
        for channel in self._channels.values():
            if channel.line is line:
                channel.lose()
        self._shards.look()

    def _looked(self) -> None:
        """Take it that it was found out which server has which slot."""
        shards = self._shards.all()
        for shard, line in tuple(self._lines.items()):
            if shard not in shards:
                del self._lines[shard]
                line.close()
                self.lost(line)
        self.ask()
