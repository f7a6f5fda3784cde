"""Several connections to one server."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Final, NoReturn, Self, Unpack
from zlib import crc32

from typing_extensions import TypeForm, TypeVar

from symphony.client.backoff import Backoff
from symphony.client.client import Client
from symphony.client.connecting import ConnectOptions, connect
from symphony.client.home import AsyncOnly, Home
from symphony.client.options import Options
from symphony.client.reconnector import State
from symphony.client.streams import Stream
from symphony.errors import ConfigurationError, DisconnectedError, RequestTimeoutError
from symphony.tasks import start

__all__ = ("Pool",)

logger = logging.getLogger("symphony.client")

ReplyT = TypeVar("ReplyT", default=Any)

_DEFAULT_SIZE: Final = 4


class Pool(AsyncOnly):
    """Several connections to one server, for programs that send many requests.

    ```python
    async with symphony.client.Pool("ws://127.0.0.1:8080/chat", size=4) as pool:
        print(await pool.request("sum", [1, 2, 3]))
    ```

    Each request goes to the least busy connection. Requests with the same
    `key=` go to the same connection, so they stay in order. Lost connections
    reconnect. One that has ended for good is replaced, unless the server
    refuses that for good.

    Args:
        url: The URL of the server.
        size: The number of connections.
        **options: The options of `symphony.connect`, for each connection.

    Raises:
        ValueError: An option is not valid.
    """

    def __init__(self, url: str, *, size: int = _DEFAULT_SIZE, **options: Unpack[ConnectOptions]) -> None:
        if not size >= 1:
            raise ValueError(f"size must be 1 or more, not {size!r}.")
        self._url = url
        self._slots = [_Slot(url, options) for _ in range(size)]
        self._closing = False
        self._home: Home | None = None

    @property
    def clients(self) -> tuple[Client, ...]:
        """The clients of the connections; a client that has ended for good is replaced."""
        return tuple(slot.client for slot in self._slots)

    def emit(self, event: str, data: Any = None, *, key: str | None = None) -> Awaitable[None]:
        """Send an event over the least busy connection, or that of *key*; see `Client.emit`.

        Raises:
            DisconnectedError: The pool is closed, or the connection has ended
                for good and is not replaced yet.
        """
        return self._slot(key).client.emit(event, data)

    async def request(
        self,
        event: str,
        data: Any = None,
        *,
        key: str | None = None,
        timeout: float | None = None,
        response_type: TypeForm[ReplyT] = Any,
        idempotent: bool = False,
    ) -> ReplyT:
        """Send a request and return its reply; see `Client.request`.

        Args:
            event: The name of the event.
            data: The data.
            key: Requests with the same key use the same connection, in order.
                While it is lost, they are queued, even if others are open.
            timeout: As for `Client.request`.
            response_type: As for `Client.request`.
            idempotent: As for `Client.request`.
        """
        slot = self._slot(key)
        if slot.client.closed is not None and not self._closing:
            seconds = slot.options.request_timeout if timeout is None else timeout
            timeout = await slot.replaced(seconds, f"{event!r} was not sent to {self._url}")
        return await slot.client.request(
            event, data, timeout=timeout, response_type=response_type, idempotent=idempotent
        )

    async def join(self, room: str) -> NoReturn:
        """A pool has no rooms: raises `ConfigurationError`."""
        raise ConfigurationError(
            f"A pool has several connections, so it cannot be in the room {room!r}: "
            "use a client of symphony.connect()."
        )

    def stream(
        self,
        event: str,
        data: Any = None,
        *,
        key: str | None = None,
        credit: int = 64,
        response_type: TypeForm[ReplyT] = Any,
    ) -> Stream[ReplyT]:
        """Request a stream over the least busy connection, or that of *key*; see `Client.stream`."""
        return self._slot(key).client.stream(event, data, credit=credit, response_type=response_type)

    async def close(self) -> None:
        """Close all connections for good. Closing a closed pool does nothing."""
        keeping = self._keeping()
        if self._home is not None and keeping:
            self._home.check(self)
        self._closing = True
        for task in keeping:
            task.cancel()
        if keeping:
            await asyncio.wait(keeping)
        await asyncio.gather(*(slot.client.close() for slot in self._slots))

    async def __aenter__(self) -> Self:
        """Open all connections.

        Raises:
            RefusedError: The server refused a connection.
            DisconnectedError: A connection did not open in time, or the pool is
                closed.
        """
        if self._home is None:
            self._home = Home()
        self._home.check(self)
        try:
            async with asyncio.TaskGroup() as opening:
                for slot in self._slots:
                    opening.create_task(_open(slot.client))
        except BaseExceptionGroup as group:
            await self.close()
            # All have the same type, and callers expect what a client raises.
            raise group.exceptions[0] from None
        except BaseException:
            await self.close()
            raise
        for slot in self._slots:
            slot.task = start(slot.keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        states = [slot.client.state for slot in self._slots]
        return f"<Pool {self._slots[0].client!r} {states.count('open')}/{len(states)} open>"

    def __del__(self) -> None:
        if (home := getattr(self, "_home", None)) is not None and self._keeping():
            home.dropped(self, functools.partial(_drop, self._slots))

    def _keeping(self) -> list[asyncio.Task[None]]:
        """Return the tasks that replace connections: without one, the pool is not open."""
        return [slot.task for slot in self._slots if slot.task is not None and not slot.task.done()]

    def _slot(self, key: str | None) -> _Slot:
        slots = self._slots
        if key is not None:
            # Not `hash`, which differs between processes and would make logs hard to compare.
            return slots[crc32(key.encode()) % len(slots)]
        slot = min(slots, key=_busy)
        slot.picked += 1
        return slot


class _Slot:
    """One connection of a pool."""

    __slots__ = ("_changed", "_connect_options", "_url", "client", "picked", "task")

    def __init__(self, url: str, options: ConnectOptions) -> None:
        self._url = url
        self._connect_options = options
        self.picked = 0
        self._changed: list[asyncio.Future[None]] = []
        self.task: asyncio.Task[None] | None = None
        self.use(self._connect())

    def use(self, client: Client) -> None:
        """Switch to a new client."""
        self.client = client
        client.on_state(self._wake)
        self._wake()

    @property
    def options(self) -> Options:
        """The options of the client."""
        return self.client._core.options  # pyright: ignore[reportPrivateUsage]

    async def keep(self) -> None:
        """Replace the client whenever it has ended for good.

        Without a reference to the pool, so that a pool can be dropped.
        """
        options, loop = self.options, asyncio.get_running_loop()
        backoff = Backoff(options.backoff, options.max_backoff, options.uniform)
        while True:
            opened_at = loop.time()
            await self.ended()
            backoff.lasted(loop.time() - opened_at)
            logger.warning("A connection of the pool to %s has ended and is replaced.", self._url)
            while self.client.closed is not None:
                await asyncio.sleep(backoff.next())
                client = self._connect()
                try:
                    await client
                except DisconnectedError as error:
                    logger.warning("A connection of the pool could not be replaced: %s", error)
                    if error.refusal is not None and not error.refusal.retryable:
                        return
                else:
                    self.use(client)

    async def ended(self) -> None:
        """Wait until the client has ended for good."""
        while self.client.closed is None:
            await self._change()

    async def replaced(self, seconds: float, what: str) -> float:
        """Wait for the next client; return the seconds that are left."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                while self.client.closed is not None and self.task is not None and not self.task.done():
                    await self._change()
        except TimeoutError:
            raise RequestTimeoutError(
                f"{what} within {seconds:g} s: its connection has ended for good."
            ) from None
        return max(deadline - loop.time(), 0.001)

    def _connect(self) -> Client:
        return connect(self._url, **self._connect_options)

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed.append(waiter)
        await waiter

    def _wake(self, state: State | None = None) -> None:
        changed, self._changed = self._changed, []
        for waiter in changed:
            if not waiter.done():
                waiter.set_result(None)


async def _open(client: Client) -> None:
    await client


def _drop(slots: list[_Slot]) -> None:
    for slot in slots:
        if slot.task is not None:
            slot.task.cancel()
        slot.client._core.drop()  # pyright: ignore[reportPrivateUsage]


def _busy(slot: _Slot) -> tuple[bool, int, int]:
    """Return the order in which slots are used: open ones first, then the least busy ones.

    Of equally busy ones, the one that was picked least often: a stream counts
    only from its first item on.
    """
    core = slot.client._core  # pyright: ignore[reportPrivateUsage]
    return slot.client.state != "open", len(core.answers) + len(core.outgoing), slot.picked
