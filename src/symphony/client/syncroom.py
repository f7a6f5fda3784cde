"""A room that a blocking client has joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from symphony.client.arrivals import Publication
from symphony.client.presence import RoomPresence
from symphony.client.receiving import Receiver
from symphony.client.room import Room as AsyncRoom
from symphony.errors import SymphonyError
from symphony.protocol.positions import Position

__all__ = ("Room",)


class Room(Iterator[Publication]):
    """A room that a blocking client has joined; `client.join(name)` returns it.

    Its publications are queued until `receive`, or `for publication in room`, takes
    them. It has no handlers.
    """

    __slots__ = ("_receiver", "_room", "_wait")

    def __init__(self, room: AsyncRoom, receiver: Receiver, wait: Callable[[Callable[[], Any]], Any]) -> None:
        self._room = room
        self._receiver = receiver
        self._wait = wait

    @property
    def name(self) -> str:
        """The name of the room."""
        return self._room.name

    @property
    def position(self) -> Position | None:
        """As `symphony.client.Room.position`: a publication is handled when the next one is taken."""
        return self._room.position

    @property
    def presence(self) -> RoomPresence:
        """As `symphony.client.Room.presence`."""
        return self._room.presence

    @property
    def recovered(self) -> bool | None:
        """As `symphony.client.Room.recovered`."""
        return self._room.recovered

    @property
    def ended(self) -> SymphonyError | None:
        """As `symphony.client.Room.ended`."""
        return self._room.ended

    @property
    def dropped(self) -> int:
        """As `symphony.client.Room.dropped`."""
        return self._room.dropped

    def receive(self, *, timeout: float | None = None) -> Publication:
        """Return the next publication; wait for it if needed.

        If publications are lost, the client logs this.

        Args:
            timeout: Seconds to wait; `None`: no limit; 0: do not wait.

        Raises:
            TimeoutError: Nothing arrived in time.
            RemoteError: The membership has ended, and nothing is queued.
            DisconnectedError: The client is closed, and nothing is queued.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be 0 or more, or None, not {timeout!r}.")
        what = f"No publication of the room {self.name!r}"
        publication = self._wait(lambda: self._receiver.within(timeout, self._next(), what))
        if publication is None:
            ended = self.ended
            assert ended is not None
            raise ended
        return publication

    def emit(
        self, event: str, data: Any = None, *, key: str | None = None, volatile: bool = False
    ) -> Position | None:
        """Publish an event, and wait for its position; see `symphony.client.Room.emit`."""

        async def publish() -> Position | None:
            return await self._room.emit(event, data, key=key, volatile=volatile)

        return self._wait(publish)

    def history(self, limit: int = 100, *, before: Position | None = None) -> list[Publication]:
        """Return the last publications; see `symphony.client.Room.history`."""
        return self._wait(lambda: self._room.history(limit, before=before))

    def count(self) -> int:
        """Return how many members the room has; see `symphony.client.Room.count`."""
        return self._wait(self._room.count)

    def leave(self) -> None:
        """Leave the room; see `symphony.client.Room.leave`."""
        self._wait(self._room.leave)

    def __next__(self) -> Publication:
        """Return the next publication; see `symphony.client.Room.__anext__`."""
        publication = self._wait(self._next)
        if publication is None:
            raise StopIteration
        return publication

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def __repr__(self) -> str:
        return f"<Room {self.name!r} of a blocking client>"

    async def _next(self) -> Publication | None:
        return await anext(self._room, None)
