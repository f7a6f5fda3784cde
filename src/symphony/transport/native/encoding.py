"""Hot path: encode a message as a WebSocket frame on the native transport."""

from __future__ import annotations

from functools import cache
from typing import Final

from symphony.outgoing.encoding import Message
from symphony.websocket.deflate import compress
from symphony.websocket.frames import BINARY, TEXT, frame, message_frame, text_frame

__all__ = ("PLAIN", "Deflated", "Plain", "deflated")


class Plain:
    """Uncompressed frames. All sockets use one instance, so that they share frames."""

    __slots__ = ()

    encode = staticmethod(message_frame)
    encode_text = staticmethod(text_frame)
    join = staticmethod(b"".join)


PLAIN: Final = Plain()


class Deflated:
    """Frames that are compressed as in RFC 7692 §6.

    Args:
        window_bits: The negotiated window.
        threshold: Messages with fewer bytes are not compressed.
    """

    __slots__ = ("_threshold", "_window_bits")

    join = staticmethod(b"".join)

    def __init__(self, window_bits: int, threshold: int) -> None:
        self._window_bits = window_bits
        self._threshold = threshold

    def encode(self, message: Message) -> bytes:
        """Return *message* as one frame."""
        if isinstance(message, str):
            return self.encode_text(message.encode())
        return self._encode(BINARY, message)

    def encode_text(self, payload: bytes) -> bytes:
        """Return a text frame for a payload that is already UTF-8."""
        return self._encode(TEXT, payload)

    def _encode(self, opcode: int, payload: bytes) -> bytes:
        if len(payload) < self._threshold:
            return frame(opcode, payload)
        return frame(opcode, compress(payload, self._window_bits), rsv1=True)


@cache
def deflated(window_bits: int, threshold: int) -> Deflated:
    """Return the encoding of a window and threshold, shared so that sockets share frames."""
    return Deflated(window_bits, threshold)
