"""The commands of a node to a Redis server: pipelined, repeated, bounded, answered in time."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from typing import Any, Final, cast

import hiredis
from redis.exceptions import (
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from symphony.broker.redis.dialing import Dial, Dialer
from symphony.broker.redis.link import RedisLink
from symphony.broker.waiting import PATIENCE, Waiting, failed, tell
from symphony.errors import BrokerUnavailableError, OutcomeUnknownError, SymphonyError
from symphony.tasks import start

__all__ = ("Commands", "Script", "packed")

logger = logging.getLogger("symphony.app")

# Nothing was carried out, and another connection may be better: the scripts are loaded there
# again, or it is to the new master.
_AGAIN: Final = (NoScriptError, ReadOnlyError, MasterDownError)


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


class Commands:
    """Sends commands over one connection, which is made again when it ends.

    All calls wait in one queue until they are answered. If the connection ends, those that may
    run twice are sent again on the next one, in their order and before all new ones.

    Args:
        where: Which server it is.
        dial: Connects to it.
        scripts: Loaded into the server before anything else is sent.
        timeout: How many seconds a call may take.
        max_calls: How many calls may wait for their answers.
        max_bytes: How many bytes these and unsent messages may have.
        random: Returns a number from 0 to 1.
    """

    def __init__(
        self,
        where: str,
        dial: Dial,
        scripts: Sequence[Script],
        *,
        timeout: float,
        max_calls: int,
        max_bytes: int,
        random: Callable[[], float],
    ) -> None:
        self._where = where
        self._dialer = Dialer(dial, timeout * PATIENCE, random)
        self._scripts = [packed("SCRIPT", "LOAD", script.text) for script in scripts]
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._waiting = Waiting(
            timeout=timeout, max_calls=max_calls, max_bytes=max_bytes, stuck=self.reconnect
        )
        self._link: RedisLink | None = None
        # What the answers on the present link belong to, in their order; 0: to no call.
        self._sent: deque[int] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._link is not None

    async def connect(self) -> None:
        """Make the first connection.

        Raises:
            BrokerUnavailableError: It could not be made in time.
            ConfigurationError: The server cannot be used.
        """
        self._task = start(self._connect(again=False))
        done, _ = await asyncio.wait((self._task,), timeout=self._timeout)
        if not done:
            self.close()
            raise BrokerUnavailableError(f"The broker {self._where} cannot be reached: {self._dialer.why}")
        self._task.result()

    def call(
        self, *command: Any, twice: bool = True, taken: Callable[[Any], Any] | None = None
    ) -> asyncio.Future[Any]:
        """Send a command.

        Args:
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
        if self._link is not None:
            call.sent = self._loop.time()
            self._sent.append(number)
            self._link.send(message)
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
        return self.call(*command, twice=twice, taken=taken)

    def tell(self, *command: Any) -> Awaitable[None]:
        """Send a command whose answer does not matter: at most once, not while there is no connection."""
        message = packed(*command)
        link = self._link
        before = 0 if link is None else link.size
        told = tell(link, message, self._waiting.max_bytes)
        if link is not None and link.size > before:
            self._sent.append(0)
        return told

    def reconnect(self) -> None:
        """Make the connection anew, because it is of no use."""
        if self._link is not None:
            self._link.close()

    def close(self, *farewell: Any) -> None:
        """End the connection after *farewell*, a command, and all calls."""
        if farewell:
            self.tell(*farewell)
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        link, self._link = self._link, None
        if link is not None:
            link.finish()
        self._waiting.close()

    async def _connect(self, *, again: bool) -> None:
        connection = await self._dialer.connected(again=again)
        self._link = link = RedisLink(connection, self._received, self._lost)
        self._sent.clear()
        for script in self._scripts:
            self._sent.append(0)
            link.send(script)
        now = self._loop.time()
        for call in self._waiting.all():
            if call.sent and not call.twice:
                self._waiting.give_up(call, "the connection was lost")
                continue
            call.sent = now
            self._sent.append(call.number)
            link.send(call.message)
        if again:
            logger.info("The broker of the rooms is reached again.")

    def _received(self, link: RedisLink, answer: object) -> None:
        if link is not self._link:
            return
        number = self._sent.popleft()
        if isinstance(answer, _AGAIN):
            # All that follows waits for the next connection, so the order stays.
            self._waiting.not_done(number)
            self._lost(link)
            link.close()
            return
        call = self._waiting.take_out(number)
        if call is not None:
            self._dialer.worked()
        if call is None:
            if isinstance(answer, ResponseError):
                logger.error("The broker of the rooms has refused a command: %s", answer)
        elif isinstance(answer, ResponseError):
            call.fail(_error_of(answer))
        else:
            call.answer(answer)

    def _lost(self, link: RedisLink) -> None:
        if link is not self._link or self._closed:
            return
        self._link = None
        logger.warning("The connection to the broker of the rooms was lost.")
        self._waiting.link_lost()
        self._task = start(self._connect(again=True))


def _error_of(error: ResponseError) -> Exception:
    if isinstance(error, OutOfMemoryError):
        return BrokerUnavailableError(f"The broker of the rooms has no memory left: {error}")
    if isinstance(error, NoPermissionError):
        return BrokerUnavailableError(f"The broker of the rooms does not permit it to this user: {error}")
    logger.error("The broker of the rooms failed at a call: %s", error)
    return OutcomeUnknownError(f"The broker failed: {error}")
