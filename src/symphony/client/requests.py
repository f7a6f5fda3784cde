"""One request and its one reply."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any, Final

from symphony.client.answers import Answers
from symphony.client.entries import size_of
from symphony.client.loss import Loss, sentence
from symphony.errors import (
    MessageTooLargeError,
    RemoteError,
    RequestTimeoutError,
    SymphonyError,
    WrongRouteError,
)
from symphony.protocol.envelopes import Event, Join, Leave, ReadCount, ReadHistory, ReadPresence
from symphony.protocol.v1 import V1

__all__ = ("Request", "raw_connection")

_LEAST_TIMEOUT: Final = 0.001


class Request:
    """A request: first it is queued to be sent, then it waits for its answer.

    Args:
        answers: The requests of the client.
        event: The name of the event.
        data: The data; already encoded if it may be sent later.
        timeout: Seconds; `inf`: no limit.
        idempotent: Whether it may be sent again after the connection was lost.
        where: The address of the server, for the errors.
    """

    __slots__ = (
        "_answers",
        "_data",
        "_deadline",
        "_event",
        "_future",
        "_idempotent",
        "_loop",
        "_refusal",
        "_sent",
        "_timeout",
        "_where",
        "id",
    )
    bound = False

    def __init__(
        self, answers: Answers, event: str, data: Any, *, timeout: float, idempotent: bool, where: str
    ) -> None:
        self.id: int | None = None
        self._answers = answers
        self._event = event
        self._data = data
        self._timeout = timeout
        self._idempotent = idempotent
        self._where = where
        self._sent = False
        self._refusal: RemoteError | None = None
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[Any] = self._loop.create_future()
        self._deadline = self._loop.time() + timeout

    @property
    def size(self) -> int:
        """About how many bytes it takes while it is queued."""
        return size_of(self._data)

    @property
    def what(self) -> str:
        """What it is, for messages."""
        return f"the request {self._event!r}"

    @property
    def _name(self) -> str:
        return repr(self._event)

    async def reply(self) -> Any:
        """Send it and return the data of its reply, still encoded."""
        outgoing = self._answers.outgoing
        # No limit while there is a connection: the caller waits here for each request.
        outgoing.put(self, refuse=not outgoing.takes)
        return await self.answered()

    async def answered(self) -> Any:
        """Return the data of its reply, still encoded; it is sent, or queued."""
        timer = self._loop.call_at(self._deadline, self._too_late) if self._deadline < inf else None
        try:
            return await self._future
        finally:
            if timer is not None:
                timer.cancel()
            if self._future.cancelled():
                self._withdraw()

    def message(self, codec: V1 | None) -> str | bytes | None:
        """Return the message to send, and remember that it is sent."""
        if self._future.done():
            return None
        if codec is None:
            self._future.set_exception(raw_connection(self._where))
            return None
        timeout = None
        if self._deadline < inf:
            timeout = round(max(self._deadline - self._loop.time(), _LEAST_TIMEOUT), 3)
        try:
            message = self._answers.ask(self, codec, self._envelope(timeout))
        except MessageTooLargeError as error:
            self._fail(error)
            return None
        self._sent = True
        return message

    def _envelope(
        self, timeout: float | None
    ) -> Event | Join | Leave | ReadCount | ReadHistory | ReadPresence:
        return Event(self._event, self._data, timeout=timeout)

    def replied(self, data: Any) -> None:
        """Handle the reply."""
        if not self._future.done():
            self._future.set_result(data)

    def item(self, data: Any, size: int) -> None:
        """Handle an item: fail, because the answer is a stream."""
        self._answers.give_up(self)
        self._fail(RemoteError("invalid", f"{self._name} answers with a stream: use client.stream()"))

    def end(self) -> None:
        """Handle the end of a stream without items: fail likewise."""
        self.item(None, 0)

    def failed(self, error: SymphonyError) -> None:
        """Handle an error."""
        # The server measures the same timeout, and may report it first.
        late = self._loop.time() >= self._deadline
        if late and isinstance(error, RemoteError) and error.code == "timeout":
            self._too_late()
        else:
            self._fail(error)

    def postpone(self, error: RemoteError, *, stops: bool) -> bool:
        """Handle an error after which it may be sent again; return whether it waits for that."""
        if stops:
            self._refusal = error
        return stops and self._idempotent

    def lost(self, loss: Loss) -> bool:
        """Handle the loss of its connection; return whether to send it again."""
        refusal, self._refusal = self._refusal, None
        if self._idempotent and not loss.final:
            return not self._future.done()
        if not self.bound:
            refusal = refusal or loss.not_begun()
        if refusal is not None:
            self._fail(refusal)
            return False
        more = "It may or may not have run"
        more += "." if loss.final else "; if it may safely run twice, idempotent=True sends it again."
        self._fail(loss.error(f"{self._name} was not answered", more))
        return False

    def dropped(self, loss: Loss) -> bool:
        """Fail, because it is never sent."""
        done = "answered" if self._sent else "sent"
        self._fail(loss.error(f"{self._name} was not {done}"))
        return False

    def _too_late(self) -> None:
        what = f"{self._name} was not answered by {self._where} within {self._timeout:g} s"
        if self.id is None:
            what = f"{self._name} was not sent to {self._where} within {self._timeout:g} s: "
            what += "the server reads too slowly" if self._answers.outgoing.live else "there is no connection"
        self._withdraw()
        self._fail(RequestTimeoutError(sentence(what)))

    def _withdraw(self) -> None:
        if self.id is None:
            self._answers.outgoing.withdraw(self)
        else:
            self._answers.give_up(self)

    def _fail(self, error: Exception) -> None:
        if not self._future.done():
            self._future.set_exception(error)


def raw_connection(where: str) -> WrongRouteError:
    """Return the error for a request on a raw connection."""
    return WrongRouteError(
        f"{where} is a raw connection, without events: its route has only a message handler. "
        "Use client.send() and `async for message in client`."
    )
