"""Connects the parts that handle the messages of one socket.

On a raw route these are a runner and `Messages`; on an event route, a runner
and an `Exchange`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from symphony.errors import Reject, WrongRouteError
from symphony.session.contracts import LaneReports
from symphony.session.exchange import Exchange
from symphony.session.messages import Messages
from symphony.session.resync import Resync

if TYPE_CHECKING:
    from symphony.limits import Limits
    from symphony.outgoing.encoding import Dialect
    from symphony.session.contracts import LiveSession
    from symphony.session.endpoint import Endpoint
    from symphony.session.requests import Requests
    from symphony.socket import Socket
    from symphony.transport.base import Connection

__all__ = ("Serving",)

_CHECK_FAILED: Final = Reject("internal", "the server failed to check the message")


class Serving:
    """Handles the messages of one socket.

    Args:
        session: The socket's session.
        socket: The socket.
        endpoint: The socket's compiled route.
        connection: The socket's connection.
        dialect: Encodes messages and events for the connection.
        context: The context of the handlers.
        begin_anew: Sends the socket what its rooms begin with, after messages were dropped.

    Attributes:
        draining: Whether new messages are refused.
        received: Handles the next message. On a route without checks it is the
            method of the lane or the exchange itself, without a wrapper.
    """

    __slots__ = ("_connection", "_endpoint", "_exchange", "_lane", "_receive", "draining", "received")

    received: Callable[[Any], None]

    def __init__(
        self,
        session: LiveSession,
        socket: Socket[Any],
        endpoint: Endpoint,
        connection: Connection,
        dialect: Dialect,
        context: Context,
        begin_anew: Callable[[Socket[Any]], None],
    ) -> None:
        self._endpoint = endpoint
        self._connection = connection
        self._exchange: Exchange | None = None
        self.draining = False
        if endpoint.resync is not None:
            outbox = connection.outbox
            outbox.rebuild = Resync(socket, endpoint.resync, begin_anew, socket.background)
            if endpoint.profile.slow_consumer == "resync":
                outbox.resync = outbox.rebuild
        refuse: Callable[[Reject], object]
        if endpoint.events is None:
            messages = Messages(
                session, connection, is_async=endpoint.is_async, closes_on_error=endpoint.closes_on_error
            )
            self._lane = endpoint.runner(
                context, LaneReports(messages.done, messages.failed, self._full), session.watched
            )
            self._receive = endpoint.receive
            self.received, refuse = self._lane.deliver, partial(messages.failed, None)
        else:
            protocol = dialect.make()
            exchange = Exchange(session, connection, protocol, self._limits, context, socket.id)
            answering = exchange.answering
            reports = LaneReports(answering.done, answering.failed, exchange.adjust_reading)
            self._lane = endpoint.runner(context, reports, session.watched)
            exchange.start(self._lane)
            self._exchange = exchange
            self._receive = endpoint.events.receive[protocol.payload]
            self.received, refuse = exchange.received, partial(answering.refuse, None)
        if endpoint.checks:
            self.received = _checked(endpoint.checks, socket, self.received, refuse, session.report)

    async def serve(self, socket: Socket[Any]) -> None:
        """Handle messages until `end`; runs in the socket's own task."""
        await self._lane.serve(self._receive, socket, is_async=self._endpoint.is_async)
        if self._exchange is not None:
            # Twice: once to finish, and once to close after being cancelled.
            await self._exchange.answering.streams.ended(timeout=self._limits.finish_timeout * 2)

    @property
    def requests(self) -> Requests:
        """The server's requests to the client.

        Raises:
            WrongRouteError: The route is raw, so its connections have no requests.
        """
        if self._exchange is None:
            raise WrongRouteError(
                f"Route {self._endpoint.pattern} is raw, and a raw connection has no requests. "
                "Register an event handler on the route, or write app.route(path, events=True)."
            )
        return self._exchange.requests

    def refuse(self, refusal: Reject) -> int:
        """Send the reason for the coming close as an event, on an event connection; return the close code."""
        if self._exchange is None:
            # Other clients take 4400 to 4499 as final, as the HTTP statuses 400 to 499. y-websocket does.
            return refusal._raw_close_code if refusal.retryable else refusal.close_code  # pyright: ignore[reportPrivateUsage]
        self._exchange.answering.refuse(None, refusal)
        if refusal.retry_after is not None:
            self._exchange.drain(retry=refusal.retry_after, timeout=0)
        return refusal.close_code

    def closing(self) -> int:
        """Drop the messages that wait, because the server has closed; return how many these were."""
        return self._lane.drop()

    def connection_lost(self) -> None:
        """Cancel requests and streams, because the connection has ended."""
        if self._exchange is not None:
            self._exchange.connection_lost()

    def drain(self) -> None:
        """Refuse new messages, and let `serve` return when the current ones are handled."""
        self.draining = True
        timeout = self._limits.finish_timeout
        if self._exchange is None:
            self._connection.pause_reading()
        else:
            self._exchange.drain(retry=self._limits.retry_after, timeout=timeout)
        self._lane.end(timeout=timeout)

    def recent(self) -> tuple[int, Any]:
        """Return how many messages the last turn has handled, and the last one."""
        return self._lane.recent()

    def end(self) -> None:
        """Let `serve` return when all messages are handled."""
        self._lane.end(timeout=self._limits.finish_timeout)

    def cancel(self) -> None:
        """Cancel the running handlers and drop the queued messages."""
        self._lane.cancel()

    def release(self) -> None:
        """Break reference cycles, so that a closed socket is freed at once."""
        if self._exchange is not None:
            self._exchange.release()
        del self._lane, self._exchange, self._receive, self.received

    @property
    def _limits(self) -> Limits:
        return self._endpoint.profile.limits

    def _full(self, full: bool) -> None:
        if full:
            self._connection.pause_reading()
        elif not self.draining:
            self._connection.resume_reading()


def _checked(
    checks: tuple[Callable[[Any, Any], None], ...],
    socket: Socket[Any],
    received: Callable[[Any], None],
    refuse: Callable[[Reject], object],
    report: Callable[[BaseException, str], None],
) -> Callable[[Any], None]:
    """Return a function that runs the checks, and then *received*."""

    def take(message: Any) -> None:
        try:
            for check in checks:
                check(socket, message)
        except Reject as refusal:
            refuse(refusal)
        except BaseException as error:
            report(error, "check")
            refuse(_CHECK_FAILED)
        else:
            received(message)

    return take
