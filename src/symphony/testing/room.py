"""A room that a connection of the test client has joined."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from symphony.client.arrivals import Publication
from symphony.client.room import Room

__all__ = ("TestRoom",)


class _Until(Protocol):
    """Waits in real time until a condition holds, or raises `TimeoutError`."""

    def __call__(self, ready: Callable[[], bool], otherwise: str, timeout: float | None) -> Awaitable[None]:
        """Wait; *otherwise* says what did not happen."""
        ...


class TestRoom(Room):
    """A room that a connection has joined; `await connection.join(name)` returns it.

    It has everything that a room of `symphony.Client` has: `on`, `emit`,
    `history`, `presence`, iteration. `receive` returns the next publication for
    which the test has no handler.
    """

    __test__ = False
    __slots__ = ("_changed", "_until")

    def __init__(self, room: Room, until: _Until, changed: Callable[[], None]) -> None:
        super().__init__(room._held)
        self._until = until
        self._changed = changed

    def _is_same(self, room: Room) -> bool:
        """Return whether a client has joined this room as *room*; used by `TestConnection`."""
        return self._held is room._held

    @property
    def waiting(self) -> int:
        """How many publications, and losses, wait for `receive`."""
        return self._held.delivery.waiting

    async def receive(self, *, timeout: float | None = None) -> Publication:
        """Return the next publication that no handler of the room takes.

        A snapshot is a publication with the event `snapshot`.

        Args:
            timeout: The longest wait in seconds of real time. `None` uses the
                timeout of the test client.

        Raises:
            RemoteError: The membership has ended, and all publications have
                been received.
            DisconnectedError: The connection has ended, likewise.
            TimeoutError: No publication was received in time.
        """
        taking = asyncio.ensure_future(self._next())
        taking.add_done_callback(lambda _: self._changed())
        try:
            await self._until(taking.done, f"No publication of the room {self.name!r} was received.", timeout)
        except BaseException:
            taking.cancel()
            await asyncio.wait((taking,))
            raise
        publication = taking.result()
        if publication is None:
            assert self.ended is not None
            raise self.ended
        return publication

    async def _next(self) -> Publication | None:
        return await anext(self, None)
