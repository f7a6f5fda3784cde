"""Run one client from connecting to closing, with signals and an executor."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from symphony.cli.connect.error_messages import for_command_line, sentence
from symphony.cli.connect.executor import Executor
from symphony.cli.connect.monitor import ConnectionMonitor
from symphony.cli.connect.settings import Settings, UsageError
from symphony.cli.connect.view import View
from symphony.client import Client, connect
from symphony.errors import DisconnectedError

__all__ = ("ConnectFailedError", "Session", "StoppedBySignalError")

T = TypeVar("T")

_SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP")


class ConnectFailedError(Exception):
    """The first attempt to connect failed; the message is one line and says why."""


class StoppedBySignalError(Exception):
    """The program received a signal, or Ctrl+C was pressed.

    Attributes:
        signal: The number of the signal.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class Session:
    """Connects when it is entered, and closes the connection when it is left.

    Args:
        settings: The options of the command line.
        view: Shows what is sent and received.
        changed: Called when the connection opens (`True`) or is lost (`False`).
        greet: Called when it opens for the first time, before anything is shown.

    Attributes:
        client: The client.
        executor: Executes actions on the client.
        monitor: Follows the state of the client.

    Raises:
        UsageError: An option is invalid.
    """

    def __init__(
        self,
        settings: Settings,
        view: View,
        *,
        changed: Callable[[bool], None] = lambda open: None,
        greet: Callable[[Client], None] = lambda client: None,
    ) -> None:
        self.client = client = _client(settings)
        self.executor = Executor(client, view, answers=settings.answers, as_json=settings.as_json)
        self.monitor = ConnectionMonitor(client, view, changed, lambda: greet(client))
        self._signal: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._task = asyncio.current_task()

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            ConnectFailedError: The first attempt failed.
            StoppedBySignalError: A signal arrived.
        """
        self.monitor.log.install()
        loop = asyncio.get_running_loop()
        for name in _SIGNALS:
            # Windows lacks some of them; there, Ctrl+C cancels this task.
            with suppress(NotImplementedError, AttributeError):
                loop.add_signal_handler(getattr(signal, name), self.interrupt, getattr(signal, name))
        try:
            await self._race(self._open())
        except BaseException:
            await self._aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._aclose()

    async def until_closed(self, doing: Coroutine[Any, Any, T], *stops: asyncio.Event) -> T | None:
        """Run a coroutine until it returns, or until the connection has ended for good.

        Args:
            doing: The coroutine; cancelled if something else comes first.
            stops: Events that end it too.

        Returns:
            The result of the coroutine, or `None` if it was cancelled.

        Raises:
            StoppedBySignalError: A signal arrived.
        """
        return await self._race(doing, self.monitor.ended, *stops)

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Stop: close the connection, and the second time do not even wait for that.

        Args:
            number: The number of the signal.
        """
        if not self._signal.done():
            self._signal.set_result(number)
        elif self._task is not None:
            self._task.cancel()

    async def _race(self, doing: Coroutine[Any, Any, T], *stops: asyncio.Event) -> T | None:
        task = asyncio.create_task(doing)
        others = [asyncio.create_task(stop.wait()) for stop in stops]
        try:
            await asyncio.wait((task, *others, self._signal), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if self._signal.done():
                raise StoppedBySignalError(self._signal.result())
            return None
        finally:
            for each in (task, *others):
                each.cancel()
            await asyncio.gather(task, *others, return_exceptions=True)

    async def _open(self) -> None:
        opening = asyncio.ensure_future(_opened(self.client))
        failed = asyncio.ensure_future(self.monitor.failed.wait())
        try:
            await asyncio.wait((opening, failed), return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                # The client would try again, but the user should learn of a wrong URL at once.
                raise ConnectFailedError(sentence(self.monitor.log.last or "Connecting failed"))
            opening.result()
        except DisconnectedError as error:
            raise ConnectFailedError(sentence(str(error))) from None
        finally:
            for each in (opening, failed):
                each.cancel()
            await asyncio.gather(opening, failed, return_exceptions=True)

    async def _aclose(self) -> None:
        await self.executor.aclose()
        await self.client.close()
        self.monitor.log.remove()


async def _opened(client: Client) -> None:
    await client


def _client(settings: Settings) -> Client:
    try:
        return connect(
            settings.url,
            token=settings.token or None,
            headers=settings.headers,
            protocol=settings.protocol,
            connect_timeout=settings.timeout,
            request_timeout=settings.timeout,
            reconnect=settings.reconnect,
            ssl=False if settings.insecure else None,
            origin=settings.origin,
            subprotocols=settings.subprotocols,
        )
    except (ValueError, TypeError) as error:
        raise UsageError(for_command_line(str(error))) from None
