"""Hot path: how a connection says a message, an event, or what was published to its room.

A voice is what the connection's protocol makes of them: a raw connection
carries messages as they are, an event connection envelopes. With the
transport's way of framing it is an encoding; sockets that share both share
the frames of a publication.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from typing import Protocol as Contract

from symphony.protocol.codec import to_message
from symphony.protocol.envelopes import MESSAGE, Envelope, Event, Protocol
from symphony.protocol.v1 import JSON, V1

if TYPE_CHECKING:
    from symphony.transport.base import Encoding, Message

__all__ = ("RAW", "Emitted", "Publication", "Sent", "Spoken", "Voice", "sayer")


class Publication(Contract):
    """What was published, before it is known in which words."""

    def said(self, voice: Voice, /) -> Message:
        """Return the message that says it."""
        ...


class Sent:
    """A message, published by `send`."""

    __slots__ = ("_message",)

    def __init__(self, message: object) -> None:
        self._message = message

    def said(self, voice: Voice) -> Message:
        """Return the message that says it."""
        return voice.message(self._message)


class Emitted:
    """An event, published by `emit`."""

    __slots__ = ("_data", "_event")

    def __init__(self, event: str, data: object) -> None:
        self._event = event
        self._data = data

    def said(self, voice: Voice) -> Message:
        """Return the message that says it."""
        return voice.event(self._event, self._data)


class Spoken:
    """The encoding of publications for all sockets of one voice and framing."""

    __slots__ = ("_frame", "_voice", "join")

    def __init__(self, voice: Voice, framing: Encoding) -> None:
        self._voice = voice
        self._frame = framing.encode
        self.join = framing.join

    def encode(self, message: Publication) -> Any:
        """Return the frame that carries what was published."""
        return self._frame(message.said(self._voice))


class Voice:
    """Says things on event connections.

    Args:
        protocol: Encodes events that belong to no request; shared by all
            connections that speak it.
    """

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._spoken: dict[Encoding, Spoken] = {}

    def spoken(self, framing: Encoding) -> Spoken:
        """Return the one encoding for this voice and *framing*."""
        spoken = self._spoken.get(framing)
        if spoken is None:
            spoken = self._spoken[framing] = Spoken(self, framing)
        return spoken

    def message(self, value: object) -> Message:
        """Return the message that says `send(value)`."""
        return self.event(MESSAGE, value)

    def event(self, name: str, data: object) -> Message:
        """Return the message that says `emit(name, data)`.

        Raises:
            TypeError: The data cannot be encoded, or the protocol has no events.
        """
        message = self._protocol.encode(Event(name, data))
        if message is None:
            raise TypeError(f"{type(self._protocol).__name__} has no way to say the event {name!r}.")
        return message


class _Raw(Voice):
    """Says things on raw connections: messages as they are, events as JSON."""

    def message(self, value: object) -> Message:
        return to_message(value)


RAW: Final[Voice] = _Raw(JSON)


def sayer(protocol: Protocol, encoding: Encoding) -> Callable[[Envelope], Any]:
    """Return what makes the frame of an envelope, or `None` where nothing is to be sent."""
    if isinstance(protocol, V1) and protocol.is_text:
        # JSON comes as the bytes that go into the frame: a text of them would
        # be made only to be encoded again.
        payload, text = protocol.encode_payload, encoding.encode_text
        return lambda envelope: text(payload(envelope))

    def say(envelope: Envelope) -> Any:
        message = protocol.encode(envelope)
        return None if message is None else encoding.encode(message)

    return say
