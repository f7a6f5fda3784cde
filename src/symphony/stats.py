"""Counters: plain integers that monitoring can read."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("Stats",)


@dataclass(slots=True)
class Stats:
    """The counters of an app. Every value only increases.

    Attributes:
        opened: Sockets that opened.
        closed: Opened sockets that have ended.
        refused: Handshakes that were answered with an HTTP error.
        failed_handlers: Handlers that raised an exception other than `Reject`.
        slow_consumers: Sockets closed with 1013 because their outbox was full.
        dropped_frames: Outgoing frames that were dropped, because the outbox was
            full or the socket had ended.
        undelivered: Messages to single sockets that were not open, such as by `app.socket(id)`.
        late_pongs: Sockets closed because a pong was too late.
        idle: Sockets closed because they sent nothing for too long.
        late_messages: Sockets closed because a fragmented message was not complete
            in time.
        missed_ticks: Ticks of rooms that were skipped, because the one before took too long
            or the event loop was busy.
        missed_publications: Publications that were dropped because a `room.listen` was too slow.
        late_handshakes: Connections closed before their request was complete.
    """

    opened: int = 0
    closed: int = 0
    refused: int = 0
    failed_handlers: int = 0
    slow_consumers: int = 0
    dropped_frames: int = 0
    undelivered: int = 0
    late_pongs: int = 0
    idle: int = 0
    late_messages: int = 0
    missed_ticks: int = 0
    missed_publications: int = 0
    late_handshakes: int = 0
