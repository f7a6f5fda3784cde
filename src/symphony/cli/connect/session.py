"""One client from its opening to its end, with a conversation over it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from symphony.cli.connect.conversation import Conversation
from symphony.cli.connect.settings import Settings, UsageError
from symphony.cli.connect.view import View
from symphony.cli.connect.watch import Log, Watch
from symphony.cli.connect.words import for_command_line, sentence
from symphony.client import Client, connect
from symphony.errors import DisconnectedError

__all__ = ("Interrupted", "RefusedError", "Session")

T = TypeVar("T")

_SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP")


class RefusedError(Exception):
    """There is no connection; the message is one line and says why."""


class Interrupted(Exception):
    """A signal has come that ends the program.

    Attributes:
        signal: Its number.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class Session:
    """Open while it is entered.

    Args:
        settings: What the command line says.
        view: Shows what is said.
        changed: Called when the connection opens (`True`) or is lost.
        greet: Called when it opens for the first time, before anything is shown.

    Attributes:
        client: The client.
        conversation: Over it.
        watch: Its state.

    Raises:
        UsageError: An option is none.
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
        self.conversation = Conversation(client, view, answers=settings.answers, as_json=settings.as_json)
        self._log = Log(view.problem)
        self.watch = Watch(client, view, self._log, changed, lambda: greet(client))
        self._signal: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._task = asyncio.current_task()

    async def __aenter__(self) -> Self:
        """Open it.

        Raises:
            RefusedError: The first attempt has failed.
            Interrupted: A signal came meanwhile.
        """
        self._log.install()
        loop = asyncio.get_running_loop()
        for name in _SIGNALS:
            # Windows has not all of them; there Ctrl+C cancels this task.
            with suppress(NotImplementedError, AttributeError):
                loop.add_signal_handler(getattr(signal, name), self._interrupt, getattr(signal, name))
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

    async def until(self, doing: Coroutine[Any, Any, T], *stops: asyncio.Event) -> T | None:
        """Do something until it is done, or the connection has ended for good.

        Args:
            doing: Cancelled if it is not done.
            stops: What ends it too.

        Returns:
            What it returns; `None` if it is not done.

        Raises:
            Interrupted: A signal came meanwhile.
        """
        return await self._race(doing, self.watch.ended, *stops)

    async def _race(self, doing: Coroutine[Any, Any, T], *stops: asyncio.Event) -> T | None:
        task = asyncio.create_task(doing)
        others = [asyncio.create_task(stop.wait()) for stop in stops]
        try:
            await asyncio.wait((task, *others, self._signal), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if self._signal.done():
                raise Interrupted(self._signal.result())
            return None
        finally:
            for each in (task, *others):
                each.cancel()
            await asyncio.gather(task, *others, return_exceptions=True)

    async def _open(self) -> None:
        opening = asyncio.ensure_future(_opened(self.client))
        failed = asyncio.ensure_future(self.watch.failed.wait())
        try:
            await asyncio.wait((opening, failed), return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                # The client would try on; whoever waits here wants to know.
                raise RefusedError(sentence(self._log.last or "There is no connection"))
            opening.result()
        except DisconnectedError as error:
            raise RefusedError(sentence(str(error))) from None
        finally:
            for each in (opening, failed):
                each.cancel()
            await asyncio.gather(opening, failed, return_exceptions=True)

    async def _aclose(self) -> None:
        await self.conversation.aclose()
        await self.client.close()
        self._log.remove()

    def _interrupt(self, number: int) -> None:
        if not self._signal.done():
            self._signal.set_result(number)
        elif self._task is not None:
            # The second one: not even the goodbye is waited for.
            self._task.cancel()


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
