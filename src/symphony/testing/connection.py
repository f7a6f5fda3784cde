"""A connection of the test client: the Python client with methods for tests."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Any, Final, Literal, cast

import msgspec

from symphony.client.client import Client
from symphony.client.core import RAW
from symphony.client.joining import Since
from symphony.client.loss import Closed
from symphony.client.options import Options, Token
from symphony.client.payload import reader
from symphony.errors import DisconnectedError, WrongRouteError, check_close_code
from symphony.outgoing.encoding import Message
from symphony.testing.clock import Clock, settle
from symphony.testing.memory import MemoryDial
from symphony.testing.room import TestRoom

__all__ = ("Connecting", "TestConnection")

# In loop time, which a test may advance. The test client waits in real time instead.
_NEVER: Final = 10.0**9
_MAX_WAITING: Final = 100_000


class TestConnection(Client):
    """The client of `symphony.connect`, connected to the app in memory.

    It has all methods of a client: `send`, `emit`, `request`, `stream`, `on`,
    `close`. On a raw connection, `receive` returns the next message. On a
    connection with events, `receive_event` returns the next event for which the
    test has no handler. The connection does not reconnect.

    Attributes:
        path: The path that it is connected to.
    """

    __test__ = False
    __slots__ = ("_dial", "_events", "_rooms", "_timeout", "_waiters", "path")

    def __init__(
        self,
        dial: Callable[[Callable[[], None]], MemoryDial],
        *,
        token: Token,
        protocol: Literal["json", "msgpack", "raw"],
        subprotocols: tuple[str, ...],
        timeout: float,
    ) -> None:
        self._waiters: list[asyncio.Future[None]] = []
        self._dial = dial(self._tell)
        options = Options(
            token=token,
            protocol="json" if protocol == "raw" else protocol,
            subprotocols=subprotocols,
            reconnect=False,
            connect_timeout=_NEVER,
            max_queue=_MAX_WAITING,
        )
        super().__init__(self._dial, options)
        self.path = self._dial.where
        self._timeout = timeout
        self._events: deque[tuple[str, Any]] = deque()
        self._rooms: dict[str, TestRoom] = {}
        self._core.dispatch.unhandled = self._take_event

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the app chose."""
        return self._dial.link.chosen if self._dial.link is not None else None

    async def ended(self) -> None:
        """Wait until the app has finished with this connection; used by `TestClient`."""
        if self._dial.link is not None:
            await self._dial.link.wait_closed()
            self._dial.link.check()
        await super().close()

    async def open(self) -> None:
        """Connect to the app; used by `TestClient.connect`."""
        opening = asyncio.ensure_future(self._open())
        opening.add_done_callback(lambda _: self._tell())
        answered = "The handshake was not answered. Middleware or the connect handler is still running."
        try:
            await self._until(opening.done, answered)
        except BaseException:
            opening.cancel()
            await asyncio.wait((opening,))
            raise
        try:
            await opening
        except DisconnectedError:
            link = self._dial.link
            if link is not None and link.refused is not None:
                raise link.refused from None
            raise

    async def receive(self, *, timeout: float | None = None) -> Message:
        """Return the next message of a raw connection, in the order of sending.

        Args:
            timeout: The longest wait in seconds of real time. `None` uses the
                timeout of the test client.

        Raises:
            WrongRouteError: The connection speaks events: use `receive_event`.
            DisconnectedError: The app has closed the connection, and all
                messages have been received.
            TimeoutError: No message was received in time.
        """
        if self.protocol not in (None, RAW):
            raise WrongRouteError(
                f"{self.path} speaks events, which have names: use receive_event('name'). receive, "
                "receive_text, receive_bytes and receive_json are for raw connections; connect with "
                "protocol='raw' to see the envelopes."
            )
        messages = self._core.messages
        await self._until(
            lambda: bool(messages) or self.closed is not None, "No message was received.", timeout
        )
        if messages:
            return messages.take()
        raise self._reconnector.error()

    async def receive_text(self, *, timeout: float | None = None) -> str:
        """Return the next message like `receive`; it must be text."""
        message = await self.receive(timeout=timeout)
        if isinstance(message, str):
            return message
        raise AssertionError(f"Expected text from {self.path}, but received bytes: {message!r}")

    async def receive_bytes(self, *, timeout: float | None = None) -> bytes:
        """Return the next message like `receive`; it must be binary."""
        message = await self.receive(timeout=timeout)
        if isinstance(message, bytes):
            return message
        raise AssertionError(f"Expected bytes from {self.path}, but received text: {message!r}")

    async def receive_json(self, *, timeout: float | None = None) -> Any:
        """Return the next message like `receive`, decoded from JSON."""
        message = await self.receive(timeout=timeout)
        try:
            return msgspec.json.decode(message)
        except msgspec.DecodeError:
            raise AssertionError(f"Expected JSON from {self.path}, but received: {message!r}") from None

    async def receive_event(self, event: str, *, type: Any = Any, timeout: float | None = None) -> Any:
        """Return the data of the next event that has no handler.

        Args:
            event: The expected name of the event.
            type: The type to decode the data into, like the annotation of a
                handler.
            timeout: The longest wait in seconds of real time. `None` uses the
                timeout of the test client.

        Raises:
            AssertionError: Another event was received.
            WrongRouteError: The connection is raw: use `receive`.
            DisconnectedError: The app has closed the connection, and all
                events have been received.
            TimeoutError: No event was received in time.
        """
        if self.protocol == RAW:
            raise WrongRouteError(
                f"{self.path} is a raw connection, without events: its route has no event handler. Use "
                "receive(), receive_text() or receive_json(), or write app.route(path, events=True)."
            )
        otherwise = f"No event {event!r} was received."
        if self._rooms:
            otherwise += (
                f" The publications of {next(reversed(self._rooms))!r} are for the room that join() has "
                "returned: use room.receive(), iterate over it, or register room.on()."
            )
        await self._until(lambda: bool(self._events) or self.closed is not None, otherwise, timeout)
        if not self._events:
            raise self._reconnector.error()
        name, data = self._events.popleft()
        if name != event:
            shown = reader(Any, self._core.decoding)(data)
            raise AssertionError(f"Expected {event!r} from {self.path}, but received {name!r}: {shown!r}")
        return reader(type, self._core.decoding)(data)

    async def join(self, room: str, *, since: Since = None, timeout: float | None = None) -> TestRoom:
        """Join a room as `Client.join` does.

        Returns:
            The room. Its `receive` returns the next publication that has no
            handler.
        """
        joined = await super().join(room, since=since, timeout=timeout)
        known = self._rooms.get(room)
        if known is None or not known._is_same(joined):  # pyright: ignore[reportPrivateUsage]
            known = self._rooms[room] = TestRoom(joined, self._until, self._tell)
        return known

    async def nothing_more(self) -> None:
        """Wait until the app is idle, and check that nothing is left to receive, in its rooms too.

        This does not wait for threads, the network or time.

        Raises:
            AssertionError: There are messages or events. The message lists them.
        """
        await settle()
        came: list[str] = []
        while self._core.messages:
            came.append(repr(self._core.messages.take()))
        came.extend(f"{name} {reader(Any, self._core.decoding)(data)!r}" for name, data in self._events)
        for room in self._rooms.values():
            while room.waiting and (publication := await anext(room, None)) is not None:
                came.append(f"{publication.event} {publication.data!r} in {room.name}")
        if came:
            waiting = ", ".join(came)
            raise AssertionError(f"Expected nothing more from {self.path}, but received: {waiting}")

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, and wait until the app has finished with it.

        When this returns, the disconnect handler has run. On a closed
        connection this only waits.

        Raises:
            TimeoutError: A handler was still running after the timeout.
            ValueError: A client must not send this code.
        """
        check_close_code(code)
        link = self._dial.link
        if link is None:
            return
        if link.ended is None:
            self._outgoing.flush(all=True)
            link.close(code, reason)
        await self._until(
            lambda: link.served, "The connection is closed, but a handler of the app is still running."
        )
        link.check()
        await super().close(code, reason)

    async def drop(self) -> None:
        """End the connection like `close`, but without a close frame, like a broken network."""
        if self._dial.link is not None:
            self._dial.link.abort()
        await self.close()

    async def wait_closed(self, *, timeout: float | None = None) -> Closed:
        """Wait until the app has closed the connection and finished with it.

        Messages that were sent before can still be received.

        Args:
            timeout: The longest wait in seconds of real time. `None` uses the
                timeout of the test client.

        Raises:
            TimeoutError: The app did not close the connection in time.
        """
        await self._until(lambda: self.closed is not None, "The app did not close the connection.", timeout)
        link = self._dial.link
        assert link is not None
        await self._until(
            lambda: link.served, "The app closed the connection, but its handler is still running.", timeout
        )
        return cast("Closed", self.closed)

    def _take_event(self, event: str, data: Any) -> None:
        self._events.append((event, data))
        self._tell()

    async def _until(self, ready: Callable[[], bool], otherwise: str, timeout: float | None = None) -> None:
        """Wait in real time, even if the test advances the clock of the loop."""
        seconds = self._timeout if timeout is None else timeout
        end = monotonic() + seconds
        while not ready():
            left = end - monotonic()
            if left <= 0:
                raise TimeoutError(f"{self.path}: {otherwise} Waited for {seconds:g} s.{_hint()}")
            changed = asyncio.get_running_loop().create_future()
            self._waiters.append(changed)
            await asyncio.wait((changed,), timeout=left)

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, []
        for changed in waiters:
            if not changed.done():
                changed.set_result(None)


def _hint() -> str:
    if not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        return ""
    if not Clock.of_running_loop()._ticks_wait:  # pyright: ignore[reportPrivateUsage]
        return ""
    return " Rooms tick only in `await client.clock.advance(seconds)`."


class Connecting:
    """The result of `TestClient.connect`: `await` it, or use it in `async with`."""

    def __init__(self, make: Callable[[], TestConnection]) -> None:
        self._make = make
        self._connection: TestConnection | None = None

    def __await__(self) -> Generator[Any, None, TestConnection]:
        return self._open_one().__await__()

    async def __aenter__(self) -> TestConnection:
        self._connection = connection = await self._open_one()
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Ignore a handler that does not end, such as a stream. It is cancelled when
        # the test client is left.
        with suppress(TimeoutError):
            await cast("TestConnection", self._connection).close()

    def __getattr__(self, name: str) -> Any:
        if hasattr(TestConnection, name):
            raise AttributeError(
                f"The connection is not open, so it has no {name} yet. Write `async with client.connect(...) "
                "as connection:`, or `connection = await client.connect(...)`."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    async def _open_one(self) -> TestConnection:
        connection = self._make()
        await connection.open()
        return connection
