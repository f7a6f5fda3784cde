"""The part of a blocking client that runs in its event loop: it receives, and closes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Final

from symphony.client.client import Client
from symphony.client.core import RAW
from symphony.client.inbox import Inbox
from symphony.client.payload import error_said
from symphony.client.reconnector import State
from symphony.complaints import MAX_FAILURES, Complaint
from symphony.errors import DisconnectedError, WrongRouteError
from symphony.printable import printable

__all__ = ("Receiver",)

logger = logging.getLogger("symphony.client")

_ERROR: Final = "error"


class Receiver:
    """Receives events and messages for one blocking client.

    It does not refer to the blocking client, so that one that the program no
    longer uses is freed, and warns.
    """

    __slots__ = ("_changed", "_client", "_core", "_told", "inbox")

    def __init__(self, client: Client) -> None:
        self._client = client
        core = client._core  # pyright: ignore[reportPrivateUsage]
        self._core = core
        self._changed: list[asyncio.Future[None]] = []
        self.inbox = Inbox(core.where, core.options.max_queue, core.options.max_queue_bytes)
        self._told = Complaint(
            logger, logging.WARNING, "The server sent an error: '%s', '%s'.", most=MAX_FAILURES
        )
        core.dispatch.unhandled = self._take
        client.on_state(self._wake)

    async def within(self, timeout: float | None, call: Awaitable[Any], what: str) -> Any:
        """Await *call*, and raise `TimeoutError` if that takes too long."""
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await call
        except TimeoutError:
            if limit.expired():
                raise TimeoutError(f"{what} arrived from {self._core.where} within {timeout:g} s.") from None
            raise

    async def event(self, event: str) -> Any:
        """Wait for an event, and return its data, still encoded."""
        while True:
            with suppress(LookupError):
                return self.inbox.take(event)
            if self._client.closed is not None:
                raise self.over()
            if self._client.protocol == RAW:
                raise WrongRouteError(
                    f"{self._core.where} is a raw connection, without events: use receive() without a name."
                )
            await self.inbox.wait(event)

    async def message(self) -> str | bytes:
        """Wait for a raw message."""
        try:
            return await anext(self._client)
        except StopAsyncIteration:
            raise self.over() from None

    async def close(self, timeout: float, code: int, reason: str) -> None:
        """Send what is queued, at most for *timeout* seconds, and close."""
        outgoing = self._core.outgoing
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while len(outgoing) and self._client.closed is None:
                    if outgoing.takes:
                        await outgoing.drained()
                    else:
                        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                        self._changed.append(waiter)
                        await waiter
        await self._client.close(code, reason)

    def over(self) -> DisconnectedError:
        """Return the error for any use of the closed client."""
        return self._core.reconnector.error()

    def _take(self, event: str, data: Any) -> None:
        if event == _ERROR and (error := error_said(data, self._core.decoding)) is not None:
            self._told.log(printable(error.code), printable(error.message))
        self.inbox.put(event, data)

    def _wake(self, state: State) -> None:
        changed, self._changed = self._changed, []
        for waiter in changed:
            if not waiter.done():
                waiter.set_result(None)
        self.inbox.wake()
