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

import msgspec
from msgspec import Raw

from symphony.protocol.codec import encode_json, encode_msgpack, json_encoder, to_message
from symphony.protocol.envelopes import MESSAGE, Envelope, Event, Item, Protocol, Published, Reply
from symphony.protocol.positions import Position
from symphony.protocol.unencodable import UnencodableError, fail_to_encode
from symphony.protocol.v1 import JSON, MSGPACK, V1

__all__ = (
    "RAW",
    "V1_DIALECTS",
    "Content",
    "Dialect",
    "Emitted",
    "Encoding",
    "Message",
    "Once",
    "Publishable",
    "Sent",
    "SharedEncoding",
    "check_event_name",
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


class Publishable(Contract):
    """A publication before it is encoded."""

    def encode(self, dialect: Dialect, /) -> Message:
        """Return its message in *dialect*."""
        ...


class Sent:
    """A message, published by `send`.

    Attributes:
        event: `None`: it has no name.
        plain: The message.
    """

    __slots__ = ("plain",)

    event: Final = None

    def __init__(self, message: object) -> None:
        self.plain = message

    def data(self, dialect: Dialect) -> Any:
        """Return the data that *dialect* encodes."""
        return self.plain

    def encode(self, dialect: Dialect) -> Message:
        """Return its message in *dialect*."""
        return dialect.message(self.plain)


class Emitted:
    """An event, published by `emit`.

    Attributes:
        event: The name of the event.
        plain: Its data.
    """

    __slots__ = ("event", "plain")

    def __init__(self, event: str, data: object) -> None:
        self.event = event
        self.plain = data

    def data(self, dialect: Dialect) -> Any:
        """Return the data that *dialect* encodes."""
        return self.plain

    def encode(self, dialect: Dialect) -> Message:
        """Return its message in *dialect*."""
        return dialect.event(self.event, self.plain)


class Once:
    """A publication to several rooms: its message is encoded once for each dialect.

    Args:
        publication: What is published.

    Attributes:
        event: The name of the event; `None` for a message.
        plain: The data as it was given.
    """

    __slots__ = ("_messages", "_packed", "_publication", "event", "plain")

    def __init__(self, publication: Sent | Emitted) -> None:
        self.event, self.plain = publication.event, publication.plain
        self._publication = publication
        self._messages: dict[Dialect, Message] = {}
        self._packed: bytes | None = None

    def encode(self, dialect: Dialect) -> Message:
        """Return its message in *dialect*."""
        message = self._messages.get(dialect)
        if message is None:
            message = self._messages[dialect] = self._publication.encode(dialect)
        return message

    @property
    def packed(self) -> bytes:
        """The data in MessagePack, for other nodes."""
        if self._packed is None:
            self._packed = encode_msgpack(self.plain)
        return self._packed


class Content:
    """A publication that is kept: its data is encoded, for each codec at most once.

    Args:
        event: The name of the event; `None` for a message, which has no name.
        packed: The data in MessagePack.
        json: The data in JSON, if it is there already.

    Attributes:
        event: As given.
        packed: As given.
    """

    __slots__ = ("_json", "event", "packed")

    def __init__(self, event: str | None, packed: bytes, json: bytes | None = None) -> None:
        self.event = event
        self.packed = packed
        self._json = json

    @staticmethod
    def of(publication: Sent | Emitted | Content | Once) -> Content:
        """Encode a publication, for members with either codec, unless that is done already.

        Raises:
            TypeError: The name is not a string, or one of the codecs cannot encode the data.
        """
        if isinstance(publication, Content):
            return publication
        event, data = publication.event, publication.plain
        if event is not None:
            check_event_name(event)
        try:
            packed, json = encode_msgpack(data), encode_json(data)
        except Exception as error:
            fail_to_encode(error, data)
        # MessagePack has one form of a time with an offset, and JSON several. What is read from
        # the history later is written from MessagePack, so this is, too. No text has this byte.
        return Content(event, packed, None if b"\xff" in packed else json)

    def data(self, dialect: Dialect) -> Any:
        """Return the data in the form that *dialect* encodes: encoded already, or plain."""
        if not dialect.is_v1:
            # A protocol of the app's own encodes plain values.
            return self.plain
        if dialect.is_packed:
            return Raw(self.packed)
        if self._json is None:
            self._json = encode_json(self.plain)
        return Raw(self._json)

    @property
    def plain(self) -> Any:
        """The data, decoded from MessagePack."""
        return msgspec.msgpack.decode(self.packed)


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

    def encode(self, publication: Publishable) -> Any:
        """Return the frame of *publication*."""
        return self._frame(publication.encode(self._dialect))

    def envelope(self, envelope: Envelope) -> Any:
        """Return the frame of an envelope of `symphony.v1`; `None` for another protocol."""
        return self._frame(self._dialect.envelope(envelope)) if self._dialect.is_v1 else None


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
            uses `symphony.v1` with JSON. `False` for `RAW`.
        is_packed: Whether it is `symphony.v1` in MessagePack.
    """

    __slots__ = ("_encodings", "_shared", "is_packed", "is_v1", "make", "subprotocol")

    def __init__(self, make: Callable[[], Protocol], *, shared: Protocol | None = None) -> None:
        self.make = make
        self._shared = shared if shared is not None else make()
        self.subprotocol: str | None = self._shared.subprotocol
        self.is_v1 = isinstance(self._shared, V1)
        self.is_packed = self.is_v1 and self._shared.payload == "msgpack"
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
        check_event_name(name)
        return self._encoded(Event(name, data))

    def publication(
        self,
        content: Sent | Emitted | Content,
        room: str,
        offset: int | None,
        after: int | None,
        replaces: Position | None,
    ) -> Message:
        """Return the message of a publication that has its room's name.

        Raises:
            TypeError: The protocol cannot encode it.
        """
        name = MESSAGE if content.event is None else content.event
        return self._encoded(
            Published(name, content.data(self), room=room, offset=offset, after=after, replaces=replaces)
        )

    def _encoded(self, event: Event) -> Message:
        message = self._shared.encode(event)
        if message is None:
            raise TypeError(f"{type(self._shared).__name__} cannot encode the event {event.event!r}.")
        return message


def check_event_name(name: object) -> None:
    """Raise `TypeError` if *name* is no name of an event."""
    if not isinstance(name, str):
        raise TypeError(f"The name of an event is a string, not {name!r}. Write emit('name', data).")


class _Raw(Dialect):
    """Writes messages unchanged, and events as JSON text."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(lambda: JSON)
        self.is_v1 = False

    def message(self, value: object) -> Message:
        return to_message(value)

    def publication(
        self,
        content: Sent | Emitted | Content,
        room: str,
        offset: int | None,
        after: int | None,
        replaces: Position | None,
    ) -> Message:
        # A raw connection is not told about rooms.
        return (
            to_message(content.plain)
            if content.event is None
            else self.event(content.event, content.data(self))
        )


RAW: Final[Dialect] = _Raw()
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
