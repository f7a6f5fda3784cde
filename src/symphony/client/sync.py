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
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, Self
from warnings import warn

from typing_extensions import TypeForm, TypeVar

from symphony.client import connecting
from symphony.client.client import Client as AsyncClient
from symphony.client.handlers import check_name
from symphony.client.joining import Since
from symphony.client.loopthread import LoopThread
from symphony.client.loss import Closed
from symphony.client.payload import fit, message_reader, reader
from symphony.client.receiving import Receiver
from symphony.client.reconnector import State
from symphony.client.room import Room as AsyncRoom
from symphony.client.streams import Stream as AsyncStream
from symphony.client.syncroom import Room
from symphony.errors import DisconnectedError

__all__ = ("Client", "Room", "Stream", "connect")

P = ParamSpec("P")
T = TypeVar("T")
ReplyT = TypeVar("ReplyT", default=Any)

_FLUSH_TIMEOUT: Final = 5.0


class Client:
    """A blocking client of a Symphony server, or of any other WebSocket server.

    `connect` returns it; open it with `with` or `open()`. It has the methods of
    `symphony.Client`, and runs that client in an event loop in a background
    thread: it reconnects, and answers pings, while the program does other
    things. You may call its methods from any thread.
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
        """As `symphony.Client.state`; it may change at any time."""
        return self._client.state

    @property
    def closed(self) -> Closed | None:
        """As `symphony.Client.closed`."""
        return self._client.closed

    @property
    def protocol(self) -> str | None:
        """As `symphony.Client.protocol`."""
        return self._client.protocol

    @property
    def subprotocol(self) -> str | None:
        """As `symphony.Client.subprotocol`."""
        return self._client.subprotocol

    @property
    def dropped(self) -> int:
        """How many received events were dropped because too many were queued."""
        return self._receiver.inbox.dropped

    # Verbs

    def emit(self, event: str, data: Any = None) -> None:
        """Send an event, or queue it; for exceptions, see `symphony.Client.emit`.

        Waits while the server reads more slowly than you send.
        """
        self._wait(lambda: self._client.emit(event, data))

    def send(self, message: Any) -> None:
        """Send a message, or queue it; see `symphony.Client.send`.

        Waits while the server reads more slowly than you send.
        """
        self._wait(lambda: self._client.send(message))

    def request(
        self,
        event: str,
        data: Any = None,
        *,
        timeout: float | None = None,
        response_type: TypeForm[ReplyT] = Any,
        idempotent: bool = False,
    ) -> ReplyT:
        """Send a request and return its reply; see `symphony.Client.request`.

        Ctrl+C, or another exception of a signal handler, cancels the handler at
        the server.
        """
        return self._wait(
            lambda: self._client.request(
                event, data, timeout=timeout, response_type=response_type, idempotent=idempotent
            )
        )

    def stream(
        self, event: str, data: Any = None, *, credit: int = 64, response_type: TypeForm[ReplyT] = Any
    ) -> Stream[ReplyT]:
        """Request a stream, and iterate over its items; see `symphony.Client.stream`.

        `close()` or `with` cancels the stream at the server.
        """

        async def make() -> AsyncStream[ReplyT]:
            return self._client.stream(event, data, credit=credit, response_type=response_type)

        return Stream(self._wait(make), self._wait)

    def receive(
        self,
        event: str | None = None,
        *,
        timeout: float | None = None,
        response_type: TypeForm[ReplyT] = Any,
    ) -> ReplyT:
        """Return the data of the next event with a name; wait for it if needed.

        From when the client is opened, events are queued in the order in which
        they arrive. If several threads wait for one event, one of them gets it.

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
            return fit(message_reader(response_type, self._core.decoding.max_elements), message, "a message")
        check_name(event)
        read = reader(response_type, self._core.decoding)
        data = self._wait(lambda: receiver.within(timeout, receiver.event(event), f"No event {event!r}"))
        return fit(read, data, f"the event {event!r}")

    def join(self, room: str, *, since: Since = None, timeout: float | None = None) -> Room:
        """Join a room, and join it again on every later connection; see `symphony.Client.join`."""

        async def join() -> AsyncRoom:
            # In one step: from here, its publications are queued.
            return aiter(await self._client.join(room, since=since, timeout=timeout))

        return Room(self._wait(join), self._receiver, self._wait)

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

        Queued messages are sent first. In a forked process, or if the client is
        closed, this does nothing.

        Args:
            code: The close code.
            reason: The reason.
            timeout: Seconds to wait until all queued messages are sent. If some
                were not, the client logs how many.
        """
        self._end(timeout, code, reason)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After Ctrl+C, do not wait for a connection.
        self._end(0 if error is not None and not isinstance(error, Exception) else _FLUSH_TIMEOUT)

    # Type checkers know the mistake without it.
    if not TYPE_CHECKING:

        def __aenter__(self):
            raise TypeError(
                f"{self!r} is opened by `with`, not `async with`. In an event loop, use symphony.connect()."
            )

        def __aexit__(self, *_):
            raise NotImplementedError

    def __repr__(self) -> str:
        return f"<blocking Client {self._where} {self.state}>"

    def __del__(self) -> None:
        thread = getattr(self, "_thread", None)
        if thread is not None and not thread.forked and self._client.closed is None:
            warn(f"{self!r} was not closed; use `with`, or close().", ResourceWarning, stacklevel=2)
            # The garbage collector runs this in any thread, at any time: it does not wait.
            thread.stop(wait=False)

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
