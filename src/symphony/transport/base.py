"""The two contracts between a transport and the core.

A transport moves messages and reports congestion; all behaviour is in the
core and the same on every transport. The core sees a `Connection`, the
transport a `Receiver`. Neither imports the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, TypeAlias

from symphony.websocket.close import Close

if TYPE_CHECKING:
    from symphony.limits import Limits
    from symphony.outgoing.encoding import Encoding, Message
    from symphony.outgoing.outbox import Outbox
    from symphony.stats import Stats

__all__ = (
    "NATIVE",
    "NATIVE_HOSTS",
    "Acceptor",
    "Close",
    "Connection",
    "Profile",
    "Receiver",
    "Scope",
    "Servable",
    "SlowConsumer",
    "SlowRead",
    "hosted",
    "servable",
    "shown_address",
)

Scope: TypeAlias = "MutableMapping[str, Any]"
SlowConsumer: TypeAlias = Literal["disconnect", "drop_oldest"]


class Profile(NamedTuple):
    """What a route asks of the connection.

    Attributes:
        limits: The bounds that apply.
        slow_consumer: What happens when the outbox is full.
        compression: Compress messages of at least so many bytes, if the
            client can; `None`: never.
    """

    limits: Limits
    slow_consumer: SlowConsumer
    compression: int | None


class Connection(Protocol):
    """What the core asks of a transport's connection."""

    outbox: Outbox

    @property
    def encoding(self) -> Encoding:
        """The encoding of this connection; fixed by `configure`."""
        ...

    @property
    def latency(self) -> float | None:
        """The last measured round trip in seconds, `None` where unknown."""
        ...

    def configure(self, profile: Profile) -> None:
        """Take the route's profile; called once, before anything is sent."""
        ...

    def accept(self, subprotocol: str | None) -> None:
        """Answer the handshake with 101 and let the outbox flow."""
        ...

    def refuse(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Answer the handshake with an HTTP error and end the connection."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Send a close frame behind what is in the outbox. A repeat does nothing."""
        ...

    def abort(self) -> None:
        """End the connection at once."""
        ...

    def pause_reading(self) -> None:
        """Stop handing messages over; a few that were read already may follow."""
        ...

    def resume_reading(self) -> None:
        """Go on handing messages over."""
        ...


class SlowRead(NamedTuple):
    """A read whose messages held the event loop.

    Attributes:
        messages: How many were handled in it.
        message: The one that took longest, decoded or not; the last one where they were not timed each.
        slowest: The seconds of that one; `None`: they were not timed each.
    """

    messages: int
    message: Any
    slowest: float | None


class Receiver(Protocol):
    """What a transport tells the core about one connection."""

    @property
    def received(self) -> Callable[[Message], None]:
        """What takes the next message. It never raises."""
        ...

    def slow(self, seconds: float, read: SlowRead) -> None:
        """Hear that handling the messages of one read held the loop for so long."""
        ...

    def closed(self, close: Close) -> None:
        """Hear that the connection has ended. A repeat does nothing."""
        ...

    async def ended(self) -> None:
        """Return when nothing of the session is left to do."""
        ...


class Acceptor(Protocol):
    """The core's front door, as a transport sees it."""

    @property
    def limits(self) -> Limits:
        """The bounds of the app, for what happens before a route is known."""
        ...

    @property
    def stats(self) -> Stats:
        """Where a transport counts what only it sees."""
        ...

    def connect(self, scope: Scope, connection: Connection) -> Receiver | None:
        """Begin a session for a handshake, or refuse it and return `None`."""
        ...

    async def drain(self, force: asyncio.Event) -> None:
        """Let handlers finish, close every socket with 1012, return when all have gone."""
        ...


class Servable(Protocol):
    """An app that can be served."""

    native: bool
    """Set by the native server, so that the app need not warn."""

    @property
    def node(self) -> Acceptor:
        """The app at work; there from its start-up to its shutdown."""
        ...


def servable(app: Any) -> Servable | None:
    """Return the servable part of a Symphony app, `None` for an app of another framework."""
    core: Any = getattr(app, "_core", None)
    return core if hasattr(core, "native") and hasattr(core, "mounts") else None


NATIVE: Final = "symphony.native"
"""The ASGI extension by which the native server offers a WebSocket to a mounted app.

It is a function: `await take(app, scope)` moves the connection to *app* and
returns when its session has ended.
"""

NATIVE_HOSTS: Final[ContextVar[list[Servable] | None]] = ContextVar("NATIVE_HOSTS", default=None)
"""The running apps that are mounted in the app of a native server; `None`: there is no such server."""


@contextmanager
def hosted(app: Servable) -> Generator[None]:
    """Tell the native server, if one runs the outer app, that *app* is running."""
    hosts = NATIVE_HOSTS.get()
    if hosts is None:
        yield
        return
    app.native = True
    hosts.append(app)
    try:
        yield
    finally:
        hosts.remove(app)


def shown_address(client: tuple[str, int] | None) -> str:
    """Return a client's address as logs show it.

    A proxy tells the address of its client, and the port only if it is told
    to: without one the port is 0.
    """
    if not client:
        return "a local socket"
    host, port = client
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
