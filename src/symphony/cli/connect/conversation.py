"""Does what the lines of a user say, and keeps the requests that are under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from symphony.cli.connect.incoming import Incoming
from symphony.cli.connect.lines import (
    COMMANDS,
    Action,
    Answer,
    Cancel,
    Emit,
    Help,
    LineError,
    Request,
    Say,
    parse,
    verbatim,
)
from symphony.cli.connect.text import to_json
from symphony.cli.connect.view import View
from symphony.cli.connect.words import for_command_line
from symphony.client import Client
from symphony.errors import DisconnectedError, RemoteError, SymphonyError

__all__ = ("Conversation",)

_RAW: Final = "raw"
_MAX_NAMES: Final = 200
# Of a script; who types is never so fast.
_MAX_PENDING: Final = 100
# Lines without a command, by kind of connection.
_WITHOUT: Final = {
    "events": (
        ('{"event": EVENT, …}', "send this frame; with an id it is a request"),
        ("anything else", "send it as the event 'message'"),
        ("//…", "send it so, with one /"),
    ),
    "raw": (
        ("anything else", "send it as it is"),
        ("//…", "send it with one /, though it is a command"),
    ),
}


class Conversation:
    """One client, spoken to in lines.

    Args:
        client: Not open yet, so that nothing is missed.
        view: Shows what is said.
        answers: To the server's requests, by event.
        as_json: Whether messages of a raw connection must be JSON.

    Attributes:
        failed: Whether something was not sent, or a request got no answer.
        unanswered: Whether something was sent that gets no answer.
        names: Of the events that were sent or seen, the newest last.
    """

    def __init__(self, client: Client, view: View, *, answers: Mapping[str, Any], as_json: bool) -> None:
        self.failed = False
        self.unanswered = False
        self.names: dict[str, None] = {}
        self._client = client
        self._view = view
        self._as_json = as_json
        self._answers = dict(answers)
        self._pending: dict[int, asyncio.Task[None]] = {}
        self._last_id = 0
        Incoming(client, view, self._answers, self._learn)

    @property
    def speaks_events(self) -> bool:
        """Whether the connection speaks events; else it is raw."""
        return self._client.protocol != _RAW

    def read(self, line: str, *, script: bool = False) -> Action | None:
        """Return what a line says.

        Args:
            line: Without its end.
            script: A line is a message of a raw connection, whatever it begins with.

        Raises:
            LineError: It says nothing that could be done.
        """
        if script and not self.speaks_events:
            return verbatim(line, as_json=self._as_json)
        return parse(line, events=self.speaks_events, as_json=self._as_json)

    async def do(self, action: Action | None, *, script: bool = False) -> None:
        """Do what a line says; the end, `Leave`, is the caller's.

        Args:
            action: From `read`.
            script: Wait while the server takes no more.

        Raises:
            LineError: It cannot be done now.
        """
        match action:
            case Say(message):
                await self._send(self._client.send, (message,), self._view.said, wait=script)
            case Emit(event, data):
                self._learn(event)
                await self._send(self._client.emit, (event, data), self._view.emitted, wait=script)
            case Request():
                if script and len(self._pending) >= _MAX_PENDING:
                    await asyncio.wait(self._pending.values(), return_when=asyncio.FIRST_COMPLETED)
                await self._request(action)
            case Cancel(number):
                self._cancel(number)
            case Answer(event, data):
                self._learn(event)
                self._answers[event] = data
                self._view.note(f"{event}? is answered {to_json(data)} from now on.")
            case Help():
                self._help()
            case _:
                pass

    async def settled(self) -> None:
        """Wait until every request has its answer."""
        while self._pending:
            await asyncio.wait(self._pending.values())

    async def aclose(self) -> None:
        """Wait for no answer any more."""
        tasks, self._pending = [*self._pending.values()], {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(
        self,
        send: Callable[..., Awaitable[None]],
        what: tuple[Any, ...],
        show: Callable[..., None],
        *,
        wait: bool,
    ) -> None:
        try:
            sent = send(*what)
        except (SymphonyError, TypeError, ValueError, OverflowError) as error:
            self.failed = True
            self._view.problem(f"Not sent: {for_command_line(str(error))}")
            return
        self.unanswered = True
        show(*what)
        self._tell_if_offline()
        if wait:
            await sent

    async def _request(self, request: Request) -> None:
        number = request.id
        if number is None:
            self._last_id += 1
            while self._last_id in self._pending:
                self._last_id += 1
            number = self._last_id
        elif number in self._pending:
            raise LineError(f"Request {number} is under way; give this one another id.")
        self._learn(request.event)
        self._view.requested(number, request.event, request.data)
        self._tell_if_offline()
        self._pending[number] = asyncio.create_task(self._ask(number, request))
        # It is on its way before the next line is: its task has begun.
        await asyncio.sleep(0)

    async def _ask(self, number: int, request: Request) -> None:
        try:
            await self._answer(number, request)
        except RemoteError as error:
            # It may be the client's own, which speaks of Python.
            message = for_command_line(error.message)
            self._view.error(
                number,
                RemoteError(error.code, message, retryable=error.retryable, details=error.details),
            )
        except DisconnectedError:
            self._fail(number, "the connection was lost before the answer came")
        except (SymphonyError, RuntimeError, TypeError, ValueError, OverflowError) as error:
            self._fail(number, for_command_line(str(error)))
        finally:
            if self._pending.get(number) is asyncio.current_task():
                del self._pending[number]

    async def _answer(self, number: int, request: Request) -> None:
        started = time.perf_counter()
        if request.credit is None:
            reply = await self._client.request(request.event, request.data, timeout=request.timeout)
            self._view.reply(number, reply, time.perf_counter() - started)
            return
        count = 0
        async with self._client.stream(request.event, request.data, credit=request.credit) as items:
            async for item in items:
                count += 1
                self._view.item(number, item)
        self._view.end(number, count, time.perf_counter() - started)

    def _cancel(self, number: int | None) -> None:
        if not self._pending:
            raise LineError("Nothing is under way that could be cancelled.")
        if number is None:
            number = next(reversed(self._pending))
        task = self._pending.pop(number, None)
        if task is None:
            under_way = ", ".join(f"#{each}" for each in self._pending)
            raise LineError(f"Request {number} is not under way; these are: {under_way}.")
        task.cancel()
        self._view.cancelled(number)

    def _tell_if_offline(self) -> None:
        if self._client.state != "open":
            self._view.note("Not connected: it is sent when the connection is back.")

    def _fail(self, number: int, why: str) -> None:
        self.failed = True
        self._view.failed(number, why)

    def _learn(self, name: str) -> None:
        self.names.pop(name, None)
        self.names[name] = None
        if len(self.names) > _MAX_NAMES:
            del self.names[next(iter(self.names))]

    def _help(self) -> None:
        kind = "events" if self.speaks_events else "raw"
        lines = [
            (f"{name} {command.arguments}", command.does)
            for name, command in COMMANDS.items()
            if command.on in (kind, "both")
        ]
        for typed, does in (*lines, *_WITHOUT[kind]):
            self._view.help(typed, does)
