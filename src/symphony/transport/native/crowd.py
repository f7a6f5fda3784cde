"""Counts the connections of a server, from the moment they are accepted."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final, Literal

from symphony.errors import Reject
from symphony.limits import Limits

__all__ = ("Crowd", "Crowded", "Place", "capacity", "refusal_of")

Crowded = Literal["server", "address"]

# For files and databases of the app.
_DESCRIPTORS_OF_THE_APP: Final = 64

# An aborted connection ends in the next turn of the event loop, TLS some turns later.
_TURNS: Final = 100

# How many connections beyond a limit are accepted, only to be refused with an answer.
_MAX_REFUSED: Final = 32
_MAX_REFUSED_OF_ONE: Final = 8


def capacity(descriptors: int) -> int:
    """Return how many connections a process with so many descriptors can serve.

    Some descriptors are for connections that are refused, and for the app.
    """
    return max(descriptors - _MAX_REFUSED - _DESCRIPTORS_OF_THE_APP, descriptors // 2)


def refusal_of(crowded: Crowded, *, retry_after: float) -> Reject:
    """Return the refusal of a client that is beyond a limit of connections."""
    if crowded == "address":
        return Reject("too_many", "too many connections from your address")
    return Reject("unavailable", "the server has as many connections as it may", retry_after=retry_after)


class Place:
    """The place of one connection in the crowd.

    Attributes:
        crowded: The limit that the connection is beyond, `None`: it is within both.
        transport: Its transport, once there is one.
        client: The address of its client; `None` over a Unix socket.
        server: The address of this end, as in an ASGI scope.
    """

    __slots__ = ("_crowd", "_key", "client", "crowded", "server", "transport")

    def __init__(self, crowd: Crowd, key: str | None, crowded: Crowded | None) -> None:
        self._crowd: Crowd | None = crowd
        self._key = key
        self.crowded: Crowded | None = crowded
        self.transport: asyncio.Transport | None = None
        self.client: tuple[str, int] | None = None
        self.server: tuple[str, int | None] | None = None

    def leave(self) -> None:
        """Count the connection no more. Idempotent."""
        crowd, self._crowd = self._crowd, None
        if crowd is not None:
            self.transport = None
            crowd.left(self, self._key)


class Crowd:
    """All connections of a server.

    Args:
        descriptors: How many files the process may have open, `None`: as many
            as it wants.

    Attributes:
        total: How many connections there are.
        by_address: How many there are of each address.
    """

    def __init__(self, descriptors: int | None) -> None:
        self.total = 0
        self.by_address: Counter[str] = Counter()
        self._most = None if descriptors is None else capacity(descriptors)
        self._places: set[Place] = set()

    def enter(self, key: str | None, limits: Limits) -> Place | None:
        """Count a connection; `None` if it is to be closed without an answer.

        Args:
            key: What to count its address by, `None`: not at all.
            limits: The limits of the app.
        """
        most, most_of_one = limits.max_connections, limits.max_connections_per_client
        if self._most is not None:
            most = min(most, self._most)
        crowded: Crowded | None = None
        # First, so that one address does not take all places for refusals of a full server.
        if key is not None and most_of_one is not None and self.by_address[key] >= most_of_one:
            crowded = "address"
            if self.by_address[key] >= most_of_one + _MAX_REFUSED_OF_ONE:
                return None
        if self.total >= most:
            crowded = crowded or "server"
            if self.total >= most + _MAX_REFUSED:
                return None
        self.total += 1
        if key is not None:
            self.by_address[key] += 1
        place = Place(self, key, crowded)
        self._places.add(place)
        return place

    def left(self, place: Place, key: str | None) -> None:
        """Count a connection no more."""
        self._places.discard(place)
        self.total -= 1
        if key is not None:
            self.by_address[key] -= 1
            if self.by_address[key] <= 0:
                del self.by_address[key]

    async def end(self) -> None:
        """Abort the connections that are left when a server stops.

        Refused clients have no session that a stop waits for. Their transports
        must not outlive the event loop.
        """
        for place in tuple(self._places):
            if place.transport is not None:
                place.transport.abort()
        for _ in range(_TURNS):
            if not self._places:
                break
            await asyncio.sleep(0)
