"""Hot path, ground: WebSocket frames as a server writes them (RFC 6455 §5).

A server's frames are not masked, so a frame is a header of 2, 4 or 10 bytes
and the unchanged payload. The headers of small frames are precomputed.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from symphony.errors import ProtocolError, check_close_code, valid_close_code

__all__ = (
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "close_frame",
    "close_reason",
    "frame",
    "message_frame",
    "parse_close",
    "text_frame",
)

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FIN: Final = 0x80
_RSV1: Final = 0x40
_SMALL_TEXT: Final = tuple(bytes((_FIN | TEXT, n)) for n in range(126))
_SMALL_BINARY: Final = tuple(bytes((_FIN | BINARY, n)) for n in range(126))

_medium_header: Final = Struct("!BBH").pack
_large_header: Final = Struct("!BBQ").pack

_NO_STATUS: Final = 1005
_MAX_REASON_BYTES: Final = 123


def message_frame(message: str | bytes) -> bytes:
    """Return *message* as one unfragmented frame, text or binary by its type."""
    if type(message) is str:
        return text_frame(message.encode())
    size = len(message)
    if size < 126:
        return _SMALL_BINARY[size] + message  # type: ignore[operator]
    return frame(BINARY, message)  # type: ignore[arg-type]


def text_frame(payload: bytes) -> bytes:
    """Return one unfragmented text frame of a payload in UTF-8."""
    size = len(payload)
    if size < 126:
        return _SMALL_TEXT[size] + payload
    return frame(TEXT, payload)


def frame(opcode: int, payload: bytes | bytearray, *, rsv1: bool = False) -> bytes:
    """Return a final frame of any size; *rsv1* marks it compressed (RFC 7692 §6)."""
    size = len(payload)
    first = _FIN | opcode | (_RSV1 if rsv1 else 0)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return _medium_header(first, 126, size) + payload
    return _large_header(first, 127, size) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a close frame; 1005 returns one without a status.

    A reason that is too long for a control frame is cut at a character.

    Raises:
        ValueError: The code must not be sent (RFC 6455 §7.4.1).
    """
    if code == _NO_STATUS:
        return frame(CLOSE, b"")
    check_close_code(code)
    return frame(CLOSE, code.to_bytes(2, "big") + close_reason(reason).encode())


def close_reason(reason: str) -> str:
    """Return *reason*, cut at a character to the size that fits a close frame."""
    return reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")


def parse_close(payload: bytes) -> tuple[int, str]:
    """Return the code and reason of a close frame's payload; 1005 if it has none.

    Raises:
        ProtocolError: RFC 6455 §5.5.1 and §7.4 do not allow the payload.
    """
    if not payload:
        return _NO_STATUS, ""
    if len(payload) == 1:
        raise ProtocolError(1002, "a close frame's payload must not be one byte")
    code = int.from_bytes(payload[:2], "big")
    if not valid_close_code(code):
        raise ProtocolError(1002, f"close code {code} must not be sent")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise ProtocolError(1007, "a close reason that is not UTF-8") from None
