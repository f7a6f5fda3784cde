"""All sockets of a user join or leave a room, because a handler of the app has said so."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Literal

from symphony.errors import DisconnectedError

if TYPE_CHECKING:
    from symphony.broker.peers import Peers
    from symphony.socket import Socket

__all__ = ("change_elsewhere", "join_all", "leave_all")


async def join_all(sockets: Iterable[Socket[Any]], name: str) -> int:
    """Let sockets join a room without asking `authorize`; return how many are in it.

    Raises:
        Reject: A socket was refused. The others have joined.
    """
    return sum(await _each(socket.join(name, authorize=False) for socket in sockets))


async def leave_all(sockets: Iterable[Socket[Any]], name: str) -> int:
    """Let sockets leave a room; return how many were in it."""
    return sum(await _each(socket.leave(name) for socket in sockets))


async def change_elsewhere(
    peers: Peers, change: Literal["join_user", "leave_user"], user: str, name: str, timeout: float
) -> int:
    """Let the sockets of a user on all other nodes join or leave a room; return how many it were.

    Raises:
        SymphonyError: As `Peers.ask_all`.
    """
    return sum(await peers.ask_all(change, user, name, timeout=timeout, keeps=True))


async def _each(changes: Iterable[Coroutine[Any, Any, object]]) -> list[bool]:
    """Return what each has changed, when all have ended; raise the first error."""
    done: list[bool] = []
    errors: list[BaseException] = []
    for result in await asyncio.gather(*changes, return_exceptions=True):
        if not isinstance(result, BaseException):
            # `join` returns the room.
            done.append(result is not False)
        elif not isinstance(result, DisconnectedError):
            errors.append(result)
    for error in errors:
        raise error
    return done
