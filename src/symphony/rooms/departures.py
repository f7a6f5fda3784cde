"""The end of a socket's membership, until the hooks of its member have run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from symphony.rooms.leave import Leave
    from symphony.rooms.members import Member

__all__ = ("Departure",)


class Departure:
    """A socket that is no longer one of a member's.

    Attributes:
        member: The member.
        leave: Why.
        task: Tells the store, and runs the hooks of the member.
    """

    __slots__ = ("_released", "leave", "member", "task")

    def __init__(self, member: Member[Any], leave: Leave) -> None:
        self.member = member
        self.leave = leave
        self.task: asyncio.Task[Any] | None = None
        self._released: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_released(self) -> bool:
        """Whether the hooks of the socket have run."""
        return self._released.done()

    def release(self) -> None:
        """Let the hooks of the member run, because those of the socket have run."""
        if not self._released.done():
            self._released.set_result(None)

    async def released(self) -> None:
        """Return when `release` was called."""
        await asyncio.wait((self._released,))
