"""Runs a client's handlers: events in order, requests concurrently with them."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from symphony.client.backlog import Backlog, Gate
from symphony.client.handlers import Handler, Handlers
from symphony.client.outgoing import Outgoing
from symphony.client.payload import Decoding, ErrorData, InvalidError, reader
from symphony.complaints import MAX_FAILURES, Complaint
from symphony.errors import MessageTooLargeError, Reject
from symphony.misnamed import Misnamed
from symphony.printable import printable
from symphony.protocol.envelopes import Error, Event, Reply
from symphony.protocol.unencodable import UnencodableError
from symphony.tasks import start

__all__ = ("Call", "Dispatch")

logger = logging.getLogger("symphony.client")

_ERROR: Final = "error"
_MISNAMED: Final = "The server sends the event '%s', which has no handler. There is one for '%s'."
_MAX_REQUESTS: Final = 1000
_HANDLERS_TIMEOUT: Final = 5.0


class Dispatch:
    """Passes events and requests of the server to the handlers.

    Args:
        outgoing: Sends the replies.
        gate: Held while too many events are queued.
        limit: How many events may be queued.
        max_bytes: How many bytes of events may be queued.
        overflow: Called when too many events are queued while the program
            waits for the server.

    Attributes:
        handlers: The registered handlers.
        unhandled: Called with the name and data of an event without a handler.
    """

    __slots__ = (
        "_backlog",
        "_beside",
        "_finishing",
        "_misnamed",
        "_outgoing",
        "_requests",
        "_same_id",
        "_task",
        "_told",
        "_unfit",
        "_waiter",
        "handlers",
        "unhandled",
    )

    def __init__(
        self, outgoing: Outgoing, gate: Gate, limit: int, max_bytes: int, overflow: Callable[[], None]
    ) -> None:
        self.handlers = Handlers()
        self.unhandled: Callable[[str, Any], None] | None = None
        self._outgoing = outgoing
        self._backlog: Backlog[Callable[[], Any]] = Backlog(gate, limit, max_bytes, overflow)
        self._requests: dict[int, asyncio.Task[None]] = {}
        self._beside: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._finishing = False
        self._misnamed = Misnamed(logger, _MISNAMED, ".")
        self._same_id = _complaint("The server sent a request %r with the id of a request in progress.")
        self._unfit = _complaint("%s: the server sent data that does not fit: %s.")
        self._told = _complaint(
            "The server sent an error: '%s', '%s'. (To handle it, register @client.on('error').)"
        )

    @property
    def queued(self) -> tuple[int, int]:
        """How many events are queued, and their bytes."""
        return len(self._backlog), self._backlog.bytes

    # Incoming

    def event(self, event: Event, decoding: Decoding, size: int) -> None:
        """Handle an event without an id, in a message of so many bytes."""
        handlers = self.handlers.of(event.event)
        if not handlers and self.unhandled is not None:
            self.unhandled(event.event, event.data)
        elif not handlers and event.event == _ERROR:
            self._log_error(event.data, decoding)
        elif not handlers:
            # A program need not handle all events.
            self._misnamed.look(event.event, self.handlers.events)
        for handler in handlers:
            self.add(Call(handler, event, decoding), size)

    def add(self, call: Callable[[], Any], size: int) -> bool:
        """Queue a call after the events; return `False` if there is no room and the connection is dropped.

        Args:
            call: Called like a handler; its `str` is its name in messages.
            size: The bytes of the message that it is for.
        """
        if not self._backlog.put(call, size):
            return False
        self._ensure_running()
        self._wake()
        return True

    def message(self, message: str | bytes, max_elements: int) -> bool:
        """Handle a message of a raw connection; return whether it has a handler."""
        handlers = self.handlers.of("message")
        for handler in handlers:
            self.add(_RawCall(handler, message, max_elements), len(message))
        return bool(handlers)

    def spawn(self, call: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine concurrently with the handlers."""
        task = start(call)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def request(self, event: Event, decoding: Decoding) -> None:
        """Handle an event with an id."""
        if event.id in self._requests:
            self._same_id.log(event.event)
            return
        handlers = self.handlers.of(event.event)
        if not handlers:
            self._refuse(event.id, Reject("not_found", f"no handler for the request {event.event!r}"))
        elif len(self._requests) >= _MAX_REQUESTS:
            self._refuse(event.id, Reject("too_many", "too many requests at once"))
        else:
            task = start(self._answer(handlers[0], event, decoding))
            self._requests[event.id] = task
            task.add_done_callback(lambda task, id=event.id: self._answered(id, task))

    def cancel(self, id: int) -> None:
        """Cancel the handler of a request: the server no longer wants the answer."""
        if (task := self._requests.get(id)) is not None:
            task.cancel()

    # Closing

    def lost(self) -> list[asyncio.Task[None]]:
        """Cancel the requests of the lost connection; return their tasks."""
        going = [task for task in self._requests.values() if task is not _current_task()]
        self._requests = {}
        for task in going:
            task.cancel()
        return going

    def finish(self) -> None:
        """Handle the queued events, then end."""
        self._finishing = True
        self._wake()

    async def aclose(self) -> None:
        """Cancel all handlers except the caller, and drop the queued events."""
        self._finishing = True
        self._backlog.clear()
        going = self.lost()
        if self._task is not None and self._task is not _current_task():
            self._task.cancel()
            going.append(self._task)
        # Not cancelled: they may be handling this very change of state.
        going.extend(task for task in self._beside if task is not _current_task())
        if going:
            # A handler that ignores its cancellation must not block the program.
            _, stuck = await asyncio.wait(going, timeout=_HANDLERS_TIMEOUT)
            for task in stuck:
                task.cancel()

    def _ensure_running(self) -> None:
        if self._task is None and not (self._finishing and not self._backlog):
            self._task = start(self._run())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _run(self) -> None:
        """Run the queued calls, one after the other."""
        try:
            while self._backlog or not self._finishing:
                if self._backlog:
                    await self.handle(self._backlog.take())
                    continue
                self._waiter = asyncio.get_running_loop().create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
        finally:
            self._task = None
            if self._backlog and not self._finishing:
                # Something has cancelled the task. If it was the end of the loop, the client
                # is closed by then.
                logger.warning("The task that runs the handlers was cancelled; the next events continue.")
                asyncio.get_running_loop().call_soon(self._continue)

    def _continue(self) -> None:
        if self._backlog and not self._finishing:
            self._ensure_running()

    async def handle(self, call: Callable[[], Any]) -> None:
        """Run a call now, and log its exception."""
        try:
            result = call()
            if inspect.isawaitable(result):
                await result
        except InvalidError as error:
            self._unfit.log(call, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this task was cancelled, but something that the handler awaited.
            logger.warning("%s was cancelled.", call)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            # A GeneratorExit, for example, must not end the handling of later events.
            logger.exception("%s failed.", call)

    async def _answer(self, handler: Handler, event: Event, decoding: Decoding) -> None:
        answer: Reply | Error
        try:
            async with asyncio.timeout(event.timeout) as limit:
                result = handler.call(event.event, event.data, decoding)
                if inspect.isawaitable(result):
                    result = await result
            answer = Reply(event.id, result)
        except TimeoutError as error:
            if limit.expired():  # pyright: ignore[reportPossiblyUnboundVariable]
                answer = _refusal(event.id, Reject("timeout", f"no answer within {event.timeout:g} s"))
            else:
                answer = _failure(handler, event, error)
        except InvalidError as error:
            answer = _refusal(event.id, Reject("invalid", error.reason, details=error.details))
        except Reject as refusal:
            answer = _refusal(event.id, refusal)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            answer = _failure(handler, event, error)
        # A server that sends requests but does not read must not fill the memory. A
        # `cancel` is too late now: the answer is on its way.
        with suppress(asyncio.CancelledError):
            await self._outgoing.drained()
        if self._requests.get(event.id) is not asyncio.current_task():
            return
        try:
            self._outgoing.say(answer)
        except UnencodableError as error:
            error.given = "returned"
            error.blame(f"handler {handler.located_name}")
            self._outgoing.say(_failure(handler, event, error))
        except MessageTooLargeError as error:
            self._outgoing.say(_failure(handler, event, error))

    def _answered(self, id: int, task: asyncio.Task[None]) -> None:
        if self._requests.get(id) is not task:
            return
        del self._requests[id]
        # Done here, because a task that is cancelled before its first step never runs.
        if task.cancelled():
            self._refuse(id, Reject("cancelled", "the request was cancelled"))

    def _log_error(self, data: Any, decoding: Decoding) -> None:
        try:
            told: ErrorData = reader(ErrorData, decoding)(data)
        except InvalidError:
            told = ErrorData("error")
        self._told.log(printable(told.code), printable(told.message))

    def _refuse(self, id: int, refusal: Reject) -> None:
        self._outgoing.say(_refusal(id, refusal))


class Call:
    """A handler and the event to call it with."""

    __slots__ = ("_decoding", "_event", "_handler")

    def __init__(self, handler: Handler, event: Event, decoding: Decoding) -> None:
        self._handler = handler
        self._event = event
        self._decoding = decoding

    def __call__(self) -> Any:
        """Call it; return its result, perhaps an awaitable."""
        return self._handler.call(self._event.event, self._event.data, self._decoding)

    def __str__(self) -> str:
        return f"The handler {self._handler.name} of the event {self._event.event!r}"


class _RawCall:
    """A handler and the raw message to call it with."""

    __slots__ = ("_handler", "_max_elements", "_message")

    def __init__(self, handler: Handler, message: str | bytes, max_elements: int) -> None:
        self._handler = handler
        self._max_elements = max_elements
        self._message = message

    def __call__(self) -> Any:
        return self._handler.call_with_message("message", self._message, self._max_elements)

    def __str__(self) -> str:
        return f"The handler {self._handler.name} of messages"


def _complaint(text: str) -> Complaint:
    return Complaint(logger, logging.WARNING, text, most=MAX_FAILURES)


def _refusal(id: int, refusal: Reject) -> Error:
    return Error(id, refusal.payload())


def _failure(handler: Handler, event: Event, error: BaseException) -> Error:
    logger.error("The handler %s of the request %r failed.", handler.name, event.event, exc_info=error)
    return _refusal(event.id, Reject("internal", "the client's handler failed"))


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
