"""Whether a node hears its channels: a connection may be deaf without a sign."""

from __future__ import annotations

import asyncio
from typing import Final

from symphony.broker.redis.commands import Commands
from symphony.broker.redis.subscriber import Subscriber

__all__ = ("Probe",)

# How often it is tried whether the channels are heard, and how long that may take.
_PROBE: Final = 2.5
_PROBE_TIMEOUT: Final = 2.0


class Probe:
    """Sends messages to this node itself, and makes a connection that does not hear them anew.

    Args:
        commands: Sends the messages.
        subscriber: Hears them.
        channel: The channel, which no other node has.

    Attributes:
        deaf: Whether the server has answered, and the message was not heard. It ends with the next
            message that is heard.
    """

    def __init__(self, commands: Commands, subscriber: Subscriber, channel: str) -> None:
        self.deaf = False
        self._commands = commands
        self._subscriber = subscriber
        self._channel = channel
        self._heard = asyncio.Event()

    async def subscribe(self) -> None:
        """Hear the channel."""
        await self._subscriber.subscribe(self._channel, self._hear)

    def resumed(self) -> None:
        """Find out at once whether a new connection hears."""
        self._commands.tell("PUBLISH", self._channel, b"")

    async def run(self) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(_PROBE)
            if not self._commands.is_connected:
                continue
            self._heard.clear()
            # Not twice: what another connection answers says nothing about this message. And if the
            # server does not answer, all nodes have lost it, and none of them is deaf.
            answer = self._commands.call("PUBLISH", self._channel, b"", twice=False)
            answer.add_done_callback(_look)
            try:
                async with asyncio.timeout(_PROBE_TIMEOUT):
                    await self._heard.wait()
            except TimeoutError:
                self.deaf = answer.done() and answer.exception() is None
                self._subscriber.reconnect()

    def _hear(self, message: bytes) -> None:
        self.deaf = False
        self._heard.set()


def _look(answer: asyncio.Future[object]) -> None:
    # Otherwise asyncio logs that nobody has.
    answer.exception()
