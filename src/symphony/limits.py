"""All limits of Symphony, with their defaults.

Sizes are in bytes, durations in seconds. Everything that grows or waits has a
limit here. When a limit is reached, Symphony tells the peer or logs it, and
counts it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ("Limits",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of an app: `Symphony(limits=Limits(max_message_bytes=65536))`.

    Sizes are in bytes, durations in seconds. Every limit is above 0.

    Attributes:
        max_message_bytes: The largest incoming message, after decompression. A
            larger one closes the connection with 1009, before it is buffered
            whole.
        max_elements: The most values, items and keys in one message that is
            decoded. An event or a message with more is refused with `invalid`,
            a reply fails its request.
        max_header_bytes: The largest head of a request, a handshake too. Chunk
            extensions and trailers of a body count with it. A larger one is
            answered with HTTP 431.
        max_header_fields: The most header fields of a request, trailers
            included. A request with more is answered with HTTP 431.
        max_body_bytes: The largest body of an HTTP request. A larger one is
            answered with HTTP 413. `None`: no limit.
        min_body_rate: How many bytes a second of an HTTP request's body must
            arrive, on average over `handshake_timeout`, while the app waits for
            them. A slower one is answered with HTTP 408. `None`: no limit.
        keep_alive_timeout: How long an HTTP connection may stay open without a
            request.
        response_timeout: A client that takes no byte of an HTTP response for
            this time is disconnected.
        max_early_bytes: How much a client may send after its handshake request,
            or after another complete request, before the server has answered it.
        max_connections: The most connections, also during their handshake. Further
            ones are refused with HTTP 503.
        max_connections_per_client: The most connections from one address (for
            IPv6: from one /64). Further ones are refused with HTTP 429. `None`:
            no limit.
        max_queue: How many messages of one socket may wait for its handler.
            When the queue is full, reading is paused until there is room.
        max_queue_bytes: How many bytes these messages may have. When they have
            more, reading is paused in the same way.
        max_queued_bytes: How many bytes may wait in all queues of the process
            together, fragments and parts of large messages included. Above
            this, a socket with a waiting message is not read from, and one whose
            message does not fit is closed with 1013. It counts for the whole
            app, not for a route.
        max_read_bytes: The most that one read takes from a socket.
        max_turn_messages: How many messages and other frames of one socket are
            handled in one turn of the event loop. The next ones wait for the
            next turn, after the other sockets.
        max_turn_time: How long these frames may take together. A handler that takes
            longer is not interrupted, but the next message waits.
        max_outbox_bytes: How many unsent bytes one socket may have before the
            slow consumer policy of the route applies.
        max_outbox_age: How many seconds a message may wait to be sent before
            the same policy applies. The check may be late by half of that.
            `None`: no limit.
        high_water_bytes: Above this many unsent bytes, `await socket.send()`
            waits.
        low_water_bytes: At this many unsent bytes, it stops waiting.
        handshake_timeout: The time for the head of a request to arrive, and for
            the TLS handshake before it.
        connect_timeout: The time for middleware and connect handler, until the
            socket is open or refused. After that, the answer is HTTP 503.
        ping_interval: The time between pings. `None`: no pings.
        pong_timeout: The time to wait for a pong before the connection is
            closed.
        idle_timeout: Close a socket that has sent no message for this time.
            `None`: never.
        close_timeout: The time for the peer to answer a close.
        finish_timeout: The time for handlers to finish after their socket has
            ended.
        notice_time: How long a server that gets SIGTERM says that it is not ready, and
            refuses handshakes with HTTP 503, before it tells its clients to leave. Longer
            than a proxy needs to notice. `None`: no time.
        drain_time: The time over which a stopping server spreads its closes if
            there are many.
        shutdown_timeout: The time for HTTP requests to end, and for shutdown
            handlers, plugins and lifespans, after the sockets of a stopping server
            had their time to close. After that, the process ends.
        max_background_tasks: The most running background tasks of one socket.
        max_rooms: The most rooms that one socket may be in. A further join is
            refused with `too_many`.
        max_streams: The most running streams of one socket. Further ones are
            refused with `too_many`.
        max_requests: The most pending requests to one client. A further one
            raises `QueueFullError`.
        max_awaiting: How many messages of one socket may wait while a handler
            awaits a reply of that client. In that time reading cannot be
            paused. Further messages are refused with `too_many`.
        max_awaiting_bytes: How many bytes these messages may have.
        message_timeout: How long a client may take to send all fragments of a
            message. After that, the connection is closed with 4408.
        max_room_name: The most characters in the name of a room. A longer
            name is refused with `invalid`.
        max_history_bytes: The most bytes of publications that all rooms with a
            history keep together in the memory of the process. Above this, the room
            that was published to least recently loses its oldest ones. Members that
            come back to it are told. It counts for the whole app, not for a route.
        max_recovery: How many publications a member that comes back may have missed.
            If there are more, it is told that it has missed them, and gets none. It
            counts for the whole app, not for a route.
        max_listener_bytes: How many bytes of publications may wait for one `room.listen`.
            Above this, it gets the publications that are kept from the history, and the
            oldest of the others are dropped. It counts for the whole app, not for a route.
        publish_timeout: How long a call to the broker may take. After that, the
            publisher gets an error, which says whether it may have been
            published. It counts for the whole app, not for a route.
        max_broker_calls: How many publications and other calls may wait for a
            broker in another process. A further one raises `QueueFullError`. It
            counts for the whole app, not for a route.
        max_broker_bytes: How many bytes these calls may have.
        page_timeout: How many seconds a member of a room with a history that reads too
            slowly may take for one page of it: 64 KiB or one publication. After that,
            it is closed with 1013. It counts for the whole app, not for a route.
        thread_timeout: How long another thread waits for the result of a call of
            `app.threadsafe`, unless it says how long, before it raises `TimeoutError`.
            Requests and calls to the broker have their own timeouts on top.
        max_thread_calls: How many calls of other threads may wait for the event loop, or
            be under way. A further one raises `QueueFullError`. It counts for the whole
            app, not for a route.
        retry_after: When clients should reconnect after a stopping or full
            server has refused them.
        blocking_warning: If a handler blocks the event loop longer than this, a
            warning names it.

    Raises:
        TypeError: A limit is not a number, or is `None` where no limit is not
            possible.
        ValueError: A limit is not above 0, or `low_water_bytes` is above
            `high_water_bytes`.
    """

    max_message_bytes: int = 1024 * 1024
    max_elements: int = 100_000
    max_header_bytes: int = 64 * 1024
    max_header_fields: int = 128
    max_body_bytes: int | None = 32 * 1024 * 1024
    min_body_rate: int | None = 256
    keep_alive_timeout: float = 5.0
    response_timeout: float = 60.0
    max_early_bytes: int = 64 * 1024
    max_connections: int = 100_000
    max_connections_per_client: int | None = None
    max_queue: int = 32
    max_queue_bytes: int = 1024 * 1024
    max_queued_bytes: int = 256 * 1024 * 1024
    max_read_bytes: int = 64 * 1024
    max_turn_messages: int = 256
    max_turn_time: float = 0.005
    max_outbox_bytes: int = 1024 * 1024
    max_outbox_age: float | None = 30.0
    high_water_bytes: int = 64 * 1024
    low_water_bytes: int = 16 * 1024
    handshake_timeout: float = 10.0
    connect_timeout: float = 30.0
    ping_interval: float | None = 20.0
    pong_timeout: float = 20.0
    idle_timeout: float | None = None
    close_timeout: float = 5.0
    finish_timeout: float = 5.0
    notice_time: float | None = 1.5
    drain_time: float = 2.0
    shutdown_timeout: float = 10.0
    max_background_tasks: int = 1000
    max_rooms: int = 1000
    max_streams: int = 1000
    max_requests: int = 1000
    max_awaiting: int = 1024
    max_awaiting_bytes: int = 4 * 1024 * 1024
    message_timeout: float = 60.0
    max_room_name: int = 512
    max_history_bytes: int = 256 * 1024 * 1024
    max_recovery: int = 1000
    max_listener_bytes: int = 1024 * 1024
    publish_timeout: float = 5.0
    max_broker_calls: int = 10_000
    max_broker_bytes: int = 64 * 1024 * 1024
    page_timeout: float = 30.0
    thread_timeout: float = 5.0
    max_thread_calls: int = 10_000
    retry_after: float = 1.0
    blocking_warning: float = 0.1

    @property
    def stop_time(self) -> float:
        """How long a server may take to stop."""
        notice = self.notice_time or 0.0
        return notice + self.drain_time + self.finish_timeout * 2 + self.close_timeout + self.shutdown_timeout

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and "None" in str(field.type):
                continue
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise TypeError(f"Limits.{field.name} must be a number, not {value!r}.")
            if isinstance(value, float) and "float" not in str(field.type):
                raise TypeError(f"Limits.{field.name} must be a whole number, not {value!r}.")
            if not value > 0:
                raise ValueError(f"Limits.{field.name} must be above 0, not {value!r}.")
        if self.low_water_bytes > self.high_water_bytes:
            raise ValueError("Limits.low_water_bytes must not be above high_water_bytes.")
