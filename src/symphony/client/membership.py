"""What a client knows of one room, and what arrives from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from symphony.client.arrivals import Arrival, Beginning, Publication
from symphony.client.backoff import Backoff
from symphony.client.delivery import Delivery
from symphony.client.joining import Joining, Leaving, Since
from symphony.client.members import Members
from symphony.client.places import GAP, HAD, Place
from symphony.client.presence import RoomPresence, Roster
from symphony.client.publishing import Publishing
from symphony.client.room import Room
from symphony.errors import RemoteError, SymphonyError
from symphony.protocol.envelopes import SNAPSHOT, Joined, Lost, Published
from symphony.protocol.positions import Position

__all__ = ("Membership",)


class Membership:
    """What a client knows of one room.

    Args:
        name: The name of the room.
        delivery: Makes its `delivery`.
        leave: Leaves the room.
        publishing: What the client publishes.
        members: What it asks about members.

    Attributes:
        place: How far the client has its publications.
        delivery: Passes them to the program.
        room: The room that the program has, or waits for; `None`: the server
            has put the client into the room, and the program has not joined it.
        recovered: As `Room.recovered`.
        held: Whether the program has joined it. The client then joins it again on every connection.
        member: Whether the server has said that the client is a member, on this connection.
        asked: Whether a join was sent, or is about to be, on this connection.
        ignoring: Whether publications with a position are ignored, because they come again.
        left: The error of a `left` that came while a join is in progress.
        request: The join, or the leave, in progress.
        ending: Whether the program leaves the room.
        timer: Runs until the next join.
        wanted: The position that the program has named in a join that is not answered.
        backoff: The delays between joins that were refused.
        roster: Who is in the room.
        presence: The same for the program.
        waiters: Tasks that wait until it is joined or left.
    """

    __slots__ = (
        "_leave",
        "_members",
        "_publishing",
        "asked",
        "backoff",
        "delivery",
        "ending",
        "held",
        "ignoring",
        "left",
        "member",
        "name",
        "place",
        "presence",
        "recovered",
        "request",
        "room",
        "roster",
        "timer",
        "waiters",
        "wanted",
    )

    def __init__(
        self,
        name: str,
        delivery: Callable[[Membership], Delivery],
        leave: Callable[[Membership], Awaitable[None]],
        publishing: Publishing,
        members: Members,
    ) -> None:
        self.name = name
        self._members = members
        self._leave = leave
        self._publishing = publishing
        self.place = Place()
        self.roster = Roster()
        self.presence = RoomPresence(self.roster)
        self.room: Room | None = None
        self.recovered: bool | None = None
        self.held = self.member = self.asked = self.ignoring = self.ending = False
        self.left: RemoteError | None = None
        self.wanted: Since = None
        self.request: Joining | Leaving | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.backoff: Backoff | None = None
        self.waiters: list[asyncio.Future[None]] = []
        self.delivery = delivery(self)

    @property
    def position(self) -> Position | None:
        """The position up to which the program has the publications."""
        return self.place.handled

    def leave(self) -> Awaitable[None]:
        """End the membership."""
        return self._leave(self)

    def emit(self, event: str, data: Any, key: str | None, *, volatile: bool) -> Awaitable[Position | None]:
        """Publish an event."""
        self._check_held()
        return self._publishing.emit(self, event, data, key, volatile=volatile)

    def history(self, limit: int, before: Position | None) -> Awaitable[list[Publication]]:
        """Return the last publications."""
        self._check_held()
        return self._publishing.history(self, limit, before)

    def count(self) -> Awaitable[int]:
        """Return how many members the room has."""
        self._check_held()
        return self._members.count(self)

    def withdraw(self, error: SymphonyError) -> None:
        """Fail what waits to be published, because the client is no longer in the room."""
        self._publishing.withdraw(self.name, error)

    def _check_held(self) -> None:
        if self.delivery.ended is not None:
            raise self.delivery.ended.with_traceback(None)
        if self.ending:
            raise RemoteError("left", f"the client leaves the room {self.name!r}")

    # What arrives

    def publish(self, event: Published, size: int) -> bool:
        """Handle a publication, in a message of so many bytes; return whether to join again."""
        if self.ending:
            return False
        if event.offset is None or (self.place.seen is None and not self.ignoring):
            self.delivery.publish(Arrival(event, size, None))
            return False
        if self.ignoring:
            return False
        position = self.place.judge(event.offset, event.epoch, event.after)
        if position is HAD:
            return False
        if position is GAP:
            return True
        assert isinstance(position, Position)
        self.backoff = None
        self.place.take(position)
        if not self.delivery.publish(Arrival(event, size, position)):
            self.place.give_back(position)
            # It comes again: when the program has caught up, or on the next connection.
            self.ignoring = True
        return False

    def joined(self, envelope: Joined) -> bool:
        """Handle that the client is a member; return whether to join again."""
        self.member = True
        self._publishing.resume(self.name)
        self.left = None
        recovered, position = envelope.recovered, envelope.position
        if recovered is None and (self.ignoring or self.wanted is not None):
            # The answer to the join that is in progress, or comes later, names the position.
            return False
        self.ignoring = False
        if self.wanted is not None:
            # The server may have put the client into the room, at another position.
            self.place.restart(None if self.wanted == "start" else self.wanted)
            self.wanted = None
        seen = self.place.seen
        if recovered is None and seen is not None and position is not None:
            return position != seen
        lost = None
        if recovered is not None:
            self.recovered = recovered
        if position is None or (recovered is None and seen is None):
            self.place.move(position)
        elif seen is None:
            self.place.move(position)
            lost = None if recovered else position
        elif seen == position or (recovered and self.place.ahead_of(position)):
            # It has everything up to there.
            self.recovered = True
        elif recovered and position.offset == seen.offset:
            # The history goes on in another epoch.
            self.place.move(position)
        else:
            self.recovered = False
            lost = position
        self._begin(seen, lost, envelope.snapshot)
        return False

    def show(self, changed: bool) -> None:
        """Handle what was said about the members, which has changed them or not."""
        if self.room is None:
            # The program has them from its join on.
            return
        if changed:
            self.delivery.tell_presence(self.presence)
        if self.roster.missed is not None:
            self._members.reread(self)

    def lost(self, envelope: Lost) -> None:
        """Handle that publications up to a position will not come."""
        self._begin(self.place.seen, envelope.position, envelope.snapshot)

    def _begin(self, seen: Position | None, lost: Position | None, snapshot: Any) -> None:
        if lost is not None:
            self.place.move(lost)
        arrival = None
        if snapshot is not None:
            arrival = Arrival(
                Published(SNAPSHOT, snapshot, room=self.name), memoryview(snapshot).nbytes, None
            )
        if lost is None and arrival is None:
            return
        if not self.delivery.begin(Beginning(lost, arrival)):
            # The connection is dropped. The server says it again on the next one.
            self.place.move(seen)

    def disconnect(self) -> None:
        """Handle the loss of the connection."""
        self.member = self.asked = self.ignoring = False
        self.left = self.backoff = None
        self.stop_timer()

    def stop_timer(self) -> None:
        """Forget a join that was put off."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
