"""Where the publications begin that a member gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from symphony.outgoing.encoding import Content
    from symphony.protocol.positions import Position

__all__ = ("NOTHING", "NOW", "Start")


class Start(NamedTuple):
    """Where the publications begin that a member gets.

    Attributes:
        after: They follow this position; `None`: they are those from now on.
        recovered: Whether they are all that the member has asked for; `None`: it has
            not asked for earlier ones.
        snapshot: What the member gets before them; `None`: nothing.
    """

    after: Position | None
    recovered: bool | None
    snapshot: Content | None = None


NOW: Final = Start(None, None)
NOTHING: Final = Start(None, False)
"""The same, for a member that has asked for earlier ones, where none are kept."""
