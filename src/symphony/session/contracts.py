"""Contracts: what the parts of a session need of it, and what it needs of its node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from symphony.complaints import Complaints
    from symphony.identity import Identity
    from symphony.protocol.envelopes import Event, Join, Publish, ReadCount, ReadHistory, ReadPresence
    from symphony.protocol.positions import Position
    from symphony.rooms.leave import Leave
    from symphony.rooms.places import Place
    from symphony.rooms.room import Room
    from symphony.session.endpoint import Endpoint
    from symphony.session.waiting import Waiting
    from symphony.socket import Socket

__all__ = ("ErrorReporter", "LaneReports", "LiveSession", "NodeRooms", "Runner", "SessionNode")


class LaneReports(NamedTuple):
    """What a lane reports.

    Attributes:
        done: Called with a message and the result of its handler. What it
            returns is awaited before the handler's place is free again.
        failed: Called with a message and the exception of its handler;
            otherwise as *done*. The message is `None` for dropped messages.
        full: Called with `True` when the queue is full, with `False` when
            there is room again.
    """

    done: Callable[[Any, Any], Awaitable[None] | None]
    failed: Callable[[Any, BaseException], Awaitable[None] | None]
    full: Callable[[bool], None]


class Runner(Protocol):
    """What runs the handlers of a socket: a `Lane`, or a `Parallel`."""

    is_full: bool
    """What `LaneReports.full` was last called with."""

    @property
    def is_idle(self) -> bool:
        """Whether a message is handled at once."""
        ...

    queue: Waiting
    """The messages that wait."""

    def deliver(self, message: Any) -> None:
        """Handle a message when its turn comes."""
        ...

    def withdraw(self, message: Any) -> bool:
        """Withdraw a message, or cancel its handler; return whether the handler was running."""
        ...

    def recent(self) -> tuple[int, Any]:
        """Return how many messages this step of the loop has handled, and the last of them."""
        ...

    async def serve(self, call: Callable[[Any, Any], Any], socket: Any, *, is_async: bool) -> None:
        """Handle messages until `end`; runs in the socket's own task."""
        ...

    def end(self, *, timeout: float) -> None:
        """Let `serve` return when all messages are handled, at the latest after *timeout* seconds."""
        ...

    def drop(self) -> int:
        """Drop the queued messages, and return how many these were."""
        ...

    def cancel(self) -> None:
        """Cancel the handlers that run, and drop the queued messages."""
        ...


class ErrorReporter(Protocol):
    """Reports exceptions of handlers."""

    def report(self, error: BaseException, what: str, event: str = "") -> None:
        """Report an exception that was raised in *what*, the handler of *event*."""
        ...


class LiveSession(ErrorReporter, Protocol):
    """A session, as seen by the parts that handle its messages."""

    complaints: Complaints
    """The log lines that strangers can cause."""

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended."""
        ...

    def watched(self, work: Coroutine[Any, Any, Any], event: Event | None = None, /) -> Awaitable[Any]:
        """Wrap *work*, so that a warning is logged if it blocks the event loop."""
        ...


class NodeRooms(Protocol):
    """What a session needs of the node's rooms."""

    async def join(
        self, socket: Socket[Any], name: str, *, authorize: bool, most: int, asked: Join | None
    ) -> Room:
        """Make *socket* a member of a room, unless it is in *most* rooms already."""
        ...

    async def leave(self, socket: Socket[Any], name: str) -> bool:
        """Remove *socket* from a room; return whether it was a member."""
        ...

    async def prepare(self, socket: Socket[Any], name: str) -> Place:
        """Begin the join of the room of a socket's route."""
        ...

    async def published(self, socket: Socket[Any], asked: Publish, kind: str) -> Position | None:
        """Publish what a client publishes; its data has the form *kind*, as `Protocol.payload`."""
        ...

    async def read(self, socket: Socket[Any], asked: ReadHistory) -> Any:
        """Return what a client reads of a room's history."""
        ...

    def leave_all(self, socket: Socket[Any], why: Leave) -> Coroutine[Any, Any, None] | None:
        """Remove *socket* from its rooms at once; return what runs its hooks, if there are any."""
        ...

    async def members_for(self, socket: Socket[Any], asked: ReadPresence | ReadCount) -> Any:
        """Return who is in a room of *socket*, or how many, for its client."""
        ...


class SessionNode(Protocol):
    """What a session needs of the node it belongs to."""

    complaints: Complaints
    """The log lines that strangers can cause."""

    def opened(self, session: Any, endpoint: Endpoint) -> None:
        """Register a socket that has opened."""
        ...

    async def admit(self, session: Any) -> Sequence[str]:
        """Decide about a socket whose connect handler has returned, because of its user.

        Returns:
            The ids of the sockets that it replaces, for `replace`.

        Raises:
            Reject: It may not open.
        """
        ...

    def give_up_place(self, session: Any) -> None:
        """Let the user of a socket whose connection has ended have another one on its route."""
        ...

    def replace(self, evicted: Sequence[str]) -> None:
        """Close the sockets that another one has replaced."""
        ...

    async def look_for_others(self, session: Any) -> None:
        """Refuse a socket whose user has another one on its route.

        Raises:
            Reject: `conflict`.
        """
        ...

    def left(self, session: Any) -> None:
        """Remove a closed socket from the node's tables."""
        ...

    @property
    def rooms(self) -> NodeRooms:
        """The rooms of the node."""
        ...

    def logged_in(self, session: Any, identity: Identity, before: Identity | None) -> None:
        """Register the new identity of a socket; *before* is the previous one.

        Raises:
            Reject: It cannot log in.
        """
        ...

    def report(self, error: BaseException, socket: Socket[Any], where: str) -> None:
        """Log an exception of a handler and pass it to the error handler."""
        ...

    def background(self, coroutine: Coroutine[Any, Any, Any], socket: Socket[Any]) -> asyncio.Task[Any]:
        """Start a background task whose exception is reported."""
        ...
