"""One connection to a Redis server: what is sent is written in order, all that comes is told."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from redis.exceptions import RedisError, ResponseError

from symphony.broker.redis.dialing import Connected, cut
from symphony.tasks import start
from symphony.websocket.backpressure import READY

__all__ = ("RedisLink",)

_HIGH_WATER: Final = 256 * 1024
# For how long what was sent is still written after `finish`.
_FINISH: Final = 1.0


class RedisLink:
    """A connection with its reader and its writer. See `Link`.

    Args:
        connection: The connection, which has no other user.
        received: Called with each answer; with an exception if the server answers with an error.
        lost: Called once when the link has ended, whichever side has ended it.
    """

    def __init__(
        self,
        connection: Connected,
        received: Callable[[RedisLink, object], object],
        lost: Callable[[RedisLink], object],
    ) -> None:
        self._connection = connection
        self._received = received
        self._lost = lost
        self._unwritten: list[bytes] = []
        self._size = 0
        self._wake = asyncio.Event()
        self._drained: asyncio.Future[None] | None = None
        self._finishing = False
        self._reads = False
        self._closing = False
        self._ended = False
        self._reading = start(self._read())
        self._writing = start(self._write())

    @property
    def size(self) -> int:
        """See `Link.size`."""
        return self._size

    def send(self, message: bytes) -> None:
        """See `Link.send`."""
        self._unwritten.append(message)
        self._size += len(message)
        self._wake.set()

    def drained(self) -> Awaitable[None]:
        """See `Link.drained`."""
        if self._ended or self._size < _HIGH_WATER:
            return READY
        if self._drained is None:
            self._drained = asyncio.get_running_loop().create_future()
        return asyncio.shield(self._drained)

    def close(self) -> None:
        """See `Link.close`."""
        self._closing = True
        if self._reads:
            # Before its first step, that would keep it from ending the connection.
            self._reading.cancel()
        self._writing.cancel()

    def finish(self) -> None:
        """See `Link.finish`."""
        self._finishing = True
        self._wake.set()
        asyncio.get_running_loop().call_later(_FINISH, self.close)

    async def _write(self) -> None:
        try:
            while True:
                if not self._unwritten:
                    if self._finishing:
                        self._reading.cancel()
                        return
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                part, self._unwritten = self._unwritten, []
                await self._connection.send_packed_command(part, check_health=False)
                self._size -= sum(map(len, part))
                if self._size < _HIGH_WATER:
                    self._release()
        except (RedisError, OSError):
            self._reading.cancel()

    async def _read(self) -> None:
        self._reads = True
        try:
            while not self._closing:
                try:
                    answer = await self._connection.read_response(disable_decoding=True, timeout=math.inf)
                except ResponseError as error:
                    answer = error
                self._received(self, answer)
        except (RedisError, OSError):
            pass
        finally:
            self._ended = True
            self._writing.cancel()
            self._release()
            self._lost(self)
            # `finish` calls `close` after a while.
            with suppress(RedisError, OSError):
                await cut(self._connection, nowait=not self._finishing)

    def _release(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)
