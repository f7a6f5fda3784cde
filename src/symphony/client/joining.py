"""The requests of a client about a room: `join` and `leave`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from symphony.client.answers import Answers
from symphony.client.requests import Request
from symphony.errors import SymphonyError
from symphony.protocol.envelopes import Event, Join, Leave
from symphony.protocol.positions import Position

__all__ = ("Joining", "Leaving", "Since", "failure_of")

Since: TypeAlias = Position | Literal["start"] | None


class Joining(Request):
    """A request to join a room.

    Args:
        answers: The requests of the client.
        room: The name of the room.
        since: Called when it is sent; returns the position to join with.
        timeout: Seconds; `inf`: no limit.
        bound: Whether it belongs to the current connection only. Otherwise it is
            queued without one, and sent again if the connection is lost.
        where: The address of the server, for the errors.

    Attributes:
        settled: Called with the error when it has failed, or `None` when it has
            succeeded: before anything that the server sends after its answer.
    """

    __slots__ = ("_room", "_since", "bound", "settled")

    def __init__(
        self,
        answers: Answers,
        room: str,
        since: Callable[[], Since],
        *,
        timeout: float,
        bound: bool,
        where: str,
    ) -> None:
        super().__init__(answers, room, None, timeout=timeout, idempotent=not bound, where=where)
        self.bound = bound
        self._room = room
        self._since = since
        self.settled: Callable[[Exception | None], None] | None = None

    @property
    def what(self) -> str:
        """What it is, for messages."""
        return self._name

    @property
    def _name(self) -> str:
        return f"the join of {self._room!r}"

    def _envelope(self, timeout: float | None) -> Event | Join | Leave:
        return Join(self._room, None, self._since(), timeout)

    def replied(self, data: Any) -> None:
        """Handle the reply."""
        done = self._future.done()
        super().replied(data)
        if not done and self.settled is not None:
            self.settled(None)

    def _fail(self, error: Exception) -> None:
        done = self._future.done()
        super()._fail(error)
        if not done and self.settled is not None:
            self.settled(error)


class Leaving(Request):
    """A request to leave a room, on the current connection.

    Args:
        answers: The requests of the client.
        room: The name of the room.
        timeout: Seconds; `inf`: no limit.
        where: The address of the server, for the errors.
    """

    __slots__ = ("_room",)
    bound = True

    def __init__(self, answers: Answers, room: str, *, timeout: float, where: str) -> None:
        super().__init__(answers, room, None, timeout=timeout, idempotent=False, where=where)
        self._room = room

    @property
    def what(self) -> str:
        """What it is, for messages."""
        return self._name

    @property
    def _name(self) -> str:
        return f"the leave of {self._room!r}"

    def _envelope(self, timeout: float | None) -> Event | Join | Leave:
        return Leave(self._room, None, timeout)


async def failure_of(request: Joining) -> SymphonyError | None:
    """Wait for the answer to a join, and return its error."""
    try:
        await request.answered()
    except SymphonyError as error:
        return error
    return None
