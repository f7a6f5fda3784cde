"""Publications that are not kept reach the members on other nodes: at most once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from symphony.errors import Reject
from symphony.outgoing.encoding import Content, Emitted, Once, Sent
from symphony.protocol.codec import encode_msgpack
from symphony.protocol.unencodable import fail_to_encode
from symphony.rooms.excluding import LeftOut, names_of
from symphony.rooms.options import Delivery
from symphony.rooms.outcomes import Outcome
from symphony.rooms.topics import topic_of
from symphony.socket import recipient_of
from symphony.tasks import start

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from symphony.broker.base import Broker
    from symphony.socket import Socket

__all__ = ("Heard", "Relaying", "Topic")


class _Relayed(msgspec.Struct, array_like=True):
    """A publication on its way to another node.

    Attributes:
        event: The name of the event; `None` for a message.
        data: Its data, in MessagePack.
        volatile: An option of the publication.
        conflate: Likewise.
        exclude: The names of what does not get it.
        group: The route or router whose sockets get it; `None`: it is for its topic.
    """

    event: str | None
    data: msgspec.Raw
    volatile: bool = False
    conflate: str | None = None
    exclude: list[str] = []
    group: str | None = None


_decode: Final = msgspec.msgpack.Decoder(_Relayed).decode

Heard = Callable[[Sent | Emitted, Delivery, "LeftOut", str | None], object]
"""What takes a publication of another node, its options, what is left out, and its group."""


class Relaying:
    """Passes publications on to other nodes, and takes theirs.

    Args:
        broker: The broker, which is shared.
        report: Called with the error of a publication that is not awaited, and what it was.
        find: Returns the sockets of this node by a name of `rooms/topics.py`.
    """

    def __init__(
        self,
        broker: Broker,
        report: Callable[[BaseException, str], object],
        find: Callable[[str], Iterable[Socket[Any]]],
    ) -> None:
        self._broker = broker
        self._report = report
        self._find = find

    def publish(
        self,
        topic: str,
        message: Sent | Emitted | Content | Once,
        delivery: Delivery,
        here: Awaitable[Any],
        exclude: Iterable[Any] = (),
        group: str | None = None,
    ) -> Awaitable[None]:
        """Pass a publication on, after the members of this node have got it.

        Args:
            topic: Its topic.
            message: The publication.
            delivery: Its options.
            here: What the publisher awaits because of the members of this node.
            exclude: What does not get it.
            group: The name of the route or router that it is for.

        Raises:
            TypeError: It cannot be encoded.
        """
        if isinstance(message, Content):
            packed = message.packed
        else:
            try:
                packed = message.packed if isinstance(message, Once) else encode_msgpack(message.plain)
            except Exception as error:
                fail_to_encode(error, message.plain)
        relayed = msgspec.msgpack.encode(
            _Relayed(
                message.event,
                msgspec.Raw(packed),
                delivery.volatile,
                delivery.conflate,
                names_of(exclude),
                group,
            )
        )

        def report(error: BaseException) -> None:
            self._report(error, topic)

        return Outcome(self._broker.relay(topic, relayed), report, lambda _: here)

    async def listen(self, topic: str, heard: Heard) -> None:
        """Take the publications of other nodes on a topic, from when this returns.

        Args:
            topic: The topic.
            heard: Called with each publication.
        """

        def take(relayed: bytes) -> None:
            try:
                it = _decode(relayed)
                data: Any = msgspec.msgpack.decode(it.data)
                message = Sent(data) if it.event is None else Emitted(it.event, data)
                left_out = LeftOut()
                for name in it.exclude:
                    left_out += map(recipient_of, self._find(name))
                delivery = Delivery(transient=True, volatile=it.volatile, conflate=it.conflate)
                heard(message, delivery, left_out, it.group)
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
        heard: Called with each publication, its options, and what is left out.
    """

    __slots__ = ("_heard", "_listening", "_relaying", "_room")

    def __init__(
        self, relaying: Relaying, room: str, heard: Callable[[Sent | Emitted, Delivery, LeftOut], object]
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

    def _take(
        self, message: Sent | Emitted, delivery: Delivery, left_out: LeftOut, group: str | None
    ) -> None:
        self._heard(message, delivery, left_out)


def _nothing(*ignored: object) -> None:
    """Stand where a closed topic hands nothing on."""
