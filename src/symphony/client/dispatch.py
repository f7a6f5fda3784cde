"""Runs the handlers of one client: those of events in order, those of requests beside them."""

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
from symphony.client.payload import ErrorData, InvalidError, Kind, reader
from symphony.errors import Reject
from symphony.protocol.codec import UnencodableError
from symphony.protocol.envelopes import Error, Event, Reply

__all__ = ("Dispatch",)

logger = logging.getLogger("symphony.client")

_ERROR: Final = "error"
_MAX_REQUESTS: Final = 1000
# While a handler waits for the server, what it waits for may stand behind
# events, so reading goes on above the limit; not for ever.
_WAITING_FACTOR: Final = 8
_PATIENCE: Final = 5.0


class Dispatch:
    """What comes from the server, on its way to the handlers.

    Args:
        outgoing: The client's way out, for replies.
        gate: Held while too many events wait.
        limit: How many are too many.
        overflow: Called when even the events behind which a waiting handler
            waits are too many.

    Attributes:
        handlers: Those registered.
        unhandled: Called with name and data of an event that no handler takes.
    """

    __slots__ = (
        "_backlog",
        "_beside",
        "_finishing",
        "_limit",
        "_outgoing",
        "_overflow",
        "_requests",
        "_task",
        "_waiter",
        "_waiting",
        "handlers",
        "unhandled",
    )

    def __init__(self, outgoing: Outgoing, gate: Gate, limit: int, overflow: Callable[[], None]) -> None:
        self.handlers = Handlers()
        self.unhandled: Callable[[str, Any], None] | None = None
        self._outgoing = outgoing
        self._limit = limit
        self._overflow = overflow
        self._backlog: Backlog[Callable[[], Any]] = Backlog(gate, limit)
        self._requests: dict[int, asyncio.Task[None]] = {}
        self._beside: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._waiting = 0
        self._finishing = False

    # What comes in

    def event(self, event: Event, kind: Kind) -> None:
        """Take an event without an id."""
        handlers = self.handlers.of(event.event)
        if not handlers and self.unhandled is not None:
            self.unhandled(event.event, event.data)
        elif not handlers and event.event == _ERROR:
            _log_error(event.data, kind)
        for handler in handlers:
            self._put(_Call(handler, event, kind))

    def message(self, message: str | bytes) -> bool:
        """Take a message of a raw connection; return whether there is a handler for it."""
        handlers = self.handlers.of("message")
        for handler in handlers:
            self._put(_RawCall(handler, message))
        return bool(handlers)

    def spawn(self, call: Coroutine[Any, Any, None]) -> None:
        """Run something that neither waits for the handlers nor keeps them waiting."""
        task = asyncio.get_running_loop().create_task(call)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def request(self, event: Event, kind: Kind) -> None:
        """Take an event with an id."""
        if event.id in self._requests:
            logger.warning("The server sent a request %r with the id of one under way.", event.event)
            return
        handlers = self.handlers.of(event.event)
        if not handlers:
            self._refuse(event.id, Reject("not_found", f"no handler for the request {event.event!r}"))
        elif len(self._requests) >= _MAX_REQUESTS:
            self._refuse(event.id, Reject("too_many", "too many requests at once"))
        else:
            task = asyncio.get_running_loop().create_task(self._answer(handlers[0], event, kind))
            self._requests[event.id] = task
            task.add_done_callback(lambda task, id=event.id: self._answered(id, task))

    def cancel(self, id: int) -> None:
        """Hear that the server wants no answer any more."""
        if (task := self._requests.get(id)) is not None:
            task.cancel()

    # Whoever waits

    def while_waiting(self) -> Callable[[], None]:
        """Be told that the running task waits for the server; call what is returned when it does not.

        If it is a handler of an event that waits, its answer may stand behind
        more events, so they must be let in.
        """
        if self._task is None or asyncio.current_task() is not self._task:
            return _nothing
        self._waiting += 1
        self._backlog.keep_open(True)
        return self._waits_no_more

    # The end

    def lost(self) -> list[asyncio.Task[None]]:
        """Answer nothing any more: requests belong to one connection. Return whose handlers go."""
        going = [task for task in self._requests.values() if task is not _current_task()]
        self._requests = {}
        for task in going:
            task.cancel()
        return going

    def finish(self) -> None:
        """Handle what has come, and then end."""
        self._finishing = True
        self._wake()

    async def aclose(self) -> None:
        """End all handlers but the one that calls this, and forget what has come."""
        self._finishing = True
        self._backlog.clear()
        going = self.lost()
        if self._task is not None and self._task is not _current_task():
            self._task.cancel()
            going.append(self._task)
        # Not cancelled: they may be about this very end.
        going.extend(task for task in self._beside if task is not _current_task())
        if going:
            # One that does not want to go must not keep the program.
            _, stuck = await asyncio.wait(going, timeout=_PATIENCE)
            for task in stuck:
                task.cancel()

    def _put(self, call: Callable[[], Any]) -> None:
        if self._waiting and len(self._backlog) >= self._limit * _WAITING_FACTOR:
            self._overflow()
            return
        self._backlog.put(call)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _run(self) -> None:
        """Run what waits, one after the other."""
        try:
            while self._backlog or not self._finishing:
                if self._backlog:
                    await self._handle(self._backlog.take())
                    continue
                self._waiter = asyncio.get_running_loop().create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
        finally:
            self._task = None

    async def _handle(self, call: Callable[[], Any]) -> None:
        try:
            result = call()
            if inspect.isawaitable(result):
                await result
        except InvalidError as error:
            logger.warning("%s: what the server sent does not fit: %s.", call, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # What it waited for was cancelled, not this.
            logger.warning("%s was cancelled.", call)
        except Exception:
            logger.exception("%s failed.", call)

    def _waits_no_more(self) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._backlog.keep_open(False)

    async def _answer(self, handler: Handler, event: Event, kind: Kind) -> None:
        answer: Reply | Error
        try:
            async with asyncio.timeout(event.timeout) as limit:
                result = handler.call(event.event, event.data, kind)
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
        except Exception as error:
            answer = _failure(handler, event, error)
        # A server that asks and does not read must not fill the memory. A `cancel`
        # now comes too late: the answer is on its way.
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

    def _answered(self, id: int, task: asyncio.Task[None]) -> None:
        if self._requests.get(id) is not task:
            return
        del self._requests[id]
        # Here, because a task that is cancelled before its first step never runs.
        if task.cancelled():
            self._refuse(id, Reject("cancelled", "the request was cancelled"))

    def _refuse(self, id: int, refusal: Reject) -> None:
        self._outgoing.say(_refusal(id, refusal))


class _Call:
    """A handler and the event it is called with."""

    __slots__ = ("_event", "_handler", "_kind")

    def __init__(self, handler: Handler, event: Event, kind: Kind) -> None:
        self._handler = handler
        self._event = event
        self._kind: Kind = kind

    def __call__(self) -> Any:
        return self._handler.call(self._event.event, self._event.data, self._kind)

    def __str__(self) -> str:
        return f"The handler {self._handler.name} of the event {self._event.event!r}"


class _RawCall:
    """A handler and the message of a raw connection it is called with."""

    __slots__ = ("_handler", "_message")

    def __init__(self, handler: Handler, message: str | bytes) -> None:
        self._handler = handler
        self._message = message

    def __call__(self) -> Any:
        return self._handler.call_with_message("message", self._message)

    def __str__(self) -> str:
        return f"The handler {self._handler.name} of messages"


def _refusal(id: int, refusal: Reject) -> Error:
    return Error(id, refusal.payload())


def _failure(handler: Handler, event: Event, error: BaseException) -> Error:
    logger.error("The handler %s of the request %r failed.", handler.name, event.event, exc_info=error)
    return _refusal(event.id, Reject("internal", "the client's handler failed"))


def _log_error(data: Any, kind: Kind) -> None:
    try:
        told: ErrorData = reader(ErrorData, kind)(data)
    except InvalidError:
        told = ErrorData("error")
    logger.warning(
        "The server says: %r, %r. (To handle it, register @client.on('error').)", told.code, told.message
    )


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _nothing() -> None:
    """Nobody needs to be told."""
