"""Runs the handler that sends what a slow client needs after its messages were dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from symphony.errors import DisconnectedError

if TYPE_CHECKING:
    from symphony.socket import Socket

__all__ = ("Resync",)


class Resync:
    """The resyncs of one socket: one at a time.

    Args:
        socket: The socket.
        handler: The `on_resync` handler.
        begin: Called before it: sends what the rooms of the socket begin with.
        background: Starts a background task of the socket.
    """

    __slots__ = ("_again", "_background", "_begin", "_handler", "_is_running", "_socket")

    def __init__(
        self,
        socket: Socket[Any],
        handler: Callable[[Socket[Any]], Awaitable[None]],
        begin: Callable[[Socket[Any]], None],
        background: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
    ) -> None:
        self._socket = socket
        self._handler = handler
        self._begin = begin
        self._background = background
        self._is_running = self._again = False

    def __call__(self) -> None:
        """Run the handler, once more if it runs already."""
        if self._is_running:
            self._again = True
            return
        try:
            self._background(self._run())
        except (DisconnectedError, RuntimeError):
            # Without the handler, the client would have a part of the messages only.
            self._socket.close(1013, "slow consumer")
            return
        self._is_running = True

    async def _run(self) -> None:
        try:
            while True:
                self._again = False
                try:
                    self._begin(self._socket)
                except Exception:
                    self._socket.close(1013, "a snapshot failed")
                    raise
                await self._handler(self._socket)
                if not self._again:
                    return
        finally:
            self._is_running = False
