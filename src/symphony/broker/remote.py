"""The broker of another process, as a node uses it: `RemoteBroker`."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from symphony.broker.base import BrokerState, Draft, Heard, History, Key, Page, Receive, Record
from symphony.broker.calling import Caller
from symphony.broker.links import (
    Dial,
    Said,
    pack_draft,
    pack_history,
    pack_position,
    unpack_page,
    unpack_position,
    unpack_record,
)
from symphony.errors import SymphonyError
from symphony.protocol.positions import Position
from symphony.tasks import start

__all__ = ("RemoteBroker",)

logger = logging.getLogger("symphony.app")

# How many rooms one call subscribes to again.
_SLICE: Final = 500
# Before it is tried again, if the broker does not answer.
_PAUSE: Final = 1.0


class _Subscription:
    __slots__ = ("interrupted", "receive", "top")

    def __init__(self, receive: Receive, interrupted: Callable[[Position], None] | None) -> None:
        self.receive = receive
        self.interrupted = interrupted
        # Known once the subscription is confirmed.
        self.top: Position | None = None


class RemoteBroker:
    """Uses the broker of another process over a link.

    It connects again after a lost link, and subscribes again. Calls that are not answered are
    then repeated. The broker knows them by their numbers, so a publication whose answer was
    lost is published once.

    Args:
        dial: Connects to the broker.
        timeout: How many seconds a call may take: `Limits.publish_timeout`.
        max_calls: `Limits.max_broker_calls`.
        max_bytes: `Limits.max_broker_bytes`.
        name: A random name that no other node has; `None`: it is made.
        random: Returns a number from 0 to 1, for the pauses before it connects again.
        ended: Called once if the broker has gone and does not come back.

    Attributes:
        name: The name by which the broker knows this node.
    """

    shared = True

    def __init__(
        self,
        dial: Dial,
        *,
        timeout: float,
        max_calls: int,
        max_bytes: int,
        name: str | None = None,
        random: Callable[[], float] = random.random,
        ended: Callable[[], None] | None = None,
    ) -> None:
        self.name = name or secrets.token_urlsafe(12)
        self._caller = Caller(
            dial,
            name=self.name,
            timeout=timeout,
            max_calls=max_calls,
            max_bytes=max_bytes,
            random=random,
            told=self._told,
            welcomed=self._welcomed,
            ended=ended,
        )
        self._subscriptions: dict[str, _Subscription] = {}
        self._topics: dict[str, Heard] = {}
        self._missed: dict[str, Callable[[], object]] = {}
        self._resuming: asyncio.Task[None] | None = None

    @property
    def state(self) -> BrokerState:
        """See `Broker.state`."""
        return "ok" if self._caller.is_connected else "away"

    async def connect(self) -> None:
        """Connect to the broker.

        Raises:
            BrokerUnavailableError: It cannot be reached.
        """
        await self._caller.connect()

    def publish(self, room: str, draft: Draft, history: History) -> Awaitable[Position]:
        """See `Broker.publish`."""

        def taken(answer: Sequence[Any]) -> Position:
            epoch, offset, replaces, is_new = answer
            position = Position(epoch, offset)
            if is_new and room in self._subscriptions:
                # The broker says nothing else of it: the answer has its place among the others.
                self._receive(
                    room,
                    Record(position, draft.event, draft.payload, draft.source, unpack_position(replaces)),
                )
            return position

        packed = pack_draft(draft)
        return self._caller.call(
            "publish", room, *packed, *pack_history(history), twice=draft.key is not None, taken=taken
        )

    async def known(self, room: str, key: Key) -> Position | None:
        """See `Broker.known`."""
        return unpack_position(await self._caller.call("known", room, *key, twice=True))

    async def subscribe(
        self, room: str, receive: Receive, interrupted: Callable[[Position], None] | None = None
    ) -> Position:
        """See `Broker.subscribe`."""
        subscription = self._subscriptions[room] = _Subscription(receive, interrupted)

        def taken(answer: Sequence[Any]) -> Position:
            subscription.top = top = Position(*answer)
            if room not in self._subscriptions:
                # It was given up. The end of the link took that with it, and this was sent again.
                self._caller.tell("unsubscribe", room)
            return top

        try:
            return await self._caller.call("subscribe", room, twice=True, taken=taken)
        except BaseException:
            # It may have been carried out. What is then received is not wanted.
            if self._subscriptions.get(room) is subscription:
                self.unsubscribe(room)
            raise

    def unsubscribe(self, room: str) -> None:
        """See `Broker.unsubscribe`."""
        if self._subscriptions.pop(room, None) is not None:
            self._caller.tell("unsubscribe", room)

    def relay(self, topic: str, message: bytes) -> Awaitable[None]:
        """See `Broker.relay`."""
        return self._caller.tell("relay", topic, message)

    def deliver(self, topic: str, message: bytes, *, keeps: bool = False) -> Awaitable[int]:
        """See `Broker.deliver`."""
        return self._caller.call("deliver", topic, message, keeps)

    async def listeners(self, topic: str) -> int:
        """See `Broker.listeners`."""
        return await self._caller.call("listeners", topic, twice=True)

    async def listen(self, topic: str, heard: Heard, missed: Callable[[], object] | None = None) -> None:
        """See `Broker.listen`."""
        self._topics[topic] = heard
        if missed is not None:
            self._missed[topic] = missed

        def taken(answer: Any) -> None:
            if topic not in self._topics:
                self._caller.tell("unlisten", topic)

        try:
            await self._caller.call("listen", topic, twice=True, taken=taken)
        except BaseException:
            if self._topics.get(topic) is heard:
                self.unlisten(topic)
            raise

    def unlisten(self, topic: str) -> None:
        """See `Broker.unlisten`."""
        self._missed.pop(topic, None)
        if self._topics.pop(topic, None) is not None:
            self._caller.tell("unlisten", topic)

    def call(self, method: str, *arguments: Any) -> Awaitable[Any]:
        """Call a method of another store beside the broker, which may run twice."""
        return self._caller.call(method, *arguments, twice=True)

    def close(self) -> None:
        """See `Broker.close`."""
        self._subscriptions.clear()
        self._topics.clear()
        self._missed.clear()
        if self._resuming is not None:
            self._resuming.cancel()
        self._caller.close()

    async def after(self, room: str, position: Position | None, *, limit: int, max_bytes: int) -> Page:
        """See `Broker.after`."""
        packed = pack_position(position)
        return unpack_page(await self._caller.call("after", room, packed, limit, max_bytes, twice=True))

    async def before(self, room: str, position: Position | None, *, limit: int) -> Page:
        """See `Broker.before`."""
        packed = pack_position(position)
        return unpack_page(await self._caller.call("before", room, packed, limit, twice=True))

    def _told(self, said: Sequence[Any]) -> None:
        kind = said[0]
        if kind == Said.PUBLISHED:
            self._receive(said[1], unpack_record(said[2:]))
        elif kind == Said.RELAYED:
            heard = self._topics.get(said[1])
            if heard is not None:
                heard(said[2])
            else:
                # It did not listen any more when its link was made again.
                self._caller.tell("unlisten", said[1])

    def _receive(self, room: str, record: Record) -> None:
        subscription = self._subscriptions.get(room)
        if subscription is None:
            # The unsubscription was lost, or is under way.
            self._caller.tell("unsubscribe", room)
            return
        if subscription.top is None:
            return
        top, position = subscription.top, record.position
        if position.epoch != top.epoch or position.offset > top.offset:
            subscription.receive(record)

    def _welcomed(self, complete: bool) -> None:
        """Subscribe and listen again: the broker may have forgotten it with the link."""
        if not complete:
            for missed in tuple(self._missed.values()):
                missed()
        if self._resuming is not None:
            self._resuming.cancel()
        self._resuming = start(self._resume())

    async def _resume(self) -> None:
        # With another lost link, this is cancelled and begins anew.
        while True:
            try:
                await self._subscribe_again()
                return
            except SymphonyError as error:
                logger.warning("The broker of the rooms was not subscribed to again: %s", error)
                await asyncio.sleep(_PAUSE)

    async def _subscribe_again(self) -> None:
        topics = list(self._topics)
        for first in range(0, len(topics), _SLICE):
            await self._caller.call("listen", *topics[first : first + _SLICE], twice=True)
        rooms = list(self._subscriptions)
        for first in range(0, len(rooms), _SLICE):
            part = rooms[first : first + _SLICE]
            tops = await self._caller.call("resubscribe", *part, twice=True)
            for room, top in zip(part, tops, strict=True):
                subscription = self._subscriptions.get(room)
                if subscription is not None and subscription.interrupted is not None:
                    subscription.interrupted(Position(*top))
