"""What the parts of a session need of the session, and the session of its node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from symphony.identity import Identity
    from symphony.protocol.envelopes import Event
    from symphony.rooms.room import Room
    from symphony.socket import Socket

__all__ = ("ErrorReporter", "LiveSession", "NodeRooms", "SessionNode")


class ErrorReporter(Protocol):
    """Hears of what handlers raise."""

    def report(self, error: BaseException, what: str, event: str = "") -> None:
        """Report what was raised in *what*, the handler of *event*."""
        ...


class LiveSession(ErrorReporter, Protocol):
    """A session, as the parts see it that handle its messages."""

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended."""
        ...

    def watched(self, work: Coroutine[Any, Any, Any], event: Event | None = None, /) -> Awaitable[Any]:
        """Name *work* in a warning if it holds the event loop."""
        ...


class NodeRooms(Protocol):
    """What a session needs of the node's rooms."""

    async def join(self, socket: Socket[Any], name: str, *, authorize: bool) -> Room:
        """Make *socket* a member of a room."""
        ...

    async def leave(self, socket: Socket[Any], name: str) -> bool:
        """Take *socket* out of a room; whether it was a member."""
        ...


class SessionNode(Protocol):
    """What a session needs of the node it belongs to."""

    def opened(self, session: Any) -> None:
        """Hear that the socket is open."""
        ...

    async def left(self, session: Any) -> None:
        """Take the socket out of its rooms and tables."""
        ...

    @property
    def rooms(self) -> NodeRooms:
        """Who is in which room."""
        ...

    def logged_in(self, socket: Socket[Any], identity: Identity, before: Identity | None) -> None:
        """Hear who a socket speaks for, and for whom it spoke before."""
        ...

    def report(self, error: BaseException, socket: Socket[Any], where: str) -> None:
        """Log what a handler raised and hand it to the error handler."""
        ...

    def background(self, coroutine: Coroutine[Any, Any, Any], socket: Socket[Any]) -> asyncio.Task[Any]:
        """Start a background task whose exception is reported."""
        ...
