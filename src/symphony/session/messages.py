"""Answers on a raw connection: a handler's result or its error."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, cast

from symphony.errors import ProtocolError, Reject
from symphony.outgoing.encoding import RAW
from symphony.protocol.codec import to_message
from symphony.protocol.unencodable import UnencodableError
from symphony.routing.results import VALUES, is_awaitable

if TYPE_CHECKING:
    from symphony.session.contracts import ErrorReporter
    from symphony.transport.base import Connection

__all__ = ("Messages",)


class Messages:
    """The answers to the messages of one socket.

    Args:
        session: The socket's session.
        connection: Its connection.
        is_async: Whether handlers are coroutines. Otherwise their results may be awaitable.
        closes_on_error: Whether an error closes the connection. Otherwise it is sent as JSON
            text, which a client of a binary protocol cannot read.
    """

    __slots__ = ("_closes_on_error", "_connection", "_encode", "_is_async", "_outbox", "_session")

    def __init__(
        self, session: ErrorReporter, connection: Connection, *, is_async: bool, closes_on_error: bool
    ) -> None:
        self._closes_on_error = closes_on_error
        self._is_async = is_async
        self._session = session
        self._connection = connection
        self._encode = connection.encoding.encode
        self._outbox = connection.outbox

    def done(self, message: Any, result: Any) -> Awaitable[None] | None:
        """Send a handler's result; return what to await before the next message."""
        if result is None:
            return None
        if type(result) is not str:
            if type(result) not in VALUES:
                if type(result) is AsyncGeneratorType:
                    return self._stream(message, cast("AsyncGeneratorType[Any, Any]", result))
                if not self._is_async and is_awaitable(result):
                    return self._finish(message, result)
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

    async def _finish(self, message: Any, work: Awaitable[Any]) -> None:
        """Await what a plain handler has returned, and send its result."""
        try:
            pressure = self.done(message, await work)
        except GeneratorExit as error:
            # Raised by the handler, or thrown in to close this coroutine, which must then not await.
            self.failed(message, error)
            return
        except BaseException as error:
            pressure = self.failed(message, error)
        if pressure is not None:
            await pressure

    async def _stream(self, message: Any, items: AsyncGenerator[Any]) -> None:
        """Send the items of a generator that a handler has returned."""
        pressure: Awaitable[None] | None = None
        try:
            async with aclosing(items):
                async for item in items:
                    if (pressure := self.done(message, to_message(item))) is not None:
                        await pressure
                    if self._outbox.sealed:
                        # No client receives the rest: let the generator close what it holds.
                        return
            pressure = None
        except GeneratorExit as error:
            # As in `_finish`.
            self.failed(message, error)
            return
        except BaseException as error:
            if isinstance(error, UnencodableError):
                error.given = "yielded"
            pressure = self.failed(message, error)
        if pressure is not None:
            await pressure

    def failed(self, message: Any, error: BaseException) -> Awaitable[None] | None:
        """Send a handler's error; return what to await before the next message.

        The error is sent as an event, as `emit` sends it, or closes the connection.
        """
        if isinstance(error, ProtocolError):
            self._connection.close(error.code, error.reason)
            return None
        if not isinstance(error, Reject):
            self._session.report(error, "message handler")
            error = Reject("internal", "the server failed to handle the message")
        if self._closes_on_error:
            code = error._raw_close_code  # pyright: ignore[reportPrivateUsage]
            self._connection.close(code, error.message)
            return None
        try:
            text = RAW.event("error", error.payload())
        except Exception as unencodable:
            self._session.report(unencodable, "details of a Reject")
            text = RAW.event("error", Reject("internal", "the server failed to encode the error").payload())
        return self.done(message, text)
