"""Checks what a client of a simulated cluster gets of the publications of one room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from symphony.errors import SymphonyError
from symphony.protocol.positions import Position

if TYPE_CHECKING:
    from symphony.client.arrivals import Publication
    from symphony.client.room import Room
    from symphony.testing.promises import Engine, Publications, Trace

__all__ = ("Follower",)


class Follower:
    """Takes all publications of a room that a client has joined, and checks each.

    `Cluster.follow` returns it.

    Attributes:
        who: The client, for the trace.
        publications: What it has taken.
        lost: Each position that it was told after a loss.
    """

    def __init__(
        self,
        who: str,
        room: Room,
        publications: Publications,
        trace: Trace,
        engine: Callable[[], Engine],
        max_recovery: int,
    ) -> None:
        self.who = who
        self.publications: list[Publication] = []
        self.lost: list[Position] = []
        self._room = room
        self._all = publications
        self._trace = trace
        self._engine = engine
        self._max_recovery = max_recovery
        self._at = room.position
        # It is told what the join did not recover, or lost since then, only when it iterates.
        self._begins = room.position
        self._epochs = set[str]() if room.position is None else {room.position.epoch}
        room.on_lost(self._is_told)
        # At once: otherwise publications could go elsewhere.
        room.__aiter__()
        self.task = asyncio.ensure_future(self._take_all())

    @property
    def ended(self) -> SymphonyError | None:
        """Why the client is no longer in the room; see `Room.ended`."""
        return self._room.ended

    def _check_end(self) -> None:
        """Check that everything that was published has arrived."""
        if self.ended is not None or self._at is None:
            return
        top = self._engine().top(self._room.name)
        replaced = self._all.replaced.get(self._room.name, {})
        at = self._at
        missing = [
            offset
            for offset in range(at.offset + 1, top.offset + 1)
            if Position(top.epoch, offset) not in replaced
        ]
        self._trace.require(
            at.epoch == top.epoch and not missing,
            lambda: f"{self.who} is at {at} in {self._room.name} in the end, and the broker at {top}.",
        )

    async def _take_all(self) -> None:
        try:
            async for publication in self._room:
                self._take(publication)
        except SymphonyError as error:
            self._trace.note(f"{self.who} is out of {self._room.name}: {error}")

    def _take(self, publication: Publication) -> None:
        self.publications.append(publication)
        position, at, room = publication.position, self._at, self._room.name
        if position is None:
            return
        require = self._trace.require
        self._trace.note(f"{self.who} takes {position} of {room}")
        stored = self._all.rooms.get(room, {}).get(position)
        if stored is None:
            require(False, lambda: f"{self.who} has {position} of {room}, which was never published.")
            return
        require(
            (stored.event, stored.data) == (publication.event, publication.data),
            lambda: f"{self.who} has {publication} of {room}, and not {stored}.",
        )
        require(
            publication.replaces == stored.replaces,
            lambda: f"{self.who} has {publication} of {room}, which replaces {stored.replaces}.",
        )
        if at is None:
            require(False, lambda: f"{self.who} has {position} of {room}, which had no history.")
        elif at.epoch != position.epoch:
            require(False, lambda: f"{self.who} was at {at} of {room}, and was not told before {position}.")
        elif position.offset <= at.offset:
            require(False, lambda: f"{self.who} has {position} of {room} again, after {at}.")
        else:
            replaced = self._all.replaced.get(room, {})
            between = (Position(at.epoch, offset) for offset in range(at.offset + 1, position.offset))
            missing = [one for one in between if one not in replaced]
            require(not missing, lambda: f"{self.who} has {position} of {room}, and not {missing}.")
        self._at = position

    def _is_told(self, position: Position) -> None:
        at, room, engine = self._at, self._room.name, self._engine()
        self._trace.note(f"{self.who} is told that it has lost what is before {position} of {room}")
        self.lost.append(position)
        self._at = position
        if position == self._begins and len(self.lost) == 1:
            return
        if at is None or at.epoch != position.epoch:
            self._trace.require(
                position.epoch not in self._epochs,
                lambda: f"{self.who} was at {at} of {room}, and was told that it goes back to {position}.",
            )
            self._epochs.add(position.epoch)
        if at is not None and at.epoch == position.epoch:
            top = engine.top(room)
            is_gone = engine.gone(room) if position.epoch == top.epoch else position.offset
            is_true = at.offset < is_gone or position.offset - at.offset > self._max_recovery
            self._trace.require(
                is_true and at.offset < position.offset <= max(top.offset, is_gone),
                lambda: (
                    f"{self.who} was at {at} of {room}, and was told that it has lost what is before "
                    f"{position}; the broker has what is after {is_gone}."
                ),
            )
