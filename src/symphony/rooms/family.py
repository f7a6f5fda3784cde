"""A family of rooms: one name pattern, one policy, its hooks."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from symphony.errors import Reject
from symphony.routing.patterns import NameTable

__all__ = ("DEFAULT_FAMILY", "ROOM_SEPARATOR", "Families", "Family", "Hook")

ROOM_SEPARATOR: Final = ":"

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


class Families:
    """The families of an app: which one a room is of."""

    def __init__(self) -> None:
        self._table = NameTable[Family](separator=ROOM_SEPARATOR)
        self._prefixes: dict[str, str] = {}

    def add(self, family: Family) -> None:
        """Add a family.

        Raises:
            ConfigurationError: Another one has the same names.
        """
        self._table.add(family.pattern, family)
        prefix = family.pattern.partition("{")[0]
        if prefix:
            self._prefixes[prefix] = family.pattern

    def find(self, name: str) -> tuple[Family, dict[str, Any]]:
        """Return the family and the parameters of a room's name.

        Raises:
            Reject: The name begins as those of a family do, and is none of
                them. Taken for a room without a policy, it would let a client
                that may choose a part of the name go around `authorize`.
        """
        found = self._table.match(name)
        if found is not None:
            return found
        for prefix, pattern in self._prefixes.items():
            if name.startswith(prefix):
                raise Reject(
                    "invalid",
                    f"{name!r} is not a name of the rooms {pattern!r}",
                    details={"room": name, "pattern": pattern},
                )
        return DEFAULT_FAMILY, {}
