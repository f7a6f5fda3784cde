"""Hot path, step 3 of 5: a message, an event or a publication becomes a frame.

A frame is made in two steps. The *dialect* of the connection's protocol writes
the message: unchanged on a raw connection, as an envelope on an event
connection. The transport's *encoding* then makes the frame: compressed, plain,
or an ASGI message.

Sockets with the same dialect and encoding share the frames of a publication. It
is encoded once, however many of them receive it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, TypeAlias
from typing import Protocol as Contract

from symphony.protocol.codec import json_encoder, to_message
from symphony.protocol.envelopes import MESSAGE, Envelope, Event, Item, Protocol, Reply
from symphony.protocol.unencodable import UnencodableError, fail_to_encode
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
"""The content of one WebSocket message."""


class Encoding(Contract):
    """Makes the frames of a transport.

    All sockets that can share frames share one such object.
    """

    def encode(self, message: Message) -> Any:
        """Return the frame of *message*."""
        ...

    def encode_text(self, payload: bytes) -> Any:
        """Return the text frame of *payload*, which is already UTF-8."""
        ...

    def join(self, frames: Sequence[Any], /) -> Any:
        """Return one block that an outbox can `write` in one call."""
        ...


class Publication(Contract):
    """A publication before it is encoded."""

    def encode(self, dialect: Dialect, /) -> Message:
        """Return its message in *dialect*."""
        ...


class Sent:
    """A message, published by `send`."""

    __slots__ = ("_message",)

    def __init__(self, message: object) -> None:
        self._message = message

    def encode(self, dialect: Dialect) -> Message:
        """Return its message in *dialect*."""
        return dialect.message(self._message)


class Emitted:
    """An event, published by `emit`."""

    __slots__ = ("_data", "_event")

    def __init__(self, event: str, data: object) -> None:
        self._event = event
        self._data = data

    def encode(self, dialect: Dialect) -> Message:
        """Return its message in *dialect*."""
        return dialect.event(self._event, self._data)


class SharedEncoding:
    """Encodes publications for all sockets that share a dialect and a transport's encoding.

    Attributes:
        join: Joins frames into one block.
    """

    __slots__ = ("_dialect", "_frame", "join")

    def __init__(self, dialect: Dialect, encoding: Encoding) -> None:
        self._dialect = dialect
        self._frame = encoding.encode
        self.join = encoding.join

    def encode(self, publication: Publication) -> Any:
        """Return the frame of *publication*."""
        return self._frame(publication.encode(self._dialect))


class Dialect:
    """Encodes messages and events for the connections of one protocol.

    Args:
        make: Creates the protocol object of one connection.
        shared: The protocol object that encodes messages and events for all
            connections. By default *make* creates it.

    Attributes:
        make: As given.
        subprotocol: The subprotocol that a client offers to select it, or
            `None` if it has no subprotocol.
        is_v1: Whether it is `symphony.v1`. A client that offers no subprotocol
            uses `symphony.v1` with JSON.
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

        Both encode in the same way, so their sockets share the frames of publications.
        """
        dialect = Dialect(lambda: protocol, shared=self._shared)
        dialect._encodings = self._encodings
        return dialect

    def shared_encoding(self, encoding: Encoding) -> SharedEncoding:
        """Return the object that encodes publications for this dialect and *encoding*."""
        shared = self._encodings.get(encoding)
        if shared is None:
            shared = self._encodings[encoding] = SharedEncoding(self, encoding)
        return shared

    def envelope(self, envelope: Envelope) -> Message:
        """Return the message of an envelope of `symphony.v1`."""
        message = self._shared.encode(envelope)
        assert message is not None
        return message

    def message(self, value: object) -> Message:
        """Return the message that `send(value)` sends.

        Raises:
            TypeError: The value cannot be encoded.
        """
        return self.event(MESSAGE, value)

    def event(self, name: str, data: object) -> Message:
        """Return the message that `emit(name, data)` sends.

        Raises:
            TypeError: The name is not a string, the data cannot be encoded, or
                the protocol has no events.
        """
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"The name of an event is a string, not {name!r}. Write emit('name', data).")
        message = self._shared.encode(Event(name, data))
        if message is None:
            raise TypeError(f"{type(self._shared).__name__} cannot encode the event {name!r}.")
        return message


class _Raw(Dialect):
    """Writes messages unchanged, and events as JSON text."""

    __slots__ = ()

    def message(self, value: object) -> Message:
        return to_message(value)


RAW: Final[Dialect] = _Raw(lambda: JSON)
V1_DIALECTS: Final = (Dialect(lambda: JSON), Dialect(lambda: MSGPACK))


def frame_encoder(protocol: Protocol, encoding: Encoding) -> Callable[[Envelope], Any]:
    """Return a function that makes the frame of an envelope.

    The function returns `None` if the protocol sends nothing for an envelope.
    """
    if isinstance(protocol, V1) and protocol.is_text:
        # The JSON encoder returns UTF-8. Decoding it to `str` would only mean that
        # the transport has to encode it again.
        return json_encoder(encoding.encode_text, _fail)

    def encode(envelope: Envelope) -> Any:
        try:
            message = protocol.encode(envelope)
        except UnencodableError as error:
            _fail(error, envelope)
        return None if message is None else encoding.encode(message)

    return encode


def _fail(error: Exception, envelope: Envelope) -> NoReturn:
    # Only the data of replies and items comes from a handler.
    given = "returned" if isinstance(envelope, Reply) else "yielded" if isinstance(envelope, Item) else ""
    try:
        fail_to_encode(error, envelope, given)
    finally:
        # An error waits for the garbage collector if a frame in its traceback refers to it.
        del error
