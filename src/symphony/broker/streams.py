"""Links over streams: each message has its length in front."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from secrets import compare_digest
from struct import Struct
from typing import Final, cast

from symphony.broker.links import MAX_MESSAGE_BYTES, Link, LinkEnd
from symphony.websocket.backpressure import READY

__all__ = ("GuardedStream", "Stream")

logger = logging.getLogger("symphony.app")

_LENGTH: Final = Struct(">I")

# Above the first, `drained` waits, and the broker reads no calls of a node that does not read
# its answers. Below the second, both go on.
_HIGH_WATER: Final = 256 * 1024
_LOW_WATER: Final = 64 * 1024

# For how long a connection may stay without its token.
_TOKEN_TIMEOUT: Final = 5.0


class Stream(asyncio.Protocol):
    """One end of a link over a stream, as the protocol of an asyncio transport.

    Args:
        begin: Called when the stream is connected, with this link; returns what takes its
            messages, or `None` to close it.
        stops_reading: Whether nothing is read while the other side does not read.
    """

    def __init__(self, begin: Callable[[Link], LinkEnd | None], *, stops_reading: bool) -> None:
        self._begin = begin
        self._stops_reading = stops_reading
        self._transport: asyncio.Transport | None = None
        self._end: LinkEnd | None = None
        self._read = bytearray()
        # What is sent in one turn of the loop is written at its end.
        self._unwritten: list[bytes] = []
        self._unwritten_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._drained: asyncio.Future[None] | None = None

    @property
    def size(self) -> int:
        """See `Link.size`."""
        transport = self._transport
        return self._unwritten_bytes + (0 if transport is None else transport.get_write_buffer_size())

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport, once it is connected."""
        return self._transport

    def send(self, message: bytes) -> None:
        """See `Link.send`."""
        if not self._unwritten:
            self._loop.call_soon(self._write)
        self._unwritten.append(_LENGTH.pack(len(message)))
        self._unwritten.append(message)
        self._unwritten_bytes += len(message) + _LENGTH.size

    def drained(self) -> Awaitable[None]:
        """See `Link.drained`."""
        if self._transport is None or self._transport.is_closing() or self.size < _HIGH_WATER:
            return READY
        if self._drained is None:
            self._drained = self._loop.create_future()
        return asyncio.shield(self._drained)

    def close(self) -> None:
        """See `Link.close`."""
        if self._transport is not None:
            self._transport.abort()

    def finish(self) -> None:
        """See `Link.finish`."""
        self._write()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, when the stream is connected."""
        self._transport = connected = cast("asyncio.Transport", transport)
        connected.set_write_buffer_limits(_HIGH_WATER, _LOW_WATER)
        self.started()

    def started(self) -> None:
        """Begin to take messages."""
        self._end = self._begin(self)
        if self._end is None:
            self.close()

    def data_received(self, data: bytes) -> None:
        """Take bytes of the stream."""
        read = self._read
        read += data
        start, end = 0, self._end
        while end is not None and len(read) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(read, start)
            if length > MAX_MESSAGE_BYTES:
                logger.error("A message of %d bytes came from the broker, or to it: it is too large.", length)
                self.close()
                break
            stop = start + _LENGTH.size + length
            if len(read) < stop:
                break
            message = bytes(memoryview(read)[start + _LENGTH.size : stop])
            start = stop
            end.received(message)
        if start:
            del read[:start]

    def pause_writing(self) -> None:
        """Notice that the other side does not read."""
        if self._stops_reading and self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Notice that the other side has read."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._release()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that the link has ended."""
        self._release()
        end, self._end = self._end, None
        if end is not None:
            end.lost()

    def _write(self) -> None:
        unwritten, self._unwritten = self._unwritten, []
        self._unwritten_bytes = 0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(unwritten))
            if self.size < _HIGH_WATER:
                self._release()

    def _release(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)


class GuardedStream(Stream):
    """The broker's end of a stream that anybody on this machine can open: a token comes first."""

    def __init__(self, begin: Callable[[Link], LinkEnd | None], token: bytes) -> None:
        super().__init__(begin, stops_reading=True)
        self._token: bytes | None = token
        self._timer = self._loop.call_later(_TOKEN_TIMEOUT, self.close)

    def started(self) -> None:
        """Wait for the token."""

    def data_received(self, data: bytes) -> None:
        """Take bytes of the stream."""
        if self._token is None:
            super().data_received(data)
            return
        self._read += data
        if len(self._read) < len(self._token):
            return
        given = bytes(self._read[: len(self._token)])
        if not compare_digest(given, self._token):
            logger.error("A connection to the broker had a wrong token, and was closed.")
            self.close()
            return
        del self._read[: len(self._token)]
        self._token = None
        self._timer.cancel()
        super().started()
        super().data_received(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that the link has ended."""
        self._timer.cancel()
        super().connection_lost(exc)
