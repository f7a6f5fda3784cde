"""Publications that are not kept reach the members on other nodes: at most once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from symphony.errors import Reject
from symphony.outgoing.encoding import Content, Emitted, Sent
from symphony.protocol.codec import encode_msgpack
from symphony.protocol.unencodable import fail_to_encode
from symphony.rooms.options import Delivery
from symphony.rooms.outcomes import Outcome
from symphony.tasks import start

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from symphony.broker.base import Broker

__all__ = ("EVERYONE_TOPIC", "Relaying", "Topic", "topic_of")

EVERYONE_TOPIC: Final = "everyone"
"""The topic of what is sent to all sockets."""

_decode: Final = msgspec.msgpack.Decoder(tuple[str | None, msgspec.Raw, bool, str | None]).decode


def topic_of(room: str) -> str:
    """Return the topic of a room."""
    return f"room:{room}"


class Relaying:
    """Passes publications on to other nodes, and takes theirs.

    Args:
        broker: The broker, which is shared.
        report: Called with the error of a publication that is not awaited, and what it was.
    """

    def __init__(self, broker: Broker, report: Callable[[BaseException, str], object]) -> None:
        self._broker = broker
        self._report = report

    def publish(
        self, topic: str, message: Sent | Emitted | Content, delivery: Delivery, here: Awaitable[Any]
    ) -> Awaitable[None]:
        """Pass a publication on, after the members of this node have got it.

        Args:
            topic: Its topic.
            message: The publication.
            delivery: Its options.
            here: What the publisher awaits because of the members of this node.

        Raises:
            TypeError: It cannot be encoded.
        """
        if isinstance(message, Content):
            packed = message.packed
        else:
            try:
                packed = encode_msgpack(message.plain)
            except Exception as error:
                fail_to_encode(error, message.plain)
        relayed = msgspec.msgpack.encode(
            (message.event, msgspec.Raw(packed), delivery.volatile, delivery.conflate)
        )

        def report(error: BaseException) -> None:
            self._report(error, topic)

        return Outcome(self._broker.relay(topic, relayed), report, lambda _: here)

    async def listen(self, topic: str, heard: Callable[[Sent | Emitted, Delivery], object]) -> None:
        """Take the publications of other nodes on a topic, from when this returns.

        Args:
            topic: The topic.
            heard: Called with each publication and its options.
        """

        def take(relayed: bytes) -> None:
            try:
                event, packed, volatile, conflate = _decode(relayed)
                data: Any = msgspec.msgpack.decode(packed)
                message = Sent(data) if event is None else Emitted(event, data)
                heard(message, Delivery(transient=True, volatile=volatile, conflate=conflate))
            except Exception as error:
                self._report(error, topic)

        await self._broker.listen(topic, take)

    def unlisten(self, topic: str) -> None:
        """Take no more publications on a topic."""
        self._broker.unlisten(topic)


class Topic:
    """What other nodes pass on to one room of this node.

    Args:
        relaying: Listens to the topic.
        room: The name of the room.
        heard: Called with each publication and its options.
    """

    __slots__ = ("_heard", "_listening", "_relaying", "_room")

    def __init__(
        self, relaying: Relaying, room: str, heard: Callable[[Sent | Emitted, Delivery], object]
    ) -> None:
        self._relaying = relaying
        self._room = room
        self._heard = heard
        self._listening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Listen to the topic, if that is not done yet.

        Raises:
            Reject: `unavailable`: the broker failed.
        """
        listening = self._listening
        if listening is None:
            listening = self._listening = start(self._relaying.listen(topic_of(self._room), self._take))
        elif listening.done() and not listening.cancelled() and listening.exception() is None:
            return
        # Not the task itself: a join that is cancelled would cancel it for all.
        await asyncio.wait((listening,))
        if listening.cancelled() or listening.exception() is not None:
            if self._listening is listening:
                self._listening = None
            raise Reject("unavailable", f"the room {self._room!r} cannot be reached")

    def close(self) -> None:
        """Stop listening."""
        if self._listening is not None:
            self._listening.cancel()
            self._relaying.unlisten(topic_of(self._room))
        # Otherwise the room would wait for the garbage collector.
        self._heard = _nothing

    def _take(self, message: Sent | Emitted, delivery: Delivery) -> None:
        self._heard(message, delivery)


def _nothing(*ignored: object) -> None:
    """Stand where a closed topic hands nothing on."""
