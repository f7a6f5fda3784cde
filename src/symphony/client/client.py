"""The client: the same verbs as on the server, and automatic reconnects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Final, Self, overload

from typing_extensions import TypeForm, TypeVar

from symphony.client.core import RAW, Core
from symphony.client.handlers import ANY, check_name
from symphony.client.home import AsyncOnly, Home
from symphony.client.joining import Since
from symphony.client.link import Dial
from symphony.client.loss import Closed
from symphony.client.options import Options
from symphony.client.owner import State
from symphony.client.payload import fit, reader, snapshot
from symphony.client.requests import Request
from symphony.client.room import Room
from symphony.client.streams import Flow, Stream
from symphony.errors import WrongRouteError, check_close_code
from symphony.protocol.envelopes import MESSAGE
from symphony.protocol.v1 import MAX_CREDIT

__all__ = ("Client",)

F = TypeVar("F", bound=Callable[..., Any])
ReplyT = TypeVar("ReplyT", default=Any)

_ERROR: Final = "error"
_NORMAL: Final = (1000, 1001)


class Client(AsyncOnly):
    """A client of a Symphony server, or of any other WebSocket server.

    It reconnects automatically. `symphony.connect` returns it; open it with
    `async with` or `await`, and close it. Several tasks may open and use one
    client. Use it only in the event loop that opened it.

    Args:
        dial: Opens its links.
        options: The options of `connect`.
    """

    __slots__ = ("__weakref__", "_core", "_home", "_outgoing", "_reconnector")

    def __init__(self, dial: Dial, options: Options) -> None:
        self._core = Core(dial, options)
        self._outgoing = self._core.outgoing
        self._reconnector = self._core.reconnector
        self._home: Home | None = None

    # State

    @property
    def state(self) -> State:
        """`"new"`, `"connecting"`, `"open"`, `"waiting"` before the next attempt, or `"closed"` for good."""
        return self._reconnector.state

    @property
    def closed(self) -> Closed | None:
        """How it ended for good: `code`, `reason` and `refusal`; `None` before."""
        return self._reconnector.ended

    @property
    def protocol(self) -> str | None:
        """`"symphony.v1.json"`, `"symphony.v1.msgpack"` or `"raw"`; `None` before the first connection."""
        return self._core.protocol

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server chose, from `subprotocols=` or Symphony's own."""
        return self._core.subprotocol

    # Verbs

    def emit(self, event: str, data: Any = None) -> Awaitable[None]:
        """Send an event, or queue it until there is a connection.

        Events are sent in order and delivered at most once: an event on its
        way is lost if the connection is lost. Use `request` if you need to
        know that it arrived.

        Returns:
            An awaitable. Awaiting it is optional; it waits while the server
            reads more slowly than you send.

        Raises:
            MessageTooLargeError: It is larger than the server accepts.
            QueueFullError: `max_queue` or `max_queue_bytes` is reached.
            DisconnectedError: The client is closed.
            RuntimeError: The client was never opened.
            TypeError: The data cannot be encoded.
            WrongRouteError: The client was made with `raw=True`, or the
                server is not a Symphony server.
        """
        self._check(event)
        return self._outgoing.emit(event, data)

    def send(self, message: Any) -> Awaitable[None]:
        """Send a message; on an event connection, as the event `message`.

        Args:
            message: On a raw connection, text and bytes are sent unchanged,
                and anything else as JSON text.

        Raises:
            MessageTooLargeError: As for `emit`.
            QueueFullError: As for `emit`.
            DisconnectedError: As for `emit`.
            TypeError: As for `emit`.
        """
        self._check()
        return self._outgoing.send(message)

    async def request(
        self,
        event: str,
        data: Any = None,
        *,
        timeout: float | None = None,
        response_type: TypeForm[ReplyT] = Any,
        idempotent: bool = False,
    ) -> ReplyT:
        """Send a request and return its reply.

        Without a connection, the request is queued until its timeout.
        Cancelling the task that awaits it cancels the handler at the server.

        Args:
            event: The name of the event.
            data: The data.
            timeout: Seconds in all; `None`: the client's `request_timeout`;
                `math.inf`: no limit.
            response_type: The type of the reply: anything msgspec can decode,
                or a pydantic model. `Any`: plain Python values.
            idempotent: Whether the request may safely run twice. If so, it is
                sent again if the connection is lost before the reply.

        Raises:
            RemoteError: The server answered with an error, or the reply does
                not match `response_type` (code `invalid`).
            RequestTimeoutError: No reply arrived in time.
            DisconnectedError: The connection was lost after the request was
                sent, or the client is closed.
            MessageTooLargeError: It is larger than the server accepts.
            QueueFullError: There is no connection, or the server stops, and
                `max_queue` or `max_queue_bytes` is reached.
            RuntimeError: The client was never opened.
            WrongRouteError: The connection is raw.
        """
        self._check(event)
        seconds = self._core.options.request_timeout if timeout is None else timeout
        if not seconds > 0:
            raise ValueError(f"timeout must be above 0, not {timeout!r}.")
        read = reader(response_type, self._core.decoding)
        if idempotent or not self._outgoing.clear:
            # It may be sent later, or twice, and the object may change in the meantime.
            data = snapshot(data, self._core.kind)
        request = Request(
            self._core.answers, event, data, timeout=seconds, idempotent=idempotent, where=self._core.where
        )
        gate = self._core.gate
        gate.wait()
        try:
            reply = await request.reply()
        finally:
            gate.waited()
        return fit(read, reply, f"the reply to {event!r}")

    def stream(
        self, event: str, data: Any = None, *, credit: int = 64, response_type: TypeForm[ReplyT] = Any
    ) -> Stream[ReplyT]:
        """Send a request for a stream, and iterate over its items.

        Nothing is sent before the first item is requested. Leaving the loop early
        cancels the stream at the server. The loop raises `RemoteError`,
        `DisconnectedError` and `RequestTimeoutError` as `request` does, after the
        items that arrived before.

        Args:
            event: The name of the event.
            data: The data.
            credit: How many items may be buffered here, 1 or more; the server's
                generator continues as you take them.
            response_type: The type of each item, as in `request`.

        Raises:
            RuntimeError: The client was never opened.
            ValueError: The credit is not 1 or more.
            WrongRouteError: As for `emit`.
        """
        self._check(event)
        if not 1 <= credit <= MAX_CREDIT:
            raise ValueError(f"credit must be a number of items, 1 or more, not {credit!r}.")
        read = reader(response_type, self._core.decoding)

        def start() -> Flow:
            self._check(event)
            value = data if self._outgoing.clear else snapshot(data, self._core.kind)
            return Flow(
                self._core.answers,
                self._core.gate,
                event,
                value,
                credit=credit,
                max_bytes=self._core.options.max_queue_bytes,
                timeout=self._core.options.request_timeout,
                where=self._core.where,
            )

        return Stream(start, lambda item: fit(read, item, f"an item of {event!r}"))

    async def join(self, room: str, *, since: Since = None, timeout: float | None = None) -> Room:
        """Join a room, and join it again on every later connection.

        For a room that the client holds, this returns the same `Room`; in
        `on_open`, it joins it again at once. It waits and raises as `request` does.

        Args:
            room: The name of the room.
            since: What to get of a history: the publications after a position,
                or all (`"start"`). `None`: none.
            timeout: As for `request`; afterwards, the client does not hold the room.
        """
        self._check()
        return await self._core.join(room, since, timeout)

    # Handlers

    @overload
    def on(self, event: str) -> Callable[[F], F]: ...
    @overload
    def on(self, event: str, handler: F) -> F: ...
    def on(self, event: str, handler: F | None = None) -> F | Callable[[F], F]:
        """Register a handler for an event that the server sends.

        A handler takes the data, or no argument; the annotation of its
        parameter is the type of the data. It may be plain or async. Handlers of
        events run one after the other. A request of the server is handled
        concurrently with them, by the first handler registered. Its return
        value is the reply; `Reject` and other exceptions become error replies.

        Args:
            event: The name; `"message"` for messages that the server sends
                without one, also on a raw connection; `"*"` for all events
                without another handler, called with event and data.
            handler: The function; omit it to use `on` as a decorator,
                `@client.on("said")`.

        Raises:
            WrongRouteError: The client was made with `raw=True`.
            ConfigurationError: The handler cannot be called with data, or its
                annotation is not a type that can be decoded.
        """
        if self._core.options.raw and event not in (MESSAGE, ANY):
            raise WrongRouteError(self._core.no_events)
        if handler is not None:
            self._core.dispatch.handlers.add(event, handler)
            return handler
        check_name(event)

        def register(handler: F) -> F:
            self._core.dispatch.handlers.add(event, handler)
            return handler

        return register

    def off(self, event: str, handler: Callable[..., Any]) -> None:
        """Remove a handler; if it is not registered, nothing happens."""
        self._core.dispatch.handlers.remove(event, handler)

    def on_state(self, handler: F) -> F:
        """Register a function that is called with each new `state`.

        A plain function is called at once. An async one runs in a task.
        """
        self._core.state_handlers.append(handler)
        return handler

    def on_open(self, handler: F) -> F:
        """Register a function that runs on every connection, before anything queued is sent.

        What it sends is sent before the queue. It takes no argument, may be plain or
        async, and may take `connect_timeout`. If it fails, the queue is kept.
        On the first connection, opening the client then raises its exception.
        Later, it is logged and the client tries again, unless it is a
        `RemoteError` that is not `retryable`.
        """
        self._core.open_handlers.append(handler)
        return handler

    # Open and close

    async def wait_closed(self) -> Closed:
        """Wait until the client is closed for good, and return how it ended.

        Raises:
            RuntimeError: The client was never opened.
        """
        if self.closed is None:
            self._check()
        return await self._reconnector.wait_closed()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the client for good.

        Messages that were sent are still delivered; requests in progress fail.
        Waits for the server's close frame, at most 5 seconds. Cancels the
        handlers and waits for them. Closing a closed client does nothing.

        Args:
            code: The close code.
            reason: For the server; cut at 123 bytes.

        Raises:
            ValueError: The code must not be sent; use 1000 or 3000 to 4999.
        """
        check_close_code(code)
        if self.closed is None and self._home is not None:
            self._home.check(self)
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

        The iteration continues across reconnects and ends when the client is
        closed for good.

        Raises:
            DisconnectedError: It was closed with a code other than 1000 or 1001.
        """
        while not self._core.messages:
            if self.closed is not None:
                if self.closed.code in _NORMAL:
                    raise StopAsyncIteration
                raise self._reconnector.error()
            self._check()
            if self.protocol not in (None, RAW):
                raise WrongRouteError(
                    f"{self._core.where} speaks events: register @client.on(...); "
                    "only raw connections are iterated over."
                )
            await self._core.wait_for_message()
        return self._core.messages.take()

    def __repr__(self) -> str:
        return f"<Client {self._core.where} {self.state}>"

    async def _open(self) -> Self:
        if self._home is None:
            self._home = Home()
        self._home.check(self)
        await self._reconnector.open()
        return self

    def __del__(self) -> None:
        if (home := getattr(self, "_home", None)) is not None and self.closed is None:
            home.dropped(self, self._core.drop)

    def _check(self, event: str | None = None) -> None:
        if self._reconnector.ended is not None:
            raise self._reconnector.error()
        if self._home is None:
            raise self._not_open()
        self._home.check(self)
        if event is not None:
            check_name(event)
            if event == _ERROR:
                raise ValueError("The event name 'error' is reserved for Symphony; use another name.")
            if self._core.no_events:
                raise WrongRouteError(self._core.no_events)

    def _not_open(self) -> RuntimeError:
        return RuntimeError(
            f"The client of {self._core.where} was never opened: write `async with client:` around this, "
            "or `await client` before it."
        )
