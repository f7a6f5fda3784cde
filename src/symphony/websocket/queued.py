"""How many bytes wait in the queues of a process."""

from __future__ import annotations

__all__ = ("Queued",)


class Queued:
    """The bytes that wait in all queues together. Who adds bytes removes them again.

    Attributes:
        limit: Above this, no socket may queue a second message.
        size: The bytes that wait now.
    """

    __slots__ = ("limit", "size")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0

    @property
    def is_full(self) -> bool:
        """Whether more waits than should."""
        return self.size > self.limit
