"""Every bound of Symphony, with its default, in one place.

Sizes are bytes, durations are seconds. Nothing in Symphony grows without one
of these; whatever meets one is told to the peer or the log, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ("Limits",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of an app: `Symphony(limits=Limits(max_message_bytes=65536))`.

    Attributes:
        max_message_bytes: The largest incoming message, after decompression.
            A larger one closes with 1009 before it is buffered whole.
        max_header_bytes: The largest handshake request. More is HTTP 431.
        max_early_bytes: What a client may send behind its handshake before
            the server has answered it.
        max_connections: Open sockets in all; more are refused with HTTP 503.
        max_connections_per_client: Open sockets from one address; more are
            refused with HTTP 429. `None`: no such limit.
        max_queue: Messages of one socket that wait for its handler. When
            full, the socket is not read from until there is room.
        max_outbox_bytes: Unsent bytes of one socket before the route's slow
            consumer policy applies.
        high_water_bytes: Unsent bytes above which `await socket.send()` waits.
        low_water_bytes: Unsent bytes below which it goes on.
        handshake_timeout: From the first byte of a connection to its answer,
            connect handler and middleware not counted.
        connect_timeout: How long middleware and connect handler may take
            until the socket is open or refused. Too late is HTTP 503.
        ping_interval: Time between pings. `None`: no pings.
        pong_timeout: How long a pong may take before the connection is closed.
        idle_timeout: Close a socket that sent no message for so long.
            `None`: never.
        close_timeout: How long the peer may take to answer a close.
        finish_timeout: How long handlers may go on after their socket went.
        drain_time: Over how long a stopping server spreads its closes when
            there are many.
        max_background_tasks: Running background tasks of one socket.
        max_streams: Streams of one socket that run at once; more are refused
            with `too_many`.
        max_requests: Requests to one client that wait for its reply; the
            handler that makes one more gets `QueueFullError`.
        max_awaiting: Messages of one socket that wait while a handler awaits
            a reply of that client, so that it must be read on; more are
            refused with `too_many`.
        retry_after: When clients may come back that are turned away by a
            stopping or full server.
        blocking_warning: A handler that holds the loop longer is named in a
            warning.
    """

    max_message_bytes: int = 1024 * 1024
    max_header_bytes: int = 64 * 1024
    max_early_bytes: int = 64 * 1024
    max_connections: int = 100_000
    max_connections_per_client: int | None = None
    max_queue: int = 32
    max_outbox_bytes: int = 1024 * 1024
    high_water_bytes: int = 64 * 1024
    low_water_bytes: int = 16 * 1024
    handshake_timeout: float = 10.0
    connect_timeout: float = 30.0
    ping_interval: float | None = 20.0
    pong_timeout: float = 20.0
    idle_timeout: float | None = None
    close_timeout: float = 5.0
    finish_timeout: float = 5.0
    drain_time: float = 2.0
    max_background_tasks: int = 1000
    max_streams: int = 1000
    max_requests: int = 1000
    max_awaiting: int = 1024
    retry_after: float = 1.0
    blocking_warning: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value <= 0:
                raise ValueError(f"Limits.{field.name} must be above 0, not {value!r}.")
        if self.low_water_bytes > self.high_water_bytes:
            raise ValueError("Limits.low_water_bytes must not be above high_water_bytes.")
