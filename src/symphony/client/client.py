"""The client: the same verbs as on the server, over a connection that comes back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from threading import get_ident
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload

from typing_extensions import TypeForm

from symphony.client.core import RAW, Core
from symphony.client.handlers import check_name
from symphony.client.link import Close, Dial
from symphony.client.options import Options
from symphony.client.payload import InvalidError, Reader, reader, snapshot
from symphony.client.reconnector import State
from symphony.client.requests import Request
from symphony.client.streams import Flow, Stream
from symphony.errors import RemoteError, WrongThreadError
from symphony.protocol.v1 import MAX_CREDIT
from symphony.websocket.frames import valid_close_code

__all__ = ("Client",)

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_ERROR: Final = "error"
_NORMAL: Final = (1000, 1001)


class Client:
    """A connection to a Symphony server, or to any other raw WebSocket, that comes back.

    Made by `symphony.connect`; open in `async with`, or after `await`. All of
    it belongs to the thread of the event loop that it was opened in.

    Args:
        dial: Gets its links.
        options: What `connect` was told.
    """

    __slots__ = ("__weakref__", "_core", "_outgoing", "_reconnector", "_request_timeout", "_thread")

    def __init__(self, dial: Dial, options: Options) -> None:
        self._core = Core(dial, options)
        self._outgoing = self._core.outgoing
        self._reconnector = self._core.reconnector
        self._request_timeout = options.request_timeout
        self._thread = 0

    # What it is

    @property
    def state(self) -> State:
        """`"new"`, `"connecting"`, `"open"`, `"waiting"` before the next attempt, or `"closed"` for good."""
        return self._reconnector.state

    @property
    def closed(self) -> Close | None:
        """How it ended for good: `code` and `reason`; `None` before."""
        return self._reconnector.ended

    @property
    def protocol(self) -> str | None:
        """`"symphony.v1.json"`, `"symphony.v1.msgpack"` or `"raw"`; `None` before it was ever open."""
        return self._core.protocol

    @property
    def subprotocol(self) -> str | None:
        """What the server chose of all that was offered, `subprotocols=` included."""
        return self._core.subprotocol

    # Verbs

    def emit(self, event: str, data: Any = None) -> Awaitable[None]:
        """Send an event: at once, or as soon as there is a connection, in order.

        Delivered at most once: what was on its way when a connection is lost
        is lost with it. Whoever must know sends a `request`.

        Returns:
            What may be awaited, and need not be: it waits while the server
            takes less than is sent.

        Raises:
            QueueFullError: `max_queue` messages wait already.
            DisconnectedError: The client is closed.
            RuntimeError: The client was never opened.
            TypeError: The data cannot be encoded.
        """
        self._check(event)
        return self._outgoing.emit(event, data)

    def send(self, message: Any) -> Awaitable[None]:
        """Send a message; on an event connection, as the event `message`.

        Args:
            message: On a raw connection, text and bytes go as they are and
                anything else as JSON text.

        Raises:
            QueueFullError: As `emit`, and so are the others.
        """
        self._check()
        return self._outgoing.send(message)

    @overload
    async def request(
        self,
        event: str,
        data: Any = None,
        *,
        timeout: float | None = None,
        response_type: TypeForm[T],
        idempotent: bool = False,
    ) -> T: ...
    @overload
    async def request(
        self,
        event: str,
        data: Any = None,
        *,
        timeout: float | None = None,
        response_type: Any = Any,
        idempotent: bool = False,
    ) -> Any: ...
    async def request(
        self,
        event: str,
        data: Any = None,
        *,
        timeout: float | None = None,
        response_type: Any = Any,
        idempotent: bool = False,
    ) -> Any:
        """Send a request and return its reply.

        Cancelling whoever waits cancels the handler at the server. Without a
        connection it waits for one, as long as it has time.

        Args:
            event: Its name.
            data: What it carries.
            timeout: Seconds in all; `None`: the client's `request_timeout`;
                `math.inf`: for ever.
            response_type: What the reply becomes: anything msgspec decodes,
                or a pydantic model. `Any`: plain Python values.
            idempotent: Whether doing it twice does no harm. Then it is sent
                again if the connection is lost before the reply.

        Raises:
            RemoteError: The server answered with an error, or the reply does
                not fit `response_type` (code `invalid`).
            RequestTimeoutError: There was no reply in time.
            DisconnectedError: The connection was lost after it was sent, or the
                client was closed.
            QueueFullError: Without a connection, or while the server stops:
                `max_queue` messages wait already.
            RuntimeError: The client was never opened, or the connection is raw.
        """
        self._check(event)
        seconds = self._request_timeout if timeout is None else timeout
        if not seconds > 0:
            raise ValueError(f"timeout must be above 0, not {timeout!r}.")
        read = reader(response_type, self._core.kind)
        if idempotent or not self._outgoing.clear:
            # It may be sent later, or twice, and the object be changed meanwhile.
            data = snapshot(data, self._core.kind)
        request = Request(
            self._core.answers, event, data, timeout=seconds, idempotent=idempotent, where=self._core.where
        )
        goes_on = self._core.dispatch.while_waiting()
        try:
            reply = await request.reply()
        finally:
            goes_on()
        return _fit(read, reply, f"the reply to {event!r}")

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
        """Send a request that is answered by a stream, and iterate over its items.

        Leaving the loop early cancels the stream at the server.

        Args:
            event: Its name.
            data: What it carries.
            credit: How many items may wait here; the server's generator goes
                on as they are taken.
            response_type: What each item becomes, as in `request`.
        """
        self._check(event)
        if not 1 <= credit <= MAX_CREDIT:
            raise ValueError(f"credit is the number of items that may wait, 1 or more, not {credit!r}.")
        read = reader(response_type, self._core.kind)

        def start() -> Flow:
            self._check(event)
            value = data if self._outgoing.clear else snapshot(data, self._core.kind)
            timeout = self._request_timeout
            return Flow(
                self._core.answers, event, value, credit=credit, timeout=timeout, where=self._core.where
            )

        return Stream(
            start, lambda item: _fit(read, item, f"an item of {event!r}"), self._core.dispatch.while_waiting
        )

    # Handlers

    @overload
    def on(self, event: str) -> Callable[[F], F]: ...
    @overload
    def on(self, event: str, handler: F) -> F: ...
    def on(self, event: str, handler: F | None = None) -> F | Callable[[F], F]:
        """Register what runs for each event of a name that the server sends.

        A handler takes the data, or nothing; what its parameter is annotated
        with decides what the data must be. It may be plain or async. Handlers
        of events run one after the other; those of requests beside them, and
        what the first one registered returns is the reply: `Reject` and other
        exceptions are error answers.

        Args:
            event: Its name; `"message"` for what the server sends without
                one, also on a raw connection; `"*"` for all that no other
                handler takes, called with event and data.
            handler: Left out in `@client.on("said")`.

        Raises:
            ConfigurationError: It cannot be called with data, or its
                annotation is nothing that can be decoded.
        """
        if handler is not None:
            self._core.dispatch.handlers.add(event, handler)
            return handler
        check_name(event)

        def register(handler: F) -> F:
            self._core.dispatch.handlers.add(event, handler)
            return handler

        return register

    def off(self, event: str, handler: Callable[..., Any]) -> None:
        """Undo `on`."""
        self._core.dispatch.handlers.remove(event, handler)

    def on_state(self, handler: F) -> F:
        """Register what is called with each new `state`; a plain function at once, an async one soon."""
        self._core.state_handlers.append(handler)
        return handler

    # Its life

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close for good: what was sent is still delivered, what is under way fails.

        Waits until the server has said goodbye, at most 5 seconds, and until
        the handlers have ended, which are cancelled. A closed client is left
        as it is.

        Raises:
            ValueError: The code must not be sent; use 1000 or 3000 to 4999.
        """
        if not valid_close_code(code):
            raise ValueError(f"{code} is not a close code that may be sent; use 1000 or 3000-4999.")
        self._check_thread()
        if self.closed is None:
            self._outgoing.flush(all=True)
        await self._reconnector.close(code, reason)
        await self._core.dispatch.aclose()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __await__(self) -> Generator[Any, None, Self]:
        return self._open().__await__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        """Return the next message of a raw connection.

        Ends where the connection does for good; lost ones in between don't
        show.

        Raises:
            DisconnectedError: It ended otherwise than with 1000 or 1001.
        """
        while not self._core.messages:
            if self.closed is not None:
                if self.closed.code in _NORMAL:
                    raise StopAsyncIteration
                raise self._reconnector.error()
            if not self._thread:
                raise self._not_open()
            if self.protocol not in (None, RAW):
                raise RuntimeError(
                    f"{self._core.where} speaks events: register @client.on(...); "
                    "only raw connections are iterated over."
                )
            await self._core.wait_for_message()
        return self._core.messages.take()

    def __repr__(self) -> str:
        return f"<Client {self._core.where} {self.state}>"

    async def _open(self) -> Self:
        self._check_thread()
        self._thread = get_ident()
        await self._reconnector.open()
        return self

    def _check(self, event: str | None = None) -> None:
        if self._reconnector.ended is not None:
            raise self._reconnector.error()
        if get_ident() != self._thread:
            if not self._thread:
                raise self._not_open()
            self._check_thread()
        if event is not None:
            check_name(event)
            if event == _ERROR:
                raise ValueError("The event 'error' is Symphony's own; take another name.")

    def _not_open(self) -> RuntimeError:
        return RuntimeError(
            f"The client of {self._core.where} was never opened: write `async with client:` around this, "
            "or `await client` before it."
        )

    def _check_thread(self) -> None:
        if self._thread and get_ident() != self._thread:
            raise WrongThreadError(
                f"{self!r} was used outside its event loop's thread. Hand the call over: "
                "loop.call_soon_threadsafe(client.emit, ...)."
            )


def _fit(read: Reader, data: Any, what: str) -> Any:
    try:
        return read(data)
    except InvalidError as error:
        message = f"{what} is not what response_type says: {error.reason}"
        raise RemoteError("invalid", message, details=error.details) from None
