"""Assembles messages from data frames: fragments, RSV bits, UTF-8 and limits.

Off the hot path: a transport handles an unfragmented, uncompressed frame
itself, unless a fragmented message is in progress. All other data frames are
passed to the assembler.
"""

from __future__ import annotations

import codecs
from typing import Final

from symphony.errors import ProtocolError
from symphony.websocket.deflate import inflate, max_compressed_bytes
from symphony.websocket.frames import BINARY, CONTINUATION, TEXT

__all__ = ("Assembler",)

_new_decoder: Final = codecs.getincrementaldecoder("utf-8")


class Assembler:
    """Assembles the data frames of one connection into messages.

    It keeps one buffer of the bytes received so far, so a fragment without
    payload costs nothing. After a `ProtocolError` the connection must fail and
    the assembler must not be used again.

    Args:
        max_bytes: The largest message, after decompression.
        deflate: Whether permessage-deflate was negotiated.

    Attributes:
        active: Whether a fragmented message is in progress. Read it, don't set it.
    """

    __slots__ = ("_buffer", "_compressed", "_decoder", "_deflate", "_max_bytes", "_opcode", "active")

    def __init__(self, max_bytes: int, *, deflate: bool) -> None:
        self.active = False
        self._max_bytes = max_bytes
        self._deflate = deflate
        self._opcode = CONTINUATION
        self._compressed = False
        self._decoder: codecs.IncrementalDecoder | None = None
        self._buffer = bytearray()

    def __len__(self) -> int:
        """Return how many bytes of an unfinished message are here."""
        return len(self._buffer)

    def clear(self) -> None:
        """Drop an unfinished message."""
        self._buffer = bytearray()
        self.active = False

    def feed(
        self, opcode: int, fin: bool, rsv1: bool, rsv2: bool, rsv3: bool, payload: bytes
    ) -> str | bytes | None:
        """Process the next data frame; return a message if it is complete.

        Do not pass control frames, which may come between fragments.

        Raises:
            ProtocolError: 1002 for a frame that is not allowed here, 1007 at
                the first fragment of a text with an invalid byte (for a
                compressed text only at its end), 1009 before a message above
                the limit is buffered.
        """
        self._check(opcode, rsv1, rsv2, rsv3)
        if opcode != CONTINUATION:
            self._opcode = opcode
            self._compressed = rsv1
            if opcode == TEXT and not rsv1 and not fin:
                self._decoder = _new_decoder()
        limit = max_compressed_bytes(self._max_bytes) if self._compressed else self._max_bytes
        if len(self._buffer) + len(payload) > limit:
            raise ProtocolError(1009, f"a message above {self._max_bytes} bytes")
        if fin:
            return self._finish(payload)
        if self._decoder is not None:
            _check_utf8(self._decoder, payload)
        self._buffer += payload
        self.active = True
        return None

    def _check(self, opcode: int, rsv1: bool, rsv2: bool, rsv3: bool) -> None:
        if rsv2 or rsv3 or (rsv1 and not self._deflate):
            raise ProtocolError(1002, "a reserved bit without a meaning")
        if opcode == CONTINUATION:
            if not self.active:
                raise ProtocolError(1002, "a continuation without a message")
            if rsv1:
                raise ProtocolError(1002, "only the first frame of a message may be marked compressed")
        elif opcode not in (TEXT, BINARY):
            raise ProtocolError(1002, f"opcode {opcode} is reserved")
        elif self.active:
            raise ProtocolError(1002, "a new message inside a fragmented one")

    def _finish(self, payload: bytes) -> str | bytes:
        if self.active:
            self._buffer += payload
            payload = bytes(self._buffer)
            self._buffer = bytearray()
            self._decoder = None
            self.active = False
        if self._compressed:
            payload = inflate(payload, self._max_bytes)
        if self._opcode == BINARY:
            return payload
        try:
            return payload.decode()
        except UnicodeDecodeError:
            raise _not_utf8() from None


def _check_utf8(decoder: codecs.IncrementalDecoder, fragment: bytes) -> None:
    try:
        decoder.decode(fragment)
    except UnicodeDecodeError:
        raise _not_utf8() from None
    # Python accepts the first two bytes of a surrogate and refuses only the third
    # (3.11-3.13, because of "surrogatepass"). The second one is already invalid.
    pending = decoder.getstate()[0]
    if len(pending) == 2 and pending[0] == 0xED and pending[1] >= 0xA0:
        raise _not_utf8()


def _not_utf8() -> ProtocolError:
    return ProtocolError(1007, "a text message that is not UTF-8")
