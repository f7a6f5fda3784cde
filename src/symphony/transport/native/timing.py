"""Which message of a read held the event loop."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from picows import WSFrame, WSMsgType

from symphony.outgoing.encoding import Message
from symphony.transport.base import Receiver, SlowRead
from symphony.websocket.turn import Turn

__all__ = ("TimedReceiver", "held_loop", "slow_read")


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


def held_loop(
    session: Receiver,
    received: Callable[[Message], None],
    turn: Turn,
    seconds: float,
    frames: int,
    frame: WSFrame | None,
) -> Callable[[Message], None]:
    """Tell *session* what held the event loop; return what takes the messages from now on.

    Args:
        session: The session of the messages.
        received: What takes them.
        turn: The turn in which they were handled.
        seconds: What all of them took.
        frames: How many there were.
        frame: The last one, if it is still known.
    """
    timed = received if isinstance(received, TimedReceiver) else None
    last: Message = ""
    if frame is not None:
        payload = frame.get_payload_as_bytes()
        last = payload.decode("utf-8", "replace") if frame.msg_type is WSMsgType.TEXT else payload
    if frames == 1 and frame is None and timed is not None:
        last = timed.message or ""
    session.slow(seconds, slow_read(timed, frames, last, seconds))
    if timed is None and (frames > 1 or frame is None):
        # Which one it was is only known from the next one on: no clock is read for
        # each message before there was a need.
        return TimedReceiver(received, lambda: turn.began)
    return received


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
