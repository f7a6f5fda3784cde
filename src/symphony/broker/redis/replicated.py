"""The broker in a Redis with replicas that acknowledges what one of these has: `?ack=replica`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from typing import cast

from symphony.broker.base import Draft, History
from symphony.broker.redis.broker import RedisBroker
from symphony.broker.redis.packing import key_of
from symphony.broker.redis.replicas import Replicas
from symphony.broker.redis.shards import Shards
from symphony.protocol.positions import Position

__all__ = ("ReplicatedBroker",)


class ReplicatedBroker(RedisBroker):
    """Acknowledges a publication when a replica has it, too.

    Subscribers may have it before. See `RedisBroker` for the arguments.
    """

    def __init__(
        self, shards: Shards, *, prefix: str, timeout: float, max_calls: int, max_bytes: int
    ) -> None:
        super().__init__(shards, prefix=prefix, timeout=timeout, max_calls=max_calls, max_bytes=max_bytes)
        # Without a cluster, there is one.
        (shard,) = shards.all()
        self._replicas = Replicas(
            shard.dial, timeout=timeout, max_publications=max_calls, random=random.random
        )
        shards.watch(looked=lambda: None, moved=self._replicas.reconnect)

    async def connect(self) -> None:
        """See `RedisBroker.connect`."""
        await super().connect()
        await self._replicas.connect()

    def publish(self, room: str, draft: Draft, history: History) -> Awaitable[Position]:
        """See `Broker.publish`."""
        refused = self._replicas.refused()
        if refused is not None:
            return refused
        published = cast("asyncio.Future[Position]", super().publish(room, draft, history))
        tagged, meta, *_ = self._names.room(room)
        return self._replicas.acknowledge(published, meta, tagged + key_of(draft.key or self._own_key()))

    def close(self) -> None:
        """See `Broker.close`."""
        super().close()
        self._replicas.close()
