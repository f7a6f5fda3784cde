"""The server's requests to one client, and their replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any

from symphony.errors import DisconnectedError, QueueFullError, Reject, RemoteError, RequestTimeoutError
from symphony.protocol.envelopes import Cancel, Event
from symphony.protocol.replies import Unread, invalid_reply, reply_readers
from symphony.protocol.v1 import MAX_TIMEOUT

__all__ = ("Requests",)


class Requests:
    """The pending requests to one client.

    Args:
        send: Sends an envelope.
        adjust_reading: Called when a request begins or ends. While a request is
            pending, the connection must be read.
        payload: The form of the data in replies: see `Protocol.payload`.
        limit: How many requests may be pending at once.
        max_elements: How many values, items and keys a reply may contain.
        name: The socket's name in errors.
    """

    __slots__ = (
        "_adjust_reading",
        "_limit",
        "_lost",
        "_max_elements",
        "_name",
        "_next_id",
        "_payload",
        "_send",
        "pending",
    )

    def __init__(
        self,
        send: Callable[[Any], object],
        adjust_reading: Callable[[], None],
        payload: str,
        limit: int,
        max_elements: int,
        name: str,
    ) -> None:
        self.pending: dict[int, asyncio.Future[Any]] = {}
        self._send = send
        self._adjust_reading = adjust_reading
        self._payload = payload
        self._limit = limit
        self._max_elements = max_elements
        self._name = name
        self._next_id = 1
        self._lost: str | None = None

    async def request(self, event: str, data: Any, *, timeout: float, response_type: Any) -> Any:
        """Send a request and return its reply.

        Raises:
            RequestTimeoutError: The client did not answer in time.
            RemoteError: The client answered with an error, or its reply does
                not match *response_type*.
            DisconnectedError: The connection has ended, before or during the
                request.
            QueueFullError: Too many requests are pending. Nothing was sent.
            TypeError: The data cannot be encoded.
            ValueError: The timeout is invalid.
        """
        if self._lost is not None:
            raise DisconnectedError(f"Socket {self._name} {self._lost}: {event!r} was not sent.")
        if len(self.pending) >= self._limit:
            raise QueueFullError(
                f"Socket {self._name} has {self._limit} unanswered requests already: {event!r} was not sent."
            )
        if not 0 < timeout <= MAX_TIMEOUT:
            raise ValueError(f"timeout must be above 0 and at most {MAX_TIMEOUT} seconds, not {timeout!r}.")
        passed_on = response_type is Unread
        readers = reply_readers(Any if passed_on else response_type, self._max_elements)
        id, self._next_id = self._next_id, self._next_id + 1
        self._send(Event(event, data, id, timeout))
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        timer = loop.call_later(timeout, _expire, answer)
        self.pending[id] = answer
        self._adjust_reading()
        try:
            reply = await answer
        except TimeoutError:
            self._send(Cancel(id))
            raise RequestTimeoutError(
                f"Socket {self._name} did not answer {event!r} within {timeout:g} s."
            ) from None
        except asyncio.CancelledError:
            self._send(Cancel(id))
            raise
        finally:
            timer.cancel()
            del self.pending[id]
            # An exception that a frame of its own traceback holds, here in the future,
            # waits for the garbage collector, and with it the socket.
            del answer
            self._adjust_reading()
        if passed_on:
            return Unread.of(self._payload, reply)
        try:
            return readers[self._payload](reply)
        except Reject as error:
            raise invalid_reply(event, error) from None

    def answered(self, id: Any, data: Any) -> bool:
        """Handle a reply; return whether a request with this id was ever sent."""
        answer = self.pending.get(id)
        if answer is not None and not answer.done():
            answer.set_result(data)
        return self._was_asked(id)

    def failed(self, id: Any, data: Any) -> bool:
        """Handle an error; return whether a request with this id was ever sent."""
        answer = self.pending.get(id)
        if answer is not None and not answer.done():
            answer.set_exception(self._remote(data))
        return self._was_asked(id)

    def connection_lost(self) -> None:
        """Fail all pending requests, because the connection has ended."""
        self._lost = "is closed"
        # A request of another task may end after its session has released its parts.
        self._adjust_reading = _nothing_to_adjust
        for answer in self.pending.values():
            if not answer.done():
                answer.set_exception(DisconnectedError(f"Socket {self._name} was closed before it answered."))

    def _was_asked(self, id: Any) -> bool:
        # An answer may arrive after its request has timed out.
        return isinstance(id, int) and 0 < id < self._next_id

    def _remote(self, data: Any) -> RemoteError:
        error: dict[str, Any] = {}
        with suppress(Reject):
            error = reply_readers(dict[str, Any], self._max_elements)[self._payload](data)
        return RemoteError(
            str(error.get("code") or "invalid"),
            str(error.get("message") or "the client answered with an error"),
            retryable=error.get("retryable") is True,
            details=error.get("details"),
            retry_after=_seconds(error.get("retry_after")),
        )


def _seconds(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 <= value < inf else None


def _nothing_to_adjust() -> None:
    """Stand where there is no connection to read from."""


def _expire(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())
