"""Compression of messages: permessage-deflate (RFC 7692).

There is no context takeover in either direction. So a connection keeps no
window (300 KiB with zlib), and one compressed message can be sent to every
member of a room.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from symphony.errors import ProtocolError
from symphony.websocket.handshake import TOKEN, HandshakeError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = (
    "OFFER",
    "Deflate",
    "accepted_window_bits",
    "compress",
    "inflate",
    "max_compressed_bytes",
    "negotiate",
)

_NAME: Final = "permessage-deflate"
_MAX_WINDOW_BITS: Final = 15
_WINDOW_BITS: Final = {str(bits): bits for bits in range(8, _MAX_WINDOW_BITS + 1)}

OFFER: Final = f"{_NAME}; server_no_context_takeover; client_no_context_takeover; client_max_window_bits"
"""What a client offers: messages that do not depend on each other, and any window."""

_OWS: Final = r"[ \t]*+"
_QUOTED: Final = r'"(?:[^"\\]|\\.)*+"'
_PARAMETER: Final = re.compile(rf"{_OWS};{_OWS}({TOKEN})(?:{_OWS}={_OWS}({TOKEN}|{_QUOTED}))?+")
# An element of the list and the comma after it; empty elements are legal (RFC 6455
# §9.1, RFC 9110 §5.6.1.2).
_ELEMENT: Final = re.compile(
    rf"{_OWS}(?:({TOKEN})((?:{_OWS};{_OWS}{TOKEN}(?:{_OWS}={_OWS}(?:{TOKEN}|{_QUOTED}))?+)*+){_OWS})?+(?:,|\Z)"
)
_ESCAPED: Final = re.compile(r"\\(.)")
_VALUE: Final = re.compile(TOKEN)

_TAIL: Final = b"\x00\x00\xff\xff"
# An empty final block. After the tail, zlib reaches it only if all blocks before it
# are complete: zlib does not report otherwise that a message was cut off.
_END: Final = b"\x01\x00\x00\xff\xff"
# Every final block starts a new zlib stream over a copy of the rest. A message made
# of final blocks only would take time quadratic in its size.
_MAX_STREAMS: Final = 64
_SMALL_BYTES: Final = 8192
# zlib looks back at most the window minus these bytes (MIN_LOOKAHEAD in its deflate.h).
_LOOKAHEAD: Final = 262


@dataclass(frozen=True, slots=True)
class Deflate:
    """The parameters negotiated with one client.

    Attributes:
        server_window_bits: The largest window that the server may use.
        extension: The Sec-WebSocket-Extensions value of the response.
    """

    server_window_bits: int
    extension: str


def negotiate(header_values: Iterable[str]) -> Deflate | None:
    """Accept the first supported offer of permessage-deflate.

    Other extensions are skipped, and so are offers with a parameter that is
    unknown, repeated or has an invalid value (RFC 7692 §5.1, §7.1). The
    response never has `client_max_window_bits`: without it the client may use
    any window, and `inflate` accepts any.

    Args:
        header_values: The values of all Sec-WebSocket-Extensions lines.

    Raises:
        HandshakeError: The header does not follow the grammar; then RFC 6455
            §9.1 requires that the connection fails.
    """
    values = list(header_values)
    if not values:
        return None
    for name, parameters in _parse(",".join(values)):
        if name == _NAME and (agreed := _accept(parameters)):
            return agreed
    return None


def accepted_window_bits(header: str) -> int:
    """Return the largest window that a client may use after it offered `OFFER`.

    Args:
        header: The Sec-WebSocket-Extensions of the response.

    Raises:
        HandshakeError: The response is not a valid answer to the offer, so the
            connection must fail (§7.1).
    """
    chosen = _parse(header)
    (name, parameters), given = chosen[0], dict(chosen[0][1])
    if len(chosen) > 1 or name != _NAME or len(given) != len(parameters):
        raise HandshakeError(400, "it is not permessage-deflate, or repeated.")
    if "server_no_context_takeover" not in given:
        raise HandshakeError(400, "server_no_context_takeover is missing.")
    window_bits = _MAX_WINDOW_BITS
    for parameter, value in parameters:
        match parameter:
            case "server_no_context_takeover" | "client_no_context_takeover" if value is None:
                pass
            # The window of the server does not matter: `inflate` accepts any.
            case "server_max_window_bits" if value in _WINDOW_BITS:
                pass
            case "client_max_window_bits" if value in _WINDOW_BITS:
                window_bits = _WINDOW_BITS[value]
            case _:
                raise HandshakeError(400, f"{parameter} is not valid.")
    return window_bits


def compress(payload: bytes, window_bits: int) -> bytes:
    """Return *payload* compressed, for a frame with RSV1 set (§7.2.1)."""
    # Each message gets a new compressor, with a window and tables no larger than the
    # message can use. Measured for 100 B / 1 kB / 10 kB of JSON (zlib 1.2.13, Python
    # 3.11, Nov 2026): 4 / 14 / 75 us; with full window and tables 83 / 79 / 175; copying
    # a prepared one 144 / 127 / 194, and no faster than a new one when both are small.
    fitting = max(9, (len(payload) + _LOOKAHEAD - 1).bit_length())
    compressor = zlib.compressobj(
        wbits=-min(window_bits, fitting), memLevel=5 if len(payload) <= _SMALL_BYTES else 8
    )
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_TAIL)


def inflate(payload: bytes, max_bytes: int) -> bytes:
    """Return the message of a compressed payload (§7.2.2).

    Blocks marked final may occur anywhere; the next block starts at the next
    byte (§7.2.1). At most `max_bytes + 1` bytes are ever decompressed.

    Raises:
        ProtocolError: 1009 above *max_bytes*; 1007 if the payload is corrupt or
            cut off, because the frames were valid but their content is not
            (RFC 6455 §7.4.1); 1008 for more final blocks than any honest
            sender produces.
    """
    rest = payload + _TAIL + _END
    pieces: list[bytes] = []
    room = max_bytes
    for _ in range(_MAX_STREAMS):
        stream = zlib.decompressobj(-_MAX_WINDOW_BITS)
        try:
            piece = stream.decompress(rest, room + 1)
        except zlib.error:
            raise ProtocolError(1007, "a compressed message is corrupt") from None
        room -= len(piece)
        if room < 0:
            raise ProtocolError(1009, f"a message above {max_bytes} bytes")
        if not stream.eof:
            raise ProtocolError(1007, "a compressed message is cut off")
        pieces.append(piece)
        rest = stream.unused_data
        # Second case: the sender ended with a final block and omitted the empty one.
        if not rest or rest == _TAIL + _END:
            return b"".join(pieces)
    raise ProtocolError(1008, "a compressed message with too many final blocks")


def max_compressed_bytes(max_bytes: int) -> int:
    """Return the size limit of the compressed payload of a message of *max_bytes*.

    Data that cannot be compressed grows, with zlib's most wasteful settings by
    less than n/8 + n/64 and some bytes (its `deflateBound`).
    """
    return max_bytes + max_bytes // 4 + 64


def _parse(header: str) -> list[tuple[str, list[tuple[str, str | None]]]]:
    """Return the name and parameters of every extension in a header."""
    extensions: list[tuple[str, list[tuple[str, str | None]]]] = []
    at = 0
    while at < len(header):
        element = _ELEMENT.match(header, at)
        if element is None:
            raise _malformed()
        at = element.end()
        if element[1]:
            parameters = [(match[1], _value(match[2])) for match in _PARAMETER.finditer(element[2])]
            extensions.append((element[1], parameters))
    if not extensions:
        raise _malformed()
    return extensions


def _value(text: str | None) -> str | None:
    if text is None or not text.startswith('"'):
        return text
    value = _ESCAPED.sub(r"\1", text[1:-1])
    if not _VALUE.fullmatch(value):
        raise _malformed()
    return value


def _malformed() -> HandshakeError:
    return HandshakeError(400, "Sec-WebSocket-Extensions is malformed.")


def _accept(parameters: list[tuple[str, str | None]]) -> Deflate | None:
    offered = dict(parameters)
    if len(offered) != len(parameters):
        return None
    extension = f"{_NAME}; server_no_context_takeover; client_no_context_takeover"
    window_bits = _MAX_WINDOW_BITS
    for name, value in parameters:
        match name:
            case "server_no_context_takeover" | "client_no_context_takeover" if value is None:
                pass
            case "client_max_window_bits" if value is None or value in _WINDOW_BITS:
                pass
            # Not 8: zlib does not support it and would use 9.
            case "server_max_window_bits" if value in _WINDOW_BITS and value != "8":
                window_bits = _WINDOW_BITS[value]
                extension += f"; {name}={value}"
            case _:
                return None
    return Deflate(window_bits, extension)
