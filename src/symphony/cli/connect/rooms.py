"""The rooms that the user has joined: what is published, who is there, what is lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from symphony.cli.connect.parser import LineError
from symphony.cli.connect.view import View
from symphony.client import Client, Publication, Room
from symphony.errors import SymphonyError

__all__ = ("Rooms",)

_MAX_ROOMS: Final = 200


class Rooms:
    """The rooms of one client.

    Args:
        client: The client.
        view: Shows what happens in the rooms.
        learn: Called with the name of each event.

    Attributes:
        names: Names of rooms that were joined, the newest last.
    """

    def __init__(self, client: Client, view: View, learn: Callable[[str], None]) -> None:
        self.names: dict[str, None] = {}
        self._client = client
        self._view = view
        self._learn = learn
        self._joined: dict[str, Room] = {}

    async def join(self, name: str) -> Room:
        """Join a room, and show what happens there from now on."""
        room = await self._client.join(name)
        if self._joined.get(name) is not room:
            self._joined[name] = room
            self._listen(room)
        self.names.pop(name, None)
        self.names[name] = None
        if len(self.names) > _MAX_ROOMS:
            del self.names[next(iter(self.names))]
        return room

    def joined(self, name: str) -> Room:
        """Return a room that was joined.

        Raises:
            LineError: It was not joined.
        """
        room = self._joined.get(name)
        if room is None:
            raise LineError(f"You are not in the room {name!r}. Join it first: /join {name}")
        return room

    def left(self, name: str) -> None:
        """Forget a room, because the user leaves it."""
        self._joined.pop(name, None)

    def _listen(self, room: Room) -> None:
        name = room.name

        def published(event: str, data: Any, publication: Publication) -> None:
            self._learn(event)
            self._view.publication(name, publication)

        def ended(error: SymphonyError) -> None:
            if self._joined.get(name) is room:
                del self._joined[name]
            self._view.removed(name, error)

        room.on("*", published)
        room.on_lost(partial(self._view.lost, name))
        room.on_presence(partial(self._view.presence, name))
        room.on_left(ended)
