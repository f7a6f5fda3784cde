"""The broker in Redis or Valkey: `redis://`, `redis+cluster://`."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from symphony.broker.base import BrokerState, Draft, Heard, History, Key, Page, Receive, Record
from symphony.broker.keys import KEY_WINDOW
from symphony.broker.presence import PresenceStore
from symphony.broker.redis.commands import Commands
from symphony.broker.redis.keptmessages import KeptMessages
from symphony.broker.redis.missed import Missed
from symphony.broker.redis.packing import (
    DIGEST_BYTES,
    digest_of,
    key_of,
    pack_draft,
    pack_position,
    page_of,
    position_of,
    unpack_position,
    unpack_record,
)
from symphony.broker.redis.presence import RedisPresence
from symphony.broker.redis.probe import Probe
from symphony.broker.redis.scripts import Names, incarnation, scripts_for
from symphony.broker.redis.shards import Shards
from symphony.broker.redis.spreadpresence import SpreadPresence
from symphony.broker.redis.subscriber import Subscriber
from symphony.errors import Reject
from symphony.protocol.positions import Position
from symphony.tasks import start

__all__ = ("RedisBroker",)

# Before an own publication is taken from the answer, because the channel is silent.
_PATIENCE: Final = 0.25


class _Own:
    """A publication of this process, from its call until it was answered and heard."""

    __slots__ = ("draft", "position", "replaces", "result", "timer")

    def __init__(self, draft: Draft, result: asyncio.Future[Position]) -> None:
        self.draft = draft
        self.result = result
        # Known once it is answered.
        self.position: Position | None = None
        self.replaces: Position | None = None
        self.timer: asyncio.TimerHandle | None = None


class _Subscription:
    __slots__ = ("interrupted", "last", "receive")

    def __init__(self, receive: Receive, interrupted: Callable[[Position], None] | None) -> None:
        self.receive = receive
        self.interrupted = interrupted
        # The last one that was heard; `None`: the subscription is not confirmed.
        self.last: Position | None = None


class RedisBroker:
    """Keeps the publications of rooms in Redis servers, which many machines share.

    Each publication is one script in a server, which also passes it on. Own publications
    are heard like all others, so this process has all of a room in one order.

    Args:
        shards: The servers.
        prefix: What the names of keys and channels begin with.
        timeout: How many seconds a call may take: `Limits.publish_timeout`.
        max_calls: `Limits.max_broker_calls`.
        max_bytes: `Limits.max_broker_bytes`.
        random: Returns a number from 0 to 1, for the pauses before it connects again.

    Attributes:
        name: The random name of this node.
    """

    shared = True

    def __init__(
        self,
        shards: Shards,
        *,
        prefix: str,
        timeout: float,
        max_calls: int,
        max_bytes: int,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.name = secrets.token_urlsafe(12)
        self._names = Names(prefix)
        self._shards = shards
        self._scripts = scripts_for(sharded=shards.is_cluster)
        self._publish = "SPUBLISH" if shards.is_cluster else "PUBLISH"
        self._commands = Commands(
            shards,
            self._scripts,
            timeout=timeout,
            max_calls=max_calls,
            max_bytes=max_bytes,
            random=random,
        )
        self._kept = KeptMessages(self._commands, self._scripts.kept, self._names, self.name)
        self._subscriber = Subscriber(shards, timeout=timeout, random=random)
        self._missed = Missed(self._top, self._interrupted)
        self._probe = Probe(
            shards,
            self._commands,
            self._subscriber,
            self._names,
            node=self.name,
            publish=self._publish,
        )
        self._loop = asyncio.get_running_loop()
        # An own key is used by repeats of one call, which end with its timeout.
        self._own_window = int((timeout * 2 + 1) * 1000)
        self._subscriptions: dict[str, _Subscription] = {}
        self._number = 0
        # By the tags of their messages.
        self._own: dict[str, _Own] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def state(self) -> BrokerState:
        """See `Broker.state`."""
        if not self._commands.is_connected:
            return "away"
        return "deaf" if self._probe.deaf else "ok"

    async def connect(self) -> None:
        """Connect to the servers.

        Raises:
            BrokerUnavailableError: They cannot be reached.
            ConfigurationError: They cannot be used.
        """
        await self._shards.connect()
        await self._commands.connect()
        await self._subscriber.connect()
        self._tasks = [start(self._probe.run()), start(self._kept.beat())]

    def members(self) -> PresenceStore:
        """Return the presence store in the same servers."""

        def part(name: str) -> RedisPresence:
            key = self._names.presence(name)
            return RedisPresence(self._commands, self._subscriber, self._scripts.presence, key)

        return SpreadPresence(part) if self._shards.is_cluster else part("")

    # Publications

    def publish(self, room: str, draft: Draft, history: History) -> Awaitable[Position]:
        """See `Broker.publish`."""
        self._number += 1
        tag = f"{self.name}:{self._number}"
        result: asyncio.Future[Position] = self._loop.create_future()
        own = self._own[tag] = _Own(draft, result)
        key, window = draft.key, int(KEY_WINDOW * 1000)
        if key is None:
            # So that a repeat after a lost answer publishes nothing.
            key, window = self._own_key(), self._own_window
        tagged, *keys = self._names.room(room)

        def taken(answer: Sequence[Any]) -> None:
            self._answered(room, tag, own, answer)

        call = self._commands.run(
            self._scripts.rooms,
            (*keys, tagged + key_of(key)),
            "publish",
            incarnation(),
            pack_draft(draft),
            f"{tagged}c",
            tag,
            digest_of(key),
            window,
            pack_position(draft.replaces),
            history.size,
            int(history.ttl * 1000),
            history.bytes,
            taken=taken,
        )

        def failed(call: asyncio.Future[None]) -> None:
            error = call.exception()
            if error is not None:
                self._own.pop(tag, None)
                if not result.done():
                    result.set_exception(error)
                    result.exception()

        call.add_done_callback(failed)
        return result

    def _own_key(self) -> Key:
        """Return the key of the last publication of this process, if it has none of its own."""
        return Key(self.name, str(self._number), b"")

    def _answered(self, room: str, tag: str, own: _Own, answer: Sequence[Any]) -> None:
        kind = answer[0]
        if kind == b"conflict":
            self._own.pop(tag, None)
            raise Reject("conflict", "the key was used for another content")
        position = own.position = position_of(answer[1], answer[2])
        subscription = self._subscriptions.get(room)
        if kind == b"ok" and subscription is not None and not _has(subscription.last, position):
            # It has its place among the others.
            own.replaces = unpack_position(answer[3])
            own.timer = self._loop.call_later(_PATIENCE, self._not_heard, room, tag, own)
            return
        self._finish(tag, own)

    def _not_heard(self, room: str, tag: str, own: _Own) -> None:
        subscription = self._subscriptions.get(room)
        if subscription is not None and own.position is not None:
            draft = own.draft
            subscription.receive(Record(own.position, draft.event, draft.payload, draft.source, own.replaces))
        self._finish(tag, own)

    def _finish(self, tag: str, own: _Own) -> None:
        self._own.pop(tag, None)
        if own.timer is not None:
            own.timer.cancel()
        if not own.result.done() and own.position is not None:
            own.result.set_result(own.position)

    def _heard(self, room: str, message: bytes) -> None:
        subscription = self._subscriptions.get(room)
        if subscription is None:
            return
        head, _, blob = message.partition(b"\n")
        epoch, offset, tag, replaces = head.decode().split(" ", 3)
        position = Position(epoch, int(offset))
        own = self._own.get(tag)
        source = None if own is None else own.draft.source
        if subscription.last is not None:
            subscription.last = position
        subscription.receive(unpack_record(position, blob, replaces, source))
        if own is not None and own.position is not None:
            self._finish(tag, own)

    async def known(self, room: str, key: Key) -> Position | None:
        """See `Broker.known`."""
        name = self._names.room(room)[0] + key_of(key)
        found = await self._commands.call(name, "GET", name)
        if found is None:
            return None
        if found[:DIGEST_BYTES] != digest_of(key):
            raise Reject("conflict", "the key was used for another content")
        return unpack_position(found[DIGEST_BYTES:])

    async def subscribe(
        self, room: str, receive: Receive, interrupted: Callable[[Position], None] | None = None
    ) -> Position:
        """See `Broker.subscribe`."""
        subscription = self._subscriptions[room] = _Subscription(receive, interrupted)
        try:
            await self._subscriber.subscribe(
                self._names.channel(room),
                lambda message: self._heard(room, message),
                lambda: self._missed.add(room),
            )
            subscription.last = top = await self._top(room)
        except BaseException:
            if self._subscriptions.get(room) is subscription:
                self.unsubscribe(room)
            raise
        return top

    def unsubscribe(self, room: str) -> None:
        """See `Broker.unsubscribe`."""
        if self._subscriptions.pop(room, None) is not None:
            self._subscriber.unsubscribe(self._names.channel(room))

    async def after(self, room: str, position: Position | None, *, limit: int, max_bytes: int) -> Page:
        """See `Broker.after`."""
        return await self._read("after", room, position, limit, max_bytes)

    async def before(self, room: str, position: Position | None, *, limit: int) -> Page:
        """See `Broker.before`."""
        return await self._read("before", room, position, limit)

    async def _read(self, method: str, room: str, position: Position | None, *arguments: int) -> Page:
        keys = self._names.room(room)[1:]
        epoch, offset = ("", 0) if position is None else (position.epoch, position.offset)
        read = self._commands.run(self._scripts.rooms, keys, method, incarnation(), epoch, offset, *arguments)
        return page_of(await read)

    async def _top(self, room: str) -> Position:
        keys = self._names.room(room)[1:]
        return position_of(*await self._commands.run(self._scripts.rooms, keys, "top", incarnation()))

    def _interrupted(self, room: str, top: Position) -> None:
        subscription = self._subscriptions.get(room)
        if subscription is not None and subscription.interrupted is not None:
            subscription.interrupted(top)

    # Messages between processes

    def relay(self, topic: str, message: bytes) -> Awaitable[None]:
        """See `Broker.relay`."""
        channel = self._names.topic(topic)
        return self._commands.tell(channel, self._publish, channel, self._signed(message))

    def deliver(self, topic: str, message: bytes, *, keeps: bool = False) -> Awaitable[int]:
        """See `Broker.deliver`."""
        channel = self._names.topic(topic)
        if keeps:
            return self._kept.send(topic, channel, message)
        own = channel in self._subscriber

        def taken(count: int) -> int:
            return max(count - own, 0)

        return self._commands.call(
            channel, self._publish, channel, self._signed(message), twice=False, taken=taken
        )

    async def listeners(self, topic: str) -> int:
        """See `Broker.listeners`."""
        channel = self._names.topic(topic)
        own = channel in self._subscriber
        count = await self._commands.run(self._scripts.listeners, (channel,))
        return max(count - own, 0)

    async def listen(self, topic: str, heard: Heard, missed: Callable[[], object] | None = None) -> None:
        """See `Broker.listen`."""
        kept = None if missed is None else await self._kept.begin(topic, heard, missed)

        def told(message: bytes) -> None:
            head, _, content = message.partition(b"\n")
            sender, *number = head.decode().split(" ")
            is_own = sender == self.name
            if kept is not None:
                of = (number[0], int(number[1])) if number else None
                kept.take(of, None if is_own else content)
            elif not is_own:
                heard(content)

        try:
            again = None if kept is None else kept.mend
            await self._subscriber.subscribe(self._names.topic(topic), told, again)
        except BaseException:
            self._kept.end(topic)
            raise
        if kept is not None:
            kept.mend()

    def unlisten(self, topic: str) -> None:
        """See `Broker.unlisten`."""
        self._kept.end(topic)
        self._subscriber.unsubscribe(self._names.topic(topic))

    def _signed(self, message: bytes) -> bytes:
        return self.name.encode() + b"\n" + message

    # The connections

    def close(self) -> None:
        """See `Broker.close`."""
        for task in self._tasks:
            task.cancel()
        self._missed.close()
        self._shards.close()
        self._subscriptions.clear()
        for tag, own in tuple(self._own.items()):
            self._finish(tag, own)
        self._subscriber.close()
        self._kept.leave()
        self._commands.close()


def _has(last: Position | None, position: Position) -> bool:
    """Return whether a subscriber has got a publication, or will not get it in this order."""
    return last is None or last.epoch != position.epoch or last.offset >= position.offset
