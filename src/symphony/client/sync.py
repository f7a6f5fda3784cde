"""A blocking client, for scripts and other code without an event loop.

```python
import symphony.client.sync

with symphony.client.sync.connect("ws://127.0.0.1:8080/chat") as client:
    print(client.request("sum", [1, 2, 3]))
```
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Lock
from types import TracebackType
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar, overload
from warnings import warn

from typing_extensions import TypeForm

from symphony.client import connecting
from symphony.client.client import Client as AsyncClient
from symphony.client.handlers import check_name
from symphony.client.loopthread import LoopThread
from symphony.client.loss import Closed
from symphony.client.payload import fit, message_reader, reader
from symphony.client.receiving import Receiver
from symphony.client.reconnector import State
from symphony.client.streams import Stream as AsyncStream
from symphony.errors import DisconnectedError

__all__ = ("Client", "Stream", "connect")

P = ParamSpec("P")
T = TypeVar("T")

_FLUSH_TIMEOUT: Final = 5.0


class Client:
    """A blocking client of a Symphony server, or of any other WebSocket server.

    It reconnects automatically. Its event loop runs in a thread of its own, so
    pings are answered while the program does other things. All methods may be
    called from any thread.

    `connect` returns it. Open it with `with` or `open()`.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._core = client._core  # pyright: ignore[reportPrivateUsage]
        self._where = self._core.where
        self._receiver = Receiver(client)
        self._lock = Lock()
        self._thread: LoopThread | None = None

    # State

    @property
    def state(self) -> State:
        """As `state` of the async client; it may change at any time."""
        return self._client.state

    @property
    def closed(self) -> Closed | None:
        """How it ended for good: `code`, `reason` and `refusal`; `None` before."""
        return self._client.closed

    @property
    def protocol(self) -> str | None:
        """As `protocol` of the async client."""
        return self._client.protocol

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server chose."""
        return self._client.subprotocol

    @property
    def dropped(self) -> int:
        """How many received events were dropped because too many were queued."""
        return self._receiver.inbox.dropped

    # Verbs

    def emit(self, event: str, data: Any = None) -> None:
        """Send an event, or queue it until there is a connection.

        Waits while the server reads more slowly than you send.

        Raises:
            QueueFullError: `max_queue` messages are already queued.
            DisconnectedError: The client is closed.
            TypeError: The data cannot be encoded.
        """
        self._wait(lambda: self._client.emit(event, data))

    def send(self, message: Any) -> None:
        """Send a message; on an event connection, as the event `message`.

        Raises:
            QueueFullError: As for `emit`.
            DisconnectedError: As for `emit`.
            TypeError: As for `emit`.
        """
        self._wait(lambda: self._client.send(message))

    @overload
    def request(
        self,
        event: str,
        data: Any = None,
        *,
        timeout: float | None = None,
        response_type: TypeForm[T],
        idempotent: bool = False,
    ) -> T: ...
    @overload
    def request(
        self,
        event: str,
        data: Any = None,
        *,
        timeout: float | None = None,
        response_type: Any = Any,
        idempotent: bool = False,
    ) -> Any: ...
    def request(
        self,
        event: str,
        data: Any = None,
        *,
        timeout: float | None = None,
        response_type: Any = Any,
        idempotent: bool = False,
    ) -> Any:
        """Send a request and return its reply.

        Ctrl+C, or another exception of a signal handler, cancels the handler at
        the server. For arguments and exceptions, see the async client.
        """
        return self._wait(
            lambda: self._client.request(
                event, data, timeout=timeout, response_type=response_type, idempotent=idempotent
            )
        )

    @overload
    def stream(
        self, event: str, data: Any = None, *, credit: int = 64, response_type: TypeForm[T]
    ) -> Stream[T]: ...
    @overload
    def stream(
        self, event: str, data: Any = None, *, credit: int = 64, response_type: Any = Any
    ) -> Stream[Any]: ...
    def stream(
        self, event: str, data: Any = None, *, credit: int = 64, response_type: Any = Any
    ) -> Stream[Any]:
        """Send a request for a stream, and iterate over its items.

        `close()` or `with` cancels the stream at the server. For arguments, see
        the async client.
        """

        async def make() -> AsyncStream[Any]:
            return self._client.stream(event, data, credit=credit, response_type=response_type)

        return Stream(self._wait(make), self._wait)

    @overload
    def receive(self, event: str, *, timeout: float | None = None, response_type: TypeForm[T]) -> T: ...
    @overload
    def receive(
        self, event: str | None = None, *, timeout: float | None = None, response_type: Any = Any
    ) -> Any: ...
    def receive(
        self, event: str | None = None, *, timeout: float | None = None, response_type: Any = Any
    ) -> Any:
        """Return the data of the next event of a name; wait for it if needed.

        Events are queued from when the client is opened, in the order in which
        they arrived. If several threads wait for one event, one of them gets it.

        Args:
            event: The name of the event. On a raw connection, omit it: the next
                message is returned, as text or bytes.
            timeout: Seconds to wait; `None`: no limit; 0: do not wait.
            response_type: The type of the data, as in `request`.

        Raises:
            TimeoutError: Nothing arrived in time.
            DisconnectedError: The client is closed, and nothing is queued.
            RemoteError: The data does not match `response_type` (code `invalid`).
            WrongRouteError: An event was asked for on a raw connection, or a
                message on a connection with events.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be 0 or more, or None, not {timeout!r}.")
        receiver = self._receiver
        if event is None:
            message = self._wait(lambda: receiver.within(timeout, receiver.message(), "No message"))
            return fit(message_reader(response_type), message, "a message")
        check_name(event)
        read = reader(response_type, self._core.kind)
        data = self._wait(lambda: receiver.within(timeout, receiver.event(event), f"No event {event!r}"))
        return fit(read, data, f"the event {event!r}")

    # Open and close

    def open(self) -> Self:
        """Connect, and return the client itself; `with` does the same.

        Raises:
            RefusedError: The server refused the connection.
            DisconnectedError: No connection opened in time, or the client is
                closed.
        """
        with self._lock:
            if self._thread is None:
                if self._client.closed is not None:
                    raise self._receiver.over()
                self._thread = LoopThread(self._where)
        try:
            self._thread.wait(lambda: self._client._open())  # pyright: ignore[reportPrivateUsage]
        except BaseException:
            self._end(0)
            raise
        return self

    def close(self, code: int = 1000, reason: str = "", *, timeout: float = _FLUSH_TIMEOUT) -> None:
        """Close the client for good.

        Queued messages are sent first. Closing a closed client does nothing; nor
        does it in a forked process.

        Args:
            code: The close code.
            reason: The reason.
            timeout: How long to wait for a connection, and for a server that
                reads slowly, if messages are still queued. Messages that could
                not be sent are counted in the log.
        """
        self._end(timeout, code, reason)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After Ctrl+C, do not wait for a connection.
        self._end(0 if error is not None and not isinstance(error, Exception) else _FLUSH_TIMEOUT)

    def __repr__(self) -> str:
        return f"<blocking Client {self._where} {self.state}>"

    def __del__(self) -> None:
        thread = getattr(self, "_thread", None)
        if thread is not None and not thread.forked and self._client.closed is None:
            warn(f"{self!r} was not closed; use `with`, or close().", ResourceWarning, stacklevel=2)
            thread.stop()

    # In the thread of the caller

    def _wait(self, call: Callable[[], Any]) -> Any:
        thread = self._thread
        if thread is None:
            if self._client.closed is not None:
                raise self._receiver.over()
            raise RuntimeError(
                f"The client of {self._where} was never opened: write `with client:` around this, "
                "or call client.open() before it."
            )
        try:
            return thread.wait(call)
        except RuntimeError:
            if self._client.closed is not None and self._thread is None:
                raise self._receiver.over() from None
            raise

    def _end(self, timeout: float, code: int = 1000, reason: str = "") -> None:
        with self._lock:
            thread = self._thread
            if thread is None:
                if self._client.closed is None:
                    asyncio.run(self._client.close(code, reason))
                return
            if thread.forked:
                return
            try:
                thread.wait(lambda: self._receiver.close(timeout, code, reason))
            finally:
                thread.stop()
                self._thread = None


class Stream(Iterator[T], Generic[T]):
    """The items of a stream: `for item in client.stream("count", 3)`.

    The request is sent when the first item is requested. `close()` and `with`
    cancel the stream; so does leaving the loop, when nothing refers to the
    stream any more.
    """

    __slots__ = ("_stream", "_wait")

    def __init__(self, stream: AsyncStream[T], wait: Callable[[Callable[[], Any]], Any]) -> None:
        self._stream = stream
        self._wait = wait

    def __next__(self) -> T:
        """Return the next item.

        Raises:
            RemoteError: The stream has failed, after the earlier items.
            DisconnectedError: The connection was lost.
            RequestTimeoutError: The request could not be sent in time.
        """
        ended = object()
        stream = self._stream
        item = self._wait(lambda: anext(stream, ended))
        if item is ended:
            raise StopIteration
        return item

    def close(self) -> None:
        """Cancel the stream, unless it is complete."""
        stream = self._stream
        with suppress(DisconnectedError):
            self._wait(stream.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _blocking(make: Callable[P, AsyncClient]) -> Callable[P, Client]:
    @functools.wraps(make)
    def connect(*args: P.args, **kwargs: P.kwargs) -> Client:
        return Client(make(*args, **kwargs))

    connect.__module__ = __name__
    connect.__doc__ = "Return a blocking client; it takes the arguments of `symphony.connect`."
    connect.__annotations__ = {**make.__annotations__, "return": "Client"}
    return connect


connect = _blocking(connecting.connect)
