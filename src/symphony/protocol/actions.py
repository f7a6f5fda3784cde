"""The names of what a client asks for that is no event: it is handled in order with its events."""

from __future__ import annotations

from typing import Final

__all__ = ("COUNT", "HISTORY", "JOIN", "LEAVE", "PRESENCE", "PUBLISH", "Action")


class Action(str):
    """The name of a request that no event can have, because it is equal to nothing else.

    It is handled in order with events, as if it were one.
    """

    __slots__ = ()
    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__


JOIN: Final = Action("join")
LEAVE: Final = Action("leave")
PUBLISH: Final = Action("publish")
HISTORY: Final = Action("history")
PRESENCE: Final = Action("presence")
COUNT: Final = Action("count")
