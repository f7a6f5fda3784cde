"""Whether a node hears its channels: a connection may be deaf without a sign."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Final

from symphony.broker.redis.commands import Commands
from symphony.broker.redis.scripts import Names
from symphony.broker.redis.shards import Shard, Shards
from symphony.broker.redis.subscriber import Subscriber

__all__ = ("Probe",)

# How often it is tried whether the channels are heard, and how long that may take.
_PROBE: Final = 2.5
_PROBE_TIMEOUT: Final = 2.0


class Probe:
    """Sends messages to this node itself through each server.

    A connection that does not hear them is made anew.

    Args:
        shards: The servers.
        commands: Sends the messages.
        subscriber: Hears them.
        names: The names of channels.
        node: The name of this node. No other one hears its channels.
        publish: The command that publishes.
    """

    def __init__(
        self,
        shards: Shards,
        commands: Commands,
        subscriber: Subscriber,
        names: Names,
        *,
        node: str,
        publish: str,
    ) -> None:
        self._shards = shards
        self._commands = commands
        self._subscriber = subscriber
        self._names = names
        self._node = node
        self._publish = publish
        self._channels: dict[Shard, str] = {}
        # Those whose message was not heard yet.
        self._silent: set[Shard] = set()
        self._deaf: set[Shard] = set()
        self._all_heard = asyncio.Event()

    @property
    def deaf(self) -> bool:
        """Whether a server has answered, and the message was not heard.

        It ends with the next message that is heard.
        """
        return bool(self._deaf)

    async def run(self) -> None:
        """Look again and again."""
        while True:
            self._choose()
            await asyncio.sleep(_PROBE)
            self._silent.clear()
            self._all_heard.clear()
            answers: dict[Shard, asyncio.Future[object]] = {}
            for shard, channel in self._channels.items():
                if self._commands.reaches(channel):
                    self._silent.add(shard)
                    # Not twice: what another connection answers says nothing about this message. And
                    # if the server does not answer, all nodes have lost it, and none of them is deaf.
                    answer = self._commands.call(channel, self._publish, channel, b"", twice=False)
                    answer.add_done_callback(_look)
                    answers[shard] = answer
            try:
                async with asyncio.timeout(_PROBE_TIMEOUT):
                    if self._silent:
                        await self._all_heard.wait()
            except TimeoutError:
                for shard in self._silent:
                    answer = answers[shard]
                    if answer.done() and answer.exception() is None:
                        self._deaf.add(shard)
                    else:
                        self._deaf.discard(shard)
                    self._subscriber.reconnect(shard)

    def _choose(self) -> None:
        """Have one channel at each server, as slots are now."""
        shards = self._shards.all()
        for shard, channel in tuple(self._channels.items()):
            if self._shard_of(channel) is not shard:
                self._subscriber.unsubscribe(self._channels.pop(shard))
        self._deaf.intersection_update(shards)
        for shard in shards:
            if shard not in self._channels:
                channel = self._channels[shard] = self._channel_at(shard)
                self._hear(shard, channel)

    def _hear(self, shard: Shard, channel: str) -> None:
        def heard(message: bytes) -> None:
            self._deaf.discard(shard)
            self._silent.discard(shard)
            if not self._silent:
                self._all_heard.set()

        def again() -> None:
            # So that it is known at once whether a new connection hears.
            self._commands.tell(channel, self._publish, channel, b"")

        self._subscriber.hear(channel, heard, again)

    def _channel_at(self, shard: Shard) -> str:
        channels = (self._names.probe(self._node, number) for number in count())
        return next(channel for channel in channels if self._shard_of(channel) is shard)

    def _shard_of(self, channel: str) -> Shard | None:
        return self._shards.shard_of(self._shards.slot_of(channel))


def _look(answer: asyncio.Future[object]) -> None:
    # Otherwise asyncio logs that nobody has.
    if not answer.cancelled():
        answer.exception()
