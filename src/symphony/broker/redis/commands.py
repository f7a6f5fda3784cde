"""The commands of a node to Redis servers: pipelined, repeated, bounded, answered in time."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from typing import Any, Final, cast

import hiredis
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from symphony.broker.redis.line import Line
from symphony.broker.redis.link import RedisLink
from symphony.broker.redis.shards import Shard, Shards, new_place
from symphony.broker.waiting import PATIENCE, Call, Waiting, failed, tell
from symphony.errors import BrokerUnavailableError, OutcomeUnknownError, SymphonyError

__all__ = ("Commands", "Script", "packed")

logger = logging.getLogger("symphony.app")

# Nothing was carried out, and another connection may be better: the scripts are loaded there
# again, or it is to the new master, or the cluster is up again. MASTERDOWN is one of the third.
_AGAIN: Final = (NoScriptError, ReadOnlyError, ClusterDownError)
# Nothing was carried out, because the slot is moving. ASK is not followed: the keys of a script that
# do not exist would make the other server refuse it, too, and what is published there before it has
# the slot is heard by nobody.
_MOVING: Final = (AskError, TryAgainError)
# Between attempts of the first call of a slot that moves.
_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.2


class Script:
    """A Lua script that runs in the server.

    Attributes:
        text: Its text.
        digest: By which the server knows it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = sha1(text.encode(), usedforsecurity=False).hexdigest()


def packed(*command: Any) -> bytes:
    """Return a command as it is sent."""
    return cast("bytes", hiredis.pack_command(command))  # pyright: ignore[reportUnknownMemberType]


class _Line(Line):
    """The connection to one of the servers.

    Attributes:
        sent: What the answers belong to, in their order: the number of a call; 0: to no call; or
            what is called with the answer, or when the connection has ended.
        is_open: Whether calls are sent. If not, all that was sent is answered first.
    """

    def __init__(self, commands: Commands, shard: Shard) -> None:
        super().__init__(shard, commands.timeout * PATIENCE, commands.random)
        self.sent: deque[int | Callable[[], object]] = deque()
        self.is_open = False
        self._commands = commands

    def made(self, link: RedisLink, *, again: bool) -> None:
        """See `Line.made`."""
        self.is_open = True
        self._commands.connected(self, link, again=again)

    def received(self, link: RedisLink, answer: object) -> None:
        """See `Line.received`."""
        self._commands.answered(self, answer)
        if not self.is_open and not self.sent:
            link.close()

    def lost(self) -> None:
        """See `Line.lost`."""
        self._commands.lost(self)


class Commands:
    """Sends commands over one connection a server, which is made again when it ends.

    All calls wait in one queue until they are answered. If a connection ends, those that may
    run twice are sent again on the next one, in their order and before all new ones. If a slot
    moves, its calls wait until it has moved, and are sent in their order, too.

    Args:
        shards: The servers.
        scripts: Loaded into a server before anything else is sent.
        timeout: How many seconds a call may take.
        max_calls: How many calls may wait for their answers.
        max_bytes: How many bytes these and unsent messages may have.
        random: Returns a number from 0 to 1.
    """

    def __init__(
        self,
        shards: Shards,
        scripts: Sequence[Script],
        *,
        timeout: float,
        max_calls: int,
        max_bytes: int,
        random: Callable[[], float],
    ) -> None:
        self.timeout = timeout
        self.random = random
        self._shards = shards
        self._scripts = [packed("SCRIPT", "LOAD", script.text) for script in scripts]
        self._loop = asyncio.get_running_loop()
        self._waiting = Waiting(timeout=timeout, max_calls=max_calls, max_bytes=max_bytes, stuck=self._stuck)
        self._lines: dict[Shard, _Line] = {}
        # The slots whose calls wait, and how often their first one was refused.
        self._held: dict[int, int] = {}
        # The slots by the numbers of their calls that were sent to try it again.
        self._tries: dict[int, int] = {}
        self._closed = False
        shards.watch(looked=self._looked, moved=self._reconnect_all)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment to each server."""
        lines = map(self._lines.get, self._shards.all())
        return all(line is not None and line.is_open for line in lines)

    def reaches(self, name: str) -> bool:
        """Return whether there is a connection at this moment to the server of a key or channel."""
        return self._open_line(self._shards.slot_of(name)) is not None

    async def connect(self) -> None:
        """Make the first connections.

        Raises:
            BrokerUnavailableError: One could not be made in time.
            ConfigurationError: A server cannot be used.
        """
        lines = [self._line_to(shard, connect=False) for shard in self._shards.all()]
        tasks = [line.connect(again=False) for line in lines]
        done, late = await asyncio.wait(tasks, timeout=self.timeout, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            # It is cancelled if its server has lost its slots meanwhile.
            if not task.cancelled():
                task.result()
        for line, task in zip(lines, tasks, strict=True):
            if task in late:
                where, why = line.shard.where, line.dialer.why
                raise BrokerUnavailableError(f"The broker {where} cannot be reached: {why}")

    def call(
        self, name: str, *command: Any, twice: bool = True, taken: Callable[[Any], Any] | None = None
    ) -> asyncio.Future[Any]:
        """Send a command.

        Args:
            name: A key or a channel of the command, which says where it is sent.
            command: The command and its arguments.
            twice: Whether it may run twice.
            taken: Called with the answer as soon as it is there. It returns the result.

        Returns:
            The result, or one of the errors of `Broker`.
        """
        if self._closed:
            return failed(self._loop.create_future(), BrokerUnavailableError("The app has stopped."))
        number = self._waiting.next_number()
        message = packed(*command)
        try:
            call = self._waiting.add(number, message, twice=twice, taken=taken)
        except SymphonyError as error:
            return failed(self._loop.create_future(), error)
        call.slot = self._shards.slot_of(name)
        line = self._open_line(call.slot)
        if line is not None:
            self._send(line, call)
        return call.future

    def run(
        self,
        script: Script,
        keys: Sequence[str],
        *arguments: Any,
        twice: bool = True,
        taken: Callable[[Any], Any] | None = None,
    ) -> asyncio.Future[Any]:
        """Run a script; see `call`."""
        command = "EVALSHA", script.digest, len(keys), *keys, *arguments
        return self.call(keys[0], *command, twice=twice, taken=taken)

    def tell(self, name: str, *command: Any) -> Awaitable[None]:
        """Send a command whose answer does not matter: at most once, not while there is no connection.

        Args:
            name: A key or a channel of the command.
            command: The command and its arguments.
        """
        message = packed(*command)
        line = self._open_line(self._shards.slot_of(name))
        if line is None or line.link is None:
            return tell(None, message, self._waiting.max_bytes)
        before = line.link.size
        told = tell(line.link, message, self._waiting.max_bytes)
        if line.link.size > before:
            line.sent.append(0)
        return told

    def close(self) -> None:
        """End the connections, after what was told, and all calls."""
        self._closed = True
        for line in self._lines.values():
            line.close(finish=True)
        self._waiting.close()

    # The connections

    def _line_to(self, shard: Shard, *, connect: bool = True) -> _Line:
        line = self._lines.get(shard)
        if line is None:
            line = self._lines[shard] = _Line(self, shard)
            if connect:
                line.connect()
        return line

    def _open_line(self, slot: int) -> _Line | None:
        """Return where calls of a slot can be sent; `None`: nowhere at this moment."""
        if slot in self._held:
            return None
        shard = self._shards.shard_of(slot)
        line = None if shard is None else self._lines.get(shard) or self._line_to(shard)
        return line if line is not None and line.is_open else None

    def _send(self, line: _Line, call: Call) -> None:
        assert line.link is not None
        call.sent = self._loop.time()
        line.sent.append(call.number)
        line.link.send(call.message)

    def _send_unsent(self) -> None:
        """Send what is not sent, in its order, where that is possible."""
        for call in self._waiting.all():
            if call.sent > 0 or (line := self._open_line(call.slot)) is None:
                continue
            if call.sent and not call.twice:
                self._waiting.give_up(call, "the connection was lost")
            else:
                self._send(line, call)

    def connected(self, line: _Line, link: RedisLink, *, again: bool) -> None:
        """Take the new connection of a line."""
        for script in self._scripts:
            line.sent.append(0)
            link.send(script)
        self._send_unsent()
        if again:
            logger.info("The broker of the rooms is reached again.")

    def answered(self, line: _Line, answer: object) -> None:
        """Take an answer that has come on a line."""
        number = line.sent.popleft()
        if not isinstance(number, int):
            number()
            return
        tried = self._tries.pop(number, None) if self._tries else None
        if isinstance(answer, ResponseError) and self._is_refused(line, number, tried, answer):
            return
        if tried is not None:
            self._moved(tried)
        call = self._waiting.take_out(number)
        if call is not None:
            line.dialer.worked()
        if call is None:
            if isinstance(answer, ResponseError):
                logger.error("The broker of the rooms has refused a command: %s", answer)
        elif isinstance(answer, ResponseError):
            call.fail(_error_of(answer))
        else:
            call.answer(answer)

    def _is_refused(self, line: _Line, number: int, tried: int | None, error: ResponseError) -> bool:
        """Return whether nothing was carried out, and see to it that the call is repeated then."""
        if isinstance(error, MovedError):
            self._shards.look(new_place(error))
        if isinstance(error, _AGAIN) and "not served" not in str(error):
            # All that follows waits for the next connection, so the order stays.
            line.is_open = False
        elif not isinstance(error, (*_MOVING, ClusterDownError)):
            return False
        call = self._waiting.not_done(number)
        if tried is not None:
            self._try_later(tried)
        elif call is not None and line.is_open and call.slot not in self._held:
            self._hold(line, call.slot)
        return True

    def lost(self, line: _Line) -> None:
        """Take it that the connection of a line has ended."""
        logger.warning("The connection to the broker of the rooms was lost.")
        self._shards.look()
        self._forget(line)

    def _forget(self, line: _Line) -> None:
        line.is_open = False
        sent, line.sent = line.sent, deque()
        for number in sent:
            if not isinstance(number, int):
                number()
                continue
            self._waiting.link_lost(number)
            tried = self._tries.pop(number, None) if self._tries else None
            if tried is not None:
                self._try_later(tried)

    def _reconnect_all(self) -> None:
        for line in self._lines.values():
            line.reconnect()

    def _stuck(self, call: Call) -> None:
        for line in self._lines.values():
            if call.number in line.sent:
                line.reconnect()

    # Slots that move

    def _hold(self, line: _Line, slot: int) -> None:
        """Send nothing of a slot until all that was sent of it is answered."""
        assert line.link is not None
        self._held[slot] = 0
        line.sent.append(lambda: self._try_later(slot))
        line.link.send(packed("PING"))

    def _try_later(self, slot: int) -> None:
        attempts = self._held[slot]
        self._held[slot] = attempts + 1
        pause = min(_LONGEST_PAUSE, _PAUSE * 2 ** min(attempts, 10))
        self._loop.call_later(pause, self._try, slot)

    def _try(self, slot: int) -> None:
        """Send the first call of a slot. All others follow when it is carried out."""
        if self._closed:
            return
        calls = [call for call in self._waiting.all() if call.slot == slot]
        attempts = self._held.pop(slot)
        line = self._open_line(slot)
        if not calls:
            return
        self._held[slot] = attempts
        first = calls[0]
        if line is None:
            self._try_later(slot)
        elif first.sent and not first.twice:
            self._waiting.give_up(first, "the connection was lost")
            self._try(slot)
        else:
            self._tries[first.number] = slot
            self._send(line, first)

    def _moved(self, slot: int) -> None:
        """Send all calls of a slot: its first one was carried out."""
        del self._held[slot]
        self._send_unsent()

    def _looked(self) -> None:
        """Take it that it was found out which server has which slot."""
        shards = self._shards.all()
        for shard, line in tuple(self._lines.items()):
            if shard not in shards:
                del self._lines[shard]
                line.close()
                self._forget(line)
        for line in self._lines.values():
            # What was sent to the server that had a slot is answered before anything else of it is sent.
            calls = [self._waiting.get(number) for number in line.sent if isinstance(number, int)]
            for slot in {call.slot for call in calls if call is not None} - self._held.keys():
                if self._shards.shard_of(slot) is not line.shard:
                    self._hold(line, slot)
        self._send_unsent()


def _error_of(error: ResponseError) -> Exception:
    if isinstance(error, OutOfMemoryError):
        return BrokerUnavailableError(f"The broker of the rooms has no memory left: {error}")
    if isinstance(error, NoPermissionError):
        return BrokerUnavailableError(f"The broker of the rooms does not permit it to this user: {error}")
    logger.error("The broker of the rooms failed at a call: %s", error)
    return OutcomeUnknownError(f"The broker failed: {error}")
