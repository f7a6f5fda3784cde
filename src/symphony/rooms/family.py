"""A family of rooms: one name pattern, one policy, its hooks."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

__all__ = ("DEFAULT_FAMILY", "Family")

Hook = Callable[[Any, Any], Coroutine[Any, Any, Any]]
"""A compiled hook: called with the socket, or `None`, and the room."""


@dataclass(slots=True, kw_only=True)
class Family:
    """The policy of the rooms whose names match one pattern.

    Attributes:
        pattern: The pattern, for messages.
        max_members: The most sockets in one room, `None`: any number.
        linger: Seconds an empty room keeps its state.
        state: Makes the state of a room, `None`: it has none.
        authorize: Asked before a join; `False` or a `Reject` refuses it.
        on_join: Called after a socket has joined.
        on_leave: Called after a socket has left.
        on_empty: Called when the last has left and the linger has passed.
        task: Runs from the first join to the end of the linger.
    """

    pattern: str
    max_members: int | None = None
    linger: float = 0.0
    state: Callable[[], Any] | None = None
    authorize: Hook | None = None
    on_join: Hook | None = None
    on_leave: Hook | None = None
    on_empty: Hook | None = None
    task: Hook | None = None


DEFAULT_FAMILY: Final = Family(pattern="")
