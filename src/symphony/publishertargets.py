"""What another process sends to: rooms, users, sockets, everyone. The verbs are awaited, or block."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeAlias

from symphony.outsidetargets import OutsideEveryone, OutsideRoom, OutsideSocket, OutsideUser, OutsideUsers

if TYPE_CHECKING:
    from symphony.protocol.positions import Position
    from symphony.rooms.publishing import Publication

__all__ = (
    "AsyncPublisherRoom",
    "AsyncPublisherSocket",
    "AsyncPublisherTarget",
    "AsyncPublisherUser",
    "AsyncPublisherUsers",
    "PublisherRoom",
    "PublisherSocket",
    "PublisherTarget",
    "PublisherUser",
    "PublisherUsers",
)

AsyncPublisherTarget: TypeAlias = "OutsideEveryone[Awaitable[None]]"
"""Everyone, for another process."""

AsyncPublisherUsers: TypeAlias = "OutsideUsers[Awaitable[None]]"
"""Several users, for another process."""

AsyncPublisherRoom: TypeAlias = "OutsideRoom[Awaitable[Position | None], Awaitable[list[Publication]]]"
"""A room, for another process."""

AsyncPublisherUser: TypeAlias = (
    "OutsideUser[Awaitable[Position | None], Awaitable[list[Publication]], Awaitable[int]]"
)
"""A user, for another process."""

AsyncPublisherSocket: TypeAlias = "OutsideSocket[Awaitable[None]]"
"""One socket, for another process."""

PublisherTarget: TypeAlias = "OutsideEveryone[None]"
"""Everyone, for another process; its verbs block."""

PublisherUsers: TypeAlias = "OutsideUsers[None]"
"""Several users, for another process; its verbs block."""

PublisherRoom: TypeAlias = "OutsideRoom[Position | None, list[Publication]]"
"""A room, for another process; its verbs block."""

PublisherUser: TypeAlias = "OutsideUser[Position | None, list[Publication], int]"
"""A user, for another process; its verbs block."""

PublisherSocket: TypeAlias = "OutsideSocket[None]"
"""One socket, for another process; its verbs block."""
