"""Execute the lines of a user, and keep track of the requests in progress."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

from symphony.cli.connect.error_messages import for_command_line
from symphony.cli.connect.incoming import Incoming
from symphony.cli.connect.parser import (
    Action,
    Answer,
    Cancel,
    Emit,
    Help,
    Join,
    Leave,
    LineError,
    Publish,
    Request,
    Send,
    commands_for,
    parse,
    parse_raw,
)
from symphony.cli.connect.rooms import Rooms
from symphony.cli.connect.text import plain, to_json
from symphony.cli.connect.view import View
from symphony.client import Client, Position
from symphony.errors import DisconnectedError, RemoteError, SymphonyError

__all__ = ("Executor",)

_RAW: Final = "raw"
_MAX_NAMES: Final = 200
# Scripts send faster than a person types.
_MAX_PENDING: Final = 100
# Help for lines without a command, by kind of connection.
_OTHER_LINES: Final = {
    "events": (
        ('{"event": EVENT, …}', "send this envelope; with an id, it is a request"),
        ("anything else", "send it as the event 'message'"),
        ("//…", "send text that begins with /"),
    ),
    "raw": (
        ("anything else", "send it as it is"),
        ("//…", "send text that begins with a command"),
    ),
}


class Executor:
    """Executes actions on one client.

    Args:
        client: The client; not open yet, so that no message is missed.
        view: Shows what is sent and received.
        answers: Answers to the server's requests, by event.
        as_json: Whether messages of a raw connection must be JSON.

    Attributes:
        failed: Whether a message was not sent, or a request was never answered.
        sent_without_reply: Whether anything was sent that gets no reply, or a room was joined.
        event_names: Names of the events sent or received, the newest last.
        rooms: The rooms that the user has joined.
    """

    def __init__(self, client: Client, view: View, *, answers: Mapping[str, Any], as_json: bool) -> None:
        self.failed = False
        self.sent_without_reply = False
        self.event_names: dict[str, None] = {}
        self._client = client
        self._view = view
        self._as_json = as_json
        self._answers = dict(answers)
        self._pending: dict[int, asyncio.Task[None]] = {}
        self._last_id = 0
        self.rooms = Rooms(client, view, self._learn)
        Incoming(client, view, self._answers, self._learn)

    @property
    def speaks_events(self) -> bool:
        """Whether the connection speaks events; otherwise it is raw."""
        return self._client.protocol != _RAW

    def parse(self, line: str, *, script: bool = False) -> Action | None:
        """Return what a line asks for, or `None` for a blank line.

        Args:
            line: The line, without its line ending.
            script: On a raw connection, take the line as a message even if
                it begins with `/`.

        Raises:
            LineError: The line is invalid.
        """
        if script and not self.speaks_events:
            return parse_raw(line, as_json=self._as_json)
        return parse(line, events=self.speaks_events, as_json=self._as_json)

    async def execute(self, action: Action | None, *, script: bool = False) -> None:
        """Execute an action. The caller handles `Close`.

        Args:
            action: From `parse`.
            script: Wait while the server accepts no more data.

        Raises:
            LineError: The action is not possible now.
        """
        match action:
            case Send(message):
                await self._send(self._client.send, (message,), self._view.sent, wait=script)
            case Emit(event, data):
                self._learn(event)
                await self._send(self._client.emit, (event, data), self._view.emitted, wait=script)
            case Request():
                if script:
                    await self._wait_for_place()
                await self._request(action)
            case Join(room):
                self.sent_without_reply = True
                await self._begin("join", room, lambda number: self._join(number, room), script=script)
            case Leave(room):
                left = self.rooms.joined(room)
                self.rooms.left(room)
                await self._begin("leave", room, lambda number: self._show_reply(number, left.leave()))
            case Publish(room, event, data):
                if script:
                    await self._wait_for_place()
                await self._publish(room, event, data)
            case Cancel(number):
                self._cancel(number)
            case Answer(event, data):
                self._learn(event)
                self._answers[event] = data
                self._view.note(f"From now on, requests for {event} are answered with {to_json(data)}.")
            case Help():
                self._help()
            case _:
                pass

    async def wait_for_replies(self) -> None:
        """Wait until every request is answered."""
        while self._pending:
            await asyncio.wait(self._pending.values())

    async def aclose(self) -> None:
        """Cancel the requests in progress."""
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
        self.sent_without_reply = True
        show(*what)
        self._note_if_offline()
        if wait:
            await sent

    async def _request(self, request: Request) -> None:
        number = self._next_number() if request.id is None else request.id
        if number in self._pending:
            raise LineError(f"Request {number} is still in progress. Use another id.")
        self._learn(request.event)
        self._view.requested(number, request.event, request.data)
        await self._start(number, self._show_answer(number, request))

    async def _begin(
        self,
        verb: str,
        room: str,
        answer: Callable[[int], Coroutine[Any, Any, None]],
        *,
        script: bool = False,
    ) -> None:
        """Ask for something about a room; in a script, wait for the answer."""
        number = self._next_number()
        self._view.asked(number, verb, room)
        task = await self._start(number, answer(number))
        if script:
            # The next lines may be about this room.
            await asyncio.wait((task,))

    async def _publish(self, room: str, event: str, data: Any) -> None:
        joined = self.rooms.joined(room)
        try:
            published = joined.emit(event, data)
        except (SymphonyError, TypeError, ValueError, OverflowError) as error:
            self.failed = True
            self._view.problem(f"Not sent: {for_command_line(str(error))}")
            return
        number = self._next_number()
        self._learn(event)
        self._view.published(number, room, event, data)
        await self._start(number, self._show_reply(number, published))

    async def _join(self, number: int, name: str) -> None:
        room = await self.rooms.join(name)
        self._view.joined(number, name, room.position, room.presence)

    def _next_number(self) -> int:
        self._last_id += 1
        while self._last_id in self._pending:
            self._last_id += 1
        return self._last_id

    async def _wait_for_place(self) -> None:
        if len(self._pending) >= _MAX_PENDING:
            await asyncio.wait(self._pending.values(), return_when=asyncio.FIRST_COMPLETED)

    async def _start(self, number: int, answer: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self._note_if_offline()
        task = self._pending[number] = asyncio.create_task(self._ask(number, answer))
        # Let the task send its request before the next line is sent.
        await asyncio.sleep(0)
        return task

    async def _ask(self, number: int, answer: Coroutine[Any, Any, None]) -> None:
        try:
            await answer
        except RemoteError as error:
            # The client itself raises some of these, and its messages are about Python.
            message = for_command_line(error.message)
            self._view.error(
                number,
                RemoteError(error.code, message, retryable=error.retryable, details=error.details),
            )
        except DisconnectedError:
            self._fail(number, "the connection was lost before the reply arrived")
        except (SymphonyError, RuntimeError, TypeError, ValueError, OverflowError) as error:
            self._fail(number, for_command_line(str(error)))
        finally:
            if self._pending.get(number) is asyncio.current_task():
                del self._pending[number]

    async def _show_answer(self, number: int, request: Request) -> None:
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

    async def _show_reply(self, number: int, reply: Awaitable[Any]) -> None:
        started = time.perf_counter()
        value = await reply
        shown = plain(value) if isinstance(value, Position) else value
        self._view.reply(number, shown, time.perf_counter() - started)

    def _cancel(self, number: int | None) -> None:
        if not self._pending:
            raise LineError("No request is in progress.")
        if number is None:
            number = next(reversed(self._pending))
        task = self._pending.pop(number, None)
        if task is None:
            in_progress = ", ".join(f"#{each}" for each in self._pending)
            raise LineError(f"Request {number} is not in progress. In progress: {in_progress}.")
        task.cancel()
        self._view.cancelled(number)

    def _note_if_offline(self) -> None:
        if self._client.state != "open":
            self._view.note("Not connected. This will be sent after the client reconnects.")

    def _fail(self, number: int, why: str) -> None:
        self.failed = True
        self._view.failed(number, why)

    def _learn(self, name: str) -> None:
        self.event_names.pop(name, None)
        self.event_names[name] = None
        if len(self.event_names) > _MAX_NAMES:
            del self.event_names[next(iter(self.event_names))]

    def _help(self) -> None:
        commands = commands_for(events=self.speaks_events)
        lines = [(f"{name} {command.arguments}", command.description) for name, command in commands.items()]
        for typed, does in (*lines, *_OTHER_LINES["events" if self.speaks_events else "raw"]):
            self._view.help(typed, does)
