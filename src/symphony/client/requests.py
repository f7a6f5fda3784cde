"""One request and its one reply."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any, Final

from symphony.client.answers import Answers
from symphony.client.loss import Loss
from symphony.errors import RemoteError, RequestTimeoutError, SymphonyError, WrongRouteError
from symphony.protocol.v1 import V1

__all__ = ("Request", "raw_connection")

_LEAST_TIMEOUT: Final = 0.001


class Request:
    """A request: an entry that waits to be sent, then one that waits for its answer.

    Args:
        answers: Of the client.
        event: Its name.
        data: What it carries; encoded already if it may be sent later.
        timeout: Seconds, `inf`: for ever.
        idempotent: Whether it may be sent again after the connection was lost.
        where: The server, for the errors.
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

    async def reply(self) -> Any:
        """Send it and return the data of its reply, undecoded."""
        outgoing = self._answers.outgoing
        # While there is a connection, whoever waits here is bound enough.
        outgoing.put(self, refuse=not outgoing.takes)
        timer = self._loop.call_at(self._deadline, self._too_late) if self._deadline < inf else None
        try:
            return await self._future
        finally:
            if timer is not None:
                timer.cancel()
            if self._future.cancelled():
                self._withdraw()

    def message(self, codec: V1 | None) -> str | bytes | None:
        """Be sent."""
        if self._future.done():
            return None
        if codec is None:
            self._future.set_exception(raw_connection(self._where))
            return None
        timeout = None
        if self._deadline < inf:
            timeout = round(max(self._deadline - self._loop.time(), _LEAST_TIMEOUT), 3)
        self._sent = True
        return self._answers.ask(self, codec, self._event, self._data, timeout=timeout, credit=None)

    def replied(self, data: Any) -> None:
        """Be answered."""
        if not self._future.done():
            self._future.set_result(data)

    def item(self, data: Any) -> None:
        """Be answered by a stream."""
        self._answers.give_up(self)
        self._fail(RemoteError("invalid", f"{self._event!r} answers with a stream: use client.stream()"))

    def end(self) -> None:
        """Be answered by a stream that had no items."""
        self.item(None)

    def failed(self, error: SymphonyError) -> None:
        """Be refused."""
        # The server counts the same time, and may be the first to say that it is up.
        late = self._loop.time() >= self._deadline
        if late and isinstance(error, RemoteError) and error.code == "timeout":
            self._too_late()
        else:
            self._fail(error)

    def postpone(self, error: RemoteError) -> bool:
        """Be refused by a server that stops."""
        self._refusal = error
        return self._idempotent

    def lost(self, loss: Loss) -> bool:
        """Lose the connection that it was sent on."""
        refusal, self._refusal = self._refusal, None
        if self._idempotent and not loss.final:
            return not self._future.done()
        if refusal is not None:
            self._fail(refusal)
            return False
        more = "Whether it was handled is not known"
        more += "." if loss.final else "; where that does no harm, idempotent=True sends it again."
        self._fail(loss.error(f"{self._event!r} was not answered", more))
        return False

    def dropped(self, loss: Loss) -> bool:
        """Lose what was to become its connection."""
        done = "answered" if self._sent else "sent"
        self._fail(loss.error(f"{self._event!r} was not {done}"))
        return False

    def _too_late(self) -> None:
        what = f"{self._event!r} was not answered by {self._where} within {self._timeout:g} s"
        if self.id is None:
            what = f"{self._event!r} was not sent to {self._where} within {self._timeout:g} s: "
            what += "it takes no more" if self._answers.outgoing.live else "there is no connection"
        self._withdraw()
        self._fail(RequestTimeoutError(f"{what}."))

    def _withdraw(self) -> None:
        if self.id is None:
            self._answers.outgoing.withdraw(self)
        else:
            self._answers.give_up(self)

    def _fail(self, error: Exception) -> None:
        if not self._future.done():
            self._future.set_exception(error)


def raw_connection(where: str) -> WrongRouteError:
    """Return what is raised where only events will do."""
    return WrongRouteError(
        f"{where} is a raw connection, without events: its route has only a message handler. "
        "Use client.send() and `async for message in client`."
    )
