"""Hot path, step 3 of 5: a message, an event or a publication becomes a frame.

Two things decide what a frame looks like. The *dialect* is how the protocol
of a connection writes a message: as it is on a raw connection, as an envelope
on one that speaks events. The transport's *encoding* makes the frame:
compressed, plain, or an ASGI message. Sockets that share both share the
frames of a publication: it is encoded once, however many sockets receive it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias
from typing import Protocol as Contract

from symphony.protocol.codec import UnencodableError, fail_to_encode, to_message
from symphony.protocol.envelopes import MESSAGE, Envelope, Event, Item, Protocol, Reply
from symphony.protocol.v1 import JSON, MSGPACK, V1

__all__ = (
    "RAW",
    "V1_DIALECTS",
    "Dialect",
    "Emitted",
    "Encoding",
    "Message",
    "Publication",
    "Sent",
    "SharedEncoding",
    "frame_encoder",
)

Message: TypeAlias = "str | bytes"
"""What one WebSocket message carries."""


class Encoding(Contract):
    """How a transport makes frames; shared by all sockets that can share frames."""

    def encode(self, message: Message) -> Any:
        """Return the frame that carries *message*."""
        ...

    def encode_text(self, payload: bytes) -> Any:
        """Return the frame that carries the text whose UTF-8 is *payload*."""
        ...

    def join(self, frames: Sequence[Any], /) -> Any:
        """Return one block that an outbox's `write` takes in one go."""
        ...


class Publication(Contract):
    """What is published to a room, before it is encoded for anyone."""

    def encode(self, dialect: Dialect, /) -> Message:
        """Return the message that carries it in *dialect*."""
        ...


class Sent:
    """A message, published by `send`."""

    __slots__ = ("_message",)

    def __init__(self, message: object) -> None:
        self._message = message

    def encode(self, dialect: Dialect) -> Message:
        """Return the message that carries it in *dialect*."""
        return dialect.message(self._message)


class Emitted:
    """An event, published by `emit`."""

    __slots__ = ("_data", "_event")

    def __init__(self, event: str, data: object) -> None:
        self._event = event
        self._data = data

    def encode(self, dialect: Dialect) -> Message:
        """Return the message that carries it in *dialect*."""
        return dialect.event(self._event, self._data)


class SharedEncoding:
    """Encodes publications for all sockets that share a dialect and a transport's encoding.

    Attributes:
        join: Makes one block of several frames.
    """

    __slots__ = ("_dialect", "_frame", "join")

    def __init__(self, dialect: Dialect, encoding: Encoding) -> None:
        self._dialect = dialect
        self._frame = encoding.encode
        self.join = encoding.join

    def encode(self, publication: Publication) -> Any:
        """Return the frame that carries *publication*."""
        return self._frame(publication.encode(self._dialect))


class Dialect:
    """How the connections of one protocol write messages and events.

    Args:
        make: Makes the protocol of one connection.
        shared: Encodes what belongs to no request, for all connections; by
            default one that *make* makes.

    Attributes:
        make: As given.
        subprotocol: What a client offers to speak it, `None`: nothing.
        is_v1: Whether it is `symphony.v1`, which needs no agreement: a client
            that offers no subprotocol speaks it in JSON.
    """

    __slots__ = ("_encodings", "_shared", "is_v1", "make", "subprotocol")

    def __init__(self, make: Callable[[], Protocol], *, shared: Protocol | None = None) -> None:
        self.make = make
        self._shared = shared if shared is not None else make()
        self.subprotocol: str | None = self._shared.subprotocol
        self.is_v1 = isinstance(self._shared, V1)
        self._encodings: dict[Encoding, SharedEncoding] = {}

    def decoded_by(self, protocol: Protocol) -> Dialect:
        """Return this dialect with another decoder.

        Both encode alike, so their sockets share the frames of publications.
        """
        dialect = Dialect(lambda: protocol, shared=self._shared)
        dialect._encodings = self._encodings
        return dialect

    def shared_encoding(self, encoding: Encoding) -> SharedEncoding:
        """Return the one object that encodes publications for this dialect and *encoding*."""
        shared = self._encodings.get(encoding)
        if shared is None:
            shared = self._encodings[encoding] = SharedEncoding(self, encoding)
        return shared

    def message(self, value: object) -> Message:
        """Return the message that `send(value)` sends.

        Raises:
            TypeError: The value cannot be encoded.
        """
        return self.event(MESSAGE, value)

    def event(self, name: str, data: object) -> Message:
        """Return the message that `emit(name, data)` sends.

        Raises:
            TypeError: The data cannot be encoded, or the protocol has no events.
        """
        message = self._shared.encode(Event(name, data))
        if message is None:
            raise TypeError(f"{type(self._shared).__name__} cannot encode the event {name!r}.")
        return message


class _Raw(Dialect):
    """Writes messages as they are, and events as JSON text."""

    __slots__ = ()

    def message(self, value: object) -> Message:
        return to_message(value)


RAW: Final[Dialect] = _Raw(lambda: JSON)
V1_DIALECTS: Final = (Dialect(lambda: JSON), Dialect(lambda: MSGPACK))


def frame_encoder(protocol: Protocol, encoding: Encoding) -> Callable[[Envelope], Any]:
    """Return the function that makes the frame of an envelope, or `None` where nothing is sent."""
    if isinstance(protocol, V1) and protocol.is_text:
        # JSON comes as the bytes that go into the frame: a text of them would
        # be made only to be encoded again.
        payload, text = protocol.encode_payload, encoding.encode_text

        def encode_text(envelope: Envelope) -> Any:
            try:
                return text(payload(envelope))
            except Exception as error:
                fail_to_encode(error, envelope, _given(envelope))

        return encode_text

    def encode(envelope: Envelope) -> Any:
        try:
            message = protocol.encode(envelope)
        except UnencodableError as error:
            fail_to_encode(error, envelope, _given(envelope))
        return None if message is None else encoding.encode(message)

    return encode


def _given(envelope: Envelope) -> str:
    """Return what a handler did with the data: only that of replies and items comes out of one."""
    return "returned" if isinstance(envelope, Reply) else "yielded" if isinstance(envelope, Item) else ""
