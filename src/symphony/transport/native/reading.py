"""Makes the parser of a connection, and counts the bytes of messages that have not arrived whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from picows import WSFrame

from symphony.errors import ProtocolError
from symphony.transport.native.memory import freed
from symphony.websocket.assembler import Assembler
from symphony.websocket.parser import Parser, assemble
from symphony.websocket.queued import Queued

if TYPE_CHECKING:
    from symphony.transport.native.connection import NativeConnection

__all__ = ("Reading",)

_CROWDED: Final = "too many messages wait at the server"


class Reading:
    """What one connection reads with.

    The bytes of unfinished messages count for the queues of the process: those in
    the parser, once its buffer is large, and fragments. If there is no room for
    them, the connection fails.

    The parser never gives a large buffer back. So it is replaced when its buffer is
    empty: when the next pong arrives, or at once if there is little room.

    Args:
        connection: The connection.
        transport: Its transport.
        queued: The bytes of all queues.
        max_frame_bytes: The largest frame.
        max_read_bytes: The most that one read takes.
        broken: Fails the connection.
    """

    __slots__ = (
        "_broken",
        "_buffer_bytes",
        "_connection",
        "_max_frame_bytes",
        "_max_read_bytes",
        "_message_bytes",
        "_queued",
        "_transport",
    )

    def __init__(
        self,
        connection: NativeConnection,
        transport: asyncio.Transport,
        queued: Queued,
        max_frame_bytes: int,
        max_read_bytes: int,
        broken: Callable[[int, str], None],
    ) -> None:
        self._connection: NativeConnection | None = connection
        self._transport = transport
        self._queued = queued
        self._max_frame_bytes = max_frame_bytes
        self._max_read_bytes = max_read_bytes
        self._broken = broken
        self._buffer_bytes = self._message_bytes = 0

    def begin(self) -> Parser:
        """Make a parser, and let the event loop call it."""
        connection = self._connection
        assert connection is not None
        parser = Parser(
            connection,
            max_frame_bytes=self._max_frame_bytes,
            broken=self._broken,
            max_read_bytes=self._max_read_bytes,
            grown=self._grown,
        )
        # The event loop calls the parser directly, without a Python frame in between. It looks
        # up both only when the protocol is set.
        connection.get_buffer = cast("Any", parser.get_buffer)
        connection.buffer_updated = cast("Any", parser.buffer_updated)
        self._transport.set_protocol(connection)
        return parser

    def assemble(self, assembler: Assembler, frame: WSFrame) -> str | bytes | None:
        """Add a frame to a message; return the message if it is complete.

        Raises:
            ProtocolError: The frame breaks RFC 6455 or RFC 7692, or there is no room
                for the message.
        """
        message = assemble(assembler, frame)
        if not self._counts(self._buffer_bytes, len(assembler)):
            assembler.clear()
            raise ProtocolError(1013, _CROWDED)
        if self.is_due:
            self.settle(frame)
        return message

    def settle(self, frame: WSFrame) -> None:
        """Replace the parser if its buffer is large, and *frame* is all that is in it."""
        if (
            self._buffer_bytes
            and frame.last_in_buffer
            and not frame.tail_size
            and self._connection is not None
        ):
            self._counts(0, self._message_bytes)
            # The parser is at work. Keep it until it returns: nothing else refers to it then.
            old = self._connection.buffer_updated, self._connection.get_buffer
            asyncio.get_running_loop().call_soon(_release, old)
            self.begin()

    def end(self) -> None:
        """Count nothing any more, and release the connection."""
        self._counts(0, 0)
        self._connection = None
        self._broken = _ignore

    @property
    def is_due(self) -> bool:
        """Whether the parser should be replaced as soon as its buffer is empty."""
        return self._buffer_bytes > 0 and self._queued.size > self._queued.limit // 2

    def _grown(self, size: int) -> None:
        if size > self._buffer_bytes and not self._counts(size, self._message_bytes):
            # Not in this call: libuv crashes if reading stops while it asks for a buffer.
            asyncio.get_running_loop().call_soon(self._fail)
        elif self.is_due and self._connection is not None:
            # Data frames must pass `assemble` until it has replaced the parser.
            self._connection.assemble_next()

    def _fail(self) -> None:
        if self._connection is not None:
            self._broken(1013, _CROWDED)

    def _counts(self, buffer_bytes: int, message_bytes: int) -> bool:
        """Count what this connection holds; return whether the others leave room for it.

        A message that is alone has room, however small the limit is. If there is no
        room, nothing is counted any more, because the connection ends.
        """
        if not buffer_bytes:
            freed.size += self._buffer_bytes
        before = self._buffer_bytes + self._message_bytes
        more = buffer_bytes + message_bytes - before
        has_room = more <= 0 or self._queued.size - before <= self._queued.limit
        if not has_room:
            buffer_bytes = message_bytes = 0
            more = -before
        self._buffer_bytes, self._message_bytes = buffer_bytes, message_bytes
        self._queued.size += more
        return has_room


def _release(_: object) -> None:
    """Do nothing: the reference ends with the call."""


def _ignore(code: int, reason: str) -> None:
    """Do nothing: the connection has ended."""
