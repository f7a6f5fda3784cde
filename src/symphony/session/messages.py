"""Answers on a raw connection: a handler's result or its error."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from symphony.errors import ProtocolError, Reject
from symphony.outgoing.encoding import RAW
from symphony.protocol.codec import to_message
from symphony.protocol.unencodable import UnencodableError

if TYPE_CHECKING:
    from symphony.session.contracts import ErrorReporter
    from symphony.transport.base import Connection

__all__ = ("Messages",)


class Messages:
    """The answers to the messages of one socket.

    Args:
        session: The socket's session.
        connection: Its connection.
    """

    __slots__ = ("_connection", "_encode", "_outbox", "_session")

    def __init__(self, session: ErrorReporter, connection: Connection) -> None:
        self._session = session
        self._connection = connection
        self._encode = connection.encoding.encode
        self._outbox = connection.outbox

    def done(self, message: Any, result: Any) -> Awaitable[None] | None:
        """Send a handler's result; return what to await before the next message."""
        if result is None:
            return None
        if type(result) is not str:
            try:
                result = to_message(result)
            except UnencodableError as error:
                error.given = "returned"
                raise
        outbox = self._outbox
        encode = self._encode
        outbox.send(encode(result))
        # A client that sends messages faster than it reads the answers is slowed
        # down. That alone must not make it a slow consumer.
        return None if outbox.size <= outbox.high else outbox.drained()

    def failed(self, message: Any, error: BaseException) -> Awaitable[None] | None:
        """Send a handler's error; return what to await before the next message.

        The error is sent as an event, as `emit` sends it.
        """
        if isinstance(error, ProtocolError):
            self._connection.close(error.code, error.reason)
            return None
        if not isinstance(error, Reject):
            self._session.report(error, "message handler")
            error = Reject("internal", "the server failed to handle the message")
        try:
            text = RAW.event("error", error.payload())
        except Exception as unencodable:
            self._session.report(unencodable, "details of a Reject")
            text = RAW.event("error", Reject("internal", "the server failed to encode the error").payload())
        return self.done(message, text)
