"""One connection of the test client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Any, cast

import msgspec
from starlette.datastructures import Headers

from symphony.errors import SymphonyError
from symphony.protocol.codec import to_message
from symphony.protocol.frames import valid_close_code
from symphony.testing.clock import settle
from symphony.transport.base import Close, Message, Scope

__all__ = ("Connecting", "Disconnected", "Refused", "TestConnection")

Event = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]]

_SHOWN = 500


class Refused(SymphonyError):
    """The app refused the connection with an HTTP answer.

    Attributes:
        status: The HTTP status.
        headers: The answer's headers.
        body: The answer's body.
    """

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(f"HTTP {status}: {body[:_SHOWN].decode(errors='replace')}")
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """Return the decoded body: `code`, `message`, `retryable` and `details` of a `Reject`."""
        return msgspec.json.decode(self.body)


class Disconnected(SymphonyError):
    """The connection is closed, so that nothing can be received or sent any more.

    Attributes:
        code: The close code.
        reason: What was said with it.
    """

    def __init__(self, path: str, close: Close) -> None:
        said = f" ({close.reason})" if close.reason else ""
        super().__init__(f"The connection to {path} was closed with {close.code}{said}.")
        self.code = close.code
        self.reason = close.reason


class TestConnection:
    """An open connection, from its client's side; made by `TestClient.connect`.

    Attributes:
        path: What it is connected to.
        subprotocol: The one that the app chose, or `None`.
        closed: How it ended, `None` while it is open. Messages that came
            before the close can still be received.
    """

    __test__ = False

    def __init__(self, app: App, scope: Scope, timeout: float) -> None:
        self.path: str = scope["path"]
        self.subprotocol: str | None = None
        self.closed: Close | None = None
        self._timeout = timeout
        self._accepted = False
        self._refusal: tuple[int, Headers] | None = None
        self._refused: Refused | None = None
        self._messages: deque[Message] = deque()
        self._to_app: asyncio.Queue[Event] = asyncio.Queue()
        self._waiting: list[asyncio.Future[None]] = []
        self._serving = asyncio.ensure_future(self._serve(app, scope))

    async def ended(self) -> None:
        """Return when the app has finished with this connection; part of leaving `TestClient`."""
        await self._serving

    async def open(self) -> None:
        """Shake hands; part of `TestClient.connect`."""
        self._to_app.put_nowait({"type": "websocket.connect"})
        answered = "The handshake was not answered: middleware or the connect handler still runs."
        try:
            await self._until(lambda: self._accepted or self._serving.done(), answered)
        except BaseException:
            self._leave(Close(1006, "", clean=False))
            raise
        if self._accepted:
            return
        await self._serving
        if self._refused is not None:
            raise self._refused
        raise Disconnected(self.path, self.closed or Close(1006, "", clean=False))

    async def send(self, message: object) -> None:
        """Send a message to the app.

        Returns at once; the handler runs when the test next awaits something
        that waits, such as `receive` or `TestClient.settle`.

        Args:
            message: Text and bytes as they are, anything else as JSON text.

        Raises:
            Disconnected: The connection is closed.
        """
        if self.closed is not None:
            raise Disconnected(self.path, self.closed)
        message = to_message(message)
        kind = "text" if isinstance(message, str) else "bytes"
        self._to_app.put_nowait({"type": "websocket.receive", kind: message})

    async def receive(self, *, timeout: float | None = None) -> Message:
        """Return the next message from the app, in the order they were sent.

        Args:
            timeout: Seconds of real time to wait. `None`: the client's.

        Raises:
            Disconnected: The app has closed, and every message was received.
            TimeoutError: None came in time.
        """
        await self._until(
            lambda: bool(self._messages) or self.closed is not None, "No message came.", timeout
        )
        if self._messages:
            return self._messages.popleft()
        raise Disconnected(self.path, cast("Close", self.closed))

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

    async def nothing_more(self) -> None:
        """Check that no message waits, once the app has nothing left to do but wait.

        It does not wait for threads, the network or time.

        Raises:
            AssertionError: There are messages, which it names.
        """
        await settle()
        waiting = ", ".join(map(repr, self._messages))
        if waiting:
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
        self._leave(Close(code, reason, clean=True))
        await self._until(
            self._serving.done, "The connection is closed, and a handler of the app is still at work."
        )
        await self._serving

    async def drop(self) -> None:
        """Lose the connection without a close frame, as a client without network; else as `close`."""
        self._leave(Close(1006, "", clean=False))
        await self.close()

    async def wait_closed(self, *, timeout: float | None = None) -> Close:
        """Wait until the app has closed the connection and finished with it.

        Messages that came before can still be received.

        Args:
            timeout: Seconds of real time to wait. `None`: the client's.

        Raises:
            TimeoutError: It did not close in time.
        """
        await self._until(lambda: self.closed is not None, "The app did not close the connection.", timeout)
        await self._until(
            self._serving.done, "The app closed the connection, and its handler is still at work.", timeout
        )
        return cast("Close", self.closed)

    def _leave(self, close: Close) -> None:
        if self.closed is not None:
            return
        self.closed = close
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
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
            self._waiting.append(changed)
            await asyncio.wait((changed,), timeout=left)

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for changed in waiting:
            if not changed.done():
                changed.set_result(None)

    # What an ASGI server does

    async def _serve(self, app: App, scope: Scope) -> None:
        try:
            await app(scope, self._to_app.get, self._from_app)
        finally:
            if self.closed is None:
                self.closed = Close(1006, "", clean=False)
            self._tell()

    async def _from_app(self, event: Event) -> None:
        kind = event["type"]
        if kind == "websocket.accept":
            self._accepted = True
            self.subprotocol = event.get("subprotocol")
        elif kind == "websocket.http.response.start":
            self._refusal = (event["status"], Headers(raw=event["headers"]))
        elif kind == "websocket.http.response.body" and self._refusal is not None:
            self._refused = Refused(*self._refusal, event["body"])
            self._leave(Close(1006, "", clean=False))
        elif self.closed is not None:
            # As ASGI asks of a server whose client has gone.
            raise BrokenPipeError(f"The connection to {self.path} is closed.")
        elif kind == "websocket.send":
            text = event.get("text")
            self._messages.append(event["bytes"] if text is None else text)
        else:
            # The peer answers a close frame with its own.
            self._leave(Close(event["code"], event["reason"], clean=True))
        self._tell()


class Connecting:
    """What `TestClient.connect` gives: `await` it, or use it in `async with`."""

    def __init__(self, make: Callable[[], TestConnection]) -> None:
        self._make = make
        self._connection: TestConnection | None = None

    def __await__(self) -> Generator[Any, None, TestConnection]:
        return self._open().__await__()

    async def __aenter__(self) -> TestConnection:
        self._connection = connection = await self._open()
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A handler that does not end, such as a stream, is not what a test is
        # about that does not ask; it is ended when the test client is left.
        with suppress(TimeoutError):
            await cast("TestConnection", self._connection).close()

    async def _open(self) -> TestConnection:
        connection = self._make()
        await connection.open()
        return connection
