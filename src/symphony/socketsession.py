"""What a socket needs of the session that runs it, and the session of a closed socket."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final, Protocol

from symphony.errors import DisconnectedError
from symphony.tasks import start
from symphony.websocket.backpressure import TURN

if TYPE_CHECKING:
    from symphony.errors import Reject
    from symphony.identity import Identity
    from symphony.protocol.envelopes import Join
    from symphony.rooms.places import Place
    from symphony.rooms.room import Room
    from symphony.routing.socketscope import Home

__all__ = ("ENDED", "HomeContext", "SocketSession")


class HomeContext:
    """The context of a socket, as its dependencies need it.

    Args:
        context: The context.
    """

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        self._context = context

    def is_current(self) -> bool:
        """Whether the caller runs in it."""
        task: Any = asyncio.current_task()
        if hasattr(task, "get_context"):  # Python 3.12
            return task.get_context() is self._context
        try:
            self._context.run(_nothing)
        except RuntimeError:  # it is entered already
            return True
        return False

    def run(self, coroutine: Coroutine[Any, Any, Any], /) -> asyncio.Task[Any]:
        """Run a coroutine in it."""
        return start(coroutine, self._context)


def _nothing() -> None:
    """Do nothing, in a context."""


class SocketSession(Protocol):
    """What a socket needs of the session that runs it."""

    began: bool
    """Whether its connect handler was called: then its disconnect handler will be."""

    @property
    def home(self) -> Home:
        """The context that the handlers of the socket share."""
        ...

    def open(self) -> None:
        """Answer the handshake, if it is not answered yet."""
        ...

    def background(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine until the socket goes."""
        ...

    async def request(self, event: str, data: Any, *, timeout: float, response_type: Any) -> Any:
        """Ask the client and return its reply."""
        ...

    async def join(self, name: str, *, authorize: bool, asked: Join | None = None) -> Room:
        """Make the socket a member of a room; *asked* is the request of its client, if it was one."""
        ...

    async def leave(self, name: str) -> bool:
        """Take it out of a room; whether it was a member."""
        ...

    async def prepare(self, name: str) -> Place:
        """Begin the join of the room of the socket's route."""
        ...

    def refuse(self, refusal: Reject) -> None:
        """Close the socket with an error."""
        ...

    def login(self, identity: Identity, before: Identity | None) -> None:
        """Register the identity of the socket; *before* is the previous one."""
        ...

    async def look_for_others(self) -> None:
        """Refuse the socket if its user has another one, on a route for one socket a user."""
        ...


class _Ended:
    """The session of a closed socket."""

    __slots__ = ("began",)

    def __init__(self) -> None:
        self.began = True

    @property
    def home(self) -> Home:
        return HomeContext(copy_context())

    def open(self) -> None:
        """Do nothing: it is closed."""

    def background(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        coroutine.close()
        raise DisconnectedError("The socket is closed: it takes no background task.")

    async def request(self, event: str, data: Any, *, timeout: float, response_type: Any) -> Any:
        raise DisconnectedError(f"The socket is closed: {event!r} was not sent.")

    async def join(self, name: str, *, authorize: bool, asked: Join | None = None) -> Room:
        raise DisconnectedError(f"The socket is closed: it cannot join {name!r}.")

    async def leave(self, name: str) -> bool:
        await TURN
        return False

    async def prepare(self, name: str) -> Place:
        raise DisconnectedError(f"The socket is closed: it cannot join {name!r}.")

    def refuse(self, refusal: Reject) -> None:
        """Do nothing: it is closed."""

    def login(self, identity: Identity, before: Identity | None) -> None:
        """Do nothing: a closed socket belongs to no user."""

    async def look_for_others(self) -> None:
        """Do nothing: it is closed."""


ENDED: Final = _Ended()
"""The session of every closed socket."""
