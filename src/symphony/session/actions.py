"""What clients ask for in rooms, in order with their events."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from symphony.errors import DisconnectedError
from symphony.protocol.actions import COUNT, HISTORY, JOIN, LEAVE, PRESENCE, PUBLISH, Action
from symphony.socketsession import ENDED

if TYPE_CHECKING:
    from symphony.protocol.envelopes import Join, Leave, Publish, ReadCount, ReadHistory, ReadPresence
    from symphony.protocol.positions import Position
    from symphony.session.contracts import NodeRooms
    from symphony.socket import Socket

__all__ = ("client_actions", "publish_by_client")


def client_actions(kind: str) -> dict[Action, Callable[[Any, Any], Coroutine[Any, Any, Any]]]:
    """Return what runs for each action; the data of a publication has the form *kind*."""
    return {
        JOIN: _join,
        LEAVE: _leave,
        PUBLISH: partial(publish_by_client, kind),
        HISTORY: _read,
        PRESENCE: _members,
        COUNT: _members,
    }


async def _join(socket: Socket[Any], asked: Join) -> None:
    """Join the room that the client has asked for."""
    await socket._session.join(asked.join, authorize=True, asked=asked)  # pyright: ignore[reportPrivateUsage]


async def _leave(socket: Socket[Any], asked: Leave) -> bool:
    """Leave the room that the client has named; return whether it was a member."""
    return await socket._session.leave(asked.leave)  # pyright: ignore[reportPrivateUsage]


async def _members(socket: Socket[Any], asked: ReadPresence | ReadCount) -> Any:
    """Return who is in the room that the client has named, or how many."""
    return await _rooms_of(socket).members_for(socket, asked)


async def publish_by_client(kind: str, socket: Socket[Any], asked: Publish) -> Position | None:
    """Publish what the client publishes; its data has the form *kind*, as `Protocol.payload`."""
    return await _rooms_of(socket).published(socket, asked, kind)


async def _read(socket: Socket[Any], asked: ReadHistory) -> Any:
    """Return what the client reads of a room's history."""
    return await _rooms_of(socket).read(socket, asked)


def _rooms_of(socket: Socket[Any]) -> NodeRooms:
    session: Any = socket._session  # pyright: ignore[reportPrivateUsage]
    if session is ENDED:
        raise DisconnectedError("The socket is closed.")
    return session._node.rooms
