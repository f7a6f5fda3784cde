"""The rooms of a node whose sockets are on other nodes, too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from symphony.errors import SymphonyError
from symphony.outgoing.batch import Batch, Recipient
from symphony.outgoing.encoding import Content, Emitted, Once, Sent
from symphony.protocol.positions import Position
from symphony.rooms.membership import Membership
from symphony.rooms.options import PLAIN, Delivery
from symphony.rooms.outcomes import heard
from symphony.rooms.publishing import terms_of
from symphony.rooms.topics import EVERYONE_TOPIC, topic_of
from symphony.tasks import start

if TYPE_CHECKING:
    from symphony.broker.peers import Peers

__all__ = ("SharedMembership",)

# How long an app that stops waits for the answers of other nodes, in seconds.
_LAST_ANSWERS: Final = 1.0


class SharedMembership(Membership):
    """A table of rooms whose other members are on other nodes."""

    async def start(self) -> None:
        """Begin to hear the other nodes."""
        assert self._relaying is not None
        await self._relaying.listen(EVERYONE_TOPIC, self._heard_everyone)
        self._others.offer("count", self._count_here)
        self._others.offer("close_room", self._close_here, goes_on=True)
        await self._others.start()

    async def close(self, *, timeout: float) -> None:
        """See `Membership.close`."""
        await self._others.finish(timeout=min(timeout, _LAST_ANSWERS))
        self._others.close()
        await super().close(timeout=timeout)

    async def count_elsewhere(self, names: Sequence[str]) -> int:
        """Ask all nodes."""
        return sum(await self._others.ask_all("count", names, timeout=self._timeout))

    async def count(self, name: str) -> int:
        """See `Room.count`. Without members, ask all nodes for their sockets."""
        here = await super().count(name)
        if self._find_family(name)[0].has_members:
            return here
        return here + await self.count_elsewhere([topic_of(name)])

    count.__qualname__ = "Room.count"

    async def close_room(self, name: str, code: int, reason: str) -> None:
        """End a room and its memberships on all nodes; see `Room.close`."""
        timeout = self._timeout + self._patience
        # In another task, because this one may be the room's own.
        asking = self._others.ask_all("close_room", name, code, reason, timeout=timeout, keeps=True)
        elsewhere = start(asking)
        try:
            await self._close_here(name, code, reason)
        finally:
            await asyncio.wait((elsewhere,))
        elsewhere.result()

    close_room.__qualname__ = "Room.close"

    async def _close_here(self, name: str, code: int, reason: str) -> None:
        live = self._rooms.get(name)
        if live is not None and live.feed is not None and self._broker is not None:
            # Its members get what other nodes have published before.
            with suppress(SymphonyError):
                page = await self._broker.before(name, None, limit=1)
                await heard(live.feed, self._patience, page.top)
        await super().close_room(name, code, reason)

    @property
    def _others(self) -> Peers:
        assert self.peers is not None
        return self.peers

    def _count_here(self, names: Sequence[str]) -> int:
        return sum(len(tuple(self.sockets_named(name))) for name in names)

    def publish(self, batch: Batch, message: Any, exclude: Iterable[Recipient]) -> Awaitable[None]:
        """Hand *message* to the members of *batch*, on all nodes."""
        assert self._relaying is not None
        here = self.batches.publish(batch, message, exclude)
        topic = topic_of(batch.name) if batch.name else EVERYONE_TOPIC
        return self._relaying.publish(topic, message, PLAIN, here, exclude)

    def announce(
        self,
        name: str,
        message: Sent | Emitted | Content | Once,
        exclude: Sequence[Recipient],
        delivery: Delivery,
    ) -> Awaitable[Position | None]:
        """Publish *message* to a room, or to everyone, on all nodes."""
        here = super().announce(name, message, exclude, delivery)
        if name or self._relaying is None:
            return here
        return self._relaying.publish(EVERYONE_TOPIC, message, delivery, here, exclude)

    def reach(
        self,
        group: str,
        batch: Batch,
        message: Sent | Emitted,
        exclude: Sequence[Recipient],
        delivery: Delivery,
    ) -> Awaitable[None]:
        """Publish to the sockets of a route or router, on all nodes."""
        assert self._relaying is not None
        here = super().reach(group, batch, message, exclude, delivery)
        return self._relaying.publish(EVERYONE_TOPIC, message, delivery, here, exclude, group)

    def _heard_everyone(
        self, message: Sent | Emitted, delivery: Delivery, left_out: Sequence[Recipient], group: str | None
    ) -> None:
        batch = self.everyone if group is None else self.group(group)
        if batch is not None:
            self.batches.publish(batch, message, left_out, terms_of(batch, delivery))
