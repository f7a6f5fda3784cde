"""The members of a room, as clients are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field

__all__ = ("MemberInfo", "MembersDiff", "MembersState")


class MemberInfo(Struct):
    """A member of a room: its id, and what others may know about it."""

    id: str
    info: Any = None


class MembersState(Struct, omit_defaults=True):
    """The members of a room.

    Attributes:
        epoch: Versions of two epochs cannot be compared.
        version: The version of this state.
        total: How many members there are.
        list: The members; `None`: there are too many.
    """

    epoch: str
    version: int
    total: int
    list: Sequence[MemberInfo] | None = None


class MembersDiff(Struct, omit_defaults=True):
    """What has changed in the members of a room between two versions.

    Attributes:
        epoch: As in `MembersState`.
        since: The version that it follows. A later one up to `to` will do.
        to: The version after it.
        total: How many members there are.
        changed: The members that have come, or have other info; `None`: there are too
            many members to list them.
        gone: The ids of those that have gone.
    """

    epoch: str
    since: int = field(name="from")
    to: int
    total: int
    changed: Sequence[MemberInfo] | None = None
    gone: Sequence[str] | None = None
