"""One connection of the test client: a client, and what only a test asks for."""

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
from symphony.client.link import Close
from symphony.client.options import Options, Token
from symphony.client.payload import reader
from symphony.errors import DisconnectedError
from symphony.protocol.frames import valid_close_code
from symphony.testing.clock import settle
from symphony.testing.memory import MemoryDial
from symphony.transport.base import Message

__all__ = ("Connecting", "TestConnection")

# Loop time, which a test may advance; its own patience is in real time.
_NEVER: Final = 10.0**9
_MAX_WAITING: Final = 100_000


class TestConnection(Client):
    """A client of the app, as `symphony.connect` gives it, connected in memory.

    It has all of a client's verbs: `send`, `emit`, `request`, `stream`, `on`,
    `close`. What the app sends is received one by one: messages of a raw
    connection by `receive`, and events for which the test has registered no
    handler by `receive_event`. It does not come back when it is lost.

    Attributes:
        path: What it is connected to.
    """

    __test__ = False
    __slots__ = ("_dial", "_events", "_timeout", "_waiters", "path")

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
        self._core.dispatch.unhandled = self._take_event

    @property
    def subprotocol(self) -> str | None:
        """What the app chose of all that was offered."""
        return self._dial.link.chosen if self._dial.link is not None else None

    async def ended(self) -> None:
        """Return when the app has finished with this connection; part of leaving `TestClient`."""
        if self._dial.link is not None:
            await self._dial.link.wait_closed()
            self._dial.link.check()
        await super().close()

    async def open(self) -> None:
        """Shake hands; part of `TestClient.connect`."""
        opening = asyncio.ensure_future(self._open())
        opening.add_done_callback(lambda _: self._tell())
        answered = "The handshake was not answered: middleware or the connect handler still runs."
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
        """Return the next message of a raw connection, in the order they were sent.

        Args:
            timeout: Seconds of real time to wait. `None`: the client's.

        Raises:
            DisconnectedError: The app has closed, and every message was received.
            TimeoutError: None came in time.
        """
        messages = self._core.messages
        await self._until(lambda: bool(messages) or self.closed is not None, "No message came.", timeout)
        if messages:
            return messages.take()
        raise self._reconnector.error()

    async def receive_text(self, *, timeout: float | None = None) -> str:
        """Return the next message, which must be text; else as `receive`."""
        message = await self.receive(timeout=timeout)
        if isinstance(message, str):
            return message
        raise AssertionError(f"Text was expected from {self.path}, and bytes came: {message!r}")

    async def receive_bytes(self, *, timeout: float | None = None) -> bytes:
        """Return the next message, which must be binary; else as `receive`."""
        message = await self.receive(timeout=timeout)
        if isinstance(message, bytes):
            return message
        raise AssertionError(f"Bytes were expected from {self.path}, and text came: {message!r}")

    async def receive_json(self, *, timeout: float | None = None) -> Any:
        """Return the next message decoded, which must be JSON; else as `receive`."""
        message = await self.receive(timeout=timeout)
        try:
            return msgspec.json.decode(message)
        except msgspec.DecodeError:
            raise AssertionError(f"JSON was expected from {self.path}, and this came: {message!r}") from None

    async def receive_event(self, event: str, *, type: Any = Any, timeout: float | None = None) -> Any:
        """Return the data of the next event that no handler took.

        Args:
            event: Its name, which must be this.
            type: What its data becomes, as with the annotation of a handler.
            timeout: Seconds of real time to wait. `None`: the client's.

        Raises:
            AssertionError: Another event came.
            DisconnectedError: The app has closed, and every event was received.
            TimeoutError: None came in time.
        """
        await self._until(
            lambda: bool(self._events) or self.closed is not None, f"No event {event!r} came.", timeout
        )
        if not self._events:
            raise self._reconnector.error()
        name, data = self._events.popleft()
        if name != event:
            shown = reader(Any, self._core.kind)(data)
            raise AssertionError(f"{event!r} was expected from {self.path}, and {name!r} came: {shown!r}")
        return reader(type, self._core.kind)(data)

    async def nothing_more(self) -> None:
        """Check that nothing waits, once the app has nothing left to do but wait.

        It does not wait for threads, the network or time.

        Raises:
            AssertionError: There are messages or events, which it names.
        """
        await settle()
        came: list[str] = []
        while self._core.messages:
            came.append(repr(self._core.messages.take()))
        came.extend(f"{name} {reader(Any, self._core.kind)(data)!r}" for name, data in self._events)
        if came:
            waiting = ", ".join(came)
            raise AssertionError(f"Nothing more was expected from {self.path}, and this came: {waiting}")

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close from the client's side and let the app finish with this connection.

        When this returns, its disconnect handler has run. On a closed
        connection it only waits for that.

        Raises:
            TimeoutError: A handler was still at work when time was up.
            ValueError: A client must not send the code.
        """
        if not valid_close_code(code):
            raise ValueError(f"{code} is not a close code that may be sent; use 1000 or 3000-4999.")
        link = self._dial.link
        if link is None:
            return
        if link.ended is None:
            self._outgoing.flush(all=True)
            link.close(code, reason)
        await self._until(
            lambda: link.served, "The connection is closed, and a handler of the app is still at work."
        )
        link.check()
        await super().close(code, reason)

    async def drop(self) -> None:
        """Lose the connection without a close frame, as a client without network; else as `close`."""
        if self._dial.link is not None:
            self._dial.link.abort()
        await self.close()

    async def wait_closed(self, *, timeout: float | None = None) -> Close:
        """Wait until the app has closed the connection and finished with it.

        What came before can still be received.

        Args:
            timeout: Seconds of real time to wait. `None`: the client's.

        Raises:
            TimeoutError: It did not close in time.
        """
        await self._until(lambda: self.closed is not None, "The app did not close the connection.", timeout)
        link = self._dial.link
        assert link is not None
        await self._until(
            lambda: link.served, "The app closed the connection, and its handler is still at work.", timeout
        )
        return cast("Close", self.closed)

    def _take_event(self, event: str, data: Any) -> None:
        self._events.append((event, data))
        self._tell()

    async def _until(self, ready: Callable[[], bool], otherwise: str, timeout: float | None = None) -> None:
        """Wait in real time, whatever a test does to the loop's clock."""
        seconds = self._timeout if timeout is None else timeout
        end = monotonic() + seconds
        while not ready():
            left = end - monotonic()
            if left <= 0:
                raise TimeoutError(f"{self.path}: {otherwise} Waited for {seconds:g} s.")
            changed = asyncio.get_running_loop().create_future()
            self._waiters.append(changed)
            await asyncio.wait((changed,), timeout=left)

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, []
        for changed in waiters:
            if not changed.done():
                changed.set_result(None)


class Connecting:
    """What `TestClient.connect` gives: `await` it, or use it in `async with`."""

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
        # A handler that does not end, such as a stream, is not what a test is
        # about that does not ask; it is ended when the test client is left.
        with suppress(TimeoutError):
            await cast("TestConnection", self._connection).close()

    async def _open_one(self) -> TestConnection:
        connection = self._make()
        await connection.open()
        return connection
