"""What one HTTP request may take: bytes, header fields, chunks."""

from __future__ import annotations

from typing import Final

from symphony.limits import Limits

__all__ = ("END_OF_HEAD", "BadRequestError", "Meter", "end_of_piece")

END_OF_HEAD: Final = b"\r\n\r\n"
# The longest size of a chunk without leading zeros, and its two line breaks.
_CHUNK_FRAME_BYTES: Final = 20


class BadRequestError(Exception):
    """A request that Symphony refuses itself.

    Attributes:
        status: The HTTP status.
        message: One line for the body and the log.
        headers: Additional headers of the response.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


class Meter:
    """Counts one request after the other, and raises above a limit.

    Args:
        limits: The limits of the app.

    Attributes:
        body: The bytes of the current body so far.
    """

    __slots__ = ("_chunks", "_fields", "_framing", "_limits", "_seen", "body")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.begin()

    def begin(self) -> None:
        """Start to count another request."""
        self._fields = self._framing = self._chunks = self.body = self._seen = 0

    def head(self, size: int) -> None:
        """Count bytes of a head, before they are parsed."""
        self._framing += size
        if self._framing > self._limits.max_header_bytes:
            raise BadRequestError(431, "the request's headers are too large")

    def field(self) -> None:
        """Count a header field, or a trailer field."""
        self._fields += 1
        if self._fields > self._limits.max_header_fields:
            raise BadRequestError(431, "the request has too many header fields")

    def announce(self, size: int) -> None:
        """Check the length that a request announces for its body."""
        most = self._limits.max_body_bytes
        if most is not None and size > most:
            raise BadRequestError(413, f"the request's body is larger than {most} bytes")

    def data(self, size: int) -> None:
        """Count bytes of a body."""
        self.body += size
        self.announce(self.body)

    def chunk(self) -> None:
        """Count a chunk, which may have one size and two line breaks."""
        self._chunks += 1

    def after_head(self, size: int) -> None:
        """Count bytes after the head, once they are parsed.

        Everything except the data of the body is framing: chunk extensions,
        leading zeros of sizes, trailers. It counts together with the head.
        """
        self._framing += size - (self.body - self._seen)
        self._seen = self.body
        if self._framing - self._chunks * _CHUNK_FRAME_BYTES > self._limits.max_header_bytes:
            raise BadRequestError(431, "the request's chunk extensions and trailers are too large")


def end_of_piece(data: bytearray, tail: bytes) -> int:
    """Return how much of *data* to parse, so that at most one request ends in it.

    A request without a body, or with a chunked one, ends with two line breaks.
    The parser cannot stop at the end of a request, so it is given data up to
    the next two line breaks only.

    Args:
        data: What has arrived and was not parsed.
        tail: The three bytes that were parsed before.
    """
    seam = (tail + data[:3]).find(END_OF_HEAD)
    if seam >= 0 and (end := seam + len(END_OF_HEAD) - len(tail)) > 0:
        return end
    found = data.find(END_OF_HEAD)
    return len(data) if found < 0 else found + len(END_OF_HEAD)
