"""Listeners get the publications of a room without being members of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from symphony.errors import Reject
from symphony.outgoing.batch import Recipient
from symphony.outgoing.heard import HEARD
from symphony.protocol.envelopes import Lost
from symphony.rooms.listener import Publications, Waiting

if TYPE_CHECKING:
    from symphony.outgoing.batch import Batches
    from symphony.outgoing.outbox import Outbox
    from symphony.protocol.positions import Position
    from symphony.rooms.announcing import Announcing, Start
    from symphony.rooms.joining import FindFamily
    from symphony.rooms.listener import Conflate
    from symphony.rooms.live import Live
    from symphony.rooms.lives import Lives
    from symphony.stats import Stats

__all__ = ("Listening",)


class Listening:
    """The listeners of the rooms of a node.

    A listener is a recipient of its room as a member is, so it gets the same
    publications in the same order. It is not counted, and keeps no state alive. When the
    life of a room is over, its listeners go on with the next one.

    Args:
        find_family: The family and parameters of a room's name.
        lives: The rooms.
        announcing: Tells where publications begin.
        batches: The batches of the node.
        stats: Counts what happens.
        max_bytes: `Limits.max_listener_bytes`.
    """

    def __init__(
        self,
        find_family: FindFamily,
        lives: Lives,
        announcing: Announcing,
        batches: Batches,
        stats: Stats,
        max_bytes: int,
    ) -> None:
        self._find_family = find_family
        self._lives = lives
        self._announcing = announcing
        self._batches = batches
        self._stats = stats
        self._max_bytes = max_bytes
        self._all: dict[Recipient, Publications] = {}
        self._is_closed = False

    @asynccontextmanager
    async def listen(
        self, name: str, since: Position | str | None, conflate: Conflate
    ) -> AsyncGenerator[Publications]:
        """Listen to a room inside the block: see `Room.listen`."""
        # A handler may call it in a loop.
        await self._batches.paced()
        family, params = self._find_family(name)
        waiting = Waiting(name, family.policy.slow_consumer, conflate, self._max_bytes, self._stats)
        recipient = Recipient(HEARD, cast("Outbox", waiting))
        publications = Publications(name, waiting)
        while not self._is_closed:
            live = self._lives.at_work(name, family, params)
            if live.over is not None:
                await self._lives.gone(live)
                continue
            with self._lives.held(live):
                try:
                    start = await self._announcing.start(live, since, limited=False)
                except Reject:
                    if live.over is None:
                        raise
                    continue
                if live.over is None and self._lives.rooms.get(name) is live and not self._is_closed:
                    self._attach(live, recipient, publications, waiting, start)
                    break
        else:
            raise RuntimeError(f"room.listen() of {name!r}: the app stops.")
        try:
            yield publications
        finally:
            self._end(recipient)
            waiting.forget()

    def end(self, live: Live) -> None:
        """End the listeners of a room, each when it has got what was published up to here."""
        for recipient in tuple(live.listeners):
            if recipient not in live.catching:
                self._end(recipient)

    def end_all(self) -> None:
        """End all listeners, and let there be no more of them: the app stops."""
        self._is_closed = True
        for recipient in tuple(self._all):
            self._end(recipient)

    def _attach(
        self,
        live: Live,
        recipient: Recipient,
        publications: Publications,
        waiting: Waiting,
        start: Start,
    ) -> None:
        last = None if live.feed is None else live.feed.last
        publications.position = start.after or last
        waiting.begin(publications.position)
        if start.recovered is False and last is not None:
            waiting.send(Lost(live.name, start.after or last))
        self._all[recipient] = publications
        live.listeners[recipient] = lambda: self._end(recipient)
        self._announcing.attach(live, recipient, publications, start)

    def _end(self, recipient: Recipient) -> None:
        publications: Any = self._all.pop(recipient, None)
        if publications is None:
            return
        for batch in tuple(recipient.batches):
            live = cast("Live", batch)
            live.catching.pop(recipient, None)
            # With that, it gets what was published in this turn.
            self._batches.remove(live, recipient)
            del live.listeners[recipient]
            self._lives.end_if_empty(live)
        cast("Waiting", recipient.outbox).seal()
