"""The contracts between a transport and the core.

A transport moves messages and reports congestion. All other behaviour is in the
core, and is the same on every transport. The core uses a `Connection`. The
transport uses an `Acceptor` and a `Receiver`. Neither imports the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, TypeAlias

from symphony.printable import printable
from symphony.websocket.close import Close
from symphony.websocket.queued import Queued

if TYPE_CHECKING:
    from symphony.complaints import Complaints
    from symphony.limits import Limits
    from symphony.outgoing.encoding import Encoding, Message
    from symphony.outgoing.outbox import Outbox
    from symphony.stats import Stats
    from symphony.transport.probing import Readiness

__all__ = (
    "CROWDED",
    "HOSTS",
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
SlowConsumer: TypeAlias = Literal["disconnect", "drop_oldest", "conflate", "resync"]


class Profile(NamedTuple):
    """The options of a route that its connections need.

    Attributes:
        limits: The limits that apply.
        slow_consumer: What happens when the outbox is full.
        compression: Compress messages of at least this many bytes, if the
            client supports it. `None`: never.
        queued: The bytes that wait in all queues of the app.
    """

    limits: Limits
    slow_consumer: SlowConsumer
    compression: int | None
    queued: Queued

    def apply(self, outbox: Outbox, overflow: Callable[[], None]) -> None:
        """Set the limits of a connection's outbox; *overflow* disconnects a slow consumer."""
        limits = self.limits
        outbox.configure(
            limit=limits.max_outbox_bytes,
            high=limits.high_water_bytes,
            low=limits.low_water_bytes,
            overflow=overflow if self.slow_consumer in ("disconnect", "conflate") else None,
            disconnect=overflow,
            # Where a newer message takes the place of an older one, no place is too old.
            max_age=None if self.slow_consumer == "conflate" else limits.max_outbox_age,
        )


class Connection(Protocol):
    """A connection of a transport, as the core uses it."""

    outbox: Outbox

    @property
    def encoding(self) -> Encoding:
        """The encoding of this connection, which `configure` sets."""
        ...

    @property
    def latency(self) -> float | None:
        """The last measured round trip in seconds, or `None` if unknown."""
        ...

    def configure(self, profile: Profile) -> None:
        """Apply the route's profile; called once, before anything is sent."""
        ...

    def accept(self, subprotocol: str | None) -> None:
        """Answer the handshake with 101, and start writing the outbox."""
        ...

    def refuse(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Answer the handshake with an HTTP error and end the connection."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Send a close frame after everything in the outbox. Idempotent."""
        ...

    def abort(self) -> None:
        """End the connection at once."""
        ...

    def pause_reading(self) -> None:
        """Stop delivering messages. A few that were read already may follow."""
        ...

    def resume_reading(self) -> None:
        """Deliver messages again."""
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
    """Receives the messages and the end of one connection."""

    @property
    def received(self) -> Callable[[Message], None]:
        """The function that handles the next message. It never raises."""
        ...

    def slow(self, seconds: float, read: SlowRead) -> None:
        """Report that handling the messages of one read blocked the event loop for this time."""
        ...

    def closing(self) -> None:
        """Handle that this side has closed: nothing more of the client is handled."""
        ...

    def closed(self, close: Close) -> None:
        """Handle the end of the connection. Idempotent."""
        ...

    async def ended(self) -> None:
        """Return when the session has finished completely."""
        ...


class Acceptor(Protocol):
    """Accepts handshakes for an app."""

    @property
    def limits(self) -> Limits:
        """The limits of the app, which apply until the route is known."""
        ...

    @property
    def stats(self) -> Stats:
        """The counters of the app, for what only the transport sees."""
        ...

    complaints: Complaints
    """The log lines of the app that strangers can cause."""

    def connect(self, scope: Scope, connection: Connection) -> Receiver | None:
        """Start a session for a handshake, or refuse it and return `None`."""
        ...

    def retire(self) -> None:
        """Refuse all further handshakes with HTTP 503, and say that the server is not ready."""
        ...

    async def drain(self, force: asyncio.Event) -> None:
        """Let handlers finish and close every socket with 1012; return when all have ended."""
        ...


class Servable(Protocol):
    """An app that can be served."""

    native: bool
    """Set by the native server. Without it, the app warns about the other server."""

    @property
    def node(self) -> Acceptor:
        """The running node. It exists from start-up to shutdown."""
        ...

    @property
    def readiness(self) -> Readiness | None:
        """What the app says of itself when it is probed; `None`: it does not answer."""
        ...


def servable(app: Any) -> Servable | None:
    """Return the servable part of a Symphony app, `None` for an app of another framework."""
    core: Any = getattr(app, "_core", None)
    return core if hasattr(core, "native") and hasattr(core, "mounts") else None


CROWDED: Final = "symphony.crowded"
"""The key of a scope that the native server refuses: `"server"` has as many
connections as it may, or the client's `"address"` has.
"""

HOSTS: Final = "symphony.hosts"
"""The key of a scope for the hosts of an app that lists none: those of the address
that the native server is bound to. Without it, any host.
"""

NATIVE: Final = "symphony.native"
"""The ASGI extension with which a mounted app takes over a WebSocket of the native server.

Its value is a function. `await take(app, scope)` moves the connection to *app*,
and returns when the session has ended.
"""

NATIVE_HOSTS: Final[ContextVar[list[Servable] | None]] = ContextVar("NATIVE_HOSTS", default=None)
"""The running apps that are mounted in the app of a native server.

`None` if no such server is running.
"""


@contextmanager
def hosted(app: Servable) -> Generator[None]:
    """Tell the native server that *app* is running, if it serves the outer app."""
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
    """Return a client's address for logs.

    A proxy sends the address of its client, and the port only if it is
    configured to. Without a port, the port is 0. Some proxies pass on what the
    client has written, so the address can be any text.
    """
    if not client:
        return "a local socket"
    host, port = printable(client[0]), client[1]
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
