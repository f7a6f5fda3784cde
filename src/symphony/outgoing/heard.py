"""Publications for code of the app: as they are, instead of frames for a connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from symphony.outgoing.encoding import Content, Dialect, Emitted, Sent, SharedEncoding, check_event_name
from symphony.protocol.codec import encode_msgpack
from symphony.protocol.envelopes import MESSAGE, Envelope, Lost
from symphony.protocol.positions import Position
from symphony.protocol.unencodable import fail_to_encode
from symphony.protocol.v1 import JSON

__all__ = ("HEARD", "OVERHEAD", "Heard")

OVERHEAD: Final = 256
"""The bytes that the objects of one publication take, besides its data."""


class Heard:
    """A publication, as a listener gets it. All listeners share it.

    Its length is the memory that it takes.

    Attributes:
        event: The name of the event.
        packed: The data in MessagePack.
        offset: The number in the room's history; `None`: it is not kept.
        replaces: The position of the publication that it replaces; `None`: none.
    """

    __slots__ = ("event", "offset", "packed", "replaces")

    def __init__(self, event: str, packed: bytes, offset: int | None, replaces: Position | None) -> None:
        self.event = event
        self.packed = packed
        self.offset = offset
        self.replaces = replaces

    def __len__(self) -> int:
        return len(self.packed) + len(self.event) + OVERHEAD


class _Listening(Dialect):
    """Makes a `Heard` of each publication."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(lambda: JSON)
        self.is_v1 = False

    def event(self, name: str, data: object) -> Any:
        check_event_name(name)
        return self.publication(Emitted(name, data), "", None, None, None)

    def publication(
        self,
        content: Sent | Emitted | Content,
        room: str,
        offset: int | None,
        after: int | None,
        replaces: Position | None,
    ) -> Any:
        if isinstance(content, Content):
            packed = content.packed
        else:
            # The caller may modify the object afterwards.
            try:
                packed = encode_msgpack(content.plain)
            except Exception as error:
                fail_to_encode(error, content.plain)
        return Heard(MESSAGE if content.event is None else content.event, packed, offset, replaces)


class _Unchanged:
    """The encoding of no transport."""

    def encode(self, message: Any) -> Any:
        return message

    def encode_text(self, payload: bytes) -> Any:
        return payload

    def join(self, frames: Sequence[Any], /) -> Any:
        return frames


class _Hearing(SharedEncoding):
    """Passes on what listeners get: publications, and that some were lost."""

    __slots__ = ()

    def envelope(self, envelope: Envelope) -> Any:
        return envelope if isinstance(envelope, Lost) else None


HEARD: Final[SharedEncoding] = _Hearing(_Listening(), _Unchanged())
"""The encoding of all listeners."""
