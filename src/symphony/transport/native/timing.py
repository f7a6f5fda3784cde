"""Which message of a read held the event loop."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from symphony.outgoing.encoding import Message
from symphony.transport.base import SlowRead

__all__ = ("TimedReceiver", "slow_read")


class TimedReceiver:
    """Hands messages over, and knows which one of a read took longest.

    In place once a read of several messages was slow.

    Args:
        received: Takes the messages.
        read_at: Returns when the read began: tells one read from the next.

    Attributes:
        slowest: The seconds of the message that took longest.
        message: That message.
    """

    __slots__ = ("_read_at", "_reading", "_received", "message", "slowest")

    def __init__(self, received: Callable[[Message], None], read_at: Callable[[], float]) -> None:
        self._received = received
        self._read_at = read_at
        self._reading = 0.0
        self.slowest = 0.0
        self.message: Message | None = None

    def __call__(self, message: Message) -> None:
        """Take a message."""
        if self._reading != (reading := self._read_at()):
            self._reading, self.slowest, self.message = reading, 0.0, None
        began = monotonic()
        self._received(message)
        took = monotonic() - began
        if took >= self.slowest:
            self.slowest, self.message = took, message


def slow_read(timed: TimedReceiver | None, messages: int, last: Message, seconds: float) -> SlowRead:
    """Return what is known of a slow read.

    Args:
        timed: What has timed its messages, if anything has.
        messages: How many there were.
        last: The last one.
        seconds: What all of them took.
    """
    if messages == 1:
        return SlowRead(1, last, seconds)
    if timed is None:
        return SlowRead(messages, last, None)
    return SlowRead(messages, timed.message, timed.slowest)
