"""Contracts: what the parts of a session need of it, and what it needs of its node."""

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
    """Reports exceptions of handlers."""

    def report(self, error: BaseException, what: str, event: str = "") -> None:
        """Report an exception that was raised in *what*, the handler of *event*."""
        ...


class LiveSession(ErrorReporter, Protocol):
    """A session, as seen by the parts that handle its messages."""

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended."""
        ...

    def watched(self, work: Coroutine[Any, Any, Any], event: Event | None = None, /) -> Awaitable[Any]:
        """Wrap *work*, so that a warning is logged if it blocks the event loop."""
        ...


class NodeRooms(Protocol):
    """What a session needs of the node's rooms."""

    async def join(self, socket: Socket[Any], name: str, *, authorize: bool) -> Room:
        """Make *socket* a member of a room."""
        ...

    async def leave(self, socket: Socket[Any], name: str) -> bool:
        """Remove *socket* from a room; return whether it was a member."""
        ...


class SessionNode(Protocol):
    """What a session needs of the node it belongs to."""

    def opened(self, session: Any) -> None:
        """Register a socket that has opened."""
        ...

    async def left(self, session: Any) -> None:
        """Remove a closed socket from its rooms and from the node's tables."""
        ...

    @property
    def rooms(self) -> NodeRooms:
        """The rooms of the node."""
        ...

    def logged_in(self, socket: Socket[Any], identity: Identity, before: Identity | None) -> None:
        """Register the new identity of a socket; *before* is the previous one."""
        ...

    def report(self, error: BaseException, socket: Socket[Any], where: str) -> None:
        """Log an exception of a handler and pass it to the error handler."""
        ...

    def background(self, coroutine: Coroutine[Any, Any, Any], socket: Socket[Any]) -> asyncio.Task[Any]:
        """Start a background task whose exception is reported."""
        ...
